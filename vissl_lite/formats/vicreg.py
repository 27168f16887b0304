"""VICReg's training checkpoints (github.com/facebookresearch/vicreg)."""

from vissl_lite.formats.format import IMAGENET, Format

FORMAT = Format(
    "VICReg",
    trunk=(r"model\.(?:module\.)?backbone\.",),
    mark=r"model\.(?:module\.)?projector\.",
    pixels=IMAGENET,
)
