"""A network by itself: torchvision, timm, SWAG, WSL, and what most authors publish."""

from vissl_lite.formats.format import WRAPPED, Format

FORMAT = Format("a network by itself", trunk=(WRAPPED, rf"{WRAPPED}(?:backbone|encoder)\."))
