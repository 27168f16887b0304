from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.data.batch import Batch, Tags
from vissl_lite.losses.binary_cross_entropy import BinaryCrossEntropy

TAGS = [[0, 3], [], [2], [1, 0, 2]]
LABELS = torch.tensor([[1, 0, -1, 1], [0, 0, 0, 0], [-1, -1, -1, -1], [-1, 1, 1, -1]])


def logits(crops=2):
    return torch.randn(crops, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(z, batch, target):
    z = z.clone().requires_grad_()
    loss = BinaryCrossEntropy(target)
    assert loss.needs == (target,)
    value = loss(SimpleNamespace(logits=[z]), batch)
    value.backward()
    return value.detach(), z.grad


def labelled(label):
    return Batch([], torch.arange(len(label)), label_B=label)


def tagged(tags):
    return Batch([], torch.arange(len(tags)), tags=Tags.pack(tags))


def naive(z_VBK, label):
    z_VBK = z_VBK.clone().requires_grad_()
    terms = [
        F.binary_cross_entropy(torch.sigmoid(z), y.double())
        for z_BK in z_VBK
        for z_K, y_K in zip(z_BK, label)
        for z, y in zip(z_K, y_K)
        if y >= 0
    ]
    loss = sum(terms) / len(terms)
    loss.backward()
    return loss.detach(), z_VBK.grad


def test_labels_equal_the_definition_and_minus_one_is_ignored():
    for got, expected in zip(run(logits(), labelled(LABELS), "label"), naive(logits(), LABELS)):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_tags_equal_their_multi_hot_labels():
    dense = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]])
    for got, expected in zip(run(logits(), tagged(TAGS), "tags"), naive(logits(), dense)):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_extreme_half_precision_logits_stay_finite_and_exact():
    z = torch.tensor([[[200.0, -200.0]]], dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, grad = run(z, labelled(torch.tensor([[0, 1]])), "label")
    assert loss.dtype == torch.float32
    assert loss == 200
    assert grad.tolist() == [[[0.5, -0.5]]]


def test_nothing_known_is_nothing():
    loss, grad = run(logits(), labelled(torch.full((4, 4), -1)), "label")
    assert loss == 0
    assert torch.equal(grad, torch.zeros_like(grad))


def _on_rank(rank, world, z, label):
    return run(z.chunk(world, 1)[rank], labelled(label.chunk(world)[rank]), "label")


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_with_different_numbers_of_labels_equal_one_process(world, ranks):
    losses, grads = zip(*ranks(world)(_on_rank, logits(), LABELS))
    loss, grad = run(logits(), labelled(LABELS), "label")
    torch.testing.assert_close(sum(losses) / world, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(grads, 1) / world, grad, rtol=0, atol=1e-12)


def test_says_that_class_ids_are_no_multi_hot_labels():
    with pytest.raises(ConfigError, match="needs multi-hot labels"):
        run(logits(), labelled(torch.arange(4)), "label")
