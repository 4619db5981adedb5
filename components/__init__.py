"""The stages of the pipeline, one folder each: `component.py` declares, `main.py` computes."""
