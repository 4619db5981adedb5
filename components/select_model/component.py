"""Declaration of `select_model`."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.models.prediction_options import TilingOptions
from shared.stage.declaration import In, Out, Stage


class SelectModel(TilingOptions, Stage):
    """Select the better of a new segmentor and the best one so far; end the EM loop when it stops improving.

    With labels, the segmentor that agrees better with them is selected. Without labels, it is the one whose borders lie
    more on edges of the image, provided that its foreground has not grown or shrunk out of proportion, neither since
    the last round nor since the first proposals. The weights of a better round are averaged with those of the rounds
    before it; the average is assessed as well.

    The labels are those that the loop learns from, so the comparison favours the newer segmentor. A segmentor given by
    the user has additional protection: on images without labels, the foreground of a round that replaces it must not
    grow or shrink by more than the labelled images justify.
    """

    image: ClassVar[str] = "torch"
    curves: ClassVar[dict[str, str]] = {"edge_score": "edge score of the masks' borders"}

    images: In[ImageSet]
    """Images; those of the split train are used."""
    truth: In[LabelSet]
    """Labels of some images. Read only if `use_labels` is above 0."""
    candidate: In[Model]
    """The new segmentor."""
    incumbent: In[Model]
    """The best segmentor so far, or one given by the user. In round 0 an encoder if there is none."""
    best: Out[Model]
    """The selected segmentor. Averaged with the incumbent if both are rounds of this loop and the new one is better."""
    best_round: Out[int]
    """Round of the selected segmentor."""
    done: Out[bool]
    """Whether later rounds may be skipped, see `stop_reason`."""
    stop_reason: Out[str]
    """Why the loop ends. converged: the pseudo-masks no longer change and the segmentor is no better. no better: no
    round was better for `patience` rounds. drift: the foreground grows or shrinks out of proportion. Empty while the
    loop continues."""
    initial_area_out: Out[float]
    """`initial_area` for the next round."""
    round_number: NonNegativeInt = 0
    """Number of this round, from 0."""
    incumbent_round: int = Field(-1, ge=-1)
    """Round of the incumbent. -1: the model that the loop started from."""
    initial_area: float = Field(0.0, ge=0, le=1)
    """Foreground share of the first proposals, the reference for drift. Ignored in round 0."""
    proposed_area: float = Field(0.0, ge=0, le=1)
    """Foreground share of this round's pseudo-masks, from `refine_masks`. In round 0 these are the first proposals, and
    the reference for drift unless a segmentor is given. 0: unknown."""
    agreement: float = Field(0.0, ge=0, le=1)
    """Dice of this round's pseudo-masks with the last round's, from `refine_masks`."""
    stop_agreement: float = Field(0.97, gt=0, le=1)
    """Agreement at which the pseudo-masks count as converged."""
    use_labels: NonNegativeInt = 0
    """Number of labelled images to assess on. 0: assess without labels."""
    patience: PositiveInt = 2
    """Number of rounds without a better one after which the loop ends. One round if the borders of the first masks were
    refined to the local means and no labels are used."""
    candidate_weight: float = Field(0.6, gt=0, le=1)
    """Share of a better candidate in the averaged weights; the rest is the incumbent's. 1: do not average."""
    always_accept: bool = False
    """Select the candidate even if it is not better. The comparison is reported all the same."""
    max_images: PositiveInt = 16
    """Images to assess on, evenly spread over the set."""
    skip: bool = False
    """Copy `incumbent` at once, because the EM loop has ended."""
