"""Evaluators: plain functions on arrays that yield (name, value), one module each.

A pixel metric is one more `yield` in `pixels.py`, an instance metric in `instances.py`. A new evaluator is a module
with such a function and its `NAMES`; `tally.py` counts what it needs of an image and calls it.
"""
