"""Principal components as colours, against scikit-learn."""

import numpy as np

from shared.imaging.pca import pca_rgb


def test_pca_pictures_agree_with_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(9, 12, 6)) * [9, 1, 5, 1, 3, 1], rng.normal(size=(5, 7, 6)) * [9, 1, 5, 1, 3, 1]]
    pictures = pca_rgb(maps)
    assert [p.shape for p in pictures] == [(9, 12, 3), (5, 7, 3)] and pictures[0].dtype == np.uint8
    scores = PCA(3).fit_transform(np.concatenate([m.reshape(-1, 6) for m in maps]))
    ours = np.concatenate([p.reshape(-1, 3) for p in pictures])
    for c in range(3):
        assert abs(np.corrcoef(scores[:, c], ours[:, c])[0, 1]) > 0.99
    for one, two in zip(pictures, pca_rgb(maps), strict=True):
        np.testing.assert_array_equal(one, two)
    assert pca_rgb([np.ones((3, 3, 2))])[0].shape == (3, 3, 3)
