"""`memory.cpu_offload`: shards in host memory train, save and load as those on the device.

On a CPU the two are one place, and training refuses it; here it is let through.
"""

from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from training import small, trained

from vissl_lite import LOSSES
from vissl_lite.engine import state
from vissl_lite.engine.scaler import Scaler
from vissl_lite.parallel.shards import local

CASES = {
    "lars, a teacher": ["optimizer=lars", "loss=follow_the_teacher", "++teacher_momentum=0.5"],
    "adamw, fp16": ["optimizer=adamw", "++precision=fp16"],
}


class FollowTheTeacher(nn.Module):
    """Stands for the losses that ask for an EMA teacher."""

    needs, needs_teacher = (), True

    def __init__(self, *, embed_dim: int):
        super().__init__()

    def forward(self, outputs, batch):
        return (outputs.embedding - outputs.teacher.embedding.flip(0)).square().mean()


def settings(*words):
    return small(
        "++train.batch_size=8",
        "++train.max_steps=2",
        "++train.clip_grad_norm=0.1",
        "++parallel.strategy=zero3",
        *words,
    )


def run(config, folder):
    """The trainer at its end, and the policies that FSDP2 was given."""
    refused = patch("vissl_lite.engine.combinations.refused", return_value=[])
    scaler = patch("vissl_lite.engine.parts.Scaler", partial(Scaler, init_scale=16.0))
    sharding = patch("vissl_lite.parallel.wrap.fully_shard", wraps=fully_shard)
    with refused, scaler, sharding as calls:
        trainer = trained(config, folder)
    return trainer, [call.kwargs["offload_policy"] for call in calls.call_args_list]


def shards(trainer):
    """What this process holds of weights and optimizer state, by their names."""
    return local(t for _, t in sorted(state.tensors(trainer.model, trainer.optimizer).items()))


def check_offload(rank, world, words, folder):
    """Trains without and with it; then saves in the background while the weights change."""
    LOSSES.register("follow_the_teacher")(FollowTheTeacher)  # in this process only
    plain, _ = run(settings(*words), folder / "plain")
    trainer, policies = run(settings(*words, "++memory.cpu_offload=true"), folder / "offloaded")
    assert policies
    assert all(policy == CPUOffloadPolicy(pin_memory=False) for policy in policies)
    for name in ("loss", "grad_norm"):
        assert trainer.results[name] == plain.results[name]
    assert all(torch.equal(a, b) for a, b in zip(shards(trainer), shards(plain), strict=True))

    trainer.checkpointer.background = True
    path = trainer.save()
    saved = [shard.clone() for shard in shards(trainer)]
    for shard in shards(trainer):
        shard.zero_()
    trainer.checkpointer.wait()
    state.load(path, trainer.model, trainer.optimizer)
    assert all(torch.equal(a, b) for a, b in zip(shards(trainer), saved, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_it_trains_saves_and_loads_as_without(case, ranks, tmp_path):
    ranks(2)(check_offload, CASES[case], tmp_path)
