"""What holds for every trunk."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vissl_lite.errors import ConfigError
from vissl_lite.model import SSLModel
from vissl_lite.trunks.anynet import anynet
from vissl_lite.trunks.regnet import regnet
from vissl_lite.trunks.resnet import ResNet
from vissl_lite.trunks.timm import Timm
from vissl_lite.trunks.torchvision import Torchvision
from vissl_lite.trunks.vit import ViT

SMALL = {
    "resnet": lambda **k: ResNet(depth=18, **k),
    "resnet_bottleneck": lambda **k: ResNet(depth=50, **k),
    "regnet": lambda **k: regnet("y_200mf", **k),
    "anynet": lambda **k: anynet([1, 2], [16, 32], [8, 8], **k),
    "vit": lambda **k: ViT("tiny", image_size=32, **k),
    "torchvision": lambda **k: Torchvision("resnet18", **k),
    "torchvision_mobilenet": lambda **k: Torchvision("mobilenet_v3_small", **k),
    "timm": lambda **k: Timm("resnet18", **k),
    "timm_regnet": lambda **k: Timm("regnety_002", **k),
}
every_trunk = pytest.mark.parametrize("build", SMALL.values(), ids=SMALL)


def _x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@every_trunk
def test_widths_are_those_of_the_outputs(build):
    trunk = build()
    out = trunk(_x(2, 3, 64, 64), list(trunk.widths))
    assert {name: y.shape[1] for name, y in out.items()} == trunk.widths
    assert all(y.ndim in (2, 4) for y in out.values())
    assert list(trunk(_x(2, 3, 64, 64))) == [list(trunk.widths)[-1]]


@every_trunk
def test_layers_come_in_the_order_asked_and_do_not_depend_on_the_others(build):
    # VISSL returned network order whatever was asked, and so probed the wrong layer
    trunk, x = build().eval(), _x(1, 3, 32, 32)
    backwards = list(trunk.widths)[::-1]
    out = trunk(x, backwards)
    assert list(out) == backwards
    for name in backwards:
        assert torch.equal(trunk(x, (name,))[name], out[name]), name
    assert list(trunk(x, backwards[:2] * 2)) == backwards[:2]


@every_trunk
def test_a_model_takes_crops_of_several_sizes(build):
    model = SSLModel(build().eval(), mean=[0.5] * 3, std=[0.5] * 3)
    views = [torch.randint(256, (1, 2, size, size, 3), dtype=torch.uint8) for size in (48, 32, 48)]
    together = model(views).features
    alone = [model([view]).features for view in views]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@every_trunk
def test_stops_after_the_last_layer_asked(build):
    trunk, ran = build().eval(), []
    units = trunk.units()
    for unit in units:
        unit.register_forward_hook(lambda unit, *_: ran.append(unit))
    trunk(_x(2, 3, 64, 64))
    assert Counter(map(id, ran)) == Counter(map(id, units))
    ran.clear()
    trunk(_x(2, 3, 64, 64), [next(iter(trunk.widths))])
    assert 0 < len(ran) <= 2


@every_trunk
def test_units_share_no_parameter(build):
    trunk = build()
    owned = Counter(id(p) for unit in trunk.units() for p in unit.parameters())
    assert set(owned.values()) == {1}
    rest = {n for n, p in trunk.named_parameters() if id(p) not in owned}
    assert rest == ({"cls_token", "pos_embed"} if isinstance(trunk, ViT) else set())


@every_trunk
def test_unknown_layer(build):
    with pytest.raises(ConfigError, match="trunk: unknown layer 'zyx'; layers: "):
        build()(_x(1, 3, 64, 64), ("zyx",))


def test_unknown_layer_has_a_suggestion():
    with pytest.raises(ValueError, match="unknown layer 'res6'; did you mean 'res5'"):
        ResNet(18)(_x(1, 3, 64, 64), ("res6",))


@every_trunk
def test_other_numbers_of_channels(build):
    (y,) = build(in_channels=4)(_x(2, 4, 64, 64)).values()
    assert torch.isfinite(y).all()


@every_trunk
def test_channels_last_is_the_same(build):
    trunk, x = build().eval().double(), _x(2, 3, 64, 64).double()
    (y,), (z,) = (trunk(i).values() for i in (x, x.to(memory_format=torch.channels_last)))
    torch.testing.assert_close(z, y, rtol=1e-9, atol=1e-9)


@every_trunk
def test_checkpointing_every_unit_changes_nothing(build):
    plain = build()
    wrapped = copy.deepcopy(plain)
    for unit in wrapped.units():
        unit.forward = _checkpointed(unit.forward)
    for trunk in (plain, wrapped):
        (y,) = trunk(_x(2, 3, 64, 64)).values()
        y.square().sum().backward()
    torch.testing.assert_close(wrapped.state_dict(), plain.state_dict(), rtol=0, atol=0)
    for (name, p), q in zip(plain.named_parameters(), wrapped.parameters()):
        assert torch.equal(p.grad, q.grad), name


def _checkpointed(forward):
    return lambda *inputs: checkpoint(forward, *inputs, use_reentrant=False)


@every_trunk
def test_no_foreign_batch_norm(build):
    for module in build().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert type(module).__module__.startswith("vissl_lite.")


@every_trunk
def test_weights_can_be_made_after_the_meta_device(build):
    with torch.device("meta"):
        trunk = build()
    assert all(t.is_meta for t in trunk.parameters())
    trunk.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*trunk.parameters(), *trunk.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 7)
    trunk.init_weights()
    for name, tensor in trunk.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    (y,) = trunk(_x(2, 3, 64, 64)).values()
    assert torch.isfinite(y).all()
