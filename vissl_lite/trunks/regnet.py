"""RegNet: stage widths and depths from five numbers, and the named networks."""

from typing import Any, Literal, NamedTuple

import numpy as np

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.trunks._regnet import RegNet


class Design(NamedTuple):
    """A point of the design space; Y has squeeze-excitation, X has none."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    se_ratio: float


# pycls (X and Y up to 32GF), SWAG (128GF), ClassyVision (*_classy), VISSL (*_seer).
PRESETS = {
    "x_200mf": Design(13, 24, 36.44, 2.49, 8, 0.0),
    "x_400mf": Design(22, 24, 24.48, 2.54, 16, 0.0),
    "x_600mf": Design(16, 48, 36.97, 2.24, 24, 0.0),
    "x_800mf": Design(16, 56, 35.73, 2.28, 16, 0.0),
    "x_1_6gf": Design(18, 80, 34.01, 2.25, 24, 0.0),
    "x_3_2gf": Design(25, 88, 26.31, 2.25, 48, 0.0),
    "x_4gf": Design(23, 96, 38.65, 2.43, 40, 0.0),
    "x_6_4gf": Design(17, 184, 60.83, 2.07, 56, 0.0),
    "x_8gf": Design(23, 80, 49.56, 2.88, 120, 0.0),
    "x_12gf": Design(19, 168, 73.36, 2.37, 112, 0.0),
    "x_16gf": Design(22, 216, 55.59, 2.1, 128, 0.0),
    "x_32gf": Design(23, 320, 69.86, 2.0, 168, 0.0),
    "y_200mf": Design(13, 24, 36.44, 2.49, 8, 0.25),
    "y_400mf": Design(16, 48, 27.89, 2.09, 8, 0.25),
    "y_600mf": Design(15, 48, 32.54, 2.32, 16, 0.25),
    "y_800mf": Design(14, 56, 38.84, 2.4, 16, 0.25),
    "y_1_6gf": Design(27, 48, 20.71, 2.65, 24, 0.25),
    "y_3_2gf": Design(21, 80, 42.63, 2.66, 24, 0.25),
    "y_4gf": Design(22, 96, 31.41, 2.24, 64, 0.25),
    "y_6_4gf": Design(25, 112, 33.22, 2.27, 72, 0.25),
    "y_8gf": Design(17, 192, 76.82, 2.19, 56, 0.25),
    "y_12gf": Design(19, 168, 73.36, 2.37, 112, 0.25),
    "y_16gf": Design(18, 200, 106.23, 2.48, 112, 0.25),
    "y_32gf": Design(20, 232, 115.89, 2.53, 232, 0.25),
    "y_64gf_classy": Design(20, 368, 102.79, 2.05, 496, 0.25),
    "y_64gf_seer": Design(20, 352, 147.48, 2.4, 328, 0.25),
    "y_128gf": Design(27, 456, 160.83, 2.52, 264, 0.25),
    "y_256gf_classy": Design(27, 640, 124.47, 2.04, 848, 0.25),
    "y_256gf_seer": Design(27, 640, 230.83, 2.53, 373, 0.25),
    "y_256gf_a376": Design(27, 640, 230.83, 2.53, 376, 0.25),
    "y_256gf_a384": Design(27, 640, 230.83, 2.53, 384, 0.25),
    "y_10b_seer": Design(27, 1744, 620.83, 2.52, 1010, 0.25),
    "y_10b_a1008": Design(27, 1744, 620.83, 2.52, 1008, 0.25),
}
Rounding = Literal["classy", "torchvision"]


def stage_sizes(depth: int, w_0: int, w_a: float, w_m: float) -> tuple[list[int], list[int]]:
    """Depths and widths of the stages (Radosavovic et al. 2020, arXiv 2003.13678, section 3.3).

        u_j = w_0 + w_a j,  0 <= j < depth               a width per block, linear
        s_j = round(log(u_j / w_0) / log(w_m))           its stage
        w_j = 8 round(w_0 w_m^s_j / 8)                   equal widths are one stage

    Rounds half to even. `fit_groups` then makes the widths divisible.
    """
    u_j = w_0 + w_a * np.arange(depth)
    s_j = np.round(np.log(u_j / w_0) / np.log(w_m))
    w_j = 8 * np.round(w_0 * w_m**s_j / 8).astype(int)
    widths, depths = np.unique(w_j, return_counts=True)
    return depths.tolist(), widths.tolist()


def fit_groups(width: int, group_width: int, rounding: Rounding) -> tuple[int, int]:
    """The nearest multiple of the group width, and the group width, which is at most `width`.

    "classy" (ClassyVision, pycls, timm) rounds half to even; "torchvision" rounds half up, and
    further up where the result would be below 0.9 width: X-400MF, Y-800MF, Y-8GF and others differ.
    """
    group_width = min(group_width, width)
    if rounding == "classy":
        return round(width / group_width) * group_width, group_width
    fitted = (width + group_width // 2) // group_width * group_width
    return fitted + group_width * (fitted < 0.9 * width), group_width


@TRUNKS.register("regnet")
def regnet(
    preset: str | None = "y_16gf",
    depth: int | None = None,
    w_0: int | None = None,
    w_a: float | None = None,
    w_m: float | None = None,
    group_width: int | None = None,
    se_ratio: float | None = None,
    stem_width: int = 32,
    rounding: Rounding = "classy",
    in_channels: int = 3,
) -> RegNet:
    """RegNet X and Y, from 200 MFLOPs to SEER's 10 billion parameters.

    Radosavovic et al. 2020, arXiv 2003.13678; Goyal et al., arXiv 2103.01988, 2202.08360.
    Layers: conv1, res2, ..., res5. Torchvision's state dicts load once `fc.*` is dropped (with
    rounding "torchvision" where the networks differ).

    Args:
        preset: a published network (`PRESETS`). y_64gf and y_256gf exist twice: ClassyVision's, and
            the wider ones that SEER trained. The channels per group of SEER's 256GF (373) and 10B
            (1010) are not multiples of 8, those of their twins are: y_256gf_a376, y_256gf_a384,
            y_10b_a1008.
        depth: number of blocks. This and the next five override the preset.
        w_0: initial width, a multiple of 8.
        w_a: slope of the width per block.
        w_m: ratio of the widths of consecutive stages, above 1.
        group_width: channels per group of the 3x3 convolutions.
        se_ratio: squeezed width per input width of a block, 0 for none (X); 0.25 in every Y.
        stem_width: channels of the stem; 32 in every published network.
        rounding: how a width becomes a multiple of the group width; see `fit_groups`.
        in_channels: of the images.

    Raises:
        ConfigError: an unknown preset, a number missing without a preset, or numbers out of range.
    """
    numbers = zip(Design._fields, (depth, w_0, w_a, w_m, group_width, se_ratio))
    design = _design(preset, {name: value for name, value in numbers if value is not None})
    depths, widths = stage_sizes(*design[:4])
    fitted = [fit_groups(width, design.group_width, rounding) for width in widths]
    widths, group_widths = zip(*fitted)
    return RegNet(depths, widths, group_widths, design.se_ratio, stem_width, in_channels)


def _design(preset: str | None, given: dict[str, Any]) -> Design:
    if preset is not None and preset not in PRESETS:
        raise ConfigError(
            f"trunk regnet: unknown preset {preset!r}{did_you_mean(preset, PRESETS) or ';'}"
            f" presets: {', '.join(PRESETS)}"
        )
    base = {"se_ratio": 0.0} if preset is None else PRESETS[preset]._asdict()
    numbers: dict[str, Any] = {**base, **given}
    missing = [name for name in Design._fields if name not in numbers]
    if missing:
        raise ConfigError(
            f"trunk regnet: without a preset it needs {', '.join(missing)}; give them"
        )
    design = Design(**numbers)
    if design.w_0 <= 0 or design.w_0 % 8 or design.w_a < 0 or design.w_m <= 1:
        raise ConfigError(
            "trunk regnet: w_0 must be a positive multiple of 8, w_a at least 0 and w_m above 1;"
            f" got {design.w_0}, {design.w_a}, {design.w_m}"
        )
    return design
