"""The detector against transformers' RT-DETRv2: equal outputs and losses; its training, and its ONNX file."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.models.backbones import FeatureMap
from shared.models.config import DetectorArchitecture, DetectorConfig, ModelInput, ResNetArchitecture, VitArchitecture
from shared.models.detector import Detector, ScoredBoxes, Target

VIT = VitArchitecture(size="nano", width=32, depth=1, heads=2, patch=16)
SMALL = {"width": 32, "heads": 2, "feed_forward": 48, "decoder_layers": 2, "queries": 20, "denoising": 12}
CLASSES = ("cell", "debris", "platelet")
torch.set_num_threads(1)  # a loaded machine is much slower with more


def config(backbone: VitArchitecture | ResNetArchitecture = VIT, channels: int = 3, **fields) -> DetectorConfig:
    """A detector that runs in milliseconds."""
    architecture = DetectorArchitecture(**{"backbone": backbone, "classes": CLASSES, **SMALL, **fields})
    return DetectorConfig(architecture=architecture, input=ModelInput(channels=channels))


def randomise(network: nn.Module) -> nn.Module:
    """Give every parameter and running mean values that change the output."""
    torch.manual_seed(1)
    for name, tensor in network.state_dict().items():
        if name.endswith("n_points_scale"):
            continue  # a constant
        if tensor.ndim > 1:
            tensor.copy_(torch.randn_like(tensor) * (1.5 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():
            scale = name.endswith(("weight", "var"))  # of a norm
            tensor.copy_(scale + 0.1 * torch.rand_like(tensor))
    return network


def targets(counts: tuple[int, ...], classes: int = 3) -> list[Target]:
    """Random boxes, for each image as many as `counts` says."""
    generator = torch.Generator().manual_seed(2)
    found = []
    for count in counts:
        boxes = torch.rand(count, 4, generator=generator) * torch.tensor([0.6, 0.6, 0.2, 0.2]) + 0.1
        found.append(Target(torch.randint(classes, (count,), generator=generator), boxes))
    return found


class LibraryBackbone(nn.Module):
    """The ResNet of transformers as a backbone of ours."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def feature_maps(self, x: Tensor, blocks: int = 3) -> list[FeatureMap]:
        """(N, 3, H, W) -> three maps."""
        maps = self.encoder(x, torch.ones(len(x), *x.shape[2:]))
        return [FeatureMap(features, stride) for (features, _), stride in zip(maps, (8, 16, 32), strict=True)][-blocks:]


@cache
def library() -> nn.Module:
    """transformers' own detector, of random weights."""
    from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
    from transformers.models.rt_detr_v2 import RTDetrV2Config, RTDetrV2ForObjectDetection

    resnet = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    settings = RTDetrV2Config(
        backbone_config=resnet,
        num_labels=3,
        d_model=32,
        encoder_hidden_dim=32,
        decoder_in_channels=[32] * 3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        decoder_layers=2,
        num_queries=20,
        num_denoising=12,
    )
    return randomise(RTDetrV2ForObjectDetection(settings))


@cache
def with_its_weights() -> Detector:
    """Our detector with the library's backbone and weights."""
    detector = Detector(config(norm="batch"))
    detector.backbone = LibraryBackbone(library().model.backbone)
    for i, width in enumerate((12, 16, 24)):
        detector.transformer.encoder_input_proj[i][0] = nn.Conv2d(width, 32, 1, bias=False)
    state = library().model.state_dict()
    left_out = [name for name in state if name.startswith("backbone.") or name.endswith("n_points_scale")]
    detector.transformer.load_state_dict({name: state[name] for name in state if name not in left_out})
    return detector


def test_outputs_are_those_of_transformers() -> None:
    x = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        expected, (logits, boxes) = library().eval()(x), with_its_weights().eval()(x)
    assert expected.pred_boxes.std(dim=1).min() > 1e-3, "the boxes of the queries differ"
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("counts", [(5, 3), (0, 4), (0, 0), (30, 1)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_losses_are_those_of_transformers(counts: tuple[int, ...], training: bool) -> None:
    """With few objects, with none, and with more than there are queries."""
    x, objects = torch.randn(2, 3, 96, 128), targets(counts)
    labels = [{"class_labels": target.classes, "boxes": target.boxes} for target in objects]
    torch.manual_seed(0)
    expected = library().train(training)(x, labels=labels)
    torch.manual_seed(0)  # of the denoising queries
    parts = with_its_weights().train(training).loss(x, objects)
    assert {f"loss_{name}" for name in parts} == set(expected.loss_dict)
    for name, part in parts.items():
        torch.testing.assert_close(part, expected.loss_dict[f"loss_{name}"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sum(parts.values()), expected.loss, atol=1e-3, rtol=1e-5)
    assert any("dn" in name for name in parts) == (training and max(counts) > 0)


BACKBONES = {
    "resample": config(pyramid="resample", detail=False),
    "vitdet": config(pyramid="vitdet", detail=True, channels=5),
    "patch 4": config(VIT.model_copy(update={"patch": 4}), channels=1),
    "patch 8": config(VIT.model_copy(update={"patch": 8})),
    "patch 14": config(VIT.model_copy(update={"patch": 14, "position_grid": 4})),
    "resnet": config(ResNetArchitecture(), channels=2),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_parameter_of_every_backbone_learns(kind: str) -> None:
    torch.manual_seed(0)
    detector, channels = Detector(BACKBONES[kind]).train(), BACKBONES[kind].input.channels
    for head in (detector.transformer.enc_bbox_head, *detector.transformer.decoder.bbox_embed):
        nn.init.normal_(head.layers[-1].weight, std=0.1)  # as after the first step: gradients pass
    for layer in detector.transformer.decoder.layers:
        nn.init.normal_(layer.encoder_attn.attention_weights.weight, std=0.1)
    parts = detector.loss(torch.randn(2, channels, 64, 96), targets((4, 2)))
    torch.stack(list(parts.values())).sum().backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    zero = [name for name, p in detector.named_parameters() if p.grad is not None and not p.grad.any()]
    assert [name for name in zero if "denoising" not in name and "k_proj.bias" not in name] == []


def test_a_new_detector_learns_one_batch() -> None:
    """Initialised as the library does, with scales of 0.01, it does not."""
    torch.manual_seed(0)
    detector = Detector(config(norm="group")).train()
    x, objects = torch.rand(2, 3, 64, 96), targets((3, 3))
    optimiser, losses = torch.optim.AdamW(detector.parameters(), lr=3e-3), []
    for _ in range(16):
        parts = detector.loss(x, objects)
        losses.append(float(parts["bbox"].detach() + parts["giou"].detach()))
        optimiser.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimiser.step()
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_scored_boxes_are_corners_and_scores() -> None:
    detector = randomise(Detector(config())).eval()
    image = torch.randn(2, 3, 128, 128)
    small = config().model_copy(update={"input": ModelInput(channels=3, downsample=2)})
    with torch.no_grad():
        logits, boxes = detector(nn.functional.avg_pool2d(image, 2))
        detector.config = small
        scores, corners = ScoredBoxes(detector)(image)
    torch.testing.assert_close(scores, logits.sigmoid())
    torch.testing.assert_close((corners[..., :2] + corners[..., 2:]) / 2, boxes[..., :2])
    torch.testing.assert_close(corners[..., 2:] - corners[..., :2], boxes[..., 2:])


def test_onnx_runtime_gives_the_same_boxes() -> None:
    """For any number of images of any size."""
    import onnxruntime

    module = ScoredBoxes(randomise(Detector(config(decoder_layers=1)))).eval()
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            (torch.randn(2, 3, 64, 96),),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    file = io.BytesIO(program.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 64, 96), (3, 3, 128, 64)):
        x = torch.randn(*shape)
        with torch.no_grad():
            expected = module(x)
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert expected[1].std(dim=1).min() > 1e-3
        for ours, theirs in zip(expected, found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-3)
