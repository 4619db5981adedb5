"""Dense features by `extract_features` against OpenVINO on the same ViT-S/16, from 16-bit TIFF to float16 tokens.

`python tests/benchmarks/bench_features.py [--threads 2] [--images 2] [--repeats 5]`: two minutes, 2 GB. Both read with
tifffile, cut, normalise and place the same tiles in the same batches; the network alone differs: torch here, a graph
compiled by OpenVINO for float32 there. To be reached: 0.95x its megapixels/s. The tokens are compared as well.
"""

import argparse
import functools
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # a benchmark reports to nobody but its reader

import numpy as np  # noqa: E402
import openvino  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
from real_labels import real_data, wheel_nuclei  # noqa: E402
from timing import interleaved  # noqa: E402

from components.extract_features.dense_extractor import DenseExtractor  # noqa: E402
from shared.models.backbones.vit import Encoder  # noqa: E402
from shared.models.config import EncoderConfig  # noqa: E402
from shared.system.devices import threads  # noqa: E402

TILE, HALO, BATCH, LAYERS = 224, 16, 16, 2


class Features(torch.nn.Module):
    """What of the encoder is compiled."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tiles (N, C, tile, tile) -> (N, LAYERS * width, tile/patch, tile/patch)."""
        return self.encoder.features(x, LAYERS)


class OpenVinoExtractor(DenseExtractor):
    """The same tiles through the same network, compiled by OpenVINO, for every size of batch that occurs."""

    def __init__(self, encoder: Encoder, **settings: Any) -> None:
        super().__init__(encoder, **settings)
        self.plain = encoder

    def _maps(self, tiles: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = np.ascontiguousarray(np.stack(tiles).transpose(0, 3, 1, 2))
        request = compiled(self.plain, batch.shape)
        maps = request.infer([batch], share_inputs=True, share_outputs=True)[0]
        return torch.from_numpy(batch), torch.from_numpy(maps)


@functools.cache
def compiled(encoder: Encoder, shape: tuple[int, ...]) -> openvino.InferRequest:
    """Float32 is asked for, since some processors are given bfloat16 otherwise."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it traces by what torch is about to replace
        graph = openvino.convert_model(Features(encoder).eval(), example_input=torch.rand(shape), input=[shape])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()


def paths_of(count: int, folder: Path) -> list[Path]:
    """16-bit TIFF files: phase contrast where the shared data are, else the wheel's nuclei written to `folder`."""
    found = sorted((real_data() / "usiigaci/unlabelled").glob("*.tif"))[:count]
    if found:
        return found
    image = np.tile(wheel_nuclei()[0], (2, 2))
    for number in range(count):
        tifffile.imwrite(folder / f"{number}.tif", image.astype(np.uint16), compression="zlib")
    return sorted(folder.glob("*.tif"))


def tokens_of(extractor: DenseExtractor, paths: list[Path]) -> list[np.ndarray]:
    """Read each image and describe it: tokens (grid_h, grid_w, channels) float16."""
    return [extractor.describe(tifffile.imread(path)[..., None], shifts=1)[0] for path in paths]


def main() -> None:
    """Print megapixels/s of both, their ratio, and how far their tokens differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=threads())
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig.preset("small", patch=16, channels=1, crop=TILE)).eval()
    settings = {"tile": TILE, "halo": HALO, "batch_size": BATCH, "layers": LAYERS, "device": "cpu"}
    ours, theirs = DenseExtractor(encoder, **settings), OpenVinoExtractor(encoder, **settings)
    with tempfile.TemporaryDirectory() as folder:
        paths = paths_of(args.images, Path(folder))
        pixels = sum(tifffile.imread(path).size for path in paths)
        pairs = zip(tokens_of(ours, paths), tokens_of(theirs, paths), strict=True)
        apart = max(float(np.abs(a.astype(np.float32) - b.astype(np.float32)).max()) for a, b in pairs)
        work = {"ours": lambda: tokens_of(ours, paths), "OpenVINO": lambda: tokens_of(theirs, paths)}
        work["reading alone"] = lambda: [tifffile.imread(path) for path in paths]
        seconds = interleaved(work, args.repeats)
    print(f"ViT-S/16, tiles of {TILE} px, batches of {BATCH}; {args.threads} threads, median of {args.repeats}")
    print(f"torch {torch.__version__}, openvino {openvino.__version__}; tokens differ by {apart:.1g} at most")
    for name, value in seconds.items():
        print(f"{name:14} {pixels / value / 1e6:7.2f} megapixels/s   {value / seconds['ours']:5.2f}x our time")


if __name__ == "__main__":
    main()
