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


def loaded(run, heads):
    """The heads of another model, before and after, and what was said of them."""
    torch.manual_seed(5)
    model = build_model(small(f"++heads=[{heads}]"), 10)
    before = {name: t.clone() for name, t in model.heads.state_dict().items()}
    notes = load_into(model, run[0])
    return before, model.heads.state_dict(), notes[1:]


MLP, LINEAR = "{name: mlp, hidden: [32], out_dim: 16}", "{name: linear, out_dim: 10}"


@pytest.mark.parametrize(
    ("heads", "taken", "said"),
    [
        (f"{MLP}, {LINEAR}", 9, "init: 9 head tensors, heads.1 starts from scratch"),
        (
            f"{{name: hidden_layer, out_dim: 32}}, {LINEAR}",
            7,
            "init: 7 head tensors, heads.0 is the beginning of the file's, heads.1 starts from"
            " scratch",
        ),
        (
            f"{{name: hidden_layer, out_dim: 32}}, {MLP}",
            7,
            "init: 7 head tensors, heads.0 is the beginning of the file's, heads.1 starts from"
            " scratch",
        ),
        ("{name: hidden_layer, out_dim: 32, norm: none}", 0, "init: heads start from scratch,"),
        ("{name: hidden_layer, out_dim: 31}", 0, "init: heads start from scratch,"),
        (LINEAR, 0, "init: heads start from scratch,"),
    ],
)
def test_heads_as_long_as_they_fit(run, heads, taken, said):
    before, after, notes = loaded(run, heads)
    given = run[1].heads.state_dict()
    assert all(torch.equal(after[name], given[name]) for name in list(after)[:taken])
    assert all(torch.equal(after[name], before[name]) for name in list(after)[taken:])
    assert notes[0].startswith(said)
    assert (notes[1:] == []) == (taken == len(given))
    assert notes[1:] == ([f"init: ignored: {len(given) - taken} head"] if notes[1:] else [])
