"""DINO's training checkpoints (github.com/facebookresearch/dino): the teacher, which is the better.

Its published backbones are bare networks, see `bare.py`.
"""

from vissl_lite.formats.format import IMAGENET, Format

FORMAT = Format(
    "DINO",
    trunk=(r"teacher\.(?:module\.)?backbone\.", r"student\.(?:module\.)?backbone\."),
    mark=r"(?:teacher|student)\.",
    ignored={
        r"(?:teacher|student)\.(?:module\.)?head\.": "head",
        r"student\.": "student",
        r"dino_loss\.": "state of the loss",
    },
    pixels=IMAGENET,
)
