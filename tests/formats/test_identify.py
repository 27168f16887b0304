"""Networks of torchvision and timm that no trunk of ours is, by the tensors of a file alone.

Features are compared with those of the library, to 1e-6 of the largest.
"""

import pytest
import timm
import torch
import torchvision
from formats.layouts import randomised
from torch import nn

import vissl_lite
from vissl_lite.errors import ConfigError
from vissl_lite.formats import identify
from vissl_lite.from_run import around

CLASSIFIER = {
    "mobilenet_v3_small": "classifier",
    "squeezenet1_1": "classifier",
    "shufflenet_v2_x0_5": "fc",
}


SIDES = {"test_vit2": 160, "deit_tiny_distilled_patch16_224": 224}  # of those that take no other


def network(library, model, **keys):
    torch.manual_seed(0)
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    return randomised(create(model, num_classes=7, **keys))


def features(theirs, model, x):
    if model in CLASSIFIER:
        setattr(theirs, CLASSIFIER[model], nn.Identity())
        return theirs(x)
    return theirs.forward_head(theirs.forward_features(x), pre_logits=True)


@pytest.fixture
def file(tmp_path):
    def write(state, prefix="", wrapped=False):
        state = {prefix + name: tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "state_dict": state} if wrapped else state, tmp_path / "x.pth")
        return tmp_path / "x.pth"

    return write


@pytest.fixture
def only(monkeypatch):
    """Looks among these networks of a library alone, to save time."""

    def among(library, *names):
        monkeypatch.setattr(identify, "_names", lambda: {library: list(names)})

    return among


OTHERS = {"timm": ("convnext_atto", "vit_tiny_patch16_224"), "torchvision": ("swin_s", "vgg11")}


@torch.no_grad()
@pytest.mark.parametrize(
    ("library", "model", "heads", "prefix", "wrapped"),
    [
        ("torchvision", "mobilenet_v3_small", 4, "module.", True),
        ("torchvision", "squeezenet1_1", 2, "", False),
        ("torchvision", "shufflenet_v2_x0_5", 2, "", True),
        ("timm", "test_convnext", 2, "module.", True),
        ("timm", "test_vit2", 2, "module.", False),
        ("timm", "deit_tiny_distilled_patch16_224", 4, "", False),
    ],
)
def test_loaded_whole_and_computes_the_same(library, model, heads, prefix, wrapped, file, only):
    if prefix != "module." or not wrapped:  # two look among all networks
        only(library, *OTHERS[library], model)
    theirs = network(library, model)
    path = file(theirs.state_dict(), prefix, wrapped)
    trunk = vissl_lite.load(path)
    report, tensors = trunk.report, len(theirs.state_dict())
    assert (trunk.config["name"], trunk.config["model"]) == (library, model)
    assert report.format == f"{model} of {library}"
    assert (len(report.loaded), len(report.ignored["head"])) == (tensors - heads, heads)
    assert not report.missing + report.unknown + report.wrong_shape
    assert trunk.size == SIDES.get(model)
    x = torch.randn(2, 3, *[trunk.size or 96] * 2)
    expected, (y,) = features(theirs, model, x), trunk(x).values()
    assert (y - expected.reshape(y.shape)).abs().max() <= 1e-6 * expected.abs().max()


TWO = ("mobilenetv3_small_075", "tf_mobilenetv3_small_075")  # they pad in different ways


def test_networks_that_compute_something_else_are_not_guessed(file, only):
    only("timm", *TWO)
    path = file(network("timm", TWO[1]).state_dict())
    with pytest.raises(
        ConfigError, match=r"do not compute the same \(timm mobilenetv3_small_075"
    ) as e:
        vissl_lite.load(path)
    assert "timm tf_mobilenetv3_small_075); name the one that it is of: load(..., trunk=" in str(
        e.value
    )
    trunk = vissl_lite.load(path, trunk={"name": "timm", "model": TWO[1]})
    assert trunk.config["model"] == TWO[1]
    with pytest.raises(ConfigError, match="do not compute the same"):
        around(str(path))
    assert around(str(path), ["trunk={name: timm}"])["trunk"] == {}


def test_names_of_one_function_are_no_choice(file, only):
    only("timm", "xcit_nano_12_p16_224", "xcit_nano_12_p16_384")
    path = file(network("timm", "xcit_nano_12_p16_384").state_dict())
    assert around(str(path))["trunk"]["model"] == "xcit_nano_12_p16_224"


def test_an_evaluation_shows_images_of_the_only_size(file, only):
    only("timm", "test_vit2")
    found = around(str(file(network("timm", "test_vit2").state_dict())))
    assert (found["trunk"]["name"], found["labelled"]["size"]) == ("timm", 160)


def test_no_network_at_all(file):
    path = file({"stem.0.weight": torch.ones(3, 3, 1, 1), "odd.gain": torch.ones(3)})
    with pytest.raises(ConfigError) as e:
        vissl_lite.load(path)
    for part in (
        "ResNet, RegNet and ViT",
        "of torchvision or the 1",
        "of timm exactly these names",
    ):
        assert part in str(e.value)


def test_a_named_trunk_is_told_what_differs(file):
    state = network("timm", "test_convnext").state_dict()
    weight = state.pop("stem.0.weight")
    path, named = file(state), {"name": "timm", "model": "test_convnext"}
    with pytest.raises(ConfigError, match=r"model\.stem\.0\.weight is missing; allow_missing=True"):
        vissl_lite.load(path, trunk=named)
    trunk = vissl_lite.load(path, trunk=named, allow_missing=True)
    assert trunk.report.missing == ["model.stem.0.weight"]
    assert trunk.model.stem[0].weight.shape == weight.shape


def test_a_named_trunk_of_ours(file):
    state = torchvision.models.resnet18().state_dict()
    trunk = vissl_lite.load(file(state), trunk={"name": "resnet", "depth": 18})
    assert torch.equal(trunk.conv1.weight, state["conv1.weight"])
    adapter = vissl_lite.load(file(state), trunk={"name": "torchvision", "model": "resnet18"})
    assert torch.equal(adapter.model.conv1.weight, state["conv1.weight"])
    with pytest.raises(ConfigError, match=r"conv1\.weight is"):
        vissl_lite.load(file(state), trunk={"name": "resnet", "depth": 18, "stem": "cifar"})


@pytest.mark.parametrize("model", timm.list_models("test_*"))
def test_the_first_convolution_by_which_networks_are_left_out(model):
    with torch.device("meta"):
        state = timm.create_model(model).state_dict()
    assert identify._has_first_convolution(model, state)
