"""Evaluators: plain functions on arrays."""
