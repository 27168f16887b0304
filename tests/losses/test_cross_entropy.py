from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vissl_lite.data.batch import Batch
from vissl_lite.losses.cross_entropy import CrossEntropy

LABELS = torch.tensor([0, 3, -1, 2, -1, -1, 1, 3])
SOFT = torch.rand(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


def logits(crops=2, seed=0):
    return torch.randn(
        crops, 8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def run(heads, label, **config):
    heads = [z.clone().requires_grad_() for z in heads]
    batch = Batch([], torch.arange(len(label)), label_B=label)
    result = CrossEntropy(**config)(SimpleNamespace(logits=heads), batch)
    result["loss"].backward()
    return {k: v.detach() for k, v in result.items()}, torch.stack([z.grad for z in heads])


def naive(z_VBK, label, smoothing):
    """Sums of -q log p over crops and labelled images."""
    z_VBK = z_VBK.clone().requires_grad_()
    terms, right = [], []
    for z_BK in z_VBK:
        for z_K, y in zip(z_BK, label):
            if y.ndim == 0 and y < 0:
                continue
            q = F.one_hot(y, 4).double() if y.ndim == 0 else y
            q = (1 - smoothing) * q + smoothing / 4
            terms.append(-(q * (z_K - torch.log(torch.exp(z_K).sum()))).sum())
            right.append(float(z_K.argmax() == q.argmax()))
    loss = sum(terms) / len(terms)
    loss.backward()
    return loss.detach(), sum(right) / len(right), z_VBK.grad


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("label", [LABELS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("crops", [1, 3])
def test_equals_the_definition(crops, label, smoothing):
    result, (grad,) = run([logits(crops)], label, label_smoothing=smoothing)
    loss, top1, expected_grad = naive(logits(crops), label, smoothing)
    torch.testing.assert_close(result["loss"], loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)
    assert result["top1"].item() == pytest.approx(top1, abs=1e-12)


def test_several_scorers_are_averaged():
    both, _ = run([logits(), logits(seed=1)], LABELS)
    first, second = run([logits()], LABELS)[0], run([logits(seed=1)], LABELS)[0]
    for name in ("loss", "top1"):
        torch.testing.assert_close(both[name], (first[name] + second[name]) / 2)


def test_no_label_at_all_is_nothing():
    result, grad = run([logits()], torch.full((8,), -1))
    assert result["loss"] == 0
    assert torch.equal(grad, torch.zeros_like(grad))


def test_half_precision_is_widened():
    z = logits().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, _ = run([z], LABELS)
    assert result["loss"].dtype == torch.float32
    expected = naive(z.double(), LABELS, 0)[0]
    torch.testing.assert_close(result["loss"].double(), expected, rtol=1e-6, atol=0)


def _on_rank(rank, world, z, label):
    return run([z.chunk(world, 1)[rank]], label.chunk(world)[rank])


@pytest.mark.parametrize("label", [LABELS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("world", [2, 4])  # of 4 ranks, the third has no label at all
def test_ranks_with_different_numbers_of_labels_equal_one_process(world, label, ranks):
    results, grads = zip(*ranks(world)(_on_rank, logits(), label))
    whole, grad = run([logits()], label)
    torch.testing.assert_close(torch.cat(grads, 2) / world, grad, rtol=0, atol=1e-12)
    for name, value in whole.items():
        mean = sum(result[name] for result in results) / world
        torch.testing.assert_close(mean, value, rtol=0, atol=1e-12)
