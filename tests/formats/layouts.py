"""Small networks written in the layouts of other libraries, with their names and their forward."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


def randomised(network):
    """Statistics and affine parameters of norms that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def tv_resnet(depth=18, classes=7, **keys):
    """torchvision's ResNet; its forward up to the map."""
    block, blocks = (BasicBlock, [2, 2, 2, 2]) if depth == 18 else (Bottleneck, [3, 4, 6, 3])
    torch.manual_seed(0)
    return randomised(ResNet(block, blocks, num_classes=classes, **keys))


def resnet_map(network, x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


class PaddedResNet(nn.Module):
    """SwAV's and VICReg's: one pixel of padding before a conv1 that pads two; `widen` times."""

    def __init__(self, widen):
        super().__init__()
        tv = ResNet(BasicBlock, [2, 2, 2, 2])
        self.conv1 = nn.Conv2d(3, 64 * widen, 7, 2, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        tv.inplanes = 64 * widen
        for i in range(4):
            layer = tv._make_layer(BasicBlock, 64 * widen * 2**i, 2, stride=1 if i == 0 else 2)
            self.add_module(f"layer{i + 1}", layer)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(F.pad(x, [1] * 4))))
        x = F.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class ClassyBlock(nn.Module):
    """ClassyVision's bottleneck with squeeze-excitation."""

    def __init__(self, channels, width, stride, group_width):
        super().__init__()
        self.f = nn.Sequential()
        self.f.a = conv_norm(channels, width, 1)
        self.f.b = conv_norm(width, width, 3, stride, width // group_width)
        squeezed = round(0.25 * channels)
        self.f.se = nn.Module()
        self.f.se.excitation = nn.Sequential(
            nn.Conv2d(width, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid()
        )
        self.f.c = nn.Conv2d(width, width, 1, bias=False)
        self.f.final_bn = nn.BatchNorm2d(width)
        self.projects = stride != 1 or channels != width
        if self.projects:
            self.proj = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.f.b(self.f.a(x))
        y = y * self.f.se.excitation(y.mean((2, 3), keepdim=True))
        y = self.f.final_bn(self.f.c(y))
        return F.relu(y + (self.bn(self.proj(x)) if self.projects else x))


def conv_norm(channels, width, kernel, stride=1, groups=1):
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def classy_regnet(depths, widths, group_widths, parts=None):
    """ClassyVision's RegNet (`parts` None), or VISSL's: `parts` are ends of blocks per stage."""
    torch.manual_seed(0)
    stem = nn.Sequential(OrderedDict(stem=conv_norm(3, 32, 3, 2)))
    stages, channels = [], 32
    for i, (depth, width, group_width) in enumerate(zip(depths, widths, group_widths), 1):
        blocks = OrderedDict()
        for j in range(depth):
            stride = 2 if j == 0 else 1
            blocks[f"block{i}-{j}"] = ClassyBlock(channels, width, stride, group_width)
            channels = width
        stages.append(nn.Sequential(blocks if parts is None else in_parts(blocks, i, parts[i - 1])))
    if parts is None:
        named = OrderedDict((f"block{i}", stage) for i, stage in enumerate(stages, 1))
        body = OrderedDict(stem=stem, trunk_output=nn.Sequential(named))
        return randomised(nn.Sequential(body))
    body = OrderedDict(conv1=stem, **{f"res{i}": stage for i, stage in enumerate(stages, 2)})
    return randomised(nn.Sequential(OrderedDict(_feature_blocks=nn.Sequential(body))))


def in_parts(blocks, stage, ends):
    if not ends:
        return blocks
    names, parts, start = list(blocks), OrderedDict(), 0
    for k, end in enumerate(ends):
        part = OrderedDict((name, blocks[name]) for name in names[start:end])
        parts[f"block{stage}-part{k}"] = nn.Sequential(part)
        start = end
    return parts


class SwagEncoderBlock(nn.Module):
    """SWAG's transformer block: tokens first, [T, N, C]."""

    def __init__(self, channels, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(channels, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(channels, heads)
        self.ln_2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(
                linear_1=nn.Linear(channels, 4 * channels),
                act=nn.GELU(),
                linear_2=nn.Linear(4 * channels, channels),
            )
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class SwagViT(nn.Module):
    """SWAG's vision transformer of size tiny for images of 32 pixels."""

    def __init__(self, channels=192, heads=3, depth=12, patch=8, side=4):
        super().__init__()
        torch.manual_seed(0)
        self.conv_proj = nn.Conv2d(3, channels, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, channels))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1 + side**2, 1, channels))
        blocks = {f"layer_{i}": SwagEncoderBlock(channels, heads) for i in range(depth)}
        self.encoder.layers = nn.Sequential(OrderedDict(blocks))
        self.encoder.ln = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Module()
        self.head.layers = nn.Sequential(OrderedDict(head=nn.Linear(channels, 5)))
        randomised(self)

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.class_token.expand(-1, x.shape[1], -1), x])
        return self.encoder.ln(self.encoder.layers(x + self.encoder.pos_embedding))[0]
