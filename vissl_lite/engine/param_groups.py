"""Which parameter is optimised how: learning-rate factors, weight decay, LARS/LARC exclusion."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn

from vissl_lite.errors import ConfigError, did_you_mean

Exclusion = Literal["none", "norm_and_bias"]

EMBEDDINGS = ("pos_embed", "cls_token", "register_tokens", "mask_token")
_SETTINGS = ("lr_scale", "weight_decay")


def param_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    *,
    exclude_from_decay: Exclusion = "none",
    exclude_from_lars: Exclusion = "none",
    layer_decay: float = 1.0,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: one for each combination of settings that occurs.

    Each group has `params`, `names`, `lr_scale`, `lr` = lr * lr_scale, `weight_decay`,
    `lars_exclude`, and `decay_fixed`: True where an exclusion or override has set the weight decay.
    A trainer sets `group["lr"] = lr * schedule(where) * group["lr_scale"]`, and a scheduled weight
    decay in the groups that are not `decay_fixed`. Groups and their members come in the order of
    `model.named_parameters()`; frozen parameters are left out.

    Args:
        model: has `trunk` with `units()` (stem, blocks) where `layer_decay` is not 1.
        exclude_from_decay: "norm_and_bias" gives no weight decay to vectors and scalars (biases,
            norm layers), anything named bias, and the position, class and other token embeddings
            of a ViT.
        exclude_from_lars: the same choice for the trust ratio of LARS and LARC.
        layer_decay: factor from a layer to the one below, lr_scale = layer_decay ** (L - depth)
            with L units: depth 0 for the stem and the trunk's own tensors (position embedding,
            class token), i for the i-th block, L for the last norm and the heads (BEiT, DINOv2:
            0.65 to 0.95).
        overrides: pattern on parameter names (as in the shell: `trunk.stem.*`) to `lr_scale`, which
            multiplies, and `weight_decay`, which replaces; a later pattern replaces an earlier one.

    Raises:
        ConfigError: a pattern matches no parameter, or sets something else.
    """
    overrides = overrides or {}
    named = dict(model.named_parameters())
    _check(overrides, list(named))
    depth_scale = _depth_scales(model, layer_decay)
    groups: dict[tuple, dict[str, Any]] = {}
    for name, p in named.items():
        if not p.requires_grad:
            continue
        chosen = _chosen(overrides, name)
        excluded = exclude_from_decay == "norm_and_bias" and is_norm_or_bias(name, p)
        settings = {
            "lr_scale": depth_scale.get(name, 1.0) * chosen.get("lr_scale", 1.0),
            "weight_decay": chosen.get("weight_decay", 0.0 if excluded else weight_decay),
            "lars_exclude": exclude_from_lars == "norm_and_bias" and is_norm_or_bias(name, p),
            "decay_fixed": excluded or "weight_decay" in chosen,
        }
        group = groups.setdefault(tuple(settings.values()), {"params": [], "names": [], **settings})
        group["params"].append(p)
        group["names"].append(name)
    return [{**group, "lr": lr * group["lr_scale"]} for group in groups.values()]


def is_norm_or_bias(name: str, p: nn.Parameter) -> bool:
    """True for vectors and scalars, for anything named bias, and for a ViT's embeddings."""
    leaf = name.rpartition(".")[2]
    return p.ndim <= 1 or leaf.endswith("bias") or leaf in EMBEDDINGS


def _depth_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Name of each trunk parameter below the top -> layer_decay ** (L - depth)."""
    if layer_decay == 1.0:
        return {}
    units = model.trunk.units()
    depth_of = {id(p): depth for depth, unit in enumerate(units) for p in unit.parameters()}
    depth_of |= {id(p): 0 for p in model.trunk.parameters(recurse=False) if id(p) not in depth_of}
    return {
        name: layer_decay ** (len(units) - depth_of[id(p)])
        for name, p in model.named_parameters()
        if id(p) in depth_of
    }


def _chosen(overrides: Mapping[str, Mapping[str, float]], name: str) -> dict[str, float]:
    matching = [values for pattern, values in overrides.items() if fnmatchcase(name, pattern)]
    return {key: value for values in matching for key, value in values.items()}


def _check(overrides: Mapping[str, Mapping[str, float]], names: list[str]) -> None:
    problems = []
    for pattern, values in overrides.items():
        place = f"param_groups.overrides[{pattern!r}]"
        if not any(fnmatchcase(name, pattern) for name in names):
            problems.append(f"{place}: matches no parameter{did_you_mean(pattern, names)}")
        problems += [
            f"{place}: unknown key {key!r}{did_you_mean(key, _SETTINGS) or ';'}"
            f" accepted: {', '.join(_SETTINGS)}"
            for key in values
            if key not in _SETTINGS
        ]
    if problems:
        raise ConfigError(*problems)
