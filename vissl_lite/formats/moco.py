"""MoCo v1 and v2 (github.com/facebookresearch/moco): the encoder of the queries."""

from vissl_lite.formats.format import IMAGENET, WRAPPED, Format

FORMAT = Format(
    "MoCo",
    trunk=(rf"{WRAPPED}encoder_q\.",),
    mark=rf"{WRAPPED}encoder_q\.",
    ignored={rf"{WRAPPED}encoder_k\.": "momentum encoder", rf"{WRAPPED}queue": "queue"},
    pixels=IMAGENET,
)
