"""Declaration of `refine_masks`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class RefineMasks(Stage):
    """The E-step: turn soft proposals into pseudo-masks that follow the edges in the image.

    If the set's proposals miss the edges in the images, the borders are found by watershed of the gradient from
    confident markers, and pixels where the proposal contradicts the result are ignored. If they follow the edges
    already, every pixel near a border goes to the class whose local mean intensity is nearer.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"agreement": "agreement"}
    curves: ClassVar[dict[str, str]] = {"foreground_share": "share of foreground, refined"}

    images: In[ImageSet]
    """Images of the proposals."""
    clusters: In[LabelSet]
    """Soft foreground masks from `cluster`."""
    previous: In[LabelSet]
    """Pseudo-masks of the previous round, to measure the agreement with; empty in the first round."""
    model: In[Model]
    """Encoder, or segmentor of the previous round."""
    labels: Out[LabelSet]
    """Instances with confidence, origin pseudo: the masks, parted as `part_by` says."""
    agreement: Out[float]
    """Mean Dice between these masks and the previous ones; 0 in the first round."""
    noise: Out[float]
    """Expected share of wrong pixels, the `drop_fraction` of `train_segmentor`: `expected_noise` if the watershed found
    the borders and no mask is hand-labelled, else 0."""
    proposed_area: Out[float]
    """Foreground share of these masks, mean over the images; 0 where there are none."""
    refine: bool = True
    """False, for comparison: pass on the proposals' masks unchanged, with full confidence and without splitting; the
    settings below have no effect."""
    watershed: Literal["auto", "always", "never"] = "auto"
    """Watershed of the image gradient. auto: if the set's proposals miss the edges; else local means. always: the
    watershed. never: borders stay where they are."""
    marker_threshold: float = Field(0.9, gt=0.5, lt=1)
    """Smallest foreground probability of a foreground marker; a background marker has at most 1 minus this."""
    expected_noise: float = Field(0.1, ge=0, lt=0.5)
    """Expected share of wrong pixels in masks whose borders the watershed found."""
    part_by: Literal["auto", "model", "image"] = "auto"
    """What parts the masks into instances. image: they are split where the image looks as on their borders. model: from
    the second round on, the instances that the segmentor finds: a network learns what many partings have in common, not
    their errors. auto: model where the watershed found the borders, else image."""
    ignore_band_px: NonNegativeInt = 1
    """Band on either side of a mask's border that training ignores, px."""
    min_area_px: PositiveInt | Literal["auto"] = "auto"
    """Drop smaller regions; px². auto: a share of the typical object's area, image by image."""
    skip: bool = False
    """Copy `previous` without refining: the EM loop has ended."""
