"""The graph of a compiled pipeline: read from Kubeflow's intermediate representation into plain container tasks."""
