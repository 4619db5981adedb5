"""Declaration of `refine_masks`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage


class RefineMasks(Stage):
    """The E-step: turn soft proposals into pseudo-masks that follow the edges in the image.

    Where the proposals' borders miss the edges in the image: watershed on the gradient from confident markers, kept
    where the proposal agrees; the rest is ignored. Where they follow the edges already, every pixel near a border goes
    to the side whose mean intensity around it is nearer.
    """

    image: ClassVar[str] = "cpu"
    headlines: ClassVar[dict[str, str]] = {"agreement": "agreement"}
    curves: ClassVar[dict[str, str]] = {"foreground_share": "share of foreground, refined"}

    images: In[ImageSet]
    """The images the proposals are of."""
    clusters: In[LabelSet]
    """Soft foreground masks from `cluster`."""
    previous: In[LabelSet]
    """Last round's pseudo-masks, to measure agreement with; empty in the first round."""
    labels: Out[LabelSet]
    """Instances with confidence, origin pseudo: the masks, parted where the image looks as on their borders."""
    agreement: Out[float]
    """Mean Dice between these masks and the previous ones; 0 in the first round."""
    noise: Out[float]
    """Share of the pixels that are taken to be wrong: `expected_noise` where the watershed found the borders and no
    person corrected any, else 0. What `train_segmentor` takes as `drop_fraction`."""
    refine: bool = True
    """False: pass the proposals' masks on as they are, with full confidence and no object split; the settings below do
    nothing. For comparison."""
    watershed: Literal["auto", "always", "never"] = "auto"
    """auto: watershed on the image gradient where the set's proposals miss the edges, local means where they follow
    them. always: the watershed. never: leave borders where they are."""
    marker_threshold: float = Field(0.9, gt=0.5, lt=1)
    """Probability from which on a pixel is a marker of the watershed: cell, or background below 1 minus this."""
    expected_noise: float = Field(0.1, ge=0, lt=0.5)
    """Share of wrong pixels in masks whose borders the watershed found."""
    ignore_band_px: NonNegativeInt = 1
    """px on either side of a mask's border that training ignores."""
    min_area_px: PositiveInt | Literal["auto"] = "auto"
    """px²; drop smaller regions. auto: a share of the typical region's area, in each image."""
    skip: bool = False
    """Copy `previous` at once: the EM loop has converged."""
