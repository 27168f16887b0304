import pytest
import torch
import torchvision
from torch import nn

from vissl_lite.errors import ConfigError
from vissl_lite.trunks.resnet import ResNet

MODELS = {
    "resnet18": {"depth": 18},
    "resnet50": {"depth": 50},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "width_per_group": 8},
    "wide_resnet50_2": {"depth": 50, "width_per_group": 128},
}


def parameters(**keys):
    with torch.device("meta"):
        trunk = ResNet(**keys)
    return sum(p.numel() for p in trunk.parameters()), list(trunk.widths.values())[-1]


@pytest.mark.parametrize("name", MODELS)
def test_is_torchvision_with_its_weights(name):
    theirs = torchvision.models.get_model(name)
    theirs.fc = nn.Identity()
    ours = ResNet(**MODELS[name])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    for mode in (True, False):  # batch statistics, then the running ones that both have updated
        y = ours.train(mode)(x)["res5"].mean((2, 3))
        torch.testing.assert_close(y, theirs.train(mode)(x), rtol=1e-5, atol=1e-5)


# With a classifier of 1000 classes: torchvision's documentation; 200 layers: timm.
PUBLISHED = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
    200: 64_673_832,
}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameters_of_resnets(depth):
    trunk, width = parameters(depth=depth)
    assert trunk + 1000 * (width + 1) == PUBLISHED[depth]


@pytest.mark.parametrize(
    ("width_per_group", "millions"),
    [(4, 44.18), (8, 88.79), (16, 194.03), (32, 468.53), (48, 828.41)],
)
def test_parameters_of_resnext_101(width_per_group, millions):
    trunk, width = parameters(depth=101, groups=32, width_per_group=width_per_group)
    assert round((trunk + 1000 * (width + 1)) / 1e6, 2) == millions


@pytest.mark.parametrize(("multiplier", "millions"), [(2, 94), (4, 375)])
def test_parameters_of_multiplied_widths(multiplier, millions):
    # SimCLR (arXiv 2002.05709), table 6: ResNet-50 2x and 4x
    trunk, width = parameters(depth=50, width_multiplier=multiplier)
    assert width == 2048 * multiplier
    assert round(trunk / 1e6) == pytest.approx(millions, abs=1)


def test_resolutions():
    x = torch.randn(2, 3, 32, 32)
    layers = ("conv1", "res2", "res3", "res4", "res5")
    sides = [y.shape[-1] for y in ResNet(18)(x, layers).values()]
    assert sides == [16, 8, 4, 2, 1]
    sides = [y.shape[-1] for y in ResNet(18, stem="cifar")(x, layers).values()]
    assert sides == [32, 32, 16, 8, 4]


def test_zero_init_residual():
    x = torch.randn(2, 3, 32, 32)
    trunk = ResNet(18, zero_init_residual=True)
    out = trunk(x, ("conv1", "res2"))
    assert torch.equal(out["res2"], nn.functional.max_pool2d(out["conv1"], 3, 2, 1))


def test_basic_blocks_have_no_groups():
    with pytest.raises(ConfigError, match="depth 18 has no bottlenecks"):
        ResNet(18, groups=32)
