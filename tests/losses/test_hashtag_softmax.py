from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.losses.hashtag_softmax import HashtagSoftmax

TAGS = [[0, 3], [], [2], [4, 1, 0, 2], [], [], [5], [1, 1, 3]]  # the last one repeats a tag


def logits(crops=2):
    return torch.randn(crops, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def batch_of(tags):
    return Batch([], torch.arange(len(tags)), tags=Tags.pack(tags))


def run(z, tags):
    """Metrics, and the gradient of the loss."""
    z = z.clone().requires_grad_()
    result = HashtagSoftmax()(SimpleNamespace(logits=[z]), batch_of(tags))
    result["loss"].backward()
    return {name: value.detach() for name, value in result.items()}, z.grad


def naive(z_VBK, tags):
    """Dense 1/k targets; mean over crops and over images with a tag."""
    z_VBK = z_VBK.clone().requires_grad_()
    terms, right = [], 0
    for z_BK in z_VBK:
        for z_K, row in zip(z_BK, tags):
            if row:
                target = torch.zeros(6, dtype=z_K.dtype)
                target[list(set(row))] = 1 / len(set(row))
                terms.append(-(target * F.log_softmax(z_K, 0)).sum())
                right += int(z_K.argmax()) in row
    loss = sum(terms) / len(terms)
    loss.backward()
    return loss.detach(), right / len(terms), z_VBK.grad


@pytest.mark.parametrize("crops", [1, 2])
def test_equals_dense_soft_targets(crops):
    result, grad = run(logits(crops), TAGS)
    loss, precision, expected_grad = naive(logits(crops), TAGS)
    torch.testing.assert_close(result["loss"], loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)
    assert result["precision@1"].item() == pytest.approx(precision, abs=1e-6)
    assert result["untagged"].item() == 3 / 8


def test_one_tag_each_is_cross_entropy():
    z, label = logits(1), torch.arange(8) % 6
    result, _ = run(z, label[:, None].tolist())
    torch.testing.assert_close(result["loss"], F.cross_entropy(z[0], label), rtol=0, atol=1e-12)


def test_a_batch_without_any_tag_is_nothing():
    result, grad = run(logits(), [[]] * 8)
    assert result["loss"] == 0
    assert result["precision@1"] == 0
    assert result["untagged"] == 1
    assert torch.equal(grad, torch.zeros_like(grad))


def test_an_image_without_tags_has_no_gradient():
    _, grad = run(logits(), TAGS)
    assert [bool(row.any()) for row in grad[0]] == [bool(row) for row in TAGS]


def test_half_precision_is_widened():
    z = (30 * logits()).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, _ = run(z, TAGS)
    assert result["loss"].dtype == torch.float32
    torch.testing.assert_close(
        result["loss"].double(), naive(z.double(), TAGS)[0], rtol=1e-5, atol=0
    )


def _on_rank(rank, world, z, tags):
    images = len(tags) // world
    mine = slice(rank * images, (rank + 1) * images)
    return run(z[:, mine], tags[mine])


@pytest.mark.parametrize("world", [2, 4])  # of 4 ranks, the third has no tag at all
def test_ranks_with_different_numbers_of_tags_equal_one_process(world, ranks):
    results, grads = zip(*ranks(world)(_on_rank, logits(), TAGS))
    whole, grad = run(logits(), TAGS)
    torch.testing.assert_close(torch.cat(grads, 1) / world, grad, rtol=0, atol=1e-12)
    for name, value in whole.items():
        mean = sum(result[name] for result in results) / world
        torch.testing.assert_close(mean, value, rtol=0, atol=1e-12)


def test_says_that_it_needs_a_scorer():
    with pytest.raises(ConfigError, match="hashtag_softmax needs scores"):
        HashtagSoftmax()(SimpleNamespace(logits=[]), batch_of(TAGS))
