"""A loss that stops being a number: what is kept, what is said, what is not written any more."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from distributed import run_ranks
from torch import nn
from training import records, small, trained

from vissl_lite import LOSSES
from vissl_lite.data.batch import Batch, Sample, Tags
from vissl_lite.engine.trainer import Trainer
from vissl_lite.errors import NonFiniteLoss
from vissl_lite.hooks._outlook import remedies
from vissl_lite.hooks.nan_capture import as_plain
from vissl_lite.parallel.collectives import rank

BAD_STEP = 5
OVERRIDES = (
    "hooks=[nan_capture,checkpoint]",
    "++hooks.checkpoint.every_steps=2",
    "++train.log_every=4",
    "++train.epochs=10",
    "++train.max_steps=20",
)


class Fragile(nn.Module):
    """Mean square of the embedding, and nan at one step on the ranks of `bad_ranks`."""

    needs = ()
    bad_ranks = (0,)

    def forward(self, outputs, batch):
        loss = outputs.embedding.square().mean()
        bad = batch.step == BAD_STEP and rank() in self.bad_ranks
        return loss * (math.nan if bad else 1.0)


def fragile_config():
    config = small(*OVERRIDES)
    config.loss = {"name": "fragile"}
    return config


@pytest.fixture
def _fragile(monkeypatch):
    monkeypatch.setitem(LOSSES._entries, "fragile", Fragile)


@pytest.mark.usefixtures("_fragile")
def test_saves_the_batch_and_stops_at_the_next_log_line(tmp_path):
    with pytest.raises(NonFiniteLoss) as raised:
        trained(fragile_config(), tmp_path)
    text = str(raised.value)
    assert f"step {BAD_STEP}" in text
    assert str(tmp_path / "nan") in text
    assert "step-00000004" in text  # the one at step 6 would hold nan
    assert "the hook nan_capture" not in text
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("step-*"))] == [
        "step-00000002",
        "step-00000004",
    ]
    assert not (tmp_path / "weights.safetensors").exists()
    assert [(r["step"], r.get("bad_step")) for r in records(tmp_path)] == [(4, None), (8, BAD_STEP)]

    saved = torch.load(tmp_path / "nan" / f"step-{BAD_STEP}-rank-0.pt", weights_only=True)
    again = Trainer(small(*OVERRIDES), tmp_path / "other")
    expected = next(iter(again.parts.loader(BAD_STEP)))
    assert saved["step"] == BAD_STEP
    assert all(torch.equal(s, e) for s, e in zip(saved["views"], expected.views, strict=True))
    assert saved["views"][0].dtype == torch.uint8
    assert torch.equal(saved["index_B"], expected.index_B)
    assert torch.equal(saved["label_B"], expected.label_B)
    assert saved["names"] == [again.parts.source[i].name for i in expected.index_B.tolist()]


@pytest.mark.usefixtures("_fragile")
def test_without_it_the_hook_checkpoint_ends_the_run(tmp_path):
    config = fragile_config()
    del config.hooks["nan_capture"]
    with pytest.raises(NonFiniteLoss) as raised:
        trained(config, tmp_path)
    assert str(raised.value).startswith(
        f"the loss is not finite since step {BAD_STEP}; last good checkpoint: {tmp_path}"
        "/checkpoints/step-00000004; try a lower"
    )
    assert str(raised.value).endswith("; the hook nan_capture saves the batch")
    assert [(r["step"], r.get("bad_step")) for r in records(tmp_path)] == [(4, None), (8, BAD_STEP)]


def rank_main(number, world, run_dir):
    LOSSES._entries["fragile"] = Fragile
    Fragile.bad_ranks = (1,)
    try:
        trained(fragile_config(), Path(run_dir))
    except NonFiniteLoss as error:
        return str(error)
    return "trained"


@pytest.mark.slow
def test_all_processes_stop_and_the_bad_one_saves_its_batch(tmp_path):
    texts = run_ranks(rank_main, 2, str(tmp_path), timeout=120)
    assert all(f"step {BAD_STEP}" in text for text in texts)
    assert [path.name for path in (tmp_path / "nan").iterdir()] == [f"step-{BAD_STEP}-rank-1.pt"]
    assert max((tmp_path / "checkpoints").glob("step-*")).name == "step-00000004"


def test_a_batch_with_tags_is_plain(tmp_path):
    batch = Batch(
        views=[torch.zeros(2, 3, 4, 4, 3, dtype=torch.uint8)],
        index_B=torch.tensor([7, 5, 6]),
        tags=Tags.pack([[3, 1], [], [2]]),
        step=9,
    )
    source = {i: Sample(None, name=f"image {i}") for i in range(10)}
    torch.save(as_plain(batch, source), tmp_path / "batch.pt")
    read = torch.load(tmp_path / "batch.pt", weights_only=True)
    assert read["tags"] == [[1, 3], [], [2]]
    assert read["names"] == ["image 7", "image 5", "image 6"]
    assert read["label_B"] is None
    assert json.dumps([read["step"], read["rank"]]) == "[9, 0]"


def test_advises_what_is_not_set_yet():
    def advice(precision, clip, **loss):
        return remedies(
            SimpleNamespace(
                config=SimpleNamespace(train=SimpleNamespace(clip_grad_norm=clip)),
                parts=SimpleNamespace(numerics=SimpleNamespace(precision=precision)),
                loss=SimpleNamespace(**loss),
            )
        )

    lower = "a lower optimizer.lr or a longer warm-up"
    assert advice("bf16", 1.0) == [lower]
    assert advice("fp16", None, temperature=0.1) == [
        lower,
        "precision=bf16",
        "train.clip_grad_norm=1",
        "a loss.temperature above 0.1",
    ]
