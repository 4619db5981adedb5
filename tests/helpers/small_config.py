"""Configs of graphs that run in a minute or less."""

from typing import Any

SMALL: dict[str, Any] = {
    "rounds": 2,
    "pretrain": {"size": "nano", "patch": 16, "crop": 64, "steps": 4, "batch_size": 4},
    "extract_features": {"tile": 64},
    "cluster": {"k": 6, "pca_components": 8},
    "train_segmentor": {"steps": 4, "crop": 64, "batch_size": 4},
    "evaluate": {"tile": 128},
    "export_model": {"int8": "never"},
    "infer": {"tile": 128},
}
SMALL_CLASSIFIER: dict[str, Any] = {
    "pretrain": {"objective": "none", "size": "nano", "patch": 8, "crop": 32},
    "train_classifier": {"steps": 12, "batch_size": 8},
    "export_model": {"int8": "never"},
    "infer": {"target_error": 0.2},
}
"""A config of `classifier` that runs in half a minute."""
SMALL_DETECTOR: dict[str, Any] = {
    "pretrain": {"objective": "none", "size": "nano", "patch": 16, "crop": 64},
    "train_detector": {"steps": 4, "batch_size": 2, "crop": 128, "queries": 20},
    "export_model": {"int8": "never", "max_images": 2},
}
"""A config of `detector` that runs in half a minute."""
