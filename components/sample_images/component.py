"""Declaration of `sample_images`."""

from typing import ClassVar

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class SampleImages(Stage):
    """Choose the images that the EM loop learns from, and a sample to score its rounds and to check exported files on.

    The rounds read what is chosen here, so that a large set is not copied to each of their tasks.
    """

    image: ClassVar[str] = "cpu"

    images: In[ImageSet]
    """All images; the loop learns from those of the split train."""
    truth: In[LabelSet]
    """Labels of some images."""
    model: In[Model]
    """Encoder from `pretrain`, or a segmentor: how it sees images decides how many megapixels they have, and which ones
    are similar."""
    learned: Out[ImageSet]
    """Images of the split train to learn from, unchanged."""
    sample: Out[ImageSet]
    """Images with labels to score on, and others; also those whose labels are learned, so that `evaluate` knows them.
    Unchanged."""
    labels: Out[LabelSet]
    """Label images to score on, and those that are learned; unchanged."""
    max_images: PositiveInt = 500
    """Images to choose from, evenly spread over a larger set."""
    max_megapixels: PositiveFloat = 24.0
    """Megapixels to learn from, as the network sees them. Rare kinds of images are preferred. A round of training draws
    crops of about 40 megapixels in all."""
    use_labels: NonNegativeInt = 0
    """Number of labelled images that are always learned from."""
    max_sample: PositiveInt = 20
    """Images in the sample: at most this number with labels that are not learned, and as many others. Each are evenly
    spread over the set."""
