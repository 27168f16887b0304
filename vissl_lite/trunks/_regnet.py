"""The network of RegNet and AnyNet. Parameter names are torchvision's."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from vissl_lite.layers.init import init_convnet_
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.layers.squeeze_excitation import SqueezeExcitation
from vissl_lite.layers.unit import Unit
from vissl_lite.trunks._trunk import Crops, Trunk


class Block(Unit):
    """X block, or Y block with squeeze-excitation: y = relu(shortcut(x) + c(se(b(a(x))))).

    a: 1x1; b: 3x3 in groups, with the stride; c: 1x1 without ReLU; each followed by a norm. The
    squeezed width is `se_ratio` times the *input* width of the block.
    """

    def __init__(
        self, channels: int, out_channels: int, stride: int, group_width: int, se_ratio: float
    ):
        super().__init__()
        changes = stride != 1 or channels != out_channels
        self.proj = conv_norm(channels, out_channels, 1, stride) if changes else None
        groups = out_channels // group_width
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        branch["a"] = conv_norm(channels, out_channels, 1, relu=True)
        branch["b"] = conv_norm(out_channels, out_channels, 3, stride, groups, relu=True)
        if se_ratio > 0:
            branch["se"] = SqueezeExcitation(out_channels, round(se_ratio * channels))
        branch["c"] = conv_norm(out_channels, out_channels, 1)
        self.f = nn.Sequential(branch)

    def block(self, x: Tensor) -> Tensor:
        return self.f(x).add_(x if self.proj is None else self.proj(x)).relu_()


class RegNet(Trunk):
    """Stem and stages of blocks; the first block of every stage halves the resolution.

    Layers: conv1 (the stem), res2, res3, ..., one per stage.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        group_widths: channels per group of each stage's 3x3 convolutions.
        se_ratio: squeeze-excitation ratio, 0 for none.
        stem_width: channels of the stem, a 3x3 convolution with stride 2.
        in_channels: of the images.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        group_widths: Sequence[int],
        se_ratio: float,
        stem_width: int,
        in_channels: int,
    ):
        super().__init__()
        self.stem = conv_norm(in_channels, stem_width, 3, 2, relu=True)
        self.trunk_output = nn.Sequential()
        self.widths, channels = {"conv1": stem_width}, stem_width
        for i, (depth, width, group_width) in enumerate(zip(depths, widths, group_widths), 1):
            stage = nn.Sequential()
            for j in range(depth):
                block = Block(channels, width, 2 if j == 0 else 1, group_width, se_ratio)
                stage.add_module(f"block{i}-{j}", block)
                channels = width
            self.trunk_output.add_module(f"block{i}", stage)
            self.widths[f"res{i + 1}"] = width
        self.init_weights()

    def walk(self, crops: Crops) -> Iterator[tuple[str, Crops]]:
        crops = [self.stem(x_NCHW) for x_NCHW in crops]
        yield "conv1", crops
        for i, stage in enumerate(self.trunk_output, 2):
            crops = stage(crops)
            yield f"res{i}", crops

    def units(self) -> list[nn.Module]:
        return [self.stem, *(block for stage in self.trunk_output for block in stage.children())]

    def init_weights(self) -> None:
        self.apply(init_convnet_)


def conv_norm(
    channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> nn.Sequential:
    """Convolution without bias, norm and, if asked, an in-place ReLU."""
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, BatchNorm2d(out_channels), *[nn.ReLU(inplace=True)] * relu)
