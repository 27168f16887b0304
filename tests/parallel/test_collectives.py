import time

import pytest
import torch
import torch.distributed as dist
from distributed import run_ranks

from vissl_lite.parallel.collectives import (
    all_gather_cat,
    all_reduce_sum,
    broadcast_object,
    gather_with_grad,
    is_distributed,
    mean_over_ranks,
    rank,
    world_size,
)


def _rows(r, n=3, d=2):
    generator = torch.Generator().manual_seed(r)
    return torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)


def test_one_process_needs_no_group():
    x = _rows(0)
    assert (is_distributed(), rank(), world_size()) == (False, 0, 1)
    for copy in (all_reduce_sum(x), gather_with_grad(x), all_gather_cat(x), mean_over_ranks(x)):
        assert torch.equal(copy, x)
    assert all_reduce_sum(x).data_ptr() != x.data_ptr()
    assert broadcast_object({"a": 1}) == {"a": 1}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck reads that of non-leaves
def test_all_reduce_sum_is_a_sound_operator():
    x = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(all_reduce_sum, (x, ""))
    assert all_reduce_sum(x.t()).is_contiguous()


def _identity(r, world):
    return is_distributed(), rank(), world_size(), broadcast_object(f"from {r}")


def test_ranks_know_themselves_and_hear_rank_0(ranks):
    assert ranks(2)(_identity) == [(True, 0, 2, "from 0"), (True, 1, 2, "from 0")]


def _all_reduce(r, world):
    x = _rows(r)
    total = all_reduce_sum(x)
    ((r + 1) * total.square().sum()).backward()
    return total.detach(), x.grad, mean_over_ranks(x.detach())


@pytest.mark.parametrize("world", [2, 4])
def test_all_reduce_sum_has_the_gradient_of_the_sum_of_all_losses(world, ranks):
    total = sum(_rows(r).detach() for r in range(world))
    grad = sum(r + 1 for r in range(world)) * 2 * total
    for got, got_grad, mean in ranks(world)(_all_reduce):
        torch.testing.assert_close(got, total, rtol=0, atol=1e-14)
        torch.testing.assert_close(got_grad, grad, rtol=0, atol=1e-13)
        torch.testing.assert_close(mean, total / world, rtol=0, atol=1e-14)


def _sub_groups(r, world):
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    x = torch.full((2,), 10.0**r, requires_grad=True)
    total = all_reduce_sum(x, groups[r % 2].group_name)
    (total * (r + 1)).sum().backward()
    return total.tolist(), x.grad.tolist()


def test_all_reduce_sum_within_a_named_group(ranks):
    results = ranks(4)(_sub_groups)
    assert [total for total, _ in results] == [[101.0] * 2, [1010.0] * 2] * 2
    assert [grad for _, grad in results] == [[4.0] * 2, [6.0] * 2] * 2


def _compiled(r, world):
    x = torch.full((2,), float(r + 1), requires_grad=True)
    compiled = torch.compile(lambda x: all_reduce_sum(x * x), backend="aot_eager", fullgraph=True)
    total = compiled(x)
    total.sum().backward()
    return total.tolist(), x.grad.tolist()


def test_all_reduce_sum_compiles_without_a_graph_break(ranks):
    assert ranks(2)(_compiled) == [([5.0] * 2, [4.0] * 2), ([5.0] * 2, [8.0] * 2)]


def _gather(r, world):
    x = _rows(r)
    everyone = gather_with_grad(x)
    weights = torch.arange(everyone.numel(), dtype=torch.float64).view_as(everyone)
    ((r + 1) * weights * everyone).sum().backward()
    return everyone.detach(), x.grad


@pytest.mark.parametrize("world", [2, 4])
def test_gather_with_grad_sums_the_gradients_of_all_ranks(world, ranks):
    everyone = torch.cat([_rows(r).detach() for r in range(world)])
    weights = torch.arange(everyone.numel(), dtype=torch.float64).view_as(everyone)
    grads = (weights * sum(range(1, world + 1))).chunk(world)
    for r, (got, grad) in enumerate(ranks(world)(_gather)):
        assert torch.equal(got, everyone)
        assert torch.equal(grad, grads[r])


def _gather_uneven(r, world, counts):
    return all_gather_cat(torch.full((counts[r], 2), r))


@pytest.mark.parametrize("counts", [(1, 0, 3), (2, 2, 2), (0, 0, 0)])
def test_all_gather_cat_of_uneven_rows(counts, ranks):
    expected = torch.cat([torch.full((n, 2), r) for r, n in enumerate(counts)])
    for got in ranks(3)(_gather_uneven, counts):
        assert torch.equal(got, expected)


def _raise_on_rank_1(r, world):
    if r == 1:
        raise ValueError("rank 1 has had enough")
    dist.barrier()


def test_run_ranks_reports_the_traceback_of_a_failing_rank():
    with pytest.raises(RuntimeError, match="rank 1 has had enough"):
        run_ranks(_raise_on_rank_1, 2)


def _sleep(r, world):
    time.sleep(60)


def test_run_ranks_kills_what_does_not_answer():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"ranks \[0, 1\]"):
        run_ranks(_sleep, 2, timeout=0.5)
    assert time.monotonic() - start < 10
