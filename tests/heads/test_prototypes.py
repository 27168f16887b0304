import pytest
import torch
from torch.nn import functional as F

from vissl_lite.heads.prototypes import Prototypes


def norms(head):
    return torch.cat([weight.norm(dim=1) for weight in head.parameters()])


def test_scores_are_cosines_of_every_set():
    x, head = torch.randn(5, 4, dtype=torch.float64), Prototypes([3, 2], in_dim=4).double()
    assert head.out_dim == 5
    assert head.scorer
    for scores, weight in zip(head(x), head.parameters()):
        expected = F.cosine_similarity(x[:, None], weight[None], dim=-1)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-7)  # rows were made in fp32


def test_rows_have_length_one_at_the_start_and_after_every_step():
    head = Prototypes(6, in_dim=4)
    torch.testing.assert_close(norms(head), torch.ones(6))
    optimizer = torch.optim.SGD(head.parameters(), lr=10.0)
    head(torch.randn(5, 4))[0].square().sum().backward()
    optimizer.step()
    assert (norms(head) - 1).abs().max() > 0.1
    before = F.normalize(head.sets[0].weight.detach(), dim=1)
    head.after_step()
    torch.testing.assert_close(head.sets[0].weight.detach(), before)
    torch.testing.assert_close(norms(head), torch.ones(6))


def test_scores_keep_leading_axes_and_do_not_normalise():
    head, z_AQD = Prototypes(3, in_dim=4), torch.randn(2, 5, 4)
    (scores,) = head.scores(z_AQD)
    torch.testing.assert_close(scores, z_AQD @ head.sets[0].weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stays_in_float32_under_autocast(dtype):
    head, x = Prototypes(3, in_dim=64), torch.randn(5, 64).to(dtype)
    (expected,) = head.double()(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (scores,) = head.float()(x)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=1e-6)
