"""Shape suffixes: N train images, M test images, D features."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import Tensor
from torch.nn import functional

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.data.random import generator
from vissl_lite.evaluations._assignments import Split, write_assignments
from vissl_lite.evaluations._classifiers import finite
from vissl_lite.evaluations._ranks import share_out

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

    from vissl_lite.engine.bench import Bench
    from vissl_lite.engine.features import FeatureSet

STREAM = 14  # of `generator`


@EVALUATIONS.register("clusters")
class Clusters:
    """Clusters by k-means on frozen features, compared with the labels: NMI and purity.

    Centroids come from the train images without their labels; each test image belongs to the
    nearest centroid. Of several starts (k-means++) the one of the smallest sum of squared distances
    counts. Processes share out the starts. NMI as in DeepCluster (Caron et al. 2018,
    arXiv 1807.05520); it and purity grow with k, so compare only equal k. k-means has many optima:
    on the pixels of digits, ones of nearly the same distances are half a point of NMI apart.

    Metrics, in [0, 1], on the test images: `nmi_k10` and `purity_k10` for every k, `nmi` and
    `purity` for the first.

        NMI = 2 I(cluster; label) / (H(cluster) + H(label))
        purity = share of images whose label is the most frequent one in their cluster

    Which cluster an image is in goes to `evaluations/clusters/k10.parquet` of the run, for every k:
    a row for each train and test image with its `split`, `index` in its source, `name`, `label`,
    `cluster` (0 to k - 1) and `distance` to the centroid.

    Args:
        k: numbers of clusters; default: the number of classes.
        starts: 10 as in scikit-learn's k-means with random starts.
        max_iter: of each start; 300 as in scikit-learn.
        layer: trunk layer or "embedding"; default: the layer that feeds the heads.
        unit_length: scales the features of each image to length 1 first, as DeepCluster does.
        seed: of the starts.

    Raises:
        ConfigError: a k below 1 or above the number of train images, `starts` or `max_iter`
            below 1, or features that are nan or inf.
    """

    def __init__(
        self,
        k: tuple[int, ...] | None = None,
        starts: int = 10,
        max_iter: int = 300,
        layer: str | None = None,
        unit_length: bool = True,
        seed: int = 0,
    ):
        if k is not None and (not k or min(k) < 1):
            raise ConfigError(f"evaluations.clusters.k: {list(k)}; needs whole numbers from 1")
        if min(starts, max_iter) < 1:
            raise ConfigError("evaluations.clusters: starts and max_iter need to be 1 or more")
        self.k, self.starts, self.max_iter = k, starts, max_iter
        self.layer, self.unit_length, self.seed = layer, unit_length, seed

    def check(self, bench: Bench) -> None:
        bench.check_layers(self.layer)

    def evaluate(self, bench: Bench) -> dict[str, float]:
        layer = self.layer or bench.model.layer
        train, test = bench.features("train", [layer]), bench.features("test", [layer])
        x_ND, x_MD = self._scaled(finite(train, layer)), self._scaled(finite(test, layer))
        sizes = self.k or (bench.num_classes,)
        self._check_sizes(sizes, len(x_ND))
        tasks = list(itertools.product(sizes, range(self.starts)))

        def row(t: int) -> list[float]:
            found = kmeans(x_ND, tasks[t][0], self.seed, tasks[t][1], self.max_iter)
            cluster_M = np.asarray(found.predict(x_MD))
            agreement = nmi_and_purity(cluster_M, test.label_N.numpy())
            return [cast(float, found.inertia_), *agreement]

        found_TS = share_out(len(tasks), 3, row).view(len(sizes), self.starts, 3)
        metrics = {}
        for k, found_S3 in zip(sizes, found_TS):
            best = int(found_S3[:, 0].argmin())
            _, nmi, purity = found_S3[best].tolist()
            metrics |= {f"nmi_k{k}": nmi, f"purity_k{k}": purity}
            self._leave_behind(bench, k, best, {"train": (train, x_ND), "test": (test, x_MD)})
        nmi, purity, *_ = metrics.values()
        return {"nmi": nmi, "purity": purity, **metrics}

    def _leave_behind(
        self, bench: Bench, k: int, start: int, splits: dict[str, tuple[FeatureSet, np.ndarray]]
    ) -> None:
        """Writes the assignments, on rank 0, which runs the best start once more for them."""
        folder = bench.files("clusters")
        if folder is None:
            return
        found = kmeans(splits["train"][1], k, self.seed, start, self.max_iter)
        assigned = {
            name: Split(bench.sources[name], images, x, np.asarray(found.predict(x)))
            for name, (images, x) in splits.items()
        }
        write_assignments(folder / f"k{k}.parquet", assigned, found.cluster_centers_)

    def _scaled(self, x_ND: Tensor) -> np.ndarray:
        return (functional.normalize(x_ND, dim=1) if self.unit_length else x_ND).numpy()

    def _check_sizes(self, sizes: tuple[int, ...], images: int) -> None:
        if max(sizes) > images:
            raise ConfigError(
                f"evaluations.clusters.k: {max(sizes)} clusters of {images} train images; give a"
                " smaller k"
            )


def kmeans(x_ND: np.ndarray, k: int, seed: int, start: int, max_iter: int) -> KMeans:
    """Lloyd's algorithm from k-means++ start number `start`; `predict` gives assignments."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    state = int(generator(seed, 0, start, 0, STREAM).integers(2**31))
    with warnings.catch_warnings():
        # fewer distinct features than clusters: the model has collapsed, and the NMI shows it
        warnings.simplefilter("ignore", ConvergenceWarning)
        once = KMeans(k, max_iter=max_iter, random_state=state).set_params(n_init=1)
        return once.fit(x_ND)


def nmi_and_purity(cluster_M: np.ndarray, label_M: np.ndarray) -> tuple[float, float]:
    """Agreement of cluster numbers with class ids."""
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    purity = contingency_matrix(label_M, cluster_M).max(axis=0).sum() / len(label_M)
    return float(normalized_mutual_info_score(label_M, cluster_M)), float(purity)
