"""Barlow Twins' training checkpoints (github.com/facebookresearch/barlowtwins)."""

from vissl_lite.formats.format import IMAGENET, Format

FORMAT = Format(
    "Barlow Twins",
    trunk=(r"model\.(?:module\.)?backbone\.",),
    mark=r"model\.(?:module\.)?bn\.running_mean",
    ignored={r"model\.(?:module\.)?bn\.": "norm of the loss"},
    pixels=IMAGENET,
)
