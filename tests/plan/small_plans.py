"""A small RegNet with SwAV: two stages, squeeze-excitation, two resolutions, prototypes."""

from training import small

from vissl_lite.config import Config

VIEWS = (
    "++data.views=[{size: 32, count: 2, transforms: [random_resized_crop]},"
    " {size: 16, count: 2, transforms: [random_resized_crop]}]"
)
HEADS = "++heads=[{name: mlp, hidden: [64], out_dim: 16}, {name: prototypes, num_prototypes: 50}]"


def regnet_swav(*words: str) -> Config:
    config = small("loss=swav", "optimizer=larc", HEADS, VIEWS, *words)
    config.trunk = {
        "name": "anynet",
        "depths": [1, 2],
        "widths": [32, 64],
        "group_widths": [8, 16],
        "stem_width": 8,
    }
    return config
