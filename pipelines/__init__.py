"""The graphs that wire the stages, and all that knows Kubeflow."""
