"""Everything that knows Kubeflow Pipelines: compile a graph, check it, submit it to a cluster."""
