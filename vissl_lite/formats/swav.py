"""SwAV and DeepCluster-v2, as their authors' code saves them (github.com/facebookresearch/swav)."""

from vissl_lite.config import IMAGENET_MEAN
from vissl_lite.formats.format import WRAPPED, Format, Pixels

FORMAT = Format(
    "SwAV",
    trunk=(WRAPPED,),
    mark=rf"{WRAPPED}(?:projection_head|prototypes)\.",
    pixels=Pixels(IMAGENET_MEAN, (0.228, 0.224, 0.225), 224),  # 0.228 is theirs
)
