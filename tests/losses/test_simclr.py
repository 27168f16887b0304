from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vissl_lite import ConfigError
from vissl_lite.losses.simclr import SimCLR, nt_xent


def embeddings(crops, images, dim=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(crops, images, dim, generator=generator, dtype=dtype)


def naive(z_VBD, temperature):
    """The definition, one pair after the other."""
    crops, images, _ = z_VBD.shape
    z, losses = F.normalize(z_VBD, dim=-1), []
    for b in range(images):
        for i in range(crops):
            negatives = [
                torch.exp(z[i, b] @ z[k, other] / temperature)
                for other in range(images)
                for k in range(crops)
                if other != b
            ]
            for j in range(crops):
                if j != i:
                    positive = torch.exp(z[i, b] @ z[j, b] / temperature)
                    losses.append(-torch.log(positive / (positive + sum(negatives))))
    return sum(losses) / len(losses)


def as_in_the_paper(z_VBD, temperature):
    """Cross-entropy over 2N - 1 candidates, the diagonal masked (equation 1)."""
    z = F.normalize(z_VBD, dim=-1).flatten(0, 1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def value_and_grad(fn, z, *args):
    z = z.clone().requires_grad_()
    loss = fn(z, *args)
    loss.backward()
    return loss.detach(), z.grad


def loss_of(loss, z):
    return loss(SimpleNamespace(embedding=z), None)


@pytest.mark.parametrize(("crops", "images"), [(2, 4), (3, 4), (4, 2)])
def test_equals_the_definition(crops, images):
    z = embeddings(crops, images)
    for got, expected in zip(value_and_grad(nt_xent, z, 0.1), value_and_grad(naive, z, 0.1)):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_two_crops_are_the_paper():
    z = embeddings(2, 6)
    ours, paper = value_and_grad(nt_xent, z, 0.5), value_and_grad(as_in_the_paper, z, 0.5)
    for got, expected in zip(ours, paper):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_float32_is_finite_and_right_at_a_temperature_of_one_hundredth():
    z = embeddings(2, 8)
    loss, grad = value_and_grad(nt_xent, z.float(), 0.01)
    expected, expected_grad = value_and_grad(naive, z, 0.01)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-3, atol=1e-3)


def test_autocast_and_half_precision_do_not_reach_the_loss():
    z = embeddings(2, 8, dtype=torch.bfloat16)
    expected = loss_of(SimCLR(), z.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(SimCLR(), z)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def _count_negatives(rank, world):
    return loss_of(SimCLR(), torch.ones(3, 4, 5)).exp() - 1


def test_images_of_other_ranks_are_negatives_in_multi_crop(ranks):
    """VISSL counted 9, without those of other ranks. Equal embeddings: loss = ln(1 + negatives)."""
    for negatives in ranks(2)(_count_negatives):
        torch.testing.assert_close(negatives, torch.tensor(21.0))


def _on_rank(rank, world, z):
    return value_and_grad(nt_xent, z.chunk(world, dim=1)[rank], 0.1)


@pytest.mark.parametrize(("world", "crops"), [(2, 2), (2, 3), (4, 2)])
def test_ranks_together_equal_one_process(world, crops, ranks):
    z = embeddings(crops, 8)
    losses, grads = zip(*ranks(world)(_on_rank, z))
    loss, grad = value_and_grad(nt_xent, z, 0.1)
    torch.testing.assert_close(sum(losses) / world, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(grads, 1) / world, grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "message"), [((1, 4), "2 or more views"), ((2, 1), "negatives")])
def test_says_what_it_needs(shape, message):
    with pytest.raises(ConfigError, match=message):
        loss_of(SimCLR(), embeddings(*shape))
