"""AnyNet: RegNet's network with every stage given."""

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError
from vissl_lite.trunks._regnet import RegNet


@TRUNKS.register("anynet")
def anynet(
    depths: tuple[int, ...] = (1, 1, 4, 7),
    widths: tuple[int, ...] = (24, 56, 152, 368),
    group_widths: tuple[int, ...] = (8, 8, 8, 8),
    se_ratio: float = 0.25,
    stem_width: int = 32,
    in_channels: int = 3,
) -> RegNet:
    """AnyNet: RegNet's network with the depth and width of every stage given.

    Radosavovic et al. 2020, arXiv 2003.13678. Layers: conv1, res2, res3, ..., one per stage. The
    defaults are RegNetY-200MF. VISSL's RegNetY-3B is depths [1, 4, 4, 1], widths
    [1840, 3680, 10120, 25760], group_widths four times 920.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        group_widths: channels per group of each stage's 3x3 convolutions; each divides its width.
        se_ratio: squeezed width per input width of a block, 0 for none (X blocks).
        stem_width: channels of the stem.
        in_channels: of the images.

    Raises:
        ConfigError: lists of different lengths, or a group width that does not divide its width.
    """
    if not len(depths) == len(widths) == len(group_widths):
        raise ConfigError(
            f"trunk anynet: {len(depths)} depths, {len(widths)} widths and {len(group_widths)}"
            " group_widths; give one of each per stage"
        )
    for width, group_width in zip(widths, group_widths):
        if width % group_width:
            raise ConfigError(
                f"trunk anynet: group width {group_width} does not divide width {width};"
                f" {round(width / group_width) * group_width} would be the nearest that fits"
            )
    return RegNet(depths, widths, group_widths, se_ratio, stem_width, in_channels)
