import pytest
import torch
from distributed import run_ranks
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from training import records, small, trained

from vissl_lite import ConfigError
from vissl_lite.engine.trainer import Trainer
from vissl_lite.hooks.probe import OnlineProbe
from vissl_lite.sources.digits import load_digits


def batches(count=5, rows=12, dim=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        label = torch.randint(-1, classes, (rows,), generator=generator)
        yield 3 + 2 * torch.randn(rows, dim, generator=generator, dtype=torch.float64), label


def naive(streams, dim=4, classes=3, lr=0.1, momentum=0.9):
    """By autograd, nn.Linear and torch.optim.SGD; gradients averaged over the streams."""
    linear = nn.Linear(dim, classes, dtype=torch.float64)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=lr, momentum=momentum)
    right = seen = 0
    for step in zip(*streams):
        optimizer.zero_grad()
        for x, label in step:
            z = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
            logits = linear(z)
            right += sum(r.argmax() == t for r, t in zip(logits, label) if t >= 0)
            seen += (label >= 0).sum()
            F.cross_entropy(logits[label >= 0], label[label >= 0]).div(len(step)).backward()
        optimizer.step()
    return torch.cat([linear.weight.T, linear.bias[None]]).detach(), right, seen


def test_equals_autograd_and_torch_sgd():
    probe = OnlineProbe(4, 3, lr=0.1, momentum=0.9).double()
    for x, label in batches():
        probe.learn(x, label)
    weight, right, seen = naive([batches()])
    torch.testing.assert_close(probe.weight, weight, rtol=1e-10, atol=1e-12)
    assert probe.count.tolist() == [right, seen]


def learn_on_rank(rank, world):
    probe = OnlineProbe(4, 3, lr=0.1, momentum=0.9).double()
    for x, label in batches(seed=rank):
        probe.learn(x, label)
    return probe.weight


def test_processes_share_one_classifier():
    expected, _, _ = naive([batches(seed=0), batches(seed=1)])
    for weight in run_ranks(learn_on_rank, 2):
        torch.testing.assert_close(weight, expected, rtol=1e-10, atol=1e-12)


def test_a_batch_without_labels_changes_nothing():
    probe = OnlineProbe(4, 3, lr=0.1, momentum=0.0)
    probe.learn(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    weight, count = probe.weight.clone(), probe.count.clone()
    probe.learn(torch.randn(6, 4), torch.full((6,), -1))
    assert torch.equal(probe.weight, weight)
    assert torch.equal(probe.count, count)


def test_learns_real_digits():
    images, labels = load_digits("train", 0)
    x, label = torch.from_numpy(images).flatten(1).float(), torch.from_numpy(labels)
    probe = OnlineProbe(64, 10, lr=0.03, momentum=0.9)
    for _ in range(5):
        probe.count.zero_()
        for rows in torch.randperm(len(x)).split(64):
            probe.learn(x[rows], label[rows])
    right, seen = probe.count.tolist()
    assert seen == 1438
    assert right / seen > 0.93


def test_the_record_counts_since_the_last_one(tmp_path):
    overrides = ("hooks=[probe]", "++train.log_every=3", "++train.max_steps=6")
    trainer = trained(small(*overrides), tmp_path)
    logged = [record["probe_top1"] for record in records(tmp_path)]
    images = 3 * 16 * 2  # steps, images, crops
    assert len(logged) == 2
    assert all((value * images) == pytest.approx(round(value * images)) for value in logged)
    assert trainer.hooks["probe"].probe.count.tolist() == [0, 0]
    assert trainer.results["probe_top1"] == logged[-1]


def test_only_the_first_view_group_counts(tmp_path):
    local = "{size: 8, count: 3, transforms: [random_resized_crop]}"
    views = f"++data.views=[{{size: 16, count: 2, transforms: [random_resized_crop]}}, {local}]"
    trainer = Trainer(small("hooks=[probe]", views), tmp_path)
    trainer.hooks["probe"].on_start(trainer)
    trainer.train_step(trainer.parts.loader(0).batch_of(0))
    assert trainer.hooks["probe"].probe.count[1] == 2 * 16


def test_training_is_not_changed(tmp_path):
    for name, hooks in [("without", "[]"), ("with", "[probe]")]:
        trained(small(f"hooks={hooks}", "++train.max_steps=4"), tmp_path / name)
    losses = [[r["loss"] for r in records(tmp_path / name)] for name in ("without", "with")]
    assert losses[0] == losses[1]


class HostReads(TorchDispatchMode):
    """Notes operations that make the host wait for the device."""

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in func.name() for name in ("_local_scalar_dense", "nonzero", "equal")):
            self.reads.append(func.name())
        return func(*args, **(kwargs or {}))


def test_the_host_never_waits_in_a_step(tmp_path):
    trainer = Trainer(small("hooks=[probe]"), tmp_path)
    hook = trainer.hooks["probe"]
    hook.on_start(trainer)
    batch = trainer.parts.loader(0).batch_of(0)
    with HostReads() as in_a_step:
        trainer.train_step(batch)
    assert in_a_step.reads == []
    with HostReads() as afterwards:
        assert hook.probe.count[1].item() == 32
    assert afterwards.reads != []  # the counter does count


def test_a_resumed_run_goes_on_with_the_same_classifier(tmp_path):
    hooks = ("hooks=[probe,checkpoint]", "++train.epochs=1")
    whole = trained(small(*hooks, "++train.max_steps=7"), tmp_path / "whole")
    trained(small(*hooks, "++train.max_steps=4"), tmp_path / "cut")
    resumed = trained(small(*hooks, "++train.max_steps=7", "++resume=true"), tmp_path / "cut")
    state = resumed.hooks["probe"].state_dict()
    for name, value in whole.hooks["probe"].state_dict().items():
        assert torch.equal(state[name], value)
    values = [[r["probe_top1"] for r in records(tmp_path / run)] for run in ("whole", "cut")]
    assert values[0] == values[1]


def test_a_source_without_labels_is_an_error(tmp_path):
    config = small("hooks=[probe]", "data/source=digits_tags", "++loss.name=simclr")
    with pytest.raises(
        ConfigError, match=r"hooks\.probe: data\.source 'digits_tags' has no labels"
    ):
        Trainer(config, tmp_path).fit()
