"""Trainings and evaluations on a GPU that is not there: no tensor is left on the wrong device."""

from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from pretended_gpu import CUDA, pretended_gpu
from training import records, small, trained

from vissl_lite.engine.trainer import Trainer
from vissl_lite.hooks.checkpoint import all_finite
from vissl_lite.trunks.resnet import DEPTHS, BasicBlock

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")

COLOURS = (
    "random_horizontal_flip, {name: color_jitter, brightness: 0.4, hue: 0.1}, random_grayscale,"
    " gaussian_blur, {name: solarize, p: 0.5}, {name: posterize, bits: 4, p: 0.5}"
)
GROUPS = [
    f"{{size: {s}, count: {n}, transforms: [random_resized_crop, {COLOURS}]}}"
    for s, n in ((16, 2), (8, 3))
]
VIEWS = f"++data.views=[{', '.join(GROUPS)}]"
PROTOTYPES = "++heads=[{name: mlp, out_dim: 16}, {name: prototypes, num_prototypes: 8}]"
READ = "++data.in_memory=false"
TAGS = "++data.source={name: digits_tags, n: 64}"
METHODS = {
    "simclr": ["loss=simclr", "optimizer=lars", "++train.clip_grad_norm=1.0", VIEWS],
    "swav": ["loss=swav", PROTOTYPES, "++loss.queue_length=32", "optimizer=larc", VIEWS],
    "supervised": ["loss=cross_entropy", "++heads=[linear]", "optimizer=adamw"],
    "hashtags": ["loss=hashtag_softmax", "++heads=[linear]", TAGS],
    "fp16, accumulated": ["++precision=fp16", "++train.accumulate=2"],
    "bf16, in chunks": ["++precision=bf16", "++train.grad_cache=4"],
    "checkpointing": ["++memory.activation_checkpointing=selective"],
    "workers, colours on the device": [VIEWS, READ, "++data.workers=1", "++data.augment_on=device"],
    "reference": [VIEWS, "++data.backend=reference"],
}


# four blocks of a ResNet-18 in place of eight, as Python looks at each operation
shallow = patch.dict(DEPTHS, {18: (BasicBlock, (1, 1, 1, 1))})


def losses(folder):
    return [record["loss"] for record in records(folder)]


@shallow
@pytest.mark.parametrize("method", METHODS)
def test_a_training_is_that_of_the_cpu(tmp_path, method):
    words = [*METHODS[method], "++train.max_steps=3", "hooks=[checkpoint,diagnose,nan_capture]"]
    with pretended_gpu():
        trainer = trained(small(*words, "++device=cuda"), tmp_path / "gpu")
    assert {t.device for t in trainer.parts.model.state_dict().values()} == {CUDA}
    trained(small(*words), tmp_path / "cpu")
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-6)


SHARDED = {
    "zero2": ["++parallel.strategy=zero2", *METHODS["swav"][:-1]],
    "hsdp, accumulated": [
        "++parallel.strategy=hsdp",
        "++parallel.shard_size=2",
        "++train.accumulate=2",
    ],
    "zero3, recomputed": ["++parallel.strategy=zero3", "++memory.activation_checkpointing=block"],
    "spread classes": [
        "++parallel.strategy=zero3",
        "loss=hashtag_softmax",
        "++heads=[{name: linear, shard_classes: true}]",
        TAGS,
    ],
    "offloaded fp16": ["++parallel.strategy=zero3", "++precision=fp16", "optimizer=adamw"],
}


def sharded(rank, world, words, folder, on_gpu):
    """The losses of a run with SyncBN and clipping."""
    words = [*words, "++train.max_steps=3", "++parallel.sync_bn=all", "++train.clip_grad_norm=1.0"]
    with shallow, pretended_gpu() if on_gpu else nullcontext():
        device = f"++device={'cuda' if on_gpu else 'cpu'}"
        trained(small(*words, "hooks=[checkpoint,diagnose]", device), Path(folder))
    return losses(Path(folder)) if rank == 0 else None


@pytest.mark.parametrize("how", SHARDED)
def test_a_sharded_training_is_that_of_the_cpu(ranks, tmp_path, how):
    offload = ["++memory.cpu_offload=true"] if "offloaded" in how else []
    on_gpu = ranks(2)(sharded, [*SHARDED[how], *offload], str(tmp_path / "gpu"), True)
    on_cpu = ranks(2)(sharded, SHARDED[how], str(tmp_path / "cpu"), False)
    assert on_gpu[0] == pytest.approx(on_cpu[0], rel=1e-6)


EVALUATIONS = {
    "knn": "{k: [5]}",
    "linear": "{epochs: 1, learning_rates: [0.1], augment: [random_resized_crop]}",
    "logistic": "{C: [0.01]}",
    "clusters": "{k: [10]}",
    "retrieval": "{whiten: 8}",
    "copy_detection": "{}",
    "low_shot": "{shots: [1], draws: 1, C: [1.0]}",
    "finetune": "{shares: [0.1], epochs: 1}",
    "accuracy": "{}",
}


@shallow
def test_evaluations_are_those_of_the_cpu(tmp_path):
    entries = ", ".join(f"{name}: {settings}" for name, settings in EVALUATIONS.items())
    words = ["dataset=digits", "loss=cross_entropy", "++heads=[linear]", "++train.max_steps=1"]
    words += ["hooks=[evaluate,probe,report]", f"++evaluations={{{entries}}}"]
    with pretended_gpu():
        gpu = trained(small(*words, "++device=cuda"), tmp_path / "gpu")
    cpu = trained(small(*words), tmp_path / "cpu")
    found, expected = (
        {name: value for name, value in trainer.results.items() if "." in name}
        for trainer in (gpu, cpu)
    )
    assert {name.split(".")[0] for name in found} == set(EVALUATIONS)
    assert found == pytest.approx(expected, abs=0.01)


def test_offloaded_weights_and_the_norm_of_their_gradients_are_on_the_host(tmp_path):
    with pretended_gpu():
        trainer = Trainer(small("++device=cuda"), tmp_path)
        weights = {
            name: t.cpu() if "weight" in name else t
            for name, t in trainer.model.state_dict().items()
        }
        trainer.model.state_dict = lambda: weights  # pyright: ignore
        assert all_finite(trainer)
        next(t for t in weights.values() if t.device.type == "cpu").fill_(torch.inf)
        assert not all_finite(trainer)
        metrics = {"loss": torch.ones((), device="cuda"), "grad_norm": torch.tensor(2.0)}
        trainer.meters.add(metrics, 0)
        assert trainer.meters.flush() == ({"loss": 1.0, "grad_norm": 2.0}, None)


def test_it_tells_tensors_of_two_devices_apart():
    with pretended_gpu():
        on_gpu, on_cpu = torch.ones(3, device="cuda"), torch.ones(3)
        assert (on_gpu + 1).device == CUDA
        assert on_gpu.cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="add: tensors on cuda:0 and on cpu"):
            torch.add(on_gpu, on_cpu)
        with pytest.raises(TypeError, match="numpy"):
            on_gpu.numpy()
        layer = torch.nn.Linear(3, 2).to("cuda")
        layer(on_gpu).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == CUDA
