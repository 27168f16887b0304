"""With all classes sampled nothing is estimated; with some the estimate is right in the mean.

Legend: V crops, B images, D features, K classes, T pairs of an image and one of its classes.
"""

import pytest
import torch
from torch import nn

from vissl_lite import ConfigError
from vissl_lite.data.batch import Tags
from vissl_lite.layers.sampled_logits import SampledLogits
from vissl_lite.losses._common import DenseLogits
from vissl_lite.losses.binary_cross_entropy import bce_of_tags
from vissl_lite.losses.cross_entropy import cross_entropy_sums
from vissl_lite.losses.hashtag_softmax import hashtag_sums

V, B, D, K = 2, 5, 6, 40
TAGS = Tags.pack([[3, 17], [], [39], [0, 1, 2, 3], [17]])


def layer_and_features(seed=0):
    torch.manual_seed(seed)
    layer = nn.Linear(D, K, dtype=torch.float64)
    return layer, torch.randn(V * B, D, dtype=torch.float64, requires_grad=True)


def losses(z):
    label_B = torch.tensor([3, -1, 39, 0, 17])
    by_tag, by_label = hashtag_sums(z, TAGS), cross_entropy_sums(z, label_B, smoothing=0.1)
    return torch.cat([by_tag, by_label, bce_of_tags(z, TAGS)[0][None]])


def test_all_classes_sampled_equal_the_dense_layer_with_its_gradients():
    layer, x_ND = layer_and_features()
    sampled = SampledLogits.of(x_ND, layer, K).unflatten(0, (V, B)).clone()
    dense = DenseLogits(layer(x_ND).unflatten(0, (V, B)))
    assert sampled.shape == dense.shape
    wanted = [x_ND, *layer.parameters()]
    results = [losses(z) for z in (sampled, dense)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(1, 2, len(results[0]), dtype=torch.float64)
    grads = [torch.autograd.grad((r * weights).sum(), wanted) for r in results]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def test_over_samples_the_partition_function_is_right_in_the_mean():
    """800 samples of 10 among 40 classes: the mean of Z within 5 standard errors."""
    layer, x_ND = layer_and_features()
    exact_VB = layer(x_ND).unflatten(0, (V, B)).exp().sum(-1)
    rows = TAGS.rows_T()
    found = torch.stack(
        [
            SampledLogits.of(x_ND, layer, 10).unflatten(0, (V, B)).softmax(TAGS.values_T, rows)[0]
            for _ in range(800)
        ]
    ).exp()
    error = (found.mean(0) - exact_VB).abs() / (found.std(0) / 800**0.5)
    assert error.max() < 5
    assert found.std(0).min() > 0.01  # it is an estimate


def test_gradients_reach_only_own_and_sampled_classes():
    layer, x_ND = layer_and_features()
    z = SampledLogits.of(x_ND, layer, 4).unflatten(0, (V, B))
    hashtag_sums(z, TAGS)[0].backward()
    touched = layer.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert set(touched) == set(z.sample_S.tolist()) | set(TAGS.values_T.tolist())


def test_half_precision_products_give_full_precision_losses():
    layer, x_ND = layer_and_features()
    layer, x_ND = layer.float(), x_ND.float()
    with torch.autocast("cpu", torch.bfloat16):
        z = SampledLogits.of(x_ND, layer, K).unflatten(0, (V, B))
    found, exact = hashtag_sums(z, TAGS), hashtag_sums(DenseLogits(layer(x_ND).view(V, B, K)), TAGS)
    assert z.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], exact[0], rtol=2e-2, atol=0)


def test_probabilities_over_all_classes_are_refused():
    layer, x_ND = layer_and_features()
    with pytest.raises(ConfigError, match="need all logits; take the head 'linear'"):
        SampledLogits.of(x_ND, layer, 4).dot(torch.zeros(B, K))
