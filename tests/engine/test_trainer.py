"""The loop: its result does not depend on processes, micro-batches or interruptions."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from training import SMALL, composed, records, small, trained

from vissl_lite import LOSSES, ConfigError
from vissl_lite.config import check
from vissl_lite.engine.trainer import Trainer
from vissl_lite.hooks.base import Hook

TAGS = "++data.source={name: digits_tags, n: 64}"


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def in_float64(rank, world, run_dir, overrides):
    """The final weights of a run in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        return weights(trained(small(*overrides), Path(run_dir)))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("loss", ["simclr", "swav"])
def test_processes_equal_one_process_on_the_whole_batch(ranks, tmp_path, world, loss):
    """BatchNorm synchronised; the trunk trains, and 1e-6 holds for every parameter."""
    heads = "++heads=[{name: mlp, hidden: [32], out_dim: 16}]"
    if loss == "swav":
        heads = heads.replace("}]", "}, {name: prototypes, num_prototypes: 12}]")
    overrides = (f"loss={loss}", "++parallel.sync_bn=all", "++train.max_steps=3", heads)
    one = in_float64(0, 1, tmp_path / "one", overrides)
    many = ranks(world)(in_float64, str(tmp_path / "many"), overrides)
    assert [r["loss"] for r in records(tmp_path / "many")] == pytest.approx(
        [r["loss"] for r in records(tmp_path / "one")], abs=1e-6
    )
    for result in many:
        for name, value in one.items():
            torch.testing.assert_close(result[name], value, atol=1e-6, rtol=0)


def test_micro_batches_of_a_per_image_loss_equal_the_whole_batch(tmp_path):
    supervised = (
        "loss=cross_entropy",
        "++heads=[linear]",
        "++train.freeze_trunk=true",
        "++train.max_steps=3",
    )
    whole = trained(small(*supervised), tmp_path / "whole")
    parts = trained(small(*supervised, "++train.accumulate=4"), tmp_path / "parts")
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=1e-6, rtol=1e-5)


def test_the_same_seed_gives_the_same_run(tmp_path):
    one, two = (trained(small("++train.max_steps=3"), tmp_path / name) for name in "ab")
    assert [r["loss"] for r in records(tmp_path / "a")] == [
        r["loss"] for r in records(tmp_path / "b")
    ]
    assert all(torch.equal(v, weights(two)[k]) for k, v in weights(one).items())


@pytest.mark.parametrize("train", ["++train.grad_cache=8", "++train.accumulate=2"])
def test_cudnn_is_tuned_for_the_shapes_of_steps_alone(tmp_path, train):
    trainer, seen = Trainer(small("loss=simclr", train), tmp_path), []
    trainer.loss.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    assert not torch.backends.cudnn.benchmark
    trainer.train_step(next(iter(trainer.parts.loader(0))))
    assert set(seen) == {True}
    assert not torch.backends.cudnn.benchmark
    trainer.autotune = False
    trainer.train_step(next(iter(trainer.parts.loader(0))))
    assert not seen[-1]


@pytest.fixture
def reads(monkeypatch):
    """Names of everything so far that made the host read a tensor."""
    found = []
    for name in ("tolist", "numpy", "cpu", "__array__"):
        original = getattr(torch.Tensor, name)

        def reading(self, *args, name=name, original=original, **kwargs):
            found.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, reading)
    return found


class HostReads(TorchDispatchMode):
    """Notes operations that make the host wait for the device.

    `lift_fresh` is torch.tensor, which waits where it is given the device.
    """

    WAITING = (
        *("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"),
        *("bincount", "lift_fresh"),
    )

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = any(name in func.name() for name in self.WAITING)
        if waits or (func.name().startswith("aten::index") and self._by_mask(args)):
            self.reads.append(func.name())
        return func(*args, **(kwargs or {}))

    def _by_mask(self, args):
        indices = args[1] if isinstance(args[1], (list, tuple)) else []
        return any(i is not None and i.dtype == torch.bool for i in indices)


@pytest.mark.parametrize("method", ["simclr", "swav", "supervised", "hashtags", "sampled"])
def test_the_host_never_waits_for_the_device_in_a_step(tmp_path, method, reads):
    proto = "++heads=[{name: mlp, out_dim: 16}, {name: prototypes, num_prototypes: 8}]"
    overrides = {
        "simclr": ["loss=simclr", "optimizer=lars"],
        "swav": ["loss=swav", proto, "++loss.queue_length=32", "optimizer=larc"],
        "supervised": ["loss=cross_entropy", "++heads=[linear]", "optimizer=adamw"],
        "hashtags": ["loss=hashtag_softmax", "++heads=[linear]", TAGS],
        "sampled": [
            *("loss=binary_cross_entropy", "loss.target=tags", TAGS),
            "++heads=[{name: sampled_linear, sampled: 4}]",
        ],
    }[method]
    hooks = "hooks=[checkpoint,diagnose,nan_capture]"
    config = small(*overrides, "++train.accumulate=2", "++train.clip_grad_norm=1.0", hooks)
    trainer = Trainer(config, tmp_path)
    trainer._call("on_start")
    batches = iter(trainer.parts.loader(0))
    for _ in range(3):
        batch = next(batches)
        reads.clear()
        with HostReads(reads):
            trainer.train_step(batch)
            trainer._call("after_step")
        assert reads == []
    with HostReads(reads):
        trainer.meters.flush()
        trainer._call("on_log", {})
    assert reads == ["tolist", "tolist"]  # per log line one of the meters and one of diagnose


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [5, 10, 15]), (2, [10]), (0.5, [3, 5, 8, 10, 13, 15])]
)
def test_the_end_of_epochs_is_where_it_should_be(tmp_path, every, expected):
    """VISSL tested after epochs 1, 11, 21 when asked for every tenth."""
    trainer = Trainer(small("data/source=synthetic", "++data.source.n=80"), tmp_path)
    ends = []
    for step in range(1, 16):
        trainer.step = step
        if trainer.at_end_of(every):
            ends.append(step)
    assert ends == expected


def test_sigterm_stops_after_the_step_with_a_checkpoint(tmp_path):
    class Terminate(Hook):
        """Sends SIGTERM to this process after the third step."""

        def after_step(self, trainer):
            if trainer.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = Trainer(small("hooks=[checkpoint]"), tmp_path)
    trainer.hooks = {"terminate": Terminate(), **trainer.hooks}
    trainer.fit()
    assert trainer.step == 3
    assert trainer.exit_code == 128 + signal.SIGTERM
    assert trainer.checkpointer.latest().name == "step-00000003"
    assert "resume=" in records(tmp_path, "end")[0]["reason"]


def test_a_teacher_follows_the_student(tmp_path, monkeypatch):
    class ToyByol(nn.Module):
        """Predicts the teacher's embedding of the other view."""

        needs_teacher = True

        def forward(self, outputs, batch):
            p, z = outputs.embedding, outputs.teacher.embedding
            assert not z.requires_grad
            return 2 - 2 * nn.functional.cosine_similarity(p, z.flip(0), dim=-1).mean()

    heads = "++heads=[{name: mlp, out_dim: 16}, {name: predictor, hidden: 8}]"
    monkeypatch.setitem(LOSSES._entries, "toy_byol", ToyByol)
    loss = "++loss={name: toy_byol}"
    overrides = ("~loss", loss, heads, "++train.max_steps=2", "++teacher_momentum=0.9")
    trainer = Trainer(small(*overrides), tmp_path)
    teacher = trainer.model.teacher
    assert len(teacher.heads) == 1  # the predictor is the student's alone
    expected = {n: p.clone() for n, p in teacher.named_parameters()}
    for batch in trainer.parts.loader(0):
        trainer.train_step(batch)
        student = dict(trainer.model.named_parameters())
        expected = {n: 0.9 * p + 0.1 * student[n].detach() for n, p in expected.items()}
    for name, p in teacher.named_parameters():
        torch.testing.assert_close(p, expected[name])


def test_a_checkpoint_of_other_processes_is_said(tmp_path):
    trained(small("++train.max_steps=2", "hooks=[checkpoint]"), tmp_path)
    meta = tmp_path / "checkpoints" / "step-00000002" / "meta.json"
    meta.write_text(meta.read_text().replace('"world_size": 1', '"world_size": 2'))
    trainer = Trainer(small("++train.max_steps=3", "hooks=[checkpoint]", "++resume=true"), tmp_path)
    assert any("another number of processes" in note for note in trainer.parts.notes)


IMAGES = "data/source=synthetic"
BEGUN = ("hooks=[checkpoint]", IMAGES, "++data.source.n=64")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of an epoch of 4 steps."""
    return trained(small(*BEGUN), tmp_path_factory.mktemp("begun") / "run").run_dir


def gone_on(begun, tmp_path, *words):
    folder = shutil.copytree(begun, tmp_path / "run")
    return Trainer(small(*BEGUN, "++resume=true", *words), folder)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("++train.batch_size=8", r"train\.batch_size: .* 4 steps of 16 images; keep the batch"),
        ("++data.source.n=80", r"data\.source: .* 4 steps on 64 images, and there are 80; bring"),
    ],
)
def test_a_run_does_not_go_on_where_its_steps_would_mean_something_else(
    begun, tmp_path, word, message
):
    with pytest.raises(ConfigError, match=message):
        gone_on(begun, tmp_path, word)


def with_images(rank, world, folder, images):
    try:
        trained(small(IMAGES, f"++data.source.n={images[rank]}"), Path(folder))
    except ConfigError as error:
        return str(error)
    return None


def test_all_ranks_have_the_same_number_of_images(ranks, tmp_path):
    """Each reads its own disk, and one copy is not complete; alone it would train on."""
    for said in ranks(2)(with_images, str(tmp_path), [64, 48]):
        assert said == (
            "data.source: 64 images of 1,000 classes on rank 0, 48 images of 1,000 classes on rank"
            " 1; give all machines the same images"
        )


def test_its_end_and_its_micro_batches_may_change(begun, tmp_path):
    trainer = gone_on(
        begun, tmp_path, "++train.max_steps=7", "++train.epochs=9", "++train.accumulate=2"
    )
    trainer.fit()
    assert (trainer.step, trainer.parts.total_steps) == (7, 36)


def test_a_checkpoint_of_an_earlier_version_goes_on(begun, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    for file in folder.glob("checkpoints/*/state.pt"):
        state = torch.load(file, weights_only=True)
        del state["lengths"]
        torch.save(state, file)
        meta = json.loads(file.with_name("meta.json").read_text())
        meta["files"]["state.pt"] = file.stat().st_size
        file.with_name("meta.json").write_text(json.dumps(meta))
    assert Trainer(small(*BEGUN, "++resume=true", "++train.batch_size=8"), folder).step == 4


def test_precisions_agree(tmp_path):
    runs = {
        p: trained(small(f"++precision={p}", "++train.max_steps=1"), tmp_path / p).results["loss"]
        for p in ("fp32", "bf16", "fp16")
    }
    assert runs["bf16"] == pytest.approx(runs["fp32"], rel=0.05)
    assert runs["fp16"] == pytest.approx(runs["fp32"], rel=0.01)


def test_an_error_inside_a_step_is_never_taken_for_the_end(tmp_path, monkeypatch):
    """VISSL ended an epoch at any StopIteration, also one from a loss."""

    class Stopping(nn.Module):
        def forward(self, outputs, batch):
            raise StopIteration

    monkeypatch.setitem(LOSSES._entries, "stopping", Stopping)
    with pytest.raises(StopIteration):
        trained(small("~loss", "++loss={name: stopping}"), tmp_path)


def test_the_clipped_norm_leaves_out_what_is_frozen(tmp_path):
    """VISSL clipped before it froze, so that frozen prototypes counted."""
    heads = "++heads=[{name: mlp, hidden: [32], out_dim: 16}, {name: prototypes}]"
    words = ["loss=swav", heads, "++loss.freeze_prototypes_steps=5", "++train.clip_grad_norm=1e9"]
    trainer = Trainer(small(*words), tmp_path)
    prototypes = trainer.model.scorer.sets[0].weight
    before = prototypes.detach().clone()
    trainer.train_step(next(iter(trainer.parts.loader(0))))
    squares = [p.grad.square().sum() for p in trainer.model.parameters() if p.grad is not None]
    assert prototypes.grad is None
    torch.testing.assert_close(prototypes.detach(), before)
    expected = torch.stack(squares).sum().sqrt().item()
    assert trainer.meters.sums["grad_norm"].item() == pytest.approx(expected, rel=1e-5)


def test_building_does_not_change_the_config(tmp_path):
    """VISSL's RegNet appended to the lists of its config."""
    words = [word for word in SMALL if "trunk" not in word]
    sizes = ["++trunk.depths=[1,1]", "++trunk.widths=[8,16]", "++trunk.group_widths=[8,8]"]
    config = check(composed(*words, "trunk=anynet", *sizes))
    tree = repr(config)
    Trainer(config, tmp_path)
    assert repr(config) == tree


def test_compiled_equals_eager(tmp_path, monkeypatch):
    compiled = nn.Module.compile

    def quickly(self, *args, **kwargs):
        return compiled(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", quickly)
    words = ["++train.max_steps=2", "++trunk.depth=18"]
    eager = trained(small(*words), tmp_path / "eager")
    other = trained(small(*words, "++compile=true"), tmp_path / "compiled")
    assert other.results["loss"] == pytest.approx(eager.results["loss"], abs=1e-4)


def test_compiling_without_a_compiler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"^compile: true needs a C\+\+ compiler; install g\+\+"):
        trained(small("++compile=true"), tmp_path)


PLAIN = "++heads=[{name: mlp, hidden: [32], out_dim: 16, norm: none}]"


def test_a_gradient_cache_is_a_setting_of_the_trainer(tmp_path):
    """Without BatchNorm chunks of 4 give the losses of the whole batch of 16."""
    vit = {"name": "vit", "size": "tiny", "patch_size": 8, "image_size": 16}
    runs = []
    for chunk in ("null", "4"):
        tree = composed(*SMALL, PLAIN, f"++train.grad_cache={chunk}", "++train.max_steps=2")
        tree.trunk = vit
        runs.append(trained(check(tree), tmp_path / chunk))
    assert runs[1].results["loss"] == pytest.approx(runs[0].results["loss"], rel=1e-5)
    for p, q in zip(runs[0].model.parameters(), runs[1].model.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
