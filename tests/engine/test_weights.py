"""Starting from weights: all of them or a sentence, never some of them in silence."""

import pytest
import torch
from safetensors.torch import save_file
from training import small, trained

from vissl_lite.engine.build import build_model
from vissl_lite.engine.weights import load_into
from vissl_lite.errors import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    trainer = trained(small("++train.max_steps=2", "hooks=[checkpoint]"), folder)
    return folder, trainer.model


def same(model, other, part):
    one, two = getattr(model, part).state_dict(), getattr(other, part).state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("what", ["", "checkpoints/step-00000002", "weights.safetensors"])
def test_from_a_run_a_checkpoint_or_a_file(run, what):
    folder, trained_model = run
    torch.manual_seed(5)
    model = build_model(small(), 10)
    notes = load_into(model, folder / what)
    assert same(model, trained_model, "trunk")
    assert "trunk tensors from" in notes[0]
    whole = what != "weights.safetensors"
    assert same(model, trained_model, "heads") == whole
    assert ("head tensors" in notes[1]) == whole


def test_other_heads_start_from_scratch_and_say_so(run):
    model = build_model(small("++heads=[linear]"), 10)
    assert "heads start from scratch" in load_into(model, run[0])[1]


def test_a_missing_tensor_is_an_error(run, tmp_path):
    state = dict(run[1].trunk.state_dict())
    del state["conv1.weight"]
    state["surplus"] = torch.ones(1)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "part.safetensors")
    model = build_model(small(), 10)
    with pytest.raises(ConfigError, match=r"conv1\.weight is missing; surplus is not in the model"):
        load_into(model, tmp_path / "part.safetensors")


def test_a_path_that_is_nothing_of_the_kind(tmp_path):
    with pytest.raises(ConfigError, match="is neither a run with checkpoints, nor a checkpoint"):
        load_into(build_model(small(), 10), tmp_path)
