"""Which pyramid a trunk gets, its levels, what is frozen; RoIAlign and anchors at any stride."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from distributed import run_ranks
from engine.some_digits import CPU, FP32
from torch.distributed.device_mesh import init_device_mesh
from torchvision.models.detection.image_list import ImageList

from vissl_lite import TRUNKS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations import _detection_network as network_module
from vissl_lite.evaluations._detection_pyramid import SimplePyramid
from vissl_lite.evaluations._training import without_decay_of_norms_and_tokens
from vissl_lite.evaluations.detection import PLACE
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.model import SSLModel
from vissl_lite.parallel.wrap import shard
from vissl_lite.plugins import load_entries

RESNET = {"name": "resnet", "depth": 18, "width_multiplier": 0.125}
VIT = {"name": "vit", "size": "tiny", "image_size": 32}


def network_on(trunk, notes=None, **changes):
    settings = {
        **{"masks": True, "layers": None, "channels": 16, "hidden": 16, "proposals": 8},
        **{"batch_norm": "synchronised", "freeze_until": None, "longest": 64},
        **changes,
    }
    load_entries()
    trunk = trunk if isinstance(trunk, torch.nn.Module) else TRUNKS.build(trunk, "trunk")
    model = SSLModel(trunk, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    note = (lambda text: None) if notes is None else notes.append
    bench = Bench(model, Labelled(), {}, device=CPU, numerics=FP32, note=note)
    return network_module.build(bench, 3, network_module.Architecture(**settings), PLACE)


# ---------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("trunk", "layers", "note", "anchors"),
    [
        (
            RESNET,
            ("res2", "res3", "res4", "res5"),
            "feature pyramid on res2, res3, res4, res5; strides 4, 8, 16, 32, 64",
            [32, 64, 128, 256, 512],
        ),
        (
            {**RESNET, "stem": "cifar"},
            ("res2", "res3", "res4", "res5"),
            "feature pyramid on res2, res3, res4, res5; strides 1, 2, 4, 8, 16",
            [8, 16, 32, 64, 128],
        ),
        (
            {"name": "torchvision", "model": "shufflenet_v2_x0_5"},
            ("maxpool", "stage2", "stage3", "conv5"),
            "feature pyramid on maxpool, stage2, stage3, conv5; strides 4, 8, 16, 32, 64",
            [32, 64, 128, 256, 512],
        ),
        (
            VIT,
            ("patches",),
            "simple feature pyramid on patches; strides 4, 8, 16, 32, 64",
            [32, 64, 128, 256, 512],
        ),
        (
            {**VIT, "patch_size": 14},
            ("patches",),
            "simple feature pyramid on patches; strides 3.5, 7, 14, 28, 56",
            [28, 56, 112, 224, 448],
        ),
        (
            {**VIT, "patch_size": 12},  # no divisor of the side that others are probed with
            ("patches",),
            "simple feature pyramid on patches; strides 3, 6, 12, 24, 48",
            [24, 48, 96, 192, 384],
        ),
    ],
)
def test_pyramid_and_anchors_follow_the_strides(trunk, layers, note, anchors):
    notes = []
    network = network_on(trunk, notes)
    assert network.backbone.layers == layers
    assert notes == [f"detection: {note}"]
    assert [size for (size,) in network.rpn.anchor_generator.sizes] == anchors


@pytest.mark.parametrize(("patch", "sides"), [(16, (64, 96)), (14, (56, 84))])
def test_levels_of_a_vision_transformer(patch, sides):
    """Images are padded to whole patches, an even number of them; any layer may be taken."""
    network = network_on({**VIT, "patch_size": patch}, layers=("block2",), longest=99).eval()
    network.transform.min_size = (2 * patch + 5,)
    batch, _ = network.transform([torch.rand(3, 2 * patch + 5, 4 * patch + 1)])
    assert batch.tensors.shape[2:] == sides
    with torch.no_grad():
        levels = network.backbone(batch.tensors)
    cells = [tuple(y.shape[2:]) for y in levels.values()]
    assert cells == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert {y.shape[1] for y in levels.values()} == {16}


def norm(x_NCHW, weight_C, bias_C):
    """Of the channels of each cell, written out."""
    mean = x_NCHW.mean(1, keepdim=True)
    var = (x_NCHW - mean).square().mean(1, keepdim=True)
    y_NCHW = (x_NCHW - mean) / (var + 1e-6).sqrt()
    return y_NCHW * weight_C[:, None, None] + bias_C[:, None, None]


def test_simple_pyramid_is_that_of_the_paper():
    """Section 3, with the weights in order of their use."""
    torch.manual_seed(0)
    pyramid = SimplePyramid(8, 6).double()
    for p in pyramid.parameters():
        torch.nn.init.normal_(p)
    x_NCHW = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    weights = iter(pyramid.parameters())

    def take(count):
        return [next(weights) for _ in range(count)]

    def up(x):
        return F.conv_transpose2d(x, *take(2), stride=2)

    def project(x):
        x = norm(F.conv2d(x, *take(1)), *take(2))
        return norm(F.conv2d(x, *take(1), padding=1), *take(2))

    expected = [
        project(up(F.gelu(norm(up(x_NCHW), *take(2))))),
        project(up(x_NCHW)),
        project(x_NCHW),
        project(x_NCHW.unflatten(2, (2, 2)).unflatten(4, (3, 2)).amax((3, 5))),
    ]
    expected.append(expected[-1][:, :, ::2, ::2])
    assert next(weights, None) is None
    levels = pyramid({"0": x_NCHW})
    assert [tuple(y.shape[2:]) for y in expected] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    for name, y in zip(["0", "1", "2", "3", "pool"], expected, strict=True):
        torch.testing.assert_close(levels[name], y, rtol=0, atol=1e-11)


# ---------------------------------------------------------------- strides of regions and anchors


@pytest.mark.parametrize("strides", [[4, 8, 16, 32], [3.5, 7, 14, 28], [0.5, 1, 2, 4]])
@pytest.mark.parametrize("cells", [7, 14])
def test_regions_are_cut_out_at_the_stride(strides, cells):
    """Of maps that say where their cells are, in pixels, and on which level."""
    side = int(32 * strides[-1])
    maps = {}
    for level, stride in enumerate(strides):
        position = torch.arange(side / stride) * stride
        ys, xs = torch.meshgrid(position, position, indexing="ij")
        maps[str(level)] = torch.stack([xs, ys, torch.full_like(xs, level)])[None]
    corners = [(stride, part * stride) for stride in strides for part in (14.1, 27.9)]
    boxes = torch.tensor([[2 * s, s, 2 * s + width, s + width] for s, width in corners])
    # whatever the images before padding were
    found = network_module.roi_pool(cells, strides)(maps, [boxes], [(side // 2 + 1, side)])
    centres = (torch.arange(cells) + 0.5) / cells
    for k, (left, top, right, _) in enumerate(boxes):
        torch.testing.assert_close(found[k, 0, 0], left + centres * (right - left))
        torch.testing.assert_close(found[k, 1, :, 0], top + centres * (right - left))
        assert found[k, 2].unique().tolist() == [pytest.approx(k // 2)]


@pytest.mark.parametrize("finest", [3.5, 4.0])
def test_anchors_stand_at_the_stride(finest):
    """Also on a coarsest map whose last cell is not whole."""
    anchors = network_module.Anchors([finest * 2**level for level in range(5)])
    cells = [40, 20, 10, 5, 3]
    images = ImageList(torch.empty(2, 3, int(40 * finest), int(40 * finest)), [(9, 9)] * 2)
    found, again = anchors(images, [torch.empty(2, 1, n, n) for n in cells])
    assert torch.equal(found, again)
    for level, of_level in enumerate(found.split([3 * n * n for n in cells])):
        n, stride = cells[level], finest * 2**level
        xyxy = of_level.view(n, n, 3, 4)
        middle = (xyxy[..., :2] + xyxy[..., 2:]) / 2
        assert torch.equal(middle[0, :, 1, 0], torch.arange(n) * stride)
        assert torch.equal(middle[:, 0, 1, 1], torch.arange(n) * stride)
        assert (xyxy[0, 0, 1, 2:] - xyxy[0, 0, 1, :2]).tolist() == [8 * stride] * 2


# ---------------------------------------------------------------- what is trained


def test_pixels_are_normalised_as_the_models():
    network = network_on(RESNET)
    assert network.transform.image_mean == pytest.approx([0.3] * 3)
    assert network.transform.image_std == pytest.approx([0.4] * 3)


def test_what_is_frozen_stays():
    network = network_on(RESNET, freeze_until="res2").train()
    trainable = {n for n, p in network.backbone.trunk.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trainable} == {"layer2", "layer3", "layer4"}
    assert not network.backbone.trunk.bn1.training
    assert network.backbone.trunk.layer2[0].bn1.training
    frozen = network_on(RESNET, batch_norm="frozen").train()
    norms = [m for m in frozen.modules() if isinstance(m, BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)


def test_blocks_of_a_vision_transformer_are_frozen():
    """And whatever else of the trunk is trained has a gradient."""
    network = network_on(VIT, freeze_until="block3", batch_norm="frozen").train()
    trunk = network.backbone.trunk
    trainable = {n for n, p in trunk.named_parameters() if p.requires_grad}
    blocks = {f"blocks.{i}" for i in range(3, 12)}
    assert {".".join(n.split(".")[:2]) for n in trainable} == {*blocks, "norm.weight", "norm.bias"}
    sum(y.square().sum() for y in network.backbone(torch.rand(1, 3, 32, 32)).values()).backward()
    assert {n for n, p in trunk.named_parameters() if p.grad is not None} == trainable


# ---------------------------------------------------------------- mistakes


class OfOneSize(torch.nn.Module):
    """Maps at one stride, for images of 224 pixels."""

    widths: ClassVar = {"map": 3}

    def forward(self, x_NCHW, layers):
        assert x_NCHW.shape[2:] == (224, 224), "Input width (448) doesn't match model (224)."
        return {"map": F.max_pool2d(x_NCHW, 16)}


class WithBuffer(torch.nn.Module):
    """Maps at one stride; adds a buffer that its state dict leaves out."""

    widths: ClassVar = {"map": 3}

    def __init__(self):
        super().__init__()
        self.register_buffer("offset", torch.ones(3, 1, 1), persistent=False)

    def forward(self, x_NCHW, layers):
        return {"map": F.max_pool2d(x_NCHW, 16) + self.offset}


def test_strides_of_a_trunk_with_a_buffer_that_is_not_saved():
    trunk = WithBuffer()
    assert network_module.map_strides(trunk, PLACE) == {"map": 16}
    assert trunk.offset.device == CPU


def test_strides_of_a_compiled_trunk_are_those_of_the_plain_one():
    load_entries()
    trunk = TRUNKS.build(RESNET, "trunk")

    def refuse(graph, inputs):
        raise AssertionError("compiled")

    for unit in trunk.units():
        unit.compile(backend=refuse)
    expected = {"conv1": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 32}
    found = network_module.map_strides(trunk, PLACE)
    assert {name: found[name] for name in expected} == expected


def outlines_of_shards(rank, world):
    load_entries()
    model = SSLModel(TRUNKS.build(RESNET, "trunk"), mean=(0.3,) * 3, std=(0.4,) * 3)
    whole = {name: tuple(t.shape) for name, t in model.trunk.state_dict().items()}
    shard(model, init_device_mesh("cpu", (world,)))
    config = SimpleNamespace(trunk=RESNET)
    bench = Bench(model, Labelled(), {}, device=CPU, numerics=FP32, config=config)
    outline = network_module.outline_of_trunk(bench)
    found = {name: tuple(t.shape) for name, t in outline.state_dict().items()}
    devices = {t.device.type for t in outline.state_dict().values()}
    return found == whole, devices, network_module.map_strides(outline, PLACE)["res5"]


def test_the_outline_of_shards_is_that_of_the_whole_trunk():
    assert run_ranks(outlines_of_shards, 2) == [(True, {"meta"}, 32)] * 2


def test_position_and_class_embeddings_do_not_decay():
    load_entries()
    trunk = TRUNKS.build(VIT, "trunk")
    decay, still = without_decay_of_norms_and_tokens(trunk, 0.1)
    assert (decay["weight_decay"], still["weight_decay"]) == (0.1, 0)
    name_of = {p: name for name, p in trunk.named_parameters()}
    names = {name_of[p] for p in still["params"]}
    assert names == {n for n in name_of.values() if "norm" in n} | {"pos_embed", "cls_token"}
    assert len(decay["params"]) + len(names) == len(name_of)


class OfTwoStrides(torch.nn.Module):
    """And a third map, which does not grow with the image."""

    widths: ClassVar = {"fine": 3, "coarse": 3, "pooled": 3}

    def forward(self, x_NCHW, layers):
        maps = {"fine": F.max_pool2d(x_NCHW, 4), "coarse": F.max_pool2d(x_NCHW, 32)}
        return {**maps, "pooled": F.adaptive_avg_pool2d(x_NCHW, 14)}


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (OfOneSize(), r"does not take images of any size \(Input width \(448\).*\); take one that"),
        (
            {**VIT, "in_channels": 1},
            r"takes images of 1 channels, and these have 3; take one with in_channels=3",
        ),
        (OfTwoStrides(), "needs maps at four strides, or all at one; trunk OfTwoStrides gives 2;"),
    ],
)
def test_trunks_that_do_not_fit(trunk, message):
    with pytest.raises(ConfigError, match=message):
        network_on(trunk)


@pytest.mark.parametrize(
    ("trunk", "changes", "message"),
    [
        (RESNET, {"layers": ("res2", "res3", "res4", "res6")}, "'res6' is no map of the trunk"),
        (RESNET, {"layers": ("res3", "res4", "res5")}, r"\[8, 16, 32\]; needs four, each twice"),
        (RESNET, {"freeze_until": "stem"}, "freeze_until: 'stem' is no map of the trunk"),
        (VIT, {"layers": ("cls",)}, "layers: 'cls' is no map of the trunk; block1, block2"),
        (VIT, {"layers": ("block6", "block12")}, "block6, block12 have one stride, 16; the simple"),
    ],
)
def test_layers_that_do_not_fit(trunk, changes, message):
    with pytest.raises(ConfigError, match=message):
        network_on(trunk, **changes)
