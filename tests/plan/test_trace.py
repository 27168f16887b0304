"""Live bytes and FLOP of small networks, counted by hand."""

import pytest
import torch
from plan.small_plans import regnet_swav
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from vissl_lite.engine.flops import training_flops
from vissl_lite.errors import ConfigError
from vissl_lite.plan.fakes import fake_views
from vissl_lite.plan.subject import Subject
from vissl_lite.plan.trace import Tracker


def tracked(function, *shapes: tuple[int, ...]) -> Tracker:
    """`function` of fake fp32 tensors that need gradients, and its backward pass."""
    with FakeTensorMode():
        tensors = [torch.empty(shape, requires_grad=True) for shape in shapes]
        tracker = Tracker(tensors)
        with tracker:
            tracker.event("start")
            out = function(*tensors)
            tracker.event("middle")
            out.sum().backward()
            tracker.event("end")
            del out
    return tracker


def test_what_a_chain_keeps():
    """exp keeps its result, sin its input: the result of exp. At the end: the gradient of x."""
    tracker = tracked(lambda x: x.exp().sin(), (100,))
    start, middle, end = tracker.trace.events
    assert start.live == {}
    assert sum(middle.live.values()) == 2 * 400  # exp(x), and the result that we hold
    assert sum(end.live.values()) == 400 + 400  # the gradient, the result
    assert sum(middle.peak.values()) > sum(middle.live.values())


@pytest.mark.parametrize("groups", [1, 4])
def test_flops_of_a_convolution(groups):
    """Forward, gradient of the input and of the weight are equally much, groups or not."""
    tracker = tracked(
        lambda x, w: F.conv2d(x, w, padding=1, groups=groups),
        (2, 8, 10, 10),
        (16, 8 // groups, 3, 3),
    )
    forward = 2 * (2 * 16 * 10 * 10) * (8 // groups * 9)
    assert tracker.trace.flops == 3 * forward


def test_views_move_nothing():
    with FakeTensorMode():
        x = torch.empty(100)
        tracker = Tracker([x])
        with tracker:
            y = x.view(4, 25).t()
            assert tracker.trace.moved == 0
            y.add_(1)
    assert tracker.trace.moved == 2 * 400  # read and written


def test_a_freed_tensor_does_not_count():
    tracker = tracked(lambda x: x * 2 + 1, (100,))
    assert sum(tracker.trace.events[1].live.values()) == 400  # x * 2 is gone


@pytest.fixture(scope="module")
def traces():
    subject = Subject(regnet_swav(), "bf16", 1, fresh=True)
    modes = ("none", "selective", "block")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vissl_lite.plan.subject.cached", lambda question, answer, fresh: answer())
        return {mode: subject.trace(mode, 8, gathered=True) for mode in modes}


def forward_end(trace) -> int:
    return next(sum(e.live.values()) for e in trace.events if e.kind == "end_forward")


def test_checkpointing_keeps_less_and_computes_more(traces):
    none, selective, block = (forward_end(traces[m]) for m in ("none", "selective", "block"))
    assert none > 1.5 * selective > 1.5 * 1.5 * block
    assert traces["none"].flops == traces["selective"].flops < traces["block"].flops
    assert traces["none"].moved < traces["selective"].moved == traces["block"].moved


def test_flops_equal_three_forward_passes():
    """The first convolution needs no gradient of the images."""
    subject = Subject(regnet_swav(), "bf16", 1)
    model, _ = subject.build("none")
    found = subject.trace("none", 8, gathered=True).flops / 8
    stem = model.trunk.stem[0].weight.numel()
    unneeded = 2 * stem * sum(v * (s // 2) ** 2 for v, s in subject.sizes)
    expected = training_flops(model, fake_views(subject.sizes, 1, "meta"))
    assert found == pytest.approx(expected - unneeded, rel=1e-3)


def test_events_nest(traces):
    """Each group once: before, after its forward, before, after its backward."""
    for trace in traces.values():
        kinds = [e.kind for e in trace.events if e.group >= 0]
        assert kinds.count("pre_forward") == kinds.count("post_backward") == 4  # 3 blocks, head
        backward = [e.group for e in trace.events if e.kind == "pre_backward"]
        assert backward == [3, 2, 1, 0]


def test_activations_equal_what_autograd_saves():
    """A real forward pass holds the bytes that the fake one says, apart from parameters."""
    subject = Subject(regnet_swav(), "fp32", 1)
    trace = subject.trace("none", 8, gathered=False)
    model, _ = subject.build("none")
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    known = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def note(t):
        storage = t.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        outputs = model(fake_views(subject.sizes, 8, "cpu"))
    kept = (outputs.features, outputs.embedding, *outputs.logits)
    saved |= {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
    assert forward_end(trace) == pytest.approx(sum(saved.values()), rel=0.01)


LINEAR = [{"name": "linear", "out_dim": 20}]


@pytest.mark.parametrize(
    ("loss", "heads"),
    [
        ("simclr", []),
        ("cross_entropy", LINEAR),
        ("hashtag_softmax", LINEAR),
        ({"name": "binary_cross_entropy", "target": "tags"}, LINEAR),
        ({"name": "swav", "queue_length": 64}, None),
    ],
)
def test_every_loss_can_be_traced(loss, heads):
    config = regnet_swav()
    config.loss = {"name": loss} if isinstance(loss, str) else loss
    config.heads = config.heads if heads is None else heads
    trace = Subject(config, "bf16", 4).trace("block", 8, gathered=True)
    assert trace.flops > 0
    assert forward_end(trace) > 0


def test_a_loss_that_looks_at_values(monkeypatch):
    def forward(self, outputs, batch):
        return outputs.embedding.sum() * outputs.embedding.mean().item()

    monkeypatch.setattr("vissl_lite.losses.swav.SwAV.forward", forward)
    with pytest.raises(ConfigError, match=r"set parallel\.strategy"):
        Subject(regnet_swav(), "bf16", 1, fresh=True).trace("none", 8, gathered=True)
