"""Artifacts, the folders that pass between stages: kinds, manifest, and the payload of each kind."""
