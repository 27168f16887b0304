"""ResNet, Wide ResNet and ResNeXt. Parameter names are torchvision's."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError
from vissl_lite.layers.init import init_convnet_
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.layers.unit import Unit
from vissl_lite.schema import above, at_least
from vissl_lite.trunks._trunk import Crops, Trunk


class BasicBlock(Unit):
    """y = relu(shortcut(x) + f(x)), f: two 3x3 convolutions, the first with the stride."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, inner: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.downsample = shortcut(channels, planes, stride)

    def block(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return y.add_(x if self.downsample is None else self.downsample(x)).relu_()

    def last_norm(self) -> BatchNorm2d:
        return self.bn2


class Bottleneck(Unit):
    """y = relu(shortcut(x) + f(x)), f: 1x1, 3x3 (with the stride and groups), 1x1 convolutions."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, inner: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * planes, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * planes)
        self.downsample = shortcut(channels, 4 * planes, stride)

    def block(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return y.add_(x if self.downsample is None else self.downsample(x)).relu_()

    def last_norm(self) -> BatchNorm2d:
        return self.bn3


DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
    200: (Bottleneck, (3, 24, 36, 3)),
}


@TRUNKS.register("resnet")
class ResNet(Trunk):
    """ResNet, Wide ResNet and ResNeXt, with the stem for ImageNet or for CIFAR.

    He et al. 2016, arXiv 1512.03385; Xie et al. 2017, arXiv 1611.05431.
    Layers: conv1 (after its ReLU, before max-pooling), res2, res3, res4, res5. Torchvision's state
    dicts load once `fc.*` is dropped. The stride of a bottleneck is at its 3x3 ("v1.5").

    Args:
        depth: number of weighted layers.
        groups: of the 3x3 convolutions; 32 in ResNeXt. Bottlenecks only.
        width_per_group: channels per group of the 3x3 convolutions in res2, doubled by each stage:
            32 groups of 48 are ResNeXt 32x48d; 1 group of 128 is torchvision's Wide ResNet.
            Bottlenecks only.
        width_multiplier: of every layer, stem included; 2, 4, 5 are SwAV's RN50w2, w4, w5; a
            fraction makes a small net for small images.
        stem: "imagenet" is 7x7 with stride 2, then max-pooling: stride 4 in all. "cifar" is 3x3
            with stride 1 and no pooling (SimCLR, arXiv 2002.05709, appendix B.9).
        zero_init_residual: each block starts as its shortcut: the last gamma is 0 (Goyal et al.
            2017, arXiv 1706.02677).
        in_channels: of the images.

    Raises:
        ConfigError: groups or width_per_group given for depth 18 or 34.
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101, 152, 200] = 50,
        groups: Annotated[int, at_least(1)] = 1,
        width_per_group: Annotated[int, at_least(1)] = 64,
        width_multiplier: Annotated[float, above(0)] = 1.0,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        zero_init_residual: bool = False,
        in_channels: Annotated[int, at_least(1)] = 3,
    ):
        super().__init__()
        block, depths = DEPTHS[depth]
        if block is BasicBlock and (groups, width_per_group) != (1, 64):
            raise ConfigError(
                f"trunk resnet: depth {depth} has no bottlenecks for groups and width_per_group;"
                " choose depth 50 or more"
            )
        self.zero_init_residual, self.cifar = zero_init_residual, stem == "cifar"
        channels = round(64 * width_multiplier)
        kernel, stride = (3, 1) if self.cifar else (7, 2)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.widths = {"conv1": channels}
        for i, count in enumerate(depths):
            planes = round(64 * width_multiplier) * 2**i
            inner = planes * width_per_group // 64 * groups
            first = block(channels, planes, 1 if i == 0 else 2, inner, groups)
            channels = planes * block.expansion
            rest = [block(channels, planes, 1, inner, groups) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            self.widths[f"res{i + 2}"] = channels
        self.init_weights()

    def walk(self, crops: Crops) -> Iterator[tuple[str, Crops]]:
        crops = [F.relu(self.bn1(self.conv1(x_NCHW)), inplace=True) for x_NCHW in crops]
        yield "conv1", crops
        if not self.cifar:
            crops = [F.max_pool2d(x_NCHW, 3, stride=2, padding=1) for x_NCHW in crops]
        for i, layer in enumerate(self._layers()):
            crops = layer(crops)
            yield f"res{i + 2}", crops

    def units(self) -> list[nn.Module]:
        return [
            self.conv1,
            self.bn1,
            *(block for layer in self._layers() for block in layer.children()),
        ]

    def init_weights(self) -> None:
        self.apply(init_convnet_)
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, (BasicBlock, Bottleneck)):
                    nn.init.zeros_(block.last_norm().weight)

    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{i}") for i in range(1, 5)]


def shortcut(channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """1x1 convolution and norm where a block changes the shape, else None."""
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels)
    )
