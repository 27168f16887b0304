"""The stages of a RegNet, for libraries that have no name for it."""

from __future__ import annotations

from typing import Any

from vissl_lite.formats.recognise import infer
from vissl_lite.trunks.regnet import PRESETS


def stages(trunk: Any) -> dict[str, Any]:
    """Depths, widths and group widths of the stages, ratio of squeeze-excitation, stem width.

    Args:
        trunk: regnet or anynet.
    """
    config, blocks = infer(trunk.state_dict()), list(trunk.trunk_output)
    preset = config.get("preset")
    return {
        "depths": [len(stage) for stage in blocks],
        "widths": list(trunk.widths.values())[1:],
        "group_widths": [next(stage.children()).f.b[0].weight.shape[1] for stage in blocks],
        "se_ratio": PRESETS[preset].se_ratio if preset else config["se_ratio"],
        "stem_width": config["stem_width"],
    }
