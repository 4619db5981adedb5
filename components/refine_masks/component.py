"""Declaration of `refine_masks`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt

from shared.artifacts.kinds import ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage


class RefineMasks(Stage):
    """The E-step: turn soft proposals into pseudo-masks that follow the edges in the image.

    Where the proposals' borders miss the edges in the image: watershed on the gradient from confident markers, kept
    where the proposal agrees; the rest is ignored. Where they follow the edges already, every pixel near a border goes
    to the side whose mean intensity around it is nearer.
    """

    image: ClassVar[str] = "cpu"

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
    refine: bool = True
    """False: the proposals' masks are handed on as they are, every pixel with full confidence and no object parted from
    another; the settings below do nothing. What the loop is without this stage, for comparison."""
    edges: Literal["auto", "always", "never"] = "auto"
    """Watershed on the image gradient where the set's proposals miss the edges, and intensity where they follow them;
    always the watershed; or never: borders stay where they are."""
    confident: float = Field(0.9, gt=0.5, lt=1)
    """Probability from which on a pixel is a marker of the watershed: cell, or background below 1 minus this."""
    ignore_band: NonNegativeInt = 1
    """px on either side of a mask's border that training ignores."""
    min_area: NonNegativeInt = 0
    """px²; smaller regions are dropped. 0: chosen for each image from its own pieces."""
    skip: bool = False
    """Copy `previous` at once: the EM loop has converged."""
