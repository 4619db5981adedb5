"""Declaration of `select_model`."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class SelectModel(Stage):
    """Keep the better of a new segmentor and the best one so far, and end the loop where it stops to improve.

    With labels, the better one is closer to them. Without, it is the one whose borders follow the edges in the image
    better, as long as its foreground has not grown or shrunk out of proportion, at once or from round to round. A round
    that is better does not replace the rounds before it: their weights are averaged, and the average is assessed too.

    The labels are those that the loop learns from, so the comparison favours the newer segmentor. A segmentor that the
    user gave is guarded better: on images without a label, too, the foreground of a round that replaces it must not
    grow or shrink out of proportion to what it does on the labelled ones.
    """

    image: ClassVar[str] = "torch"
    curves: ClassVar[dict[str, str]] = {"edge_score": "edge score of the masks' borders"}

    images: In[ImageSet]
    """Images to assess on, those of the split train."""
    truth: In[LabelSet]
    """Labels of some of them. Read only where `use_labels` is above 0."""
    candidate: In[Model]
    """The new segmentor."""
    incumbent: In[Model]
    """The best segmentor so far, or one that the user gave; in round 0 an encoder where there is none."""
    best: Out[Model]
    """The better of the two, averaged with the other where both are rounds of this loop and the new one is better."""
    best_round: Out[int]
    """Round that the better one comes from."""
    done: Out[bool]
    """Whether later rounds may pass through, see `stop_reason`."""
    stop_reason: Out[str]
    """Why the loop ends here. converged: the pseudo-masks stopped to change, and the segmentor is no better. no better:
    there was no better one for `patience` rounds. drift. Empty where the loop goes on."""
    initial_area_out: Out[float]
    """`initial_area` for the next round."""
    round_number: NonNegativeInt = 0
    """Number of this round, from 0."""
    incumbent_round: int = Field(-1, ge=-1)
    """Round that the incumbent comes from; round -1 is what the loop started from."""
    initial_area: float = Field(0.0, ge=0, le=1)
    """Share of foreground of the loop's first segmentor, which no later one may be far from. Ignored in round 0."""
    agreement: float = Field(0.0, ge=0, le=1)
    """Dice of this round's pseudo-masks with the last round's, from `refine_masks`."""
    stop_agreement: float = Field(0.97, gt=0, le=1)
    """Agreement from which on the pseudo-masks count as converged."""
    use_labels: NonNegativeInt = 0
    """Assess by so many labelled images. 0: by no label."""
    patience: PositiveInt = 2
    """The loop ends where the best round lies so many rounds back; one round, where the first masks followed the edges
    in the images already and no label tells."""
    candidate_weight: float = Field(0.6, gt=0, le=1)
    """Share of a better candidate's weights in `best`; the rest is the incumbent's, where that is an earlier round of
    this loop. 1: no average."""
    always_accept: bool = False
    """Accept the candidate whatever comes out; the comparison is reported all the same."""
    max_images: PositiveInt = 16
    """Images to assess on, evenly spread."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    batch_size: PositiveInt = 16
    """Tiles in a forward pass."""
    skip: bool = False
    """Copy `incumbent` at once: the EM loop is over."""
