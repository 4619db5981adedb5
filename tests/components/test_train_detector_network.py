"""train_detector: the network follows from the settings, the encoder, published weights and the images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detector_training import Data, learned, stage, train, write_data
from small_detector_data import quarters, write_boxes, write_encoder, write_images

from components.train_detector.initial_detector import chosen_queries, initial_detector
from components.train_detector.loop import optimiser_of
from components.train_detector.published_detector import published_detector
from components.train_detector.resnet_weights import IMAGENET_MEAN, IMAGENET_STD, load_resnet_weights
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import seal
from shared.models.backbones.resnet import ResNet
from shared.models.config import DetectorPostProcessing, ModelInput, ResNetArchitecture
from shared.models.detector import Detector
from shared.models.files import save_absent
from shared.models.load import load_model
from shared.system.errors import ArtifactError, UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_data(tmp_path_factory.mktemp("detector"))


def test_an_encoder_that_does_not_fit_is_refused(data, tmp_path):
    colour = {key: np.repeat(image, 5, axis=2) for key, (image, _) in quarters().items()}
    images = write_images(tmp_path / "images", colour, {}, {})
    encoder = write_encoder(tmp_path / "encoder", channels=3)
    with pytest.raises(UserError, match="--encoder: it takes 3 channels, the images have 5"):
        train(data, tmp_path / "channels", images=images, encoder=encoder)
    with pytest.raises(ArtifactError, match="kind 'encoder'"):
        save_absent(tmp_path / "absent", "nothing was there")
        seal(tmp_path / "absent", Model)
        train(data, tmp_path / "kind", encoder=tmp_path / "absent")


def test_queries_follow_from_the_densest_tile(data, caplog):
    found = learned(data)
    model_input = ModelInput(channels=1, crop_px=128)
    fullest = max(len(data.boxes[key]) for key in found.train)
    assert chosen_queries(stage(data, crop=128), found, model_input) == 50
    few = chosen_queries(stage(data, crop=128, queries=3), found, model_input)
    assert few == 3 and f"{fullest} objects in a tile of 128 px, more than the 3 queries" in caplog.text
    with pytest.raises(UserError, match="--queries: 85 exceed the 84 positions"):
        chosen_queries(stage(data, crop=64, queries=85), found, ModelInput(channels=1, crop_px=64))
    dense = replace(found, objects={key: items * 10 for key, items in found.objects.items()})
    wanted = chosen_queries(stage(data, crop=128), dense, model_input)
    assert 1.5 * fullest * 10 <= wanted <= 1.5 * fullest * 10 + 10


@pytest.mark.parametrize(("zoom", "expected"), [(1, 1), (2, 2), (5, 4), (20, 4)])
def test_images_of_large_objects_are_downsampled(data, tmp_path, zoom, expected):
    """Nuclei of about 25 px, as if they were larger."""
    boxes = {
        key: [replace(one, bbox=tuple(zoom * side for side in one.bbox)) for one in found]
        for key, found in data.boxes.items()
    }
    reader, truth = ImageReader(data.images), write_boxes(tmp_path / "truth", boxes)
    detector = initial_detector(stage(data, crop=64), reader, learned(data, truth=truth))
    given = initial_detector(stage(data, crop=64, downsample="2"), reader, learned(data))
    assert (detector.config.input.downsample, given.config.input.downsample) == (expected, 2)


def test_rates_of_the_encoder(data):
    """Frozen, or slower layer by layer towards the input."""
    detector = initial_detector(stage(data, crop=64), ImageReader(data.images), learned(data))
    encoder = detector.encoder
    rates = {}
    for group in optimiser_of(stage(data, encoder_rate=0.5, layer_decay=0.8, learning_rate=1.0), detector).param_groups:
        rates |= {id(parameter): group.get("scale", 1.0) for parameter in group["params"]}
    assert len(rates) == len(list(detector.parameters()))
    depth = len(encoder.blocks)
    assert rates[id(encoder.patch_embed.proj.weight)] == pytest.approx(0.5 * 0.8 ** (depth + 1))
    assert rates[id(encoder.blocks[-1].mlp.fc1.weight)] == pytest.approx(0.5 * 0.8)
    assert rates[id(encoder.norm.weight)] == 0.5
    assert {rates[id(parameter)] for parameter in detector.transformer.parameters()} == {1.0}
    optimiser_of(stage(data, encoder_rate=0.0), detector)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_resnet_is_trained_on_the_encoders_input(data, tmp_path):
    result = train(data, tmp_path / "resnet", backbone="resnet18", steps=1)
    detector = load_model(tmp_path / "resnet", Detector)
    assert detector.encoder is None and detector.config.architecture.backbone.depth == 18
    assert result.metrics["steps"] == 1


def test_published_weights_of_a_resnet_give_its_features(data, tmp_path):
    """torchvision's network with its own standardisation of colours, inside, where no padding reaches."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    published = torchvision.models.resnet18().eval()
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    ours = ResNet(ResNetArchitecture(depth=18, norm="frozen"), 3).eval()
    load_resnet_weights(ours, str(tmp_path / "resnet18.pth"))
    x = torch.rand(1, 3, 64, 64)
    standardised = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    with torch.no_grad():
        expected, found = (net.bn1(net.conv1(images)) for net, images in ((published, standardised), (ours, x)))
        torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-4, rtol=1e-4)
        rest = published.layer2(published.layer1(found))
        torch.testing.assert_close(ours.layer2(ours.layer1(found)), rest)
    for options, problem in (
        ({"backbone": "resnet34"}, "does not match ResNet 34"),
        ({}, "they are for a ResNet"),
    ):
        with pytest.raises(UserError, match=problem):
            weights = {"backbone_weights": str(tmp_path / "resnet18.pth")}
            initial_detector(stage(data, crop=64, **options, **weights), ImageReader(data.images), learned(data))


def test_published_weights_of_a_detector_give_its_boxes(data, tmp_path):
    """transformers' own model of the published shape, of random weights, saved as it saves them."""
    from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
    from transformers.models.rt_detr_v2 import RTDetrV2Config, RTDetrV2ForObjectDetection

    resnet = RTDetrResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    settings = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 2}
    torch.manual_seed(0)
    published = RTDetrV2ForObjectDetection(RTDetrV2Config(backbone_config=resnet, num_queries=50, **settings)).eval()
    for module in published.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    published.save_pretrained(tmp_path)
    ours = published_detector(
        str(tmp_path / "model.safetensors"), ("cell",), ModelInput(channels=3), DetectorPostProcessing(), 50
    ).eval()
    assert (ours.config.architecture.backbone.depth, ours.config.architecture.decoder_layers) == (18, 2)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = [features for features, _ in ours.backbone.feature_maps(x)]
        theirs = published.model.backbone(x, torch.ones(1, 64, 64))
        for found, (expected, _) in zip(maps, theirs, strict=True):
            assert expected.std() > 1e-3
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        ours.transformer.enc_score_head = published.model.enc_score_head  # the classes are those of the weights then
        ours.transformer.decoder.class_embed = published.model.decoder.class_embed
        logits, boxes = ours(x)
        expected = published(x)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match="not RT-DETRv2"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        weights = {"weights": str(tmp_path / "other.pth")}
        initial_detector(stage(data, crop=64, **weights), ImageReader(data.images), learned(data))
