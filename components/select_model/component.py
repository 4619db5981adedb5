"""Declaration of `gate`."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class SelectModel(Stage):
    """Keep the better of a new segmentor and the best one so far, and stop the loop where it drifts.

    With labels the better one is closer to them. Without, it is the one whose borders follow the edges in the image
    better, as long as its foreground has not grown or shrunk out of proportion, be it at once or from round to round. A
    round that is better does not replace the rounds before it: their weights are averaged, and the average is judged
    too.

    The labels are those that the loop learns from, of which there are too few to set some aside: they favour the newer
    one. A segmentor of the user's is guarded better: on images that nobody drew, too, the foreground of a round that
    replaces it must not grow or shrink out of proportion to what it does on the drawn ones.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to judge on, those of the split train."""
    truth: In[LabelSet]
    """Labels of some of them. Looked at only where `use_labels` is above 0."""
    candidate: In[Model]
    """The new segmentor."""
    incumbent: In[Model]
    """The best segmentor so far, or one of the user's to guard against; an encoder where there is none."""
    best: Out[Model]
    """The better of the two, averaged with the other where both are rounds of this loop and the new one is better."""
    best_round: Out[int]
    """Round the better one comes from."""
    done: Out[bool]
    """Whether later rounds may pass through, see `ending`."""
    ending: Out[str]
    """Why the loop ends here. converged: pseudo-masks stopped changing and the segmentor is no better; no better: there
    was none for a while; drift. Empty where it goes on."""
    first_area_out: Out[float]
    """`first_area`, or what it is from now on."""
    number: NonNegativeInt = 0
    """Number of this round, from 0."""
    incumbent_round: int = -1
    """Round the incumbent comes from; -1: from before the loop."""
    first_area: float = Field(0.0, ge=0, le=1)
    """Share of foreground of the loop's first segmentor, which no later one may be far from. 0: there was none."""
    converged: bool = False
    """Whether the pseudo-masks stopped changing, from `train_segmentor`."""
    use_labels: NonNegativeInt = 0
    """Judge by so many labelled images. 0: label-free."""
    patience: PositiveInt = 2
    """The loop ends where the best round lies so many rounds back; one, where the first masks followed the edges in the
    images already and no label tells: there a round must be much better to be handed on at all."""
    average: float = Field(0.6, gt=0, le=1)
    """Share of a better candidate's weights in `best`; the rest is the incumbent's, where that is an earlier round of
    this loop. 1: the candidate alone."""
    keep_worse: bool = False
    """Hand the candidate on whatever comes out; the comparison is reported all the same."""
    most_images: PositiveInt = 16
    """Images that are looked at, evenly spread."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass."""
    skip: bool = False
    """Copy `incumbent` at once: the EM loop is over."""
