"""A config of `label_free` that runs in a minute."""

from typing import Any

SMALL: dict[str, Any] = {
    "rounds": 2,
    "pretrain": {"size": "nano", "patch": 16, "crop": 64, "steps": 4, "batch_size": 4},
    "extract_features": {"tile": 64},
    "cluster": {"k": 6, "pca_components": 8},
    "train_segmentor": {"steps": 4, "crop": 64, "batch_size": 4},
    "evaluate": {"tile": 128},
    "infer": {"tile": 128},
}
