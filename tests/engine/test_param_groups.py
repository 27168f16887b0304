import pytest
import torch
from timm.models import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from vissl_lite import ConfigError
from vissl_lite.engine.param_groups import param_groups


class Trunk(nn.Module):
    """A ViT in names: stem, 2 blocks, final norm, embeddings beside them."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 6))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.stem = nn.Conv2d(3, 6, 2)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(6)

    def units(self) -> list[nn.Module]:
        return [self.stem, *self.blocks]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = Trunk()
        self.heads = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 7, bias=False)])


def by_name(groups: list[dict], key: str) -> dict[str, float]:
    return {name: group[key] for group in groups for name in group["names"]}


def test_one_group_when_all_settings_are_equal():
    model = Model()
    (group,) = param_groups(model, 0.3, 1e-6)
    assert group["names"] == [name for name, _ in model.named_parameters()]
    assert all(a is b for a, b in zip(group["params"], model.parameters()))
    settings = {key: value for key, value in group.items() if key not in ("params", "names")}
    assert settings == {
        "lr": 0.3, "lr_scale": 1.0, "weight_decay": 1e-6, "lars_exclude": False,
        "decay_fixed": False,
    }  # fmt: skip


def test_norm_and_bias_have_no_decay_and_no_trust_ratio():
    groups = param_groups(
        Model(), 0.3, 0.1, exclude_from_decay="norm_and_bias", exclude_from_lars="norm_and_bias"
    )
    assert len(groups) == 2
    decayed = {name for name, decay in by_name(groups, "weight_decay").items() if decay == 0.1}
    assert decayed == {
        "trunk.stem.weight", "trunk.blocks.0.1.weight", "trunk.blocks.1.1.weight",
        "heads.0.weight", "heads.1.weight",
    }  # fmt: skip
    for group in groups:
        assert group["lars_exclude"] == group["decay_fixed"] == (group["weight_decay"] == 0.0)


def test_the_two_exclusions_are_independent():
    groups = param_groups(Model(), 0.3, 0.1, exclude_from_lars="norm_and_bias")
    assert {(g["weight_decay"], g["lars_exclude"]) for g in groups} == {(0.1, True), (0.1, False)}


def test_layer_decay_by_depth():
    """Stem and 2 blocks are 3 units: 0.5 ** (3 - depth)."""
    scale = by_name(param_groups(Model(), 0.4, 0.0, layer_decay=0.5), "lr_scale")
    assert (
        scale["trunk.stem.weight"] == scale["trunk.pos_embed"] == scale["trunk.cls_token"] == 1 / 8
    )
    assert scale["trunk.blocks.0.1.weight"] == 1 / 4
    assert scale["trunk.blocks.1.0.bias"] == 1 / 2
    assert scale["trunk.norm.weight"] == scale["heads.0.weight"] == scale["heads.1.weight"] == 1.0
    lr = by_name(param_groups(Model(), 0.4, 0.0, layer_decay=0.5), "lr")
    assert lr["trunk.blocks.0.1.weight"] == pytest.approx(0.1)


def test_layer_decay_and_exclusions_equal_timm():
    """All but the last norm, which timm counts to the last block, BEiT and DINOv2 to the head."""

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = VisionTransformer(
                img_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2
            )
            self.trunk.units = lambda: [self.trunk.patch_embed, *self.trunk.blocks]

    model = Whole()
    theirs = param_groups_layer_decay(
        model.trunk, 0.1, layer_decay=0.75, no_weight_decay_list=("pos_embed", "cls_token")
    )
    ours = param_groups(model, 1.0, 0.1, exclude_from_decay="norm_and_bias", layer_decay=0.75)
    expected = {id(p): (g["lr_scale"], g["weight_decay"]) for g in theirs for p in g["params"]}
    got = {id(p): (g["lr_scale"], g["weight_decay"]) for g in ours for p in g["params"]}
    assert got.keys() == expected.keys()
    differing = {
        name for name, p in model.named_parameters() if got[id(p)] != pytest.approx(expected[id(p)])
    }
    assert differing == {"trunk.norm.weight", "trunk.norm.bias"}


def test_overrides_multiply_lr_and_replace_decay():
    groups = param_groups(
        Model(), 1.0, 0.1, layer_decay=0.5, exclude_from_decay="norm_and_bias",
        overrides={
            "trunk.stem.*": {"lr_scale": 0.2, "weight_decay": 0.7},
            "*.stem.bias": {"lr_scale": 0.5},
        },
    )  # fmt: skip
    scale, decay = by_name(groups, "lr_scale"), by_name(groups, "weight_decay")
    assert (scale["trunk.stem.weight"], decay["trunk.stem.weight"]) == (0.2 / 8, 0.7)
    assert (scale["trunk.stem.bias"], decay["trunk.stem.bias"]) == (0.5 / 8, 0.7)
    assert by_name(groups, "decay_fixed")["trunk.stem.weight"] is True
    assert by_name(groups, "decay_fixed")["heads.0.weight"] is False


def test_frozen_parameters_are_left_out():
    model = Model()
    model.trunk.stem.requires_grad_(False)
    names = by_name(param_groups(model, 1.0, 0.1), "lr")
    assert not any(name.startswith("trunk.stem") for name in names)
    assert len(names) == len(list(model.parameters())) - 2


def test_the_order_is_that_of_the_parameters():
    groups = param_groups(Model(), 1.0, 0.1, layer_decay=0.5)
    order = [name for name, _ in Model().named_parameters()]
    first = [order.index(group["names"][0]) for group in groups]
    assert first == sorted(first)
    assert all(group["names"] == sorted(group["names"], key=order.index) for group in groups)


def test_mistakes_in_overrides_come_together():
    with pytest.raises(ConfigError) as error:
        param_groups(
            Model(), 1.0, 0.1,
            overrides={"trunk.stm.weight": {"lr_scale": 0.1}, "heads.*": {"lr_scael": 0.1}},
        )  # fmt: skip
    assert error.value.problems == [
        "param_groups.overrides['trunk.stm.weight']: matches no parameter;"
        " did you mean 'trunk.stem.weight'?",
        "param_groups.overrides['heads.*']: unknown key 'lr_scael'; did you mean 'lr_scale'?"
        " accepted: lr_scale, weight_decay",
    ]
    with pytest.raises(ConfigError, match="unknown key 'rate'; accepted: lr_scale, weight_decay"):
        param_groups(Model(), 1.0, 0.1, overrides={"heads.*": {"rate": 0.1}})
