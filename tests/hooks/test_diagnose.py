"""What the hook measures and when it speaks: on fakes, on a real collapse, on two processes."""

import math
from types import SimpleNamespace

import pytest
import torch
from distributed import run_ranks
from torch import nn
from torch.nn import functional as F
from training import records, small, trained

from vissl_lite import HOOKS, ConfigError
from vissl_lite.hooks.diagnose import measure
from vissl_lite.model import Outputs
from vissl_lite.plugins import load_entries

load_entries()
LN_K = math.log(300)


def outputs(z_VBD, prototypes=()):
    return Outputs(z_VBD, z_VBD, [torch.zeros(*z_VBD.shape[:2], k) for k in prototypes])


def healthy(crops=2, images=64, dim=32):
    return torch.randn(1, images, dim) + 0.3 * torch.randn(crops, images, dim)


def collapsed():
    return 1 + 1e-3 * torch.randn(2, 64, 32)


def on_a_line():
    return torch.randn(1, 64, 1) * torch.randn(1, 1, 32) + 1e-4 * torch.randn(2, 64, 32)


def unrelated():
    return torch.randn(2, 512, 128)  # cosines of 0 +- 0.004


class FakeTrainer(SimpleNamespace):
    """Logs after every step."""

    def __init__(self, loss=None, steps=100, **options):
        super().__init__(
            step=0,
            loss=loss or SimpleNamespace(needs=()),
            parts=SimpleNamespace(total_steps=steps),
            model=SimpleNamespace(teacher=None, heads=nn.ModuleList([nn.Linear(1, 1)])),
            notes=[],
            stopped=[],
        )
        self.journal = SimpleNamespace(note=lambda text, level: self.notes.append((text, level)))
        self.hook = HOOKS.build({"patience": 3, "grace_steps": 2, **options}, "hooks.diagnose")
        self.hook.on_start(self)

    def request_stop(self, reason):
        self.stopped.append((self.step, reason))

    def run(self, steps, outputs, loss=2.0, **record):
        for _ in range(steps):
            self.hook.after_backward(self, outputs, None)
            self.step += 1
            self.record = {"loss": loss, "step": self.step, **record}
            self.hook.on_log(self, self.record)


def test_measures_the_first_two_crops():
    z = healthy(crops=4)
    rows = F.normalize(z[:2].double(), dim=-1)
    expected_same = (rows[0] * rows[1]).sum(-1).mean().item()
    flat = (z[:2].flatten(0, 1) - z[:2].flatten(0, 1).mean(0)).double()
    p = torch.linalg.svdvals(flat)
    p /= p.sum()
    got = measure(z)
    assert got["same_image_cosine"] == pytest.approx(expected_same, abs=1e-6)
    assert got["other_image_cosine"] == pytest.approx(0, abs=0.01)
    assert got["effective_rank"] == pytest.approx(torch.exp(-(p * p.log()).sum()).item(), rel=1e-6)
    std = rows.flatten(0, 1).std(0, correction=0).mean().item() * math.sqrt(32)
    assert got["embedding_std"] == pytest.approx(std, rel=1e-6)


def test_looks_at_1024_rows_at_most():
    z = torch.randn(2, 600, 8)
    assert measure(z) == measure(z[:, :512])
    assert measure(z) != measure(z[:, :511])


def test_one_crop_has_no_cosines():
    assert set(measure(healthy(crops=1))) == {"embedding_std", "effective_rank"}


def rank_measure(rank, world, z_VBD):
    images = z_VBD.shape[1] // world
    return measure(z_VBD[:, rank * images : (rank + 1) * images])


def test_processes_see_the_whole_batch():
    z = healthy(images=16)
    for got in run_ranks(rank_measure, 2, z):
        assert got == pytest.approx(measure(z), rel=1e-6)


@pytest.mark.parametrize(
    ("z", "prototypes", "loss", "name"),
    [
        (collapsed(), (), 2.0, "collapse"),
        (on_a_line(), (), 2.0, "dimensional collapse"),
        (unrelated(), (), 2.0, "no invariance"),
        (healthy(), (300,), 1.005 * LN_K, "stuck at ln K"),
        (healthy(), (300, 300), 0.995 * LN_K, "stuck at ln K"),
        (collapsed(), (300,), LN_K, "stuck at ln K"),
    ],
)
def test_says_once_what_is_wrong(z, prototypes, loss, name):
    trainer = FakeTrainer()
    trainer.run(4, outputs(z, prototypes), loss)
    assert trainer.notes == []  # steps 1 and 2 are grace, 3 and 4 not enough
    trainer.run(10, outputs(z, prototypes), loss)
    [(text, level)] = trainer.notes
    assert text.startswith(f"{name}: ")
    assert level == "warning"
    assert trainer.stopped == []


@pytest.mark.parametrize(
    ("z", "prototypes", "loss"),
    [
        (healthy(), (), 2.0),
        (healthy(crops=1), (), 2.0),
        (healthy(), (300,), 0.9 * LN_K),
        (healthy(), (300,), 1.02 * LN_K),  # where SwAV starts
        (F.relu(healthy(dim=512)), (), 2.0),  # features without a head
    ],
)
def test_is_silent_where_all_is_well(z, prototypes, loss):
    trainer = FakeTrainer()
    trainer.run(20, outputs(z, prototypes), loss)
    assert trainer.notes == []


@pytest.mark.parametrize("needs", [("label",), ("tags",)])
def test_supervised_training_gets_numbers_and_no_verdict(needs):
    trainer = FakeTrainer(loss=SimpleNamespace(needs=needs))
    trainer.run(20, outputs(collapsed(), (300,)), LN_K)
    assert trainer.notes == []
    assert trainer.record["embedding_std"] < 0.01


def test_a_healthy_line_in_between_starts_the_count_anew():
    trainer = FakeTrainer()
    for _ in range(5):
        trainer.run(2, outputs(collapsed()))
        trainer.run(1, outputs(healthy()))
    assert trainer.notes == []


@pytest.mark.parametrize(("steps", "grace"), [(500, 50), (50_000, 1000), (5, 0)])
def test_grace_is_a_tenth_of_the_training(steps, grace):
    trainer = FakeTrainer(steps=steps, grace_steps=None, patience=1)
    trainer.run(grace, outputs(collapsed()))
    assert trainer.notes == []
    trainer.run(1, outputs(collapsed()))
    assert len(trainer.notes) == 1


def test_stops_when_asked():
    trainer = FakeTrainer(stop=True)
    trainer.run(5, outputs(collapsed()))
    assert trainer.stopped == [(5, "hooks.diagnose: collapse")]


def test_a_resumed_run_does_not_repeat_itself():
    first, second = FakeTrainer(), FakeTrainer()
    first.run(6, outputs(collapsed()))
    second.hook.load_state_dict(first.hook.state_dict())
    second.run(6, outputs(collapsed()))
    assert (len(first.notes), len(second.notes)) == (1, 0)


def test_the_advice_fits_the_method():
    swav = SimpleNamespace(needs=(), epsilon=0.05, freeze_prototypes_steps=0)
    trainer = FakeTrainer(loss=swav)
    trainer.run(5, outputs(healthy(), (300,)), LN_K)
    text = trainer.notes[0][0]
    assert text.index("epsilon=0.03") < text.index("optimizer.lr") < text.index("freeze_prototypes")
    assert "hard_assignment" not in text
    assert "BatchNorm" not in text  # the head has none
    byol = FakeTrainer()
    byol.model.teacher = 1
    byol.run(5, outputs(collapsed()))
    assert "teacher_momentum" in byol.notes[0][0]


def test_a_bad_step_is_left_to_nan_capture():
    trainer = FakeTrainer()
    trainer.run(1, outputs(collapsed() * math.nan), math.nan, bad_step=0)
    assert trainer.record == {
        "loss": pytest.approx(math.nan, nan_ok=True),
        "step": 1,
        "bad_step": 0,
    }


def test_patience_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"hooks\.diagnose\.patience: 0; needs 1"):
        HOOKS.build({"patience": 0}, "hooks.diagnose")


def test_recognises_a_real_collapse():
    """Two towers drawn together without negatives, predictor or stop-gradient: all become one."""
    x = torch.randn(2, 64, 20)
    x[1] = x[0] + 0.1 * torch.randn(64, 20)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    trainer = FakeTrainer(stop=True)
    before = measure(net(x).detach())["embedding_std"]
    while not trainer.stopped and trainer.step < 500:
        z = net(x)
        loss = -F.cosine_similarity(z[:, :, None], z[:, None], dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trainer.run(1, outputs(z), loss.item())
    assert before > 0.5
    assert trainer.record["embedding_std"] < 0.1
    assert trainer.stopped[0][1] == "hooks.diagnose: collapse"


SWAV = (
    "loss=swav",
    "++heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes, num_prototypes: 30}]",
    "++train.batch_size=64",
    "++train.log_every=5",
    "++train.epochs=4",
    "++train.max_steps=60",
    "++optimizer.lr=0.1",
    "++hooks.diagnose.patience=2",
    "++hooks.diagnose.stop=true",
    "++seed=1",
)


def test_stops_a_swav_that_collapses(tmp_path):
    trainer = trained(small(*SWAV), tmp_path)
    assert trainer.results["code_entropy"] > 0.95 * math.log(30)
    assert trainer.step < 60
    [warning] = [r for r in records(tmp_path, "note") if r["level"] == "warning"]
    assert warning["text"].startswith("stuck at ln K: the loss 3.4")
    assert "hooks.diagnose: stuck at ln K" in records(tmp_path, "end")[0]["reason"]


def test_lets_the_same_swav_run_with_a_remedy(tmp_path):
    """Hard assignment, one of those it proposes."""
    trainer = trained(small(*SWAV, "++loss.hard_assignment_steps=1000"), tmp_path)
    assert trainer.step == 60
    assert trainer.results["embedding_std"] > 0.2
    assert not [r for r in records(tmp_path, "note") if r["level"] == "warning"]
