"""Declaration of `ingest`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.artifacts.kinds import ImageSet, LabelSet
from shared.stage.declaration import External, Out, Stage


class Ingest(Stage):
    """Read plain images, and the labels that belong to them, into verified artifacts.

    Decodes every file, lists the files that cannot be used with the reason, and recognises the layout of the folder.
    """

    image: ClassVar[str] = "cpu"

    source: Annotated[str, External]
    """Folder, file or `s3://bucket/prefix` of images."""
    images: Out[ImageSet]
    """Every readable image, or crop, with its bit depth and channels."""
    labels: Out[LabelSet]
    """Labels of the images, origin truth: label images, annotations, classes; empty where the source has none."""
    no_labels: Out[LabelSet]
    """An empty LabelSet: input `previous` of the first EM round."""
    fingerprint_out: Out[str]
    """The given fingerprint, or one computed from the source."""
    fingerprint: str = ""
    """Hash of the source's listing, set when a run is submitted: new images under the same path re-run the stage."""
    group_pattern: str = ""
    r"""Regular expression that finds the group of an image in its relative path: what its parentheses hold, such as
    `([^/]*)ThinF` or `(plate\d+)_`. Images of one group (slide, patient, movie) belong together where a later stage
    divides them. Empty: the folder is the group, or the file of several frames."""
    magnify: Literal["auto", "1", "2", "4"] = "1"
    """Factor by which images, and label images, are enlarged when later stages read them. auto: the smallest that gives
    typical objects 17 px, measured on the classical proposals, and twice as much if the set then has at most 64
    megapixels; 1 where the labels hold boxes, or where an enlarged image would have more than 64 megapixels. The files
    that `infer` writes have the size of the images."""
    crops: Literal["none", "boxes"] = "none"
    """boxes: cut every annotated box out of its image; the crops, with the boxes' classes, are what is written. They
    keep their size, and the split of their image."""
    crop_margin: float = Field(0.1, ge=0, le=2)
    """Margin around a box on each side, as a share of its height and width."""
    max_rejects: float = Field(0.5, ge=0, le=1)
    """Share of rejected images above which the stage fails."""
    min_size: int = Field(8, ge=1)
    """px; images and crops smaller than this in either direction are rejected."""
    max_megapixels: float = Field(400.0, gt=0)
    """Images with more megapixels (of one plane) are rejected before they are decoded."""
