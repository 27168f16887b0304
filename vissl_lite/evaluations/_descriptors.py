"""Features as descriptors of images: of several sizes, of unit length, whitened.

Shape suffixes: N images, B of a block, D features, P components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vissl_lite import ConfigError

if TYPE_CHECKING:
    from vissl_lite.config import Labelled
    from vissl_lite.engine.bench import Bench
    from vissl_lite.engine.features import FeatureSet

EPS = 1e-9  # variance below which a direction of features of length 1 is noise of float32
BLOCK_ROWS = 8192  # of the covariance


def descriptors(
    bench: Bench, split: str, layer: str, scales: Sequence[float] = (1.0,)
) -> FeatureSet:
    """The images of a split; features of one scale as they are, of several in the mean.

    x = mean over scales of x_scale / |x_scale|

    Images without a label are among them, with the label -1.
    """
    if len(scales) == 1:
        return _at_scale(bench, split, layer, scales[0])
    mean_ND = torch.zeros(())
    for scale in scales:
        found = _at_scale(bench, split, layer, scale)
        mean_ND = mean_ND + F.normalize(found.features[layer], dim=1) / len(scales)
    return replace(found, features={layer: mean_ND})


def _at_scale(bench: Bench, split: str, layer: str, scale: float) -> FeatureSet:
    def see(**target: Any) -> FeatureSet:
        if scale == 1:
            return bench.features(split, [layer], **target)
        return bench.seen(split, resized(bench.labelled, scale), [layer], **target)

    labelled = see()
    return _merged(labelled, see(target="unlabelled"), layer) if labelled.left_out else labelled


def _merged(one: FeatureSet, other: FeatureSet, layer: str) -> FeatureSet:
    """The images of both in the order of their source."""
    index_N = torch.cat([found.index_N for found in (one, other) if found.index_N is not None])
    order_N = index_N.argsort()
    x_ND = torch.cat([one.features[layer], other.features[layer]])[order_N]
    label_N = torch.cat([one.label_N, other.label_N])[order_N]
    return replace(one, features={layer: x_ND}, label_N=label_N, index_N=index_N[order_N])


def resized(labelled: Labelled, scale: float) -> Labelled:
    """The same part of each image on `scale` times as many pixels per side."""
    transforms = [_resized(transform, scale) for transform in labelled.transforms]
    return replace(labelled, size=_pixels(labelled.size, scale), transforms=transforms)


def _resized(transform: Any, scale: float) -> Any:
    """`resize` may have a size of its own; all others take that of the view."""
    short = transform.get("short_side") if isinstance(transform, dict) else None
    return {**transform, "short_side": _pixels(short, scale)} if short else transform


def _pixels(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def check_whiten(components: int | None, place: str) -> None:
    """`whiten` of the evaluation at `place` in the config."""
    if components is not None and components < 1:
        raise ConfigError(f"{place}.whiten: {components}; needs 1 or more, or null")


def unit_scaling(
    x_ND: Tensor, components: int | None, device: torch.device, place: str
) -> Callable[[Tensor], Tensor]:
    """A function that moves features to the device and gives them unit length.

    Args:
        x_ND: the train images, that whitening is learned from.
        components: whitened to so many, if given.
        place: of the evaluation in the config, for the message.

    Raises:
        ConfigError: more components than features, or than train images can tell.
    """
    if components is None:
        return lambda x: F.normalize(x.to(device), dim=1)
    if components > min(x_ND.shape[1], len(x_ND) - 1):
        raise ConfigError(
            f"{place}.whiten: {components} components of {x_ND.shape[1]} features of"
            f" {len(x_ND)} train images; give fewer"
        )
    mean_D, map_DP = (t.to(device, x_ND.dtype) for t in whitening(x_ND, components))
    return lambda x: F.normalize((F.normalize(x.to(device), dim=1) - mean_D) @ map_DP, dim=1)


def whitening(x_ND: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Mean [D] and map [D, P], float64: (x / |x| - mean) @ map has covariance 1.

    C = V diag(l) V^T is the covariance of x / |x|;  map = V_P diag(l_P + eps)^(-1/2)
    """
    sum_D, square_DD = x_ND.new_zeros(x_ND.shape[1]).double(), 0
    for block in x_ND.split(BLOCK_ROWS):  # never a second copy of all features
        z_BD = F.normalize(block.double(), dim=1)
        sum_D, square_DD = sum_D + z_BD.sum(0), square_DD + z_BD.T @ z_BD
    mean_D = sum_D / len(x_ND)
    value_D, vector_DD = torch.linalg.eigh(square_DD / len(x_ND) - torch.outer(mean_D, mean_D))
    kept = slice(-components, None)  # eigenvalues ascend
    return mean_D, vector_DD[:, kept] * (value_D[kept].clamp(min=0) + EPS).rsqrt()
