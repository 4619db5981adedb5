"""Kubeflow Pipelines: compile, check and submit a graph."""
