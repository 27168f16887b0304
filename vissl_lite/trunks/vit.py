"""Vision transformer. Parameter names are those of timm, DINO and DINOv2.

Shape suffixes: N images, T tokens, C channels, H, W rows and columns of patches, E = 3, A attention
heads, D channels per attention head.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError
from vissl_lite.layers.drop_path import DropPath
from vissl_lite.layers.init import init_transformer_
from vissl_lite.layers.norm import LayerNorm
from vissl_lite.layers.unit import Unit
from vissl_lite.schema import at_least
from vissl_lite.trunks._trunk import Crops, Trunk

SIZES = {  # channels, blocks, attention heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def attention_heads(size: str, heads: int | None) -> int:
    """`heads` if given, else those of the size."""
    return SIZES[size][2] if heads is None else heads


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(D)) v, projected."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x_NTC: Tensor) -> Tensor:
        qkv_NTEAD = self.qkv(x_NTC).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv_NTEAD.permute(2, 0, 3, 1, 4)
        y_NATD = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y_NATD.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x_NTC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_NTC)))


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, channels: int, initial: float):
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, x_NTC: Tensor) -> Tensor:
        return x_NTC * self.gamma


class Block(Unit):
    """x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))), each branch under stochastic depth."""

    def __init__(self, channels: int, heads: int, drop_path: float, layer_scale: float | None):
        super().__init__()
        self.norm1 = LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads)
        self.norm2 = LayerNorm(channels, eps=1e-6)
        self.mlp = MLP(channels)
        scaled = layer_scale is not None
        self.ls1 = LayerScale(channels, layer_scale) if scaled else nn.Identity()
        self.ls2 = LayerScale(channels, layer_scale) if scaled else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def block(self, x_NTC: Tensor) -> Tensor:
        x_NTC = x_NTC + self.drop_path(self.ls1(self.attn(self.norm1(x_NTC))))
        return x_NTC + self.drop_path(self.ls2(self.mlp(self.norm2(x_NTC))))


class PatchEmbed(nn.Module):
    """A linear map of each patch, as a convolution: [N, C, H, W] patches from an image."""

    def __init__(self, in_channels: int, channels: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, patch_size)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.proj(x_NCHW)


@TRUNKS.register("vit")
class ViT(Trunk):
    """Vision transformer with class token, sizes Ti, S, B, L and H, for images of any size.

    Dosovitskiy et al. 2021, arXiv 2010.11929; tiny and small are those of DeiT, arXiv 2012.12877.
    Layers: block1, block2, ...: maps [N, C, H, W] of the patch tokens after a block; patches: the
    map after the last norm; cls, the default: the class token after the last norm, [N, C].

    timm's and DINO's state dicts load once `head.*` is dropped. Position embeddings are
    interpolated bicubically (antialiased, in fp32, as in timm) to the size of the image.
    `cls_token` and `pos_embed` belong to the trunk itself, not to a unit.

    Args:
        size: channels, blocks and attention heads, see `SIZES`.
        patch_size: side of a patch, in pixels.
        image_size: side of the images, in pixels, for which the position embeddings are made.
        drop_path: stochastic depth of the last block, growing linearly from 0; DINO takes 0.1.
        layer_scale: initial factor of each residual branch, 1e-5 in DINOv2; None for none.
        heads: attention heads, None for those of the size; MoCo v3's ViT-S has 12, not 6.
        in_channels: of the images.

    Raises:
        ConfigError: heads that do not divide the channels, or an image whose size is not a multiple
            of the patch size.
    """

    def __init__(
        self,
        size: Literal["tiny", "small", "base", "large", "huge"] = "small",
        patch_size: Annotated[int, at_least(1)] = 16,
        image_size: Annotated[int, at_least(1)] = 224,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        heads: int | None = None,
        in_channels: Annotated[int, at_least(1)] = 3,
    ):
        super().__init__()
        channels, depth, _ = SIZES[size]
        self.heads = heads = attention_heads(size, heads)
        if heads < 1 or channels % heads:
            raise ConfigError(
                f"trunk vit: {heads} heads do not divide {channels} channels; change heads"
            )
        self.patch_size, self.grid = patch_size, image_size // patch_size
        self.patch_embed = PatchEmbed(in_channels, channels, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, channels))
        rates = [drop_path * i / (depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(channels, heads, rate, layer_scale) for rate in rates)
        self.norm = LayerNorm(channels, eps=1e-6)
        names = [f"block{i}" for i in range(1, depth + 1)]
        self.widths = dict.fromkeys([*names, "patches", "cls"], channels)
        self.init_weights()

    def walk(self, crops: Crops) -> Iterator[tuple[str, Crops]]:
        tokens, grids = zip(*(self.tokens(x_NCHW) for x_NCHW in crops))
        for i, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            yield f"block{i}", list(map(patch_map, tokens, grids))
        tokens = [self.norm(x_NTC) for x_NTC in tokens]
        yield "patches", list(map(patch_map, tokens, grids))
        yield "cls", [x_NTC[:, 0] for x_NTC in tokens]

    def tokens(self, x_NCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches with their positions [N, 1 + H W, C], and (H, W)."""
        if any(side % self.patch_size for side in x_NCHW.shape[2:]):
            raise ConfigError(
                f"trunk vit: an image of {x_NCHW.shape[2]}x{x_NCHW.shape[3]} pixels does not divide"
                f" into patches of {self.patch_size}; change the crop size or patch_size"
            )
        patches_NCHW = self.patch_embed(x_NCHW)
        grid = patches_NCHW.shape[2:]
        cls_NTC = self.cls_token.expand(x_NCHW.shape[0], -1, -1)
        x_NTC = torch.cat([cls_NTC, patches_NCHW.flatten(2).transpose(1, 2)], dim=1)
        return x_NTC + interpolate_positions(self.pos_embed, self.grid, grid), grid

    def units(self) -> list[nn.Module]:
        return [self.patch_embed, *self.blocks, self.norm]

    def init_weights(self) -> None:
        self.apply(init_transformer_)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, module.initial)


def interpolate_positions(pos_1TC: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """Position embeddings, class token first, of a side x side grid for another grid (H, W)."""
    if grid == (side, side):
        return pos_1TC
    map_1CHW = patch_map(pos_1TC, (side, side)).float()
    map_1CHW = F.interpolate(map_1CHW, size=grid, mode="bicubic", antialias=True)
    patches_1TC = map_1CHW.flatten(2).transpose(1, 2).to(pos_1TC.dtype)
    return torch.cat([pos_1TC[:, :1], patches_1TC], dim=1)


def patch_map(x_NTC: Tensor, grid: tuple[int, int]) -> Tensor:
    """The patch tokens as a map [N, C, H, W], a view."""
    return x_NTC[:, 1:].transpose(1, 2).unflatten(2, grid)
