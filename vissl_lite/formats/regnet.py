"""RegNet X and Y: names and settings. Our names are torchvision's."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, get_args

from vissl_lite.formats.format import Naming, Tensors, shape
from vissl_lite.trunks.regnet import PRESETS, Design, Rounding, fit_groups, stage_sizes


def settings(tensors: Tensors) -> dict[str, Any]:
    """The published network with these stages, or else AnyNet with them.

    f.c.0: [width, ...];  f.b.0: [width, group width, 3, 3];  f.se.fc1: [squeezed, ...]
    """
    found = re.compile(r"trunk_output\.block(\d+)\.block\d+-\d+\.")
    counts = Counter({m[0]: int(m[1]) for n in tensors if (m := found.match(n))}.values())
    stages = sorted(counts)
    depths = [counts[stage] for stage in stages]
    widths = [shape(tensors, _first(stage) + "f.c.0.weight")[0] for stage in stages]
    group_widths = [shape(tensors, _first(stage) + "f.b.0.weight")[1] for stage in stages]
    stem_width, in_channels = shape(tensors, "stem.0.weight")[:2]
    se_ratio = _se_ratio(tensors, stages[-1])
    rest = {"stem_width": stem_width, "in_channels": in_channels}
    for preset, design in PRESETS.items():
        for rounding in get_args(Rounding):
            if _stages(design, rounding) == (depths, widths, group_widths, se_ratio):
                return {"name": "regnet", "preset": preset, "rounding": rounding, **rest}
    sizes = {"depths": depths, "widths": widths, "group_widths": group_widths}
    return {"name": "anynet", **sizes, "se_ratio": se_ratio, **rest}


def _first(stage: int) -> str:
    return f"trunk_output.block{stage}.block{stage}-0."


def _stages(design: Design, rounding: Rounding) -> tuple[list, list, list, float]:
    depths, widths = stage_sizes(*design[:4])
    fitted = [fit_groups(width, design.group_width, rounding) for width in widths]
    return depths, [f[0] for f in fitted], [f[1] for f in fitted], design.se_ratio


def _se_ratio(tensors: Tensors, stage: int) -> float:
    """Squeezed width over the input width of the widest first block; 0.25 where that rounds so."""
    first = _first(stage)
    if first + "f.se.fc1.weight" not in tensors:
        return 0.0
    squeezed = shape(tensors, first + "f.se.fc1.weight")[0]
    channels = shape(tensors, first + "f.a.0.weight")[1]
    return 0.25 if round(0.25 * channels) == squeezed else squeezed / channels


TORCHVISION = Naming(
    "torchvision's RegNet", r"trunk_output\.block1\.block1-0\.f\.c\.0\.weight", (), settings
)

_CLASSY_BLOCK = (
    (r"(block\d+-\d+)\.proj\.weight$", r"\1.proj.0.weight"),
    (r"(block\d+-\d+)\.bn\.", r"\1.proj.1."),
    (r"\.se\.excitation\.0\.", ".se.fc1."),
    (r"\.se\.excitation\.2\.", ".se.fc2."),
    (r"\.f\.c\.weight$", ".f.c.0.weight"),
    (r"\.f\.final_bn\.", ".f.c.1."),
)
CLASSY = Naming(
    "ClassyVision's RegNet",
    r"trunk_output\.block1\.block1-0\.f\.c\.weight",
    ((r"^stem\.stem\.", "stem."), *_CLASSY_BLOCK),
    settings,
)
# blocks that were checkpointed together are in a part of their own
VISSL = Naming(
    "VISSL's RegNet",
    r"res2\.(?:block1-part0\.)?block1-0\.f\.c\.weight",
    (
        (r"^conv1\.stem\.", "stem."),
        (
            r"^res\d+\.(?:block\d+-part\d+\.)?block(\d+)-(\d+)\.",
            r"trunk_output.block\1.block\1-\2.",
        ),
        *_CLASSY_BLOCK,
    ),
    settings,
)


def _from_timm(match: re.Match) -> str:
    stage, block = match[1], int(match[2]) - 1
    return f"trunk_output.block{stage}.block{stage}-{block}."


TIMM = Naming(
    "timm's RegNet",
    r"s1\.b1\.conv1\.conv\.weight",
    (
        (r"^s(\d+)\.b(\d+)\.", _from_timm),
        (r"\.downsample\.", ".proj."),
        *((rf"\.conv{i}\.", f".f.{letter}.") for i, letter in enumerate("abc", 1)),
        (r"\.se\.", ".f.se."),
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
    ),
    settings,
)
