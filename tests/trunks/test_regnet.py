import pytest
import torch
import torchvision
from torch import nn

from vissl_lite.errors import ConfigError
from vissl_lite.trunks.regnet import PRESETS, fit_groups, regnet

# Parameters of the trunk and with a classifier of 1000 classes. They agree with pycls' model zoo,
# torchvision and timm wherever these publish one.
PUBLISHED = {
    "x_200mf": (2_315_792, 2_684_792),
    "x_400mf": (4_772_512, 5_157_512),
    "x_600mf": (5_667_040, 6_196_040),
    "x_800mf": (6_586_656, 7_259_656),
    "x_1_6gf": (8_277_136, 9_190_136),
    "x_3_2gf": (14_287_552, 15_296_552),
    "x_4gf": (20_757_248, 22_118_248),
    "x_6_4gf": (24_584_256, 26_209_256),
    "x_8gf": (37_651_648, 39_572_648),
    "x_12gf": (43_865_056, 46_106_056),
    "x_16gf": (52_229_536, 54_278_536),
    "x_32gf": (105_290_560, 107_811_560),
    "y_200mf": (2_793_996, 3_162_996),
    "y_400mf": (3_903_144, 4_344_144),
    "y_600mf": (5_446_160, 6_055_160),
    "y_800mf": (5_494_168, 6_263_168),
    "y_1_6gf": (10_313_430, 11_202_430),
    "y_3_2gf": (17_923_338, 19_436_338),
    "y_4gf": (19_557_656, 20_646_656),
    "y_6_4gf": (29_286_252, 30_583_252),
    "y_8gf": (37_163_068, 39_180_068),
    "y_12gf": (49_581_544, 51_822_544),
    "y_16gf": (80_565_140, 83_590_140),
    "y_32gf": (141_333_770, 145_046_770),
    "y_64gf_classy": (239_997_996, 242_974_996),
    "y_64gf_seer": (276_457_786, 281_378_786),
    "y_128gf": (637_419_894, 644_812_894),
    "y_256gf_classy": (821_051_008, 826_140_008),
    "y_256gf_seer": (1_272_156_138, 1_282_601_138),
    "y_10b_seer": (9_323_934_872, 9_352_215_872),
}
TWINS = {  # final widths and millions of parameters
    "y_256gf_a376": ([752, 1504, 4136, 10528], 1292.7),
    "y_256gf_a384": ([768, 1536, 4224, 10368], 1334.7),
    "y_10b_a1008": ([2016, 4032, 11088, 28224], 9286.8),
}


def _on_meta(preset):
    with torch.device("meta"):
        trunk = regnet(preset)
    return trunk, sum(p.numel() for p in trunk.parameters())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_parameters_to_the_unit(preset):
    trunk, parameters = _on_meta(preset)
    assert (parameters, parameters + 1000 * (trunk.widths["res5"] + 1)) == PUBLISHED[preset]


@pytest.mark.parametrize("preset", TWINS)
def test_aligned_twins(preset):
    trunk, parameters = _on_meta(preset)
    assert (list(trunk.widths.values())[1:], round(parameters / 1e6, 1)) == TWINS[preset]
    groups = [
        m.weight.shape[1] for m in trunk.modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    assert all(width % 8 == 0 for width in groups)


def test_every_preset_has_its_count():
    assert set(PRESETS) == {*PUBLISHED, *TWINS}


def test_seer_has_366_parameter_tensors_in_86_norms():
    trunk, _ = _on_meta("y_256gf_seer")
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(norms), len(list(trunk.parameters()))) == (86, 366)


@pytest.mark.parametrize("preset", ["y_400mf", "x_1_6gf", "y_8gf"])
def test_is_torchvision_with_its_weights(preset):
    theirs = torchvision.models.get_model(f"regnet_{preset}")
    theirs.fc = nn.Identity()
    ours = regnet(preset, rounding="torchvision")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    for mode in (True, False):
        y = ours.train(mode)(x)["res5"].mean((2, 3))
        torch.testing.assert_close(y, theirs.train(mode)(x), rtol=1e-5, atol=1e-5)


SIZES = ["400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf"]


@pytest.mark.parametrize("preset", [f"{kind}_{size}" for kind in "xy" for size in SIZES])
def test_torchvision_rounding_has_torchvision_counts(preset):
    name = f"RegNet_{preset[:-2].upper()}{preset[-2:].upper()}_Weights"
    weights = getattr(torchvision.models, name).IMAGENET1K_V1
    with torch.device("meta"):
        trunk = regnet(preset, rounding="torchvision")
    parameters = sum(p.numel() for p in trunk.parameters())
    assert parameters + 1000 * (trunk.widths["res5"] + 1) == weights.meta["num_params"]


@pytest.mark.parametrize(
    ("width", "group_width", "rounding", "fitted"),
    [
        (144, 16, "classy", (144, 16)),
        (192, 56, "classy", (168, 56)),
        (192, 56, "torchvision", (224, 56)),
        (24, 48, "classy", (24, 24)),
        (20, 8, "classy", (16, 8)),  # 2.5 groups: half to even
        (20, 8, "torchvision", (24, 8)),
    ],
)
def test_fit_groups(width, group_width, rounding, fitted):
    assert fit_groups(width, group_width, rounding) == fitted


def test_numbers_override_the_preset():
    a = _on_meta("y_256gf_a376")[1]
    with torch.device("meta"):
        b = regnet("y_256gf_seer", group_width=376)
        x = regnet("y_400mf", se_ratio=0.0)
        c = regnet(None, depth=16, w_0=48, w_a=27.89, w_m=2.09, group_width=8)
    assert sum(p.numel() for p in b.parameters()) == a
    names = [{n for n, _ in trunk.named_parameters()} for trunk in (x, c)]
    assert names[0] == names[1]
    assert not any(".se." in name for name in names[0])


def test_mistakes():
    with pytest.raises(ConfigError, match=r"'y_15gf'; did you mean 'y_16gf'\? presets: "):
        regnet("y_15gf")
    with pytest.raises(ConfigError, match="without a preset it needs w_a, w_m; give them"):
        regnet(None, depth=4, w_0=8, group_width=8)
    with pytest.raises(ConfigError, match="w_0 must be a positive multiple of 8"):
        regnet("y_16gf", w_0=12)
