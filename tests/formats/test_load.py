"""`vissl_lite.load` and `init=`: what they say, what they refuse, and our own weights."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import timm
import torch
from formats.layouts import randomised, tv_resnet
from safetensors.torch import load_file, save_file
from training import small, trained

import vissl_lite
from vissl_lite import io
from vissl_lite.config import IMAGENET_MEAN, IMAGENET_STD
from vissl_lite.engine.build import build_model
from vissl_lite.engine.journal import save_config
from vissl_lite.engine.weights import load_into
from vissl_lite.errors import ConfigError
from vissl_lite.formats.published import PUBLISHED


@pytest.fixture
def state():
    return dict(tv_resnet().state_dict())


@pytest.fixture
def file(tmp_path):
    def write(state):
        torch.save(state, tmp_path / "file.pth")
        return tmp_path / "file.pth"

    return write


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    overrides = ("++train.max_steps=2", "hooks=[checkpoint]", "++data.mean=[0.1,0.2,0.3]")
    config = small(*overrides)
    save_config(asdict(config), folder)
    return folder, trained(config, folder).model


@pytest.mark.parametrize("what", ["", "checkpoints/step-00000002", "weights.safetensors"])
def test_our_own(run, what):
    folder, model = run
    trunk = vissl_lite.load(folder / what)
    assert not trunk.training
    assert trunk.mean == (0.1, 0.2, 0.3)
    assert trunk.size == 224
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(trunk(x)["res5"], model.trunk.eval()(x)["res5"])


def test_our_own_outside_of_their_run(run, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    moved = tmp_path / "a" / "b" / "w.bin"
    moved.write_bytes((run[0] / "weights.safetensors").read_bytes())
    trunk = vissl_lite.load(moved)
    assert (trunk.mean, trunk.size) == ((0.1, 0.2, 0.3), 224)
    assert trunk.config["depth"] == 18
    bare = load_file(run[0] / "weights.safetensors")
    save_file(bare, moved)  # without the card: the shapes tell the trunk
    again = vissl_lite.load(moved)
    assert all(torch.equal(tensor, bare[name]) for name, tensor in again.state_dict().items())
    assert again.mean is None
    assert (again.widths, again.config) == (trunk.widths, trunk.config)


def test_a_whole_model_of_ours_as_a_file(run, file):
    model = run[1]
    whole = {**model.state_dict(), "teacher.trunk.conv1.weight": torch.ones(1)}
    trunk = vissl_lite.load(file(whole))
    assert torch.equal(trunk.conv1.weight, model.trunk.conv1.weight)
    heads = [name for name in whole if name.startswith("heads.")]
    assert trunk.report.ignored == {"head": heads, "teacher": ["teacher.trunk.conv1.weight"]}
    again = build_model(small(), 10)
    notes = load_into(again, file(whole))
    assert torch.equal(again.heads[0].state_dict()["0.weight"], whole["heads.0.0.weight"])
    assert notes[1:] == [f"init: {len(heads)} head tensors", "init: ignored: 1 teacher"]


def test_loading_leaves_the_random_state_alone(state, file):
    before = torch.get_rng_state()
    vissl_lite.load(file(state))
    assert torch.equal(before, torch.get_rng_state())


def test_a_missing_tensor_is_an_error_unless_allowed(state, file):
    del state["layer3.0.conv1.weight"]
    path = file(state)
    with pytest.raises(ConfigError, match=r"layer3\.0\.conv1\.weight is missing; allow_missing"):
        vissl_lite.load(path)
    trunk = vissl_lite.load(path, allow_missing=True)
    assert trunk.report.missing == ["layer3.0.conv1.weight"]
    assert torch.equal(trunk.conv1.weight, state["conv1.weight"])
    assert trunk.layer3[0].conv1.weight.std() > 0.01


def test_another_shape_and_another_tensor_are_errors(state, file):
    state["layer3.0.bn1.weight"] = torch.ones(5)
    state["layer3.0.se.weight"] = torch.ones(5)
    with pytest.raises(ConfigError, match=r"bn1\.weight is \[5\].*se\.weight is not in the model"):
        vissl_lite.load(file(state), allow_missing=True)


def test_nothing_from_whose_shape_to_infer(state, file):
    del state["conv1.weight"]
    with pytest.raises(ConfigError, match=r"conv1\.weight is missing, whose shape tells"):
        vissl_lite.load(file(state), allow_missing=True)


def test_counters_that_old_files_lack(state, file):
    old = {k: t for k, t in state.items() if "num_batches" not in k}
    trunk = vissl_lite.load(file(old))
    assert len(trunk.report.started) == 20
    assert trunk.bn1.num_batches_tracked == 0


@pytest.fixture
def moco_v3_small(file):
    """The network and its file."""
    sizes = {"num_heads": 12, "img_size": 32, "depth": 12, "num_classes": 0}
    vit = randomised(timm.create_model("vit_small_patch16_224", **sizes))
    state = {f"module.base_encoder.{k}": t for k, t in vit.state_dict().items()}
    return vit, file({"state_dict": state})


@torch.no_grad()
def test_moco_v3_vit_s_has_12_heads(moco_v3_small):
    theirs, path = moco_v3_small
    trunk = vissl_lite.load(path)
    assert (trunk.heads, trunk.config["heads"]) == (12, 12)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cls = theirs.forward_features(x)[:, 0]
    torch.testing.assert_close(trunk(x)["cls"], cls, rtol=1e-5, atol=1e-5)


def test_init_refuses_another_number_of_heads(moco_v3_small, tmp_path):
    config = {"name": "vit", "size": "small", "image_size": 32}
    six, twelve = (
        build_model(replace(small(), trunk={**config, "heads": heads}), 10) for heads in (None, 12)
    )
    with pytest.raises(
        ConfigError, match=r"has 12 heads, that of the config 6; set trunk.heads=12"
    ):
        load_into(six, moco_v3_small[1])
    assert load_into(twelve, moco_v3_small[1])[0].startswith("init: 150 trunk tensors")
    card = {"trunk": json.dumps(config), "vissl_lite": "0.1.0"}
    save_file(twelve.trunk.state_dict(), tmp_path / "six", card)
    with pytest.raises(ConfigError, match=r"has 6 heads, that of the config 12"):
        load_into(twelve, tmp_path / "six")


def test_the_report_is_printable(state, file):
    del state["bn1.weight"]
    path = file({f"module.{k}": t for k, t in state.items()})
    text = str(vissl_lite.load(path, allow_missing=True).report).split("\n")
    assert text[0] == f"{path}: a network by itself, torchvision's ResNet"
    assert text[1].split()[:3] == ["loaded", "119", "conv1.weight,"]
    assert text[2].split()[1:5] == ["119", "module.conv1.weight", "->", "conv1.weight,"]
    assert text[3].split() == ["ignored,", "head", "2", "module.fc.weight,", "module.fc.bias"]
    assert text[5].split() == ["missing", "1", "bn1.weight"]


def test_init_takes_a_foreign_file(state, file):
    head = {"module.prototypes.weight": torch.ones(3, 2)}
    path = file({**{f"module.{k}": t for k, t in state.items()}, **head})
    keys = ("++trunk.stem=imagenet", "++trunk.width_multiplier=1")
    model = build_model(small(*keys), 10)
    notes = load_into(model, path)
    assert torch.equal(model.trunk.conv1.weight, state["conv1.weight"])
    assert notes == [
        f"init: 120 trunk tensors from {path} (SwAV, torchvision's ResNet)",
        "init: heads start from scratch, the file has none that fit",
        "init: ignored: 3 head",
    ]
    with pytest.raises(ConfigError, match=r"another trunk than the config.*'stem': 'imagenet'"):
        load_into(build_model(small(), 10), path)


@pytest.mark.parametrize(("norm", "names"), [("none", 5), ("batch", 10)])
def test_init_takes_the_heads_of_vissls_swav(state, file, norm, names):
    """heads.0.projection_head.{i}, of the same layers as our mlp, and heads.0.prototypes0."""
    keys = ("++trunk.stem=imagenet", "++trunk.width_multiplier=1")
    mlp = f"{{name: mlp, out_dim: 8, hidden: [32], norm: {norm}}}"
    heads = f"++heads=[{mlp},{{name: prototypes, num_prototypes: 5}}]"
    theirs = build_model(small(*keys, heads), 10)
    model = {f"trunk._feature_blocks.{k}": t for k, t in state.items() if not k.startswith("fc.")}
    for name, tensor in theirs.heads[0].state_dict().items():
        model[f"heads.0.projection_head.{name}"] = tensor
    model["heads.0.prototypes0.weight"] = theirs.heads[1].state_dict()["sets.0.weight"]
    path = file({"classy_state_dict": {"base_model": {"model": model}}})
    torch.manual_seed(9)
    again = build_model(small(*keys, heads), 10)
    notes = load_into(again, path)
    given = theirs.heads.state_dict()
    assert all(torch.equal(t, given[name]) for name, t in again.heads.state_dict().items())
    assert notes[1:] == [f"init: {len(given)} head tensors"]
    assert len(given) == names
    first = build_model(small(*keys, "++heads=[{name: hidden_layer, out_dim: 32}]"), 10)
    load_into(first, path)
    assert torch.equal(first.heads[0].state_dict()["0.weight"], given["0.0.weight"])


def test_names_of_published_weights(state, file, monkeypatch):
    asked, path = [], file(state)
    monkeypatch.setattr(io, "local_path", lambda uri: (asked.append(uri), path)[1])
    trunk = vissl_lite.load("barlowtwins_resnet50")
    assert (trunk.mean, trunk.std, trunk.size) == (IMAGENET_MEAN, IMAGENET_STD, 224)
    assert asked == [PUBLISHED["barlowtwins_resnet50"]]
    assert all(address.startswith("https://") for address in PUBLISHED.values())


def test_neither_file_nor_name():
    with pytest.raises(ConfigError, match="did you mean 'swav_resnet50'"):
        vissl_lite.load("swav_resnet5")


def test_pretrained_weights_of_an_adapter_are_not_fetched(tmp_path):
    trunk = randomised(vissl_lite.TRUNKS.build({"name": "timm", "model": "resnet18"}, "trunk"))
    config = {"name": "timm", "model": "resnet18", "pretrained": True}
    card = {"trunk": json.dumps(config), "vissl_lite": "0.1.0"}
    save_file(trunk.state_dict(), tmp_path / "w", card)
    loaded = vissl_lite.load(tmp_path / "w")
    assert torch.equal(loaded.model.conv1.weight, trunk.model.conv1.weight)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, vissl_lite; assert 'torch' not in sys.modules; vissl_lite.load"
    subprocess.run([sys.executable, "-c", code], check=True)
