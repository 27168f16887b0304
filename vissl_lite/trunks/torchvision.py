"""Adapter: torchvision's classification models as trunks."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.layers.norm import convert_batch_norm
from vissl_lite.trunks._trunk import Trunk, copy_tensors, probe_widths, refusing_pickles

AUXILIARY_HEADS = ("aux1", "aux2", "AuxLogits")  # of GoogLeNet and Inception


@TRUNKS.register("torchvision")
class Torchvision(Trunk):
    """Any classification model of torchvision (ConvNeXt, EfficientNet, Swin, VGG, ...) by name.

    Layers: the names of torchvision's own modules ("layer4", "layer4.1", "features.3") whose output
    is a map or vector, and last "pre_logits", the input of the classifier, which is removed.
    Outputs that a later in-place ReLU overwrites are not offered. Its BatchNorm becomes ours.
    Models with a fixed input size (vit_*, maxvit_t) take only that. For resnet, regnet and vit
    prefer the trunks of these names: theirs has finer units and takes any size.

    Args:
        model: as in `torchvision.models.list_models(module=torchvision.models)`.
        weights: as in `torchvision.models.get_model_weights(model)`, such as "DEFAULT"; downloaded.
        in_channels: of the images; a number other than 3 gives a new first convolution.

    Raises:
        ConfigError: an unknown model or weights, or weights together with other than 3 channels.
    """

    takes_lists, library = False, "torchvision"

    def __init__(self, model: str = "resnet18", weights: str | None = None, in_channels: int = 3):
        super().__init__()
        self._arguments = model, weights, in_channels
        _check(*self._arguments)
        self.model = create(model, weights)
        convert_batch_norm(self.model)
        if in_channels != 3:
            _widen_first_convolution(self.model, in_channels)
        self.removed = heads_of(self.model)
        self.classifier = self.removed[0]
        self._units = dict(_expand(self.model))
        self._graphs: dict[tuple[str, ...], fx.Graph] = {}
        size = fixed_size(self.model) or 224
        self.widths = probe_widths(
            self, list(self._offered(self._trace())), (in_channels, size, size)
        )

    def forward(self, x_NCHW: Tensor, layers: Sequence[str] | None = None) -> dict[str, Any]:
        layers = self.checked(layers)
        if layers not in self._graphs:
            self._graphs[layers] = self._until(layers)
        return fx.Interpreter(self.model, graph=self._graphs[layers]).run(x_NCHW)

    def units(self) -> list[nn.Module]:
        return [module for module in self._units.values() if any(True for _ in module.parameters())]

    def init_weights(self) -> None:
        """Those of a new model of torchvision."""
        with torch.device("cpu"):
            copy_tensors(Torchvision(*self._arguments), self)

    def _trace(self) -> fx.Graph:
        return _UnitTracer(self._units).trace(self.model)

    def _offered(self, graph: fx.Graph) -> dict[str, fx.Node]:
        """Layer names in network order; a container's output is that of its last unit."""
        offered = {}
        for node in graph.nodes:
            if node.op != "call_module":
                continue
            if node.target == self.classifier:
                return {**offered, "pre_logits": node.args[0]}
            kept = not any(_overwrites(user, self._units) for user in node.users)
            for name in _with_containers(node.target):
                offered.pop(name, None)
                if kept:
                    offered[name] = node
        raise AssertionError(f"no call of {self.classifier}")

    def _until(self, layers: tuple[str, ...]) -> fx.Graph:
        graph = self._trace()
        nodes, (end,) = self._offered(graph), graph.find_nodes(op="output")
        end.args = ({name: nodes[name] for name in layers},)
        graph.owning_module = self.model  # by which it knows that modules have no side effects
        graph.eliminate_dead_code()
        return graph

    def __getstate__(self) -> dict[str, Any]:
        # graphs refer to this very model: a copy makes its own
        return {**self.__dict__, "_graphs": {}}


def create(model: str, weights: str | None = None) -> nn.Module:
    """A network of torchvision with nn.Identity for its classifier, without auxiliary heads."""
    with refusing_pickles():
        network = torchvision.models.get_model(model, weights=weights)
    _remove_auxiliary_heads(network)
    network.add_module(heads_of(network)[0], nn.Identity())
    return network


def heads_of(network: nn.Module) -> tuple[str, ...]:
    """The children of a network that are no part of the trunk; the classifier comes first."""
    return (list(network._modules)[-1], *AUXILIARY_HEADS)


def fixed_size(network: nn.Module) -> int | None:
    """Side of the images, in pixels, of a network that takes no other."""
    return getattr(network, "image_size", None)


class _UnitTracer(fx.Tracer):
    """Records calls of units instead of looking into them."""

    def __init__(self, units: dict[str, nn.Module]):
        super().__init__()
        self._names = units

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._names


def _expand(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Children by name; those of lists and sequences instead of the list or sequence."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield from _expand(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _with_containers(unit: str) -> Iterator[str]:
    """The unit's name, then those of the containers in it: layer4.1, layer4."""
    parts = unit.split(".")
    return (".".join(parts[:i]) for i in range(len(parts), 0, -1))


def _overwrites(user: fx.Node, units: dict[str, nn.Module]) -> bool:
    """Whether `user` changes its input, as nn.ReLU(inplace=True) and F.relu(x, inplace=True) do."""
    where = vars(units[str(user.target)]) if user.op == "call_module" else user.kwargs
    return bool(where.get("inplace", False))


def _remove_auxiliary_heads(model: nn.Module) -> None:
    names = set(AUXILIARY_HEADS) & set(model._modules)
    vars(model).update({"aux_logits": False} if names else {})
    model._modules.update(dict.fromkeys(names))


def _widen_first_convolution(model: nn.Module, in_channels: int) -> None:
    conv = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    conv.in_channels = in_channels
    conv.weight = nn.Parameter(
        conv.weight.new_empty(len(conv.weight), in_channels, *conv.kernel_size)
    )
    conv.reset_parameters()


def _check(model: str, weights: str | None, in_channels: int) -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    if model not in names:
        raise ConfigError(
            f"trunk torchvision: unknown model {model!r}{did_you_mean(model, names) or ';'}"
            f" models: {', '.join(names)}"
        )
    known = torchvision.models.get_model_weights(model).__members__
    if weights is not None and weights not in known:
        close = did_you_mean(weights, known) or ";"
        raise ConfigError(
            f"trunk torchvision: {model} has no weights {weights!r}{close}"
            f" weights: {', '.join(known)}"
        )
    if weights is not None and in_channels != 3:
        raise ConfigError(
            f"trunk torchvision: weights are for 3 channels, in_channels is {in_channels};"
            " set weights to null"
        )
