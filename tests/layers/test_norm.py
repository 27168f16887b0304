import copy
from functools import partial
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from vissl_lite.errors import ConfigError
from vissl_lite.layers.norm import (
    BatchNorm1d,
    BatchNorm2d,
    convert_batch_norm,
    convert_sync_batchnorm,
)

STEPS, CHANNELS = 3, 5


def _data(step, images=8, dtype=torch.float64, shape=(4, 3)):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(images, CHANNELS, *shape, generator=generator, dtype=torch.float64)
    return (3 * x + 2 * torch.arange(CHANNELS).view(1, -1, *[1] * len(shape))).to(dtype)


def _norm(cls, dtype=torch.float64):
    norm = cls(CHANNELS, momentum=0.3).to(dtype)
    generator = torch.Generator().manual_seed(100)
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    return norm


def _train(norm, batches, call=None):
    """Outputs, input gradients, parameter gradients and state after one pass over `batches`."""
    outputs, grads = [], []
    for x in batches:
        x = x.clone().requires_grad_()
        y = (norm if call is None else call)(x)
        (y**3).mean().backward()
        outputs.append(y.detach())
        grads.append(x.grad)
    parameters = [] if norm.weight is None else [norm.weight.grad, norm.bias.grad]
    return outputs, grads, parameters, copy.deepcopy(norm.state_dict())


@pytest.mark.parametrize(
    ("ours", "theirs"), [(BatchNorm1d, nn.BatchNorm1d), (BatchNorm2d, nn.BatchNorm2d)]
)
def test_one_process_is_exactly_torch(ours, theirs):
    shape = () if ours is BatchNorm1d else (4, 3)
    ours, theirs = _norm(ours), _norm(theirs)
    batches = [_data(i, shape=shape) for i in range(STEPS)]
    torch.testing.assert_close(_train(ours, batches), _train(theirs, batches), rtol=0, atol=0)
    assert ours.state_dict()["num_batches_tracked"] == STEPS
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.eval()(batches[0]), theirs.eval()(batches[0]))


def test_checkpointing_changes_nothing():
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(CHANNELS, 7, 3), BatchNorm2d(7), nn.ReLU(True)).double()

    plain, recomputed = net(), net()
    for step in range(STEPS):
        (plain(_data(step)) ** 2).sum().backward()
        (checkpoint(recomputed, _data(step), use_reentrant=False) ** 2).sum().backward()
    torch.testing.assert_close(recomputed.state_dict(), plain.state_dict(), rtol=0, atol=0)
    for p, q in zip(recomputed.parameters(), plain.parameters()):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
def test_bf16_input_keeps_fp32_statistics(sync, parameters):
    norm, reference = _norm(BatchNorm2d, torch.float32), _norm(nn.BatchNorm2d, torch.float32)
    norm.sync = sync
    for name in ("weight", "bias"):  # what FSDP2's mixed precision does: buffers stay fp32
        rounded = getattr(reference, name).detach().to(parameters)
        setattr(norm, name, nn.Parameter(rounded))
        setattr(reference, name, nn.Parameter(rounded.float()))
    x = _data(0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert (y.dtype, norm.running_var.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y, reference(x.float()).bfloat16(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(norm.running_mean, reference.running_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(norm.running_var, reference.running_var, rtol=1e-6, atol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_alone_is_torch(affine):
    ours, theirs = (cls(CHANNELS, affine=affine).double() for cls in (BatchNorm2d, nn.BatchNorm2d))
    ours.sync = True
    batches = [_data(i) for i in range(STEPS)]
    torch.testing.assert_close(
        _train(ours, batches), _train(theirs, batches), rtol=1e-12, atol=1e-12
    )


def _rank_trains(rank, world, dtype, shape, group_size, mode):
    norm = convert_sync_batchnorm(_norm(BatchNorm2d if shape else BatchNorm1d, dtype), group_size)
    batches = [_data(i, 8, dtype, shape).chunk(world)[rank] for i in range(STEPS)]
    call = {
        "plain": norm,
        "checkpointed": lambda x: checkpoint(norm, x, use_reentrant=False),
        "compiled": torch.compile(norm, backend="aot_eager", fullgraph=True, dynamic=False),
    }[mode]
    outputs, grads, parameters, state = _train(norm, batches, call)
    for grad in parameters:
        dist.all_reduce(grad)
    return outputs, [g / world for g in grads], [g / world for g in parameters], state


def _one_process(dtype, shape):
    theirs = _norm(nn.BatchNorm2d if shape else nn.BatchNorm1d, dtype)
    return _train(theirs, [_data(i, 8, dtype, shape) for i in range(STEPS)])


CASES = [
    (torch.float64, (4, 3), "plain", 1e-12),
    (torch.float64, (), "plain", 1e-12),
    (torch.float64, (4, 3), "checkpointed", 1e-12),
    (torch.float64, (4, 3), "compiled", 1e-12),
    (torch.float32, (4, 3), "plain", 2e-6),
]


@pytest.mark.parametrize(("dtype", "shape", "mode", "tolerance"), CASES)
def test_two_ranks_are_one_process_with_the_whole_batch(dtype, shape, mode, tolerance, ranks):
    answers = ranks(2)(_rank_trains, dtype, shape, None, mode)
    outputs, grads, parameters, state = _one_process(dtype, shape)
    close = {"rtol": tolerance, "atol": tolerance}
    for step in range(STEPS):
        for mine, whole in ((0, outputs), (1, grads)):
            together = torch.cat([answer[mine][step] for answer in answers])
            torch.testing.assert_close(together, whole[step], **close)
    for answer in answers:
        torch.testing.assert_close(answer[2], parameters, **close)
        torch.testing.assert_close(answer[3], state, **close)


def test_groups_of_two_ranks_share_statistics(ranks):
    answers = ranks(4)(_rank_trains, torch.float64, (4, 3), 2, "plain")
    for group in (0, 1):
        whole = _data(0).chunk(2)[group]
        norm = _norm(nn.BatchNorm2d)
        expected = F.batch_norm(whole, None, None, norm.weight, norm.bias, training=True)
        together = torch.cat([answers[2 * group + i][0][0] for i in (0, 1)])
        torch.testing.assert_close(together, expected.detach(), rtol=1e-12, atol=1e-12)


def _reductions(rank, world, mode):
    net = convert_sync_batchnorm(
        nn.Sequential(_norm(BatchNorm2d), nn.ReLU(True), _norm(BatchNorm2d))
    )
    x = _data(rank).requires_grad_()
    keep = partial(
        create_selective_checkpoint_contexts, [torch.ops.vissl_lite.all_reduce_sum.default]
    )
    forward = {
        "none": net,
        "all": lambda x: checkpoint(net, x, use_reentrant=False),
        "selective": lambda x: checkpoint(net, x, use_reentrant=False, context_fn=keep),
    }[mode]
    with patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as all_reduce:
        (forward(x) ** 3).mean().backward()
    return all_reduce.call_count, x.grad


def test_selective_checkpointing_need_not_reduce_again(ranks):
    none, whole, selective = (ranks(2)(_reductions, m)[0] for m in ("none", "all", "selective"))
    assert (none[0], whole[0], selective[0]) == (4, 6, 4)
    assert torch.equal(none[1], whole[1])
    assert torch.equal(none[1], selective[1])


def _bad_groups(rank, world):
    refused = []
    for size in (3, 0, -2):
        with pytest.raises(ConfigError) as error:
            convert_sync_batchnorm(BatchNorm2d(3), size)
        refused.append(str(error.value))
    return refused


def test_group_size_must_divide(ranks):
    start = "parallel.sync_bn: 2 processes do not split into groups of"
    sentences = [f"{start} {size}; choose a divisor, or all" for size in (3, 0, -2)]
    assert ranks(2)(_bad_groups) == [sentences] * 2


def test_convert_keeps_weights_and_leaves_other_norms():
    class Theirs(nn.BatchNorm2d):
        pass

    net = nn.Sequential(_norm(nn.BatchNorm2d), nn.Sequential(_norm(nn.BatchNorm1d)), Theirs(3))
    weight, state = net[0].weight, copy.deepcopy(net.state_dict())
    assert convert_batch_norm(net) is net
    kinds = [type(net[0]), type(net[1][0]), type(net[2])]
    assert kinds == [BatchNorm2d, BatchNorm1d, Theirs]
    assert net[0].weight is weight
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
