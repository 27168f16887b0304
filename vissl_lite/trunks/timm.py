"""Adapter: timm's models as trunks."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.layers.norm import BatchNorm2d, convert_batch_norm
from vissl_lite.trunks._trunk import Trunk, copy_tensors, probe_widths, refusing_pickles


class BatchNormAct2d(BatchNorm2d):
    """timm's norm with activation, on our norm; gets its attributes from the layer it replaces."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


@TRUNKS.register("timm")
class Timm(Trunk):
    """Any model of timm (`pip install timm`), by its name.

    Layers: the modules that timm names as features ("layer4", "blocks.11", "stages.2"), as maps
    [N, C, H, W], where the model has `forward_intermediates`; and last "pre_logits", the input of
    the classifier, [N, C]. Its BatchNorm becomes ours.

    Args:
        model: as in `timm.list_models()`.
        pretrained: whether to download weights.
        in_channels: of the images; timm adapts pretrained weights to it.

    Raises:
        ConfigError: timm is not installed, or does not know the model.
    """

    takes_lists, library = False, "timm"

    def __init__(self, model: str = "resnet18", pretrained: bool = False, in_channels: int = 3):
        super().__init__()
        self._arguments = model, pretrained, in_channels
        self.model: Any = create(*self._arguments)
        self.removed = heads_of(self.model)
        _convert(self.model)
        intermediate = hasattr(self.model, "forward_intermediates")
        info = getattr(self.model, "feature_info", []) if intermediate else []
        self._index = {feature["module"]: i for i, feature in enumerate(info)}
        size = self.model.pretrained_cfg["input_size"][-1]
        self.widths = probe_widths(self, [*self._index, "pre_logits"], (in_channels, size, size))

    def forward(self, x_NCHW: Tensor, layers: Sequence[str] | None = None) -> dict[str, Any]:
        layers = self.checked(layers)
        names = [name for name in self._index if name in layers]
        last = "pre_logits" in layers
        if not names:
            return {"pre_logits": self._pre_logits(self.model.forward_features(x_NCHW))}
        out = self.model.forward_intermediates(
            x_NCHW,
            indices=[self._index[name] for name in names],
            stop_early=not last,
            intermediates_only=not last,
            output_fmt="NCHW",
        )
        found = dict(zip(names, out[1] if last else out))
        if last:
            found["pre_logits"] = self._pre_logits(out[0])
        return {name: found[name] for name in layers}

    def units(self) -> list[nn.Module]:
        """The children with parameters, and the members of lists and sequences of children."""
        return [unit for unit in _expand(self.model) if any(True for _ in unit.parameters())]

    def init_weights(self) -> None:
        """Those of a new model of timm."""
        with torch.device("cpu"):
            copy_tensors(Timm(*self._arguments), self)

    def _pre_logits(self, features: Tensor) -> Tensor:
        return self.model.forward_head(features, pre_logits=True)


def create(model: str, pretrained: bool = False, in_channels: int = 3) -> nn.Module:
    """A network of timm without its classifier.

    Raises:
        ConfigError: as `Timm`.
    """
    if find_spec("timm") is None:
        raise ConfigError("trunk timm: timm is not installed; pip install timm")
    import timm

    if not timm.is_model(model):
        raise ConfigError(
            f"trunk timm: unknown model {model!r}{did_you_mean(model, timm.list_models()) or ';'}"
            " timm.list_models() has all names"
        )
    with refusing_pickles():
        return timm.create_model(model, pretrained=pretrained, num_classes=0, in_chans=in_channels)


def heads_of(network: nn.Module) -> tuple[str, ...]:
    """The modules that classify, which `create` leaves out."""
    names: Any = cast(Any, network).pretrained_cfg.get("classifier")
    return (names,) if isinstance(names, str) else tuple(names or ())


def fixed_size(network: nn.Module) -> int | None:
    """Side of the images, in pixels, of a network that takes no other."""
    given: Any = cast(Any, network).pretrained_cfg
    return given["input_size"][-1] if given.get("fixed_input_size") else None


def _convert(model: nn.Module) -> None:
    from timm.layers import BatchNormAct2d as TimmBatchNormAct2d

    for module in convert_batch_norm(model).modules():
        if type(module) is TimmBatchNormAct2d:
            module.__class__ = BatchNormAct2d


def _expand(module: nn.Module) -> list[nn.Module]:
    found = []
    for child in module.children():
        nested = isinstance(child, (nn.Sequential, nn.ModuleList))
        found += _expand(child) if nested else [child]
    return found
