"""Declaration of `ingest`."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.artifacts.kinds import ImageSet, LabelSet
from shared.stage.declaration import External, Out, Stage


class Ingest(Stage):
    """Read plain images and whatever labels lie beside them into checked artifacts.

    Decodes every file, lists those it cannot use with the reason, and recognises the layout of the folder.
    """

    image: ClassVar[str] = "cpu"

    source: Annotated[str, External]
    """Folder, file or `s3://bucket/prefix` of images."""
    images: Out[ImageSet]
    """Every readable image, in its own bit depth and channels."""
    labels: Out[LabelSet]
    """The labels found beside the images, origin truth; empty where there were none."""
    no_labels: Out[LabelSet]
    """An empty LabelSet: what the first EM round has for `previous`."""
    fingerprint_out: Out[str]
    """The fingerprint handed on, or made here where none was given."""
    fingerprint: str = ""
    """Hash of the source's listing, given by whoever submits: new images under the same path run the stage again."""
    max_rejects: float = Field(0.5, ge=0, le=1)
    """Share of rejected files above which the stage fails."""
    min_size: int = Field(8, ge=1)
    """px; images smaller than this in either direction are rejected."""
    max_megapixels: float = Field(400.0, gt=0)
    """Images of more megapixels (one plane) are rejected before they are decoded."""
