"""Build a detector from published weights of RT-DETRv2."""

from typing import Any

from shared.models.backbones.checkpoint_file import local_file, read_tensors
from shared.models.config import DetectorArchitecture, DetectorConfig, DetectorPostProcessing, ModelInput
from shared.models.decoders.rt_detr_weights import published_architecture, published_weights
from shared.models.detector import Detector
from shared.system.errors import UserError

FIRST_LAYER = "backbone.conv1.0.weight"
OWN = ("class_embed", "enc_score_head", "n_points_scale", "num_batches_tracked")
"""Parts of the names of what the weights do not have for the new classes, and of constants."""


def published_detector(
    location: str, classes: tuple[str, ...], model_input: ModelInput, processing: DetectorPostProcessing, queries: int
) -> Detector:
    """Return a detector with the weights at a path or uri, and new class heads.

    Channels other than three get the mean kernel. Raises UserError where the weights are not RT-DETRv2's.
    """
    with local_file(location) as path:
        weights = published_weights(read_tensors(path))
    found = published_architecture(weights)
    if found is None:
        raise UserError(
            f"--weights: {location}: not RT-DETRv2 on a ResNet as transformers stores it; give model.safetensors of "
            "PekingU/rtdetr_v2_r18vd, r34vd or r50vd"
        )
    backbone, fields = found
    architecture: dict[str, Any] = {**fields, "backbone": backbone, "classes": classes, "queries": queries}
    config = DetectorConfig(
        architecture=DetectorArchitecture.model_validate(architecture), input=model_input, postprocessing=processing
    )
    detector = Detector(config)
    kernel = weights[FIRST_LAYER]
    if model_input.channels != kernel.shape[1]:
        mean = kernel.mean(dim=1, keepdim=True) * kernel.shape[1] / model_input.channels
        weights[FIRST_LAYER] = mean.repeat(1, model_input.channels, 1, 1)
    problems = detector.load_state_dict(weights, strict=False)
    missing = [name for name in problems.missing_keys if not any(part in name for part in OWN)]
    if missing or problems.unexpected_keys:
        raise UserError(
            f"--weights: {location} does not match RT-DETRv2: {(missing + problems.unexpected_keys)[:3]}; give "
            "model.safetensors of PekingU/rtdetr_v2_r18vd, r34vd or r50vd"
        )
    return detector
