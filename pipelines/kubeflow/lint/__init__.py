"""Check a compiled pipeline for what a cluster cannot run, what fails hours into a run, or only shows as a blank page.

The rules hold for any pipeline of Kubeflow's intermediate representation; for Cytoloom's own stages there are more.
"""

from pipelines.kubeflow.lint.finding import Finding
from pipelines.kubeflow.lint.linter import lint

__all__ = ["Finding", "lint"]
