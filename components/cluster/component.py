"""Declaration of `cluster`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import FeatureSet, ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage


class Cluster(Stage):
    """Group the features of the whole set by k-means and say which clusters are cells.

    Thresholds of intensity, of the stain and of texture stand beside the clusters; which threshold an image gets is
    told without labels. The result is a soft foreground mask; from the second round on the segmentor's probability is
    fused in.
    """

    image: ClassVar[str] = "cpu"
    gpu_image: ClassVar[str] = "faiss"
    curves: ClassVar[dict[str, str]] = {"foreground_share": "share of foreground, proposed"}

    images: In[ImageSet]
    """The images the features are of."""
    features: In[FeatureSet]
    """From `extract_features`."""
    truth: In[LabelSet]
    """Labels of some images. Looked at only where `use_labels` is above 0."""
    clusters: Out[LabelSet]
    """Foreground mask with confidence, and the member `cluster`: the cluster of each pixel plus 1."""
    k: Annotated[int, Field(ge=1, le=250)] | Literal["auto"] = 12
    """Number of clusters. auto: of 6, 12, 24 and 48 the one whose foreground clusters, chosen on half of the images,
    agree best with the proposals on the other half."""
    pca_components: PositiveInt | Literal["all"] = 32
    """Principal components kept before clustering. all: no PCA."""
    whitening: float = Field(0.0, ge=0, le=1)
    """Exponent of the whitening: 0 none, 1 full."""
    model_weight: float = Field(0.7, ge=0, le=1)
    """Weight of the segmentor's probability in the fusion, where there is one."""
    cluster_weight: float = Field(0.1, ge=0, le=1)
    """Weight of the clusters beside the classical proposal, where the two agree fully and no label says otherwise."""
    use_labels: NonNegativeInt = 0
    """Few-label mode: the first so many labelled images say which clusters are cells. 0: label-free."""
    seed: NonNegativeInt = 0
    """Of the sampling and the initial centroids."""
    skip: bool = False
    """Write an empty, flagged LabelSet at once: the EM loop has converged."""
