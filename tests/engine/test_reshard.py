"""A run goes on under another strategy and number of processes as if nothing had changed."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import SMALL, composed, records, trained

from vissl_lite.config import check
from vissl_lite.parallel.shards import whole

HEADS = "++heads=[{name: mlp, hidden: [30], out_dim: 15}]"  # 15 rows do not divide by 2 or 4
TRUNK = {
    "name": "anynet",
    "depths": [1, 2],
    "widths": [16, 32],
    "group_widths": [8, 8],
    "stem_width": 8,
}
BEFORE, AFTER = 3, 6
OPTIMIZERS = {
    "larc": ["optimizer=larc", "++optimizer.lr=0.3"],
    "lars": ["optimizer=lars", "++optimizer.lr=0.3"],
    "adamw": ["optimizer=adamw", "++optimizer.lr=0.001"],
}


def words(strategy, optimizer, stop, resume):
    return [
        HEADS,
        "++train.batch_size=12",  # divides by 4, 3 and 2
        *OPTIMIZERS[optimizer],
        "hooks=[checkpoint]",
        "++train.clip_grad_norm=1.0",
        "++parallel.sync_bn=all",
        f"++parallel.strategy={strategy}",
        f"++train.max_steps={stop}",
        f"++resume={str(resume).lower()}",
    ]


def run(rank, world, folder, strategy, optimizer, stop, resume):
    """Losses by step, and the weights at the end; all in float64."""
    torch.set_default_dtype(torch.float64)
    tree = composed(*SMALL, *words(strategy, optimizer, stop, resume))
    tree.trunk = TRUNK
    trainer = trained(check(tree), Path(folder))
    weights = {name: whole(t).clone() for name, t in trainer.model.state_dict().items()}
    return [r["loss"] for r in records(Path(folder))] if rank == 0 else [], weights


@pytest.fixture(scope="module")
def go(ranks):
    """`run` on so many processes: what rank 0 returns."""

    def go(folder, world, strategy, optimizer, stop, resume=False):
        return ranks(world)(run, str(folder), strategy, optimizer, stop, resume)[0]

    return go


@pytest.fixture(scope="module")
def uninterrupted(go, tmp_path_factory):
    """By optimizer: folder, losses and weights of one process that never stopped."""

    @cache
    def of(optimizer):
        folder = tmp_path_factory.mktemp("whole")
        return folder, *go(folder, 1, "auto", optimizer, AFTER)

    return of


@pytest.mark.parametrize(
    ("before", "after", "optimizer"),
    [
        ((4, "zero3"), (2, "zero3"), "larc"),
        ((4, "zero3"), (3, "zero3"), "larc"),
        ((4, "hsdp"), (1, "auto"), "lars"),
        ((2, "zero3"), (4, "reference_ddp"), "adamw"),
        ((2, "reference_ddp"), (2, "zero2"), "adamw"),
        ((1, "auto"), (2, "ddp"), "larc"),
        ((2, "ddp"), (4, "hsdp"), "adamw"),
    ],
)
def test_goes_on_with_the_same_losses(go, uninterrupted, tmp_path, before, after, optimizer):
    """Against a run of one process that never stopped, SyncBN, float64."""
    _, expected, weights = uninterrupted(optimizer)
    go(tmp_path, *before, optimizer, BEFORE)
    losses, found = go(tmp_path, *after, optimizer, AFTER, resume=True)
    assert losses == pytest.approx(expected, rel=1e-6)
    for name, t in weights.items():
        torch.testing.assert_close(found[name], t, rtol=1e-6, atol=1e-6, msg=name)


def test_the_file_of_weights_is_that_of_one_process(go, uninterrupted, tmp_path):
    go(tmp_path, 2, "zero3", "adamw", AFTER)
    folders = uninterrupted("adamw")[0], tmp_path
    one, two = (load_file(folder / "weights.safetensors") for folder in folders)
    assert list(one) == list(two)
    torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)
