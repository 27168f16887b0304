import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from vissl_lite.errors import ConfigError
from vissl_lite.trunks.torchvision import Torchvision

# One of each family but RegNet, which cannot be built on the meta device: what the classifier gets.
FAMILIES = {
    "alexnet": (9216,),
    "convnext_tiny": (768, 1, 1),
    "densenet121": (1024,),
    "efficientnet_b0": (1280,),
    "inception_v3": (2048,),
    "maxvit_t": (512, 7, 7),
    "mnasnet0_5": (1280,),
    "mobilenet_v2": (1280,),
    "mobilenet_v3_small": (576,),
    "resnet18": (512,),
    "shufflenet_v2_x0_5": (1024,),
    "squeezenet1_1": (512, 13, 13),
    "swin_t": (768,),
    "swin_v2_t": (768,),
    "vgg11_bn": (25088,),
    "vit_b_32": (768,),
}


@pytest.mark.filterwarnings("ignore:.*init.*:FutureWarning")  # inception's own
@pytest.mark.parametrize("model", FAMILIES)
def test_every_family(model):
    with torch.device("meta"):
        trunk = Torchvision(model)
        (y,) = trunk(torch.empty(2, 3, 224, 224)).values()
    assert y.shape[1:] == FAMILIES[model]
    assert list(trunk.widths)[-1] == "pre_logits"
    units = [p for unit in trunk.units() for p in unit.parameters()]
    assert len(units) > 0.9 * len(list(trunk.parameters()))


@pytest.mark.parametrize(
    ("model", "classifier"), [("mobilenet_v2", "classifier"), ("regnet_y_400mf", "fc")]
)
def test_outputs_are_those_of_the_model(model, classifier):
    trunk = Torchvision(model)
    theirs = torchvision.models.get_model(model)
    setattr(theirs, classifier, nn.Identity())
    theirs.load_state_dict(trunk.model.state_dict(), strict=True)
    x = torch.randn(4, 3, 64, 64)
    for mode in (True, False):
        torch.manual_seed(0)
        y = trunk.train(mode)(x)["pre_logits"]
        torch.manual_seed(0)
        torch.testing.assert_close(y, theirs.train(mode)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_layers_are_the_outputs_of_the_modules_so_named(model):
    trunk, x, at_the_time = Torchvision(model).eval(), torch.randn(1, 3, 64, 64), {}
    layers = list(trunk.widths)[:-1]
    hooks = [
        trunk.model.get_submodule(name).register_forward_hook(
            lambda _, inputs, y, name=name: at_the_time.update({name: y.clone()})
        )
        for name in layers
    ]
    trunk.model(x)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(trunk(x, layers), at_the_time, rtol=0, atol=0)


def test_overwritten_outputs_are_not_offered():
    widths = Torchvision("resnet18").widths
    assert "bn1" not in widths  # the next ReLU works in place
    assert list(widths)[:4] == ["conv1", "relu", "maxpool", "layer1.0"]
    assert (widths["layer2.1"], widths["layer2"]) == (128, 128)


def test_channels_come_second_or_not_at_all():
    assert list(Torchvision("swin_t").widths) == [
        "features.0.0", "permute", "avgpool", "flatten", "pre_logits",
    ]  # fmt: skip


def test_parameters_that_the_network_itself_uses_are_traced(monkeypatch):
    """The class token of a ViT, on the device that a run builds its trunk on."""
    theirs = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16)
    nn.init.normal_(theirs.heads.head.weight)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: theirs)
    x = torch.randn(2, 3, 32, 32)
    expected, head = theirs(x), theirs.heads
    trunk = Torchvision("vit_b_32")
    assert trunk.widths["pre_logits"] == 8
    y = trunk(x)["pre_logits"]
    torch.testing.assert_close(head(y), expected, rtol=1e-5, atol=1e-5)
    y.sum().backward()
    assert trunk.model.class_token.grad.abs().sum() > 0


def test_a_copy_is_independent():
    trunk, x = Torchvision("resnet18").eval(), torch.randn(1, 3, 64, 64)
    before = trunk(x)["pre_logits"]
    twin = copy.deepcopy(trunk)
    nn.init.zeros_(twin.model.conv1.weight)
    assert torch.equal(trunk(x)["pre_logits"], before)
    assert not torch.equal(twin(x)["pre_logits"], before)
    assert torch.equal(pickle.loads(pickle.dumps(trunk))(x)["pre_logits"], before)


def test_parameters_of_blocks_are_initialised_after_the_meta_device():
    with torch.device("meta"):
        trunk = Torchvision("convnext_tiny")
    trunk.to_empty(device="cpu").init_weights()
    scale = trunk.model.features[1][0].layer_scale
    assert torch.equal(scale, torch.full_like(scale, 1e-6))


class _Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("evil", [False, True])
def test_weights_are_loaded_without_unpickling(tmp_path, monkeypatch, capsys, evil):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = torchvision.models.resnet18()
    state = {**theirs.state_dict(), **({"fc.bias": _Evil()} if evil else {})}
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / url.rsplit("/", 1)[1])
    if evil:
        with pytest.raises(pickle.UnpicklingError):
            Torchvision("resnet18", weights="DEFAULT")
        assert "unpickled" not in capsys.readouterr().out
    else:
        trunk = Torchvision("resnet18", weights="DEFAULT")
        assert torch.equal(trunk.model.conv1.weight, theirs.conv1.weight)


def test_mistakes():
    with pytest.raises(ConfigError, match="unknown model 'resnet19'; did you mean 'resnet18'"):
        Torchvision("resnet19")
    with pytest.raises(ConfigError, match=r"resnet18 has no weights 'V1'.*IMAGENET1K_V1, DEFAULT"):
        Torchvision("resnet18", weights="V1")
    with pytest.raises(ConfigError, match="weights are for 3 channels"):
        Torchvision("resnet18", weights="DEFAULT", in_channels=1)
