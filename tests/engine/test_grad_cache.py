"""GradCache against all chunks in one graph; in float64, unless a test says otherwise."""

import copy
from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from vissl_lite.data.batch import Batch, Tags
from vissl_lite.engine import grad_cache
from vissl_lite.heads.linear import Linear
from vissl_lite.heads.mlp import MLP
from vissl_lite.heads.prototypes import Prototypes
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.layers.unit import Unit
from vissl_lite.losses.cross_entropy import CrossEntropy
from vissl_lite.losses.hashtag_softmax import HashtagSoftmax
from vissl_lite.losses.simclr import SimCLR
from vissl_lite.losses.swav import SwAV
from vissl_lite.model import SSLModel
from vissl_lite.trunks.vit import ViT

IMAGES = 12
TWO, MULTI_CROP = [(2, 8)], [(2, 8), (3, 6)]  # (crops, pixels) per view group
GroupNorm = partial(nn.GroupNorm, 2)


class Block(Unit):
    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), norm(8)

    def block(self, x):
        return F.relu(self.norm(self.conv(x)))


class Trunk(nn.Module):
    def __init__(self, norm, dropout):
        super().__init__()
        self.widths = {"out": 8}
        self.block, self.dropout = Block(norm), nn.Dropout2d(dropout)

    def forward(self, x, layers):
        return {"out": self.dropout(self.block(x))}


def model_of(*scorer, norm=GroupNorm, dropout=0.0, trunk=None, dtype=torch.float64):
    torch.manual_seed(0)
    trunk = trunk or Trunk(norm, dropout)
    heads = [MLP((16,), 6, norm="none", in_dim=list(trunk.widths.values())[-1]), *scorer]
    return SSLModel(trunk, heads, mean=[0.5] * 3, std=[0.25] * 3).to(dtype)


def batch_of(groups=TWO, images=IMAGES, step=0):
    generator = torch.Generator().manual_seed(step)
    shapes = [(crops, images, pixels, pixels, 3) for crops, pixels in groups]
    return Batch(
        [torch.randint(256, shape, generator=generator, dtype=torch.uint8) for shape in shapes],
        torch.arange(images),
        torch.arange(images) % 6 - 1,  # -1: without a label
        Tags.pack([range(image % 4) for image in range(images)]),
        step,
    )


def losses_of(loss, outputs, batch):
    losses = loss(outputs, batch)
    return losses if isinstance(losses, dict) else {"loss": losses}


def joined(parts):
    """The outputs of all chunks, with their graphs."""
    whole = copy.copy(parts[0])
    whole.features = torch.cat([part.features for part in parts], 1)
    whole.embedding = torch.cat([part.embedding for part in parts], 1)
    whole.logits = [torch.cat(z, 1) for z in zip(*(part.logits for part in parts))]
    if whole.teacher is not None:
        whole.teacher = joined([part.teacher for part in parts])
    return whole


def in_one_graph(model, loss, batch, chunk=IMAGES, autocast=nullcontext):
    """The definition: a forward pass per chunk, then one backward pass through all of them."""
    parts = []
    for start in range(0, len(batch), chunk):
        with autocast():
            parts.append(model(batch.slice(start, min(start + chunk, len(batch))).views))
    losses = losses_of(loss, joined(parts), batch)
    losses["loss"].backward()
    return losses


def grads(*modules):
    named = [item for module in modules for item in module.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


def assert_close(got, expected, relative):
    """Largest difference over largest value, tensor by tensor."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        error = (got[name].double() - value.double()).abs().max()
        assert error <= relative * value.double().abs().max(), f"{name}: {error:.2e}"


def assert_equals_one_graph(model, loss, batch, chunk, again, relative=1e-10, **more):
    """Losses, metrics, gradients, buffers of model and loss; `again` is the chunk of the graph."""
    reference, reference_loss = copy.deepcopy(model), copy.deepcopy(loss)
    torch.manual_seed(1)
    expected = in_one_graph(reference, reference_loss, batch, again, **more)
    torch.manual_seed(1)
    losses, outputs = grad_cache.backward(model, model, loss, batch, chunk, **more)
    assert_close(losses, expected, 1e-12 if relative <= 1e-10 else relative)
    assert_close(grads(model, loss), grads(reference, reference_loss), relative)
    assert_close(dict(model.named_buffers()), dict(reference.named_buffers()), 1e-12)
    assert_close(dict(loss.named_buffers()), dict(reference_loss.named_buffers()), relative)
    return outputs


swav = partial(SwAV, embed_dim=6, steps_per_epoch=1)
LOSSES = {
    "simclr": (SimCLR, lambda: []),
    "swav": (swav, lambda: [Prototypes([10, 7], in_dim=6)]),
    "swav with a queue": (partial(swav, queue_length=24), lambda: [Prototypes(10, in_dim=6)]),
    "cross_entropy": (CrossEntropy, lambda: [Linear(6, in_dim=6)]),
    "hashtag_softmax": (HashtagSoftmax, lambda: [Linear(6, in_dim=6)]),
}


@pytest.mark.parametrize("chunk", [4, 5, 100])
@pytest.mark.parametrize("groups", [TWO, MULTI_CROP], ids=["two crops", "multi-crop"])
@pytest.mark.parametrize("name", LOSSES)
def test_without_batch_norm_all_equals_the_whole_batch(name, groups, chunk):
    """For four steps, in which the queue fills and is used, once per step."""
    loss, scorer = LOSSES[name]
    model, loss = model_of(*scorer()), loss().double()
    for step in range(4):
        model.zero_grad()
        assert_equals_one_graph(model, loss, batch_of(groups, step=step), chunk, IMAGES)


def test_outputs_are_those_of_the_whole_batch_without_a_graph():
    model, batch = model_of(Prototypes([10, 7], in_dim=6)), batch_of(MULTI_CROP)
    _, outputs = grad_cache.backward(model, model, swav(), batch, 5)
    whole = model(batch.views)
    assert outputs.model is model
    for got, expected in zip(
        [outputs.features, outputs.embedding, *outputs.logits],
        [whole.features, whole.embedding, *whole.logits],
        strict=True,
    ):
        torch.testing.assert_close(got.detach(), expected.detach(), rtol=0, atol=1e-12)
        assert got.is_leaf


@pytest.mark.parametrize("chunk", [4, 5])
def test_batch_norm_and_dropout_act_chunk_by_chunk(chunk):
    """Both passes alike: SimCLR of the chunks in one graph. Statistics move once per chunk."""
    model = model_of(norm=BatchNorm2d, dropout=0.3)
    assert_equals_one_graph(model, SimCLR(), batch_of(MULTI_CROP), chunk, chunk)
    own, resolutions = model.trunk.block.norm, 2
    assert own.num_batches_tracked == resolutions * 3


def test_drop_path_acts_alike_in_both_passes():
    trunk = ViT("tiny", patch_size=4, image_size=8, drop_path=0.5)
    assert_equals_one_graph(model_of(trunk=trunk), SimCLR(), batch_of(images=6), 4, 4)


def test_the_random_state_moves_as_in_one_forward_pass():
    """Also when the loss draws."""
    model, batch, after = model_of(dropout=0.3), batch_of(), []
    for step in (in_one_graph, partial(grad_cache.backward, model)):
        torch.manual_seed(1)
        step(model, lambda outputs, _: outputs.embedding.mean() * torch.rand(()), batch, 4)
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_checkpointing_moves_the_statistics_once():
    model = model_of(norm=BatchNorm2d)
    model.trunk.block.checkpointing = "block"
    assert_equals_one_graph(model, SimCLR(), batch_of(), 4, 4)
    assert model.trunk.block.norm.num_batches_tracked == 3


def test_a_per_image_loss_with_batch_norm_equals_gradient_accumulation():
    cached = model_of(Linear(6, in_dim=6), norm=BatchNorm2d, dropout=0.3)
    accumulated, batch = copy.deepcopy(cached), batch_of()
    batch.label_B = batch.label_B.clamp(min=0)
    torch.manual_seed(1)
    for start in range(0, IMAGES, 4):
        micro = batch.slice(start, start + 4)
        (CrossEntropy()(accumulated(micro.views), micro)["loss"] / 3).backward()
    torch.manual_seed(1)
    grad_cache.backward(cached, cached, CrossEntropy(), batch, 4)
    assert_close(grads(cached), grads(accumulated), 1e-10)
    assert_close(dict(cached.named_buffers()), dict(accumulated.named_buffers()), 1e-12)


class ToTeacher(nn.Module):
    """Mean squared distance to the other crop as the teacher sees it."""

    def forward(self, outputs, batch):
        return (outputs.embedding - outputs.teacher.embedding.flip(0)).square().mean()


def test_the_teacher_runs_once_per_chunk_and_keeps_its_statistics():
    model = model_of(norm=BatchNorm2d)
    model.add_teacher()
    teacher, calls = model.teacher, []
    teacher.trunk.block.conv.weight.neg_()
    assert_equals_one_graph(model, ToTeacher(), batch_of(), 4, 4)
    teacher.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    _, outputs = grad_cache.backward(model, model, ToTeacher(), batch_of(), 4)
    assert calls == [False] * 3
    assert model.teacher is teacher
    assert outputs.teacher.embedding.shape == outputs.embedding.shape
    assert not outputs.teacher.embedding.requires_grad


class Direct(nn.Module):
    """Uses the scorer's parameters itself, and has one of its own."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.2))

    def forward(self, outputs, batch):
        penalty = outputs.model.scorer.weight.square().sum()
        contrast = SimCLR()(outputs, batch) / self.temperature
        return contrast + penalty + outputs.logits[0].square().mean()


def test_parameters_that_the_loss_uses_itself_get_their_gradient_once():
    model = model_of(Linear(6, in_dim=6))
    assert_equals_one_graph(model, Direct().double(), batch_of(), 5, IMAGES)


def test_a_frozen_trunk_stays_without_gradient():
    model = model_of(norm=BatchNorm2d)
    model.freeze_trunk()
    assert_equals_one_graph(model, SimCLR(), batch_of(), 5, IMAGES)
    assert {name.split(".")[0] for name in grads(model)} == {"heads"}


def test_the_loss_is_scaled_once():
    plain, scaled, batch = model_of(), model_of(), batch_of()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    losses, _ = grad_cache.backward(plain, plain, SimCLR(), batch, 5)
    same, _ = grad_cache.backward(scaled, scaled, SimCLR(), batch, 5, scale=scaler.scale)
    assert same["loss"] == losses["loss"]
    assert_close(grads(scaled), {k: 1024 * g for k, g in grads(plain).items()}, 1e-12)


def test_autocast_bf16_equals_one_graph_under_autocast():
    """Weights are cast chunk by chunk in both, and gradients summed over chunks in fp32."""
    model = model_of(Prototypes(10, in_dim=6), dtype=torch.float32)
    bf16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    outputs = assert_equals_one_graph(model, swav(), batch_of(), 5, 5, 1e-6, autocast=bf16)
    assert outputs.embedding.dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fp16_on_a_gpu_equals_one_graph():
    """With dropout, whose masks come from the generator of the GPU."""
    model = model_of(dropout=0.3, dtype=torch.float32).cuda()
    fp16 = partial(torch.autocast, "cuda", dtype=torch.float16)
    batch = batch_of().to(torch.device("cuda"))
    assert_equals_one_graph(model, SimCLR(), batch, 5, 5, 1e-3, autocast=fp16)


# ---------------------------------------------------------------------- several processes

RANKED = {
    "simclr": LOSSES["simclr"],
    "swav": LOSSES["swav"],
    "direct": (Direct, lambda: [Linear(6, in_dim=6)]),
    "teacher": (ToTeacher, lambda: []),
    "sharded classes": (CrossEntropy, lambda: [Linear(6, shard_classes=True, in_dim=6)]),
}


class Reductions(TorchDispatchMode):
    """Counts the collectives of DDP and FSDP that reduce gradients."""

    count = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.count += op.name() in ("c10d::allreduce_", "c10d::_reduce_scatter_base_")
        return op(*args, **(kwargs or {}))


def wrapped(model, strategy):
    """The model as the loop calls it, and the context in which it does not communicate."""
    whole = []
    if getattr(model.scorer, "shard_classes", False):
        model.scorer.shard_(init_device_mesh("cpu", (2,)))
        whole = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    if strategy == "ddp":
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, whole)
        ddp = DistributedDataParallel(model)
        return ddp, ddp.no_sync
    fully_shard(model.trunk.block)
    fully_shard(model, ignored_params={model.get_parameter(name) for name in whole})

    @contextmanager
    def accumulating():
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)

    return model, accumulating


def on_ranks(rank, world, strategy, name, dtype):
    """The gradients for the images of this rank, and how often gradients were reduced."""
    torch.manual_seed(0)
    loss, scorer = RANKED[name]
    model, loss, batch = model_of(*scorer(), dtype=dtype), loss().to(dtype), batch_of()
    if name == "teacher":
        model.add_teacher()
        model.teacher.trunk.block.conv.weight.neg_()
    if strategy == "one process":
        in_one_graph(model, loss, batch)
        return grads(model), 0
    own = batch.slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    forward, accumulating = wrapped(model, strategy)
    with Reductions() as reductions:
        grad_cache.backward(model, forward, loss, own, 4, accumulating=accumulating)
    found = grads(model).items()
    whole = {k: g.full_tensor() if isinstance(g, DTensor) else g for k, g in found}
    return whole, reductions.count


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
@pytest.mark.parametrize("strategy", ["ddp", "fully_shard"])
@pytest.mark.parametrize("name", RANKED)
def test_processes_equal_one_process_on_the_whole_batch(strategy, name, dtype, relative, ranks):
    """Each of the two has 6 images, in chunks of 4 and 2."""
    expected, _ = on_ranks(0, 1, "one process", name, dtype)
    for got, _ in ranks(2)(on_ranks, strategy, name, dtype):
        assert_close(got, expected, relative)


@pytest.mark.parametrize(("strategy", "once"), [("ddp", 1), ("fully_shard", 2)])
def test_gradients_are_reduced_in_the_last_chunk_only(strategy, once, ranks):
    """One bucket of DDP; the block and the root of FSDP."""
    for _, reductions in ranks(2)(on_ranks, strategy, "teacher", torch.float32):
        assert reductions == once
