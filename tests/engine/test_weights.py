"""Starting from weights: all of them or a sentence, never some of them in silence."""

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from training import small, trained

import vissl_lite
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
    with pytest.raises(ConfigError, match=r"^init: .* is neither a run with checkpoints, nor a"):
        load_into(build_model(small(), 10), tmp_path)


def test_a_run_beside_the_one_that_is_not_there_is_named(run):
    missing = run[0].with_name(f"{run[0].name}-1")
    with pytest.raises(ConfigError, match=r"^weights: .* published ones; did you mean") as error:
        vissl_lite.load(missing)
    assert str(error.value).endswith(f"{str(run[0])!r}?")


def test_a_run_without_checkpoints_is_not_what_was_meant(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"published ones$"):
        vissl_lite.load(tmp_path / "run")


def loaded(run, heads):
    """The heads of another model, before and after, and what was said of them."""
    torch.manual_seed(5)
    model = build_model(small(f"++heads=[{heads}]"), 10)
    before = {name: t.clone() for name, t in model.heads.state_dict().items()}
    notes = load_into(model, run[0])
    return before, model.heads.state_dict(), notes[1:]


NETWORKS = {  # and how many tensors their classifiers have
    "timm test_convnext": (lambda: timm.create_model("test_convnext", num_classes=7), 2),
    "timm test_resnet": (lambda: timm.create_model("test_resnet", num_classes=7), 2),
    "torchvision mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 4),
}


def adapter(network):
    library, model = network.split()
    torch.manual_seed(5)
    return build_model(replace(small(), trunk={"name": library, "model": model}), 10)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "model."])
def test_an_adapter_takes_its_library_s_own_network(network, prefix, tmp_path):
    make, head = NETWORKS[network]
    theirs, model = make(), adapter(network)
    torch.save({prefix + name: t for name, t in theirs.state_dict().items()}, tmp_path / "x.pth")
    notes = load_into(model, tmp_path / "x.pth")
    tensors = len(model.trunk.state_dict())
    library = network.split()[0]
    assert notes == [
        f"init: {tensors} trunk tensors from {tmp_path / 'x.pth'} (a network of {library})",
        "init: heads start from scratch, the file has none that fit",
        f"init: ignored: {head} head",
    ]
    own, given = model.trunk.model.state_dict(), theirs.state_dict()
    assert all(torch.equal(t, given[name]) for name, t in own.items())
    assert len(given) == len(own) + head


def test_an_adapter_takes_formats_of_its_names(tmp_path):
    theirs = torchvision.models.resnet18()
    query = {f"module.encoder_q.{name}": t for name, t in theirs.state_dict().items()}
    torch.save({"state_dict": {**query, "module.queue": torch.ones(2, 2)}}, tmp_path / "x.pth")
    model = adapter("torchvision resnet18")
    assert "(MoCo" in load_into(model, tmp_path / "x.pth")[0]
    assert torch.equal(model.trunk.model.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_an_adapter_refuses_another_network_of_its_library(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"another trunk than the config: model\.stem\.0\.weight"):
        load_into(adapter("timm test_convnext"), tmp_path / "x.pth")


def test_names_from_before_the_compiler(tmp_path):
    """torch.compile of the whole, below DistributedDataParallel, and of single blocks."""
    theirs = torchvision.models.resnet18()
    named = {
        f"module._orig_mod.{name}".replace("layer1.0.", "layer1.0._orig_mod."): t
        for name, t in theirs.state_dict().items()
    }
    torch.save(named, tmp_path / "x.pth")
    trunk = vissl_lite.load(tmp_path / "x.pth")
    assert torch.equal(trunk.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)


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


PLAIN_MLP = "{name: mlp, hidden: [32], out_dim: 16, norm: none}"
ANEW = "the norm of heads.0 starts from scratch, the file's has none"


@pytest.mark.parametrize(
    ("heads", "taken", "said"),
    [
        (f"{{name: hidden_layer, out_dim: 32}}, {LINEAR}", 2, "heads.0 is the beginning of the"),
        ("{name: hidden_layer, out_dim: 32, norm: none}", 2, "heads.0 is the beginning of the"),
        (MLP, 0, "heads start from scratch"),  # its second linear layer has another place
        (f"{PLAIN_MLP[:-1]}, last_norm: true}}, {LINEAR}", 4, ANEW),
    ],
)
def test_a_norm_that_the_file_lacks_starts_anew(run, tmp_path, heads, taken, said):
    """VISSL's fine-tuning of SEER: a BatchNorm behind the first layer of a head without."""
    torch.manual_seed(6)
    theirs = build_model(small(f"++heads=[{PLAIN_MLP}]"), 10)
    save_file({k: t.contiguous() for k, t in theirs.state_dict().items()}, tmp_path / "plain")
    before, after, notes = loaded((tmp_path / "plain", theirs), heads)
    given = {f"0.{name}": tensor for name, tensor in theirs.heads[0].state_dict().items()}
    assert all(torch.equal(after[name], given[name]) for name in list(given)[:taken])
    assert all(torch.equal(after[n], before[n]) for n in after if n not in list(given)[:taken])
    assert said in notes[0]
    has_new_norm = "0.1.running_mean" in after or "last_norm" in heads
    assert (ANEW in notes[0]) == (bool(taken) and has_new_norm)
