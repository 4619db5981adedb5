"""Declaration of `cluster`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import FeatureSet, ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage


class Cluster(Stage):
    """Cluster the features of all images by k-means, and select the clusters that are cells.

    A classical proposal, selected for each image without labels, is fused with the clusters: a threshold of intensity,
    of the stain, of texture, or what deviates from the background. From the second round on, the segmentor's
    probability is fused as well. The result is a soft foreground mask of every image.
    """

    image: ClassVar[str] = "cpu"
    gpu_image: ClassVar[str] = "faiss"
    curves: ClassVar[dict[str, str]] = {"foreground_share": "share of foreground, proposed"}

    images: In[ImageSet]
    """Images that the features were extracted from."""
    features: In[FeatureSet]
    """Features from `extract_features`."""
    truth: In[LabelSet]
    """Labels of some images; used only if `use_labels` is above 0."""
    clusters: Out[LabelSet]
    """Foreground masks with confidence, and the plane `cluster`: each pixel's cluster plus 1."""
    k: Annotated[int, Field(ge=1, le=250)] | Literal["auto"] = 12
    """Number of clusters. auto: the one of 6, 12, 24 and 48 whose foreground clusters, selected on half of the images,
    agree best with the proposals on the other half."""
    pca_components: PositiveInt | Literal["all"] = 32
    """Principal components kept before clustering. all: no PCA."""
    whitening: float = Field(0.0, ge=0, le=1)
    """Exponent of the whitening: 0 none, 1 full."""
    model_weight: float = Field(0.7, ge=0, le=1)
    """Weight of the segmentor's probability in the fusion, if the features contain one."""
    cluster_weight: float = Field(0.1, ge=0, le=1)
    """Weight of the clusters relative to the classical proposal, at full agreement of the two. Labels override it."""
    foreground: Literal["auto", "dark", "bright", "textured"] = "auto"
    """How cells differ from the background, where the proposals get it wrong: darker, brighter, or by their texture.
    auto: as the images tell. Labels override it."""
    use_labels: NonNegativeInt = 0
    """Few-label mode: number of labelled images, the first ones, that select the foreground clusters. 0: label-free."""
    seed: NonNegativeInt = 0
    """Seed of the sampling and the initial centroids."""
    skip: bool = False
    """Write an empty LabelSet, flagged as skipped: the EM loop has ended."""
