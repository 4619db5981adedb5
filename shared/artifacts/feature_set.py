"""FeatureSet: float16 tokens of a regular grid over each image, in `.npy` shards that are memory-mapped.

Token (i, j) of an image describes the square of stride x stride pixels whose upper left corner is
(offset + i * stride, offset + j * stride).
"""

from pathlib import Path

import imagecodecs
import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from shared.artifacts.keys import Key
from shared.artifacts.kinds import FeatureSet
from shared.artifacts.manifest import read_manifest
from shared.artifacts.payload import INDEX, unreadable
from shared.artifacts.shards import Member, ShardWriter, check_ascending, read_jsonl, read_member, write_jsonl
from shared.system.errors import ArtifactError

SHARD_TOKENS_BYTES = 256 * 2**20
"""Size from which a new shard is started."""


class FeatureEntry(BaseModel):
    """One line of `index.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: Key
    shard: str
    row: NonNegativeInt
    """First row of the image in its shard."""
    grid: tuple[NonNegativeInt, NonNegativeInt]
    """Tokens down and across; the image has their product as rows of the shard, in row-major order."""
    stride: PositiveInt
    """px between neighbouring tokens."""
    offset: int = 0
    """px from the image's edge to the first token's square; negative where the square begins outside."""
    height: PositiveInt
    """px"""
    width: PositiveInt
    """px"""
    probability: Member | None = None
    """The segmentor's foreground probability as uint8 PNG (height, width); None for features of an encoder."""


class FeatureWriter:
    """Write the payload of a FeatureSet; at most one shard is in memory. Keys must be added in ascending order."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_TOKENS_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shard_bytes = folder, shard_bytes
        self.entries: list[FeatureEntry] = []
        self._pending: list[np.ndarray] = []
        self._rows = self._count = 0
        self._probabilities = ShardWriter(folder, "probability")

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._probabilities.close()
        if kind is None:
            self._flush()
            write_jsonl(self.folder / INDEX, self.entries)

    def add(
        self,
        key: str,
        tokens: np.ndarray,
        *,
        stride: int,
        size: tuple[int, int],
        offset: int = 0,
        probability: np.ndarray | None = None,
    ) -> FeatureEntry:
        """Append one image.

        tokens: (grid_h, grid_w, channels) floating point; size: (height, width) of the image in px;
        probability: (height, width) float in [0, 1].
        """
        check_ascending(key, self.entries[-1].key if self.entries else None)
        grid_h, grid_w, channels = tokens.shape
        rows = np.ascontiguousarray(tokens, np.float16).reshape(-1, channels)
        if self._pending and (self._rows + len(rows)) * channels * 2 > self.shard_bytes:
            self._flush()
        entry = FeatureEntry(
            key=key,
            shard=f"features-{self._count:05d}.npy",
            row=self._rows,
            grid=(grid_h, grid_w),
            stride=stride,
            offset=offset,
            height=size[0],
            width=size[1],
            probability=None if probability is None else self._add_probability(key, probability),
        )
        self.entries.append(entry)
        self._pending.append(rows)
        self._rows += len(rows)
        return entry

    def _add_probability(self, key: str, probability: np.ndarray) -> Member:
        data = imagecodecs.png_encode(np.rint(probability * 255).clip(0, 255).astype(np.uint8), 1)
        return self._probabilities.add(f"{key}.probability.png", bytes(data))

    def _flush(self) -> None:
        if self._pending:
            np.save(self.folder / f"features-{self._count:05d}.npy", np.concatenate(self._pending))
            self._pending, self._rows, self._count = [], 0, self._count + 1


class FeatureReader:
    """Random access to a FeatureSet through memory maps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped = read_manifest(folder, FeatureSet).skipped
        self.entries = {entry.key: entry for entry in read_jsonl(folder / INDEX, FeatureEntry)}
        self._shards: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def keys(self) -> list[str]:
        """Keys, ascending."""
        return sorted(self.entries)

    @property
    def channels(self) -> int:
        """Number of features per token."""
        return next((self._shard(entry.shard).shape[1] for entry in self.entries.values()), 0)

    def tokens(self, key: str) -> np.ndarray:
        """Return the tokens (grid_h, grid_w, channels) float16 as a view into the memory map."""
        entry = self.entries[key]
        count = entry.grid[0] * entry.grid[1]
        rows = self._shard(entry.shard)[entry.row : entry.row + count]
        if len(rows) != count:
            raise ArtifactError(f"{self.folder / entry.shard}: too short for image {key!r}; extract the features again")
        with unreadable(self.folder / entry.shard):
            return rows.reshape(*entry.grid, -1)

    def probability(self, key: str) -> np.ndarray | None:
        """Read the foreground probability (height, width) float32 in [0, 1]; None for features of an encoder."""
        member = self.entries[key].probability
        if member is None:
            return None
        with unreadable(self.folder / member.shard):
            return imagecodecs.png_decode(read_member(self.folder, member)).astype(np.float32) / 255

    def _shard(self, name: str) -> np.ndarray:
        if name not in self._shards:
            with unreadable(self.folder / Path(name).name):
                self._shards[name] = np.load(self.folder / Path(name).name, mmap_mode="r", allow_pickle=False)
        return self._shards[name]
