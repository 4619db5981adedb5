"""How instances are made of a network's maps: the settings, declared once.

A model's config holds them (`PostProcessing`), with the values that calibration found. Every stage that makes instances
takes the same ones as parameters (`PostProcessingOptions`), where "auto" means: as the model's config says.
Declarations import this module, so it loads no numpy.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

BorderRefinement = Literal["none", "means", "edges"]
"""How a mask's border moves to where the image changes, see `shared.instances.borders.border_refinement`."""


class PostProcessing(BaseModel):
    """From a network's maps to instances, see `shared.instances.postprocess`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    foreground_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Foreground probability from which on a pixel is foreground."""
    high_threshold: float = Field(default=0.0, ge=0, le=1)
    """Keep an object only if its foreground probability reaches this somewhere (hysteresis thresholding, Canny 1986).
    Values up to `foreground_threshold` keep every object."""
    border_refinement: BorderRefinement = "none"
    """Move the masks' borders to where the image changes. means: to where the intensity is half way between the local
    means of foreground and background. edges: to the steepest gradient. none: leave them."""
    pale_centres: Literal["leave", "fill"] = "leave"
    """fill: what objects enclose and a threshold misses, such as the pale centre of a red blood cell, is foreground;
    groups of such objects are split by their shape alone. For models that learned from masks treated so."""
    min_seed_distance_px: int = Field(default=4, ge=1)
    """Smallest distance between the seeds of two instances."""
    merge_threshold: float = Field(default=0.8, ge=0, le=1)
    """Merge two seeds where the distance map between them stays above this share of the lower one's. 1: never."""
    min_area_px: int = Field(default=16, ge=0)
    """Drop smaller objects; px²."""
    min_area_share: float = Field(default=0.05, ge=0, lt=1)
    """Drop objects below this share of the area of the image's typical object."""
    cells_max_threshold: float = Field(default=0.47, gt=0, lt=1)
    """Of a model that learned the distance alone: distance from which on a pixel belongs to the middle of an
    instance."""
    cell_fill_threshold: float = Field(default=0.09, gt=0, lt=1)
    """Of a model that learned the distance alone: distance from which on a pixel belongs to an instance."""
    min_distance_share: float = Field(default=0.5, ge=0, lt=1)
    """Drop objects whose distance map peaks below this share of the typical object's peak. In noise the network finds
    objects that have no middle."""


def _options(settings: type[BaseModel]) -> Any:
    """The same fields as parameters of a stage, each of which may be "auto"."""
    fields: dict[str, Any] = {}
    for name, info in settings.model_fields.items():
        kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        default = info.get_default(call_default_factory=True)
        text = f"{info.description} auto: as the model's config says, {default} unless calibrated."
        fields[name] = (kind | Literal["auto"], Field("auto", description=text))
    made = create_model("PostProcessingOptions", **fields)
    made.__doc__ = PostProcessingOptions.__doc__ if TYPE_CHECKING else "Post-processing as parameters of a stage."
    return made


if TYPE_CHECKING:

    class PostProcessingOptions(BaseModel):
        """Post-processing as parameters of a stage: the fields of `PostProcessing`, or "auto"."""
else:
    PostProcessingOptions = _options(PostProcessing)


def resolve(options: PostProcessingOptions, model: PostProcessing) -> PostProcessing:
    """The settings to work with: what `options` (a stage) gives, and the model's own where that is "auto"."""
    given = {name: getattr(options, name) for name in PostProcessing.model_fields}
    return model.model_copy(update={name: value for name, value in given.items() if value != "auto"})
