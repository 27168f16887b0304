"""Which network has exactly the tensors of a file: one of ours, of torchvision, of timm.

names and shapes -> our trunk that they tell, if it has exactly these
                 -> else every network of the libraries, on the meta device: those that have
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vissl_lite import TRUNKS
from vissl_lite.errors import ConfigError
from vissl_lite.formats.format import Pixels, Tensors
from vissl_lite.formats.recognise import ADAPTED, Weights, infer, recognise_library
from vissl_lite.trunks import timm as from_timm
from vissl_lite.trunks import torchvision as from_torchvision

Config = dict[str, Any]  # of an adapter: {"name": library, "model": the name there}
ADAPTERS = {"torchvision": from_torchvision, "timm": from_timm}
SPARE = 32  # parameters that a network makes and a file lacks: of classifiers, or replaced at once
CLOSE = 1e-9  # relative, of the largest feature, in float64
SIDE = 224


def identify(weights: Weights, allow_missing: bool = False) -> Weights:
    """The weights with the config of their trunk, and under the names that it has there.

    A trunk of ours is taken if it has exactly these tensors, else a network of torchvision or timm
    that has; if none has, the trunk of ours, whose differences are for the caller to tell.

    Raises:
        ConfigError: no trunk, or several networks that compute different features.
    """
    if weights.config is not None:
        return weights
    refusal = ""
    try:
        weights.config = {**infer(weights.trunk), **weights.unseen}
        with torch.device("meta"):
            trunk = TRUNKS.build(weights.config, "trunk")
        if _exactly(weights, trunk.state_dict(), allow_missing):
            return weights
    except ConfigError as error:
        refusal = str(error)
    found = library_weights(weights.file, weights.report.origin) if weights.file else None
    if not found and refusal:
        raise ConfigError(f"{refusal}; {_tried()}")
    return found or weights


def library_weights(tensors: Tensors, origin: str) -> Weights | None:
    """The network of torchvision or timm that has exactly these names and shapes; None if none has.

    Args:
        tensors: of the file, nested dicts flattened; also its classifier, if it has one.
        origin: the file, for the report.

    Raises:
        ConfigError: several have, and compute different features.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks that nobody asked for
        found = [w for config in _candidates(tensors) if (w := _weights(config, tensors, origin))]
        if len(found) > 1 and not _compute_the_same(found):
            raise ConfigError(_choice(found, origin))
    return found[0] if found else None


def _tried() -> str:
    tried = " or ".join(f"the {len(names)} of {library}" for library, names in _names().items())
    timm = "" if find_spec("timm") else " (pip install timm to compare with its networks, too)"
    return (
        f"nor has any of {tried}{timm} exactly these names and shapes; name the trunk to be told"
        " what differs: load(..., trunk={'name': 'timm', 'model': ...})"
    )


def _names() -> dict[str, list[str]]:
    """Of each library that is installed, the one that is taken first."""
    names = {"torchvision": torchvision.models.list_models(module=torchvision.models)}
    if find_spec("timm") is not None:
        import timm

        names["timm"] = timm.list_models()
    return names


def _candidates(tensors: Tensors) -> Iterator[Config]:
    """All networks, but those of timm whose first convolution the file has not."""
    for library, names in _names().items():
        for model in names:
            if library != "timm" or _has_first_convolution(model, tensors):
                yield {"name": library, "model": model}


def _has_first_convolution(model: str, tensors: Tensors) -> bool:
    from timm.models import get_pretrained_cfg_value

    first = get_pretrained_cfg_value(model, "first_conv") or ()
    ends = tuple(f"{name}.weight" for name in ((first,) if isinstance(first, str) else first))
    return not ends or any(name.endswith(ends) for name in tensors)


def _weights(config: Config, tensors: Tensors, origin: str) -> Weights | None:
    """Those of this network; None if it has others."""
    if (network := _built(config, tensors)) is None:
        return None
    heads = ADAPTERS[config["name"]].heads_of(network)
    weights = recognise_library(tensors, origin, config["name"], network, heads)
    wanted = {ADAPTED + name: tensor for name, tensor in network.state_dict().items()}
    if weights is None or not _exactly(weights, wanted):
        return None
    weights.config, weights.report.format = config, f"{config['model']} of {config['name']}"
    weights.pixels = Pixels(size=ADAPTERS[config["name"]].fixed_size(network))
    return weights


def _exactly(weights: Weights, wanted: Tensors, allow_missing: bool = False) -> bool:
    """Whether the weights have these names and shapes; counters of batches may be missing."""
    weights.report.compare(weights.trunk, wanted)
    report = weights.report
    missing = [name for name in report.missing if not name.endswith("num_batches_tracked")]
    return not (report.wrong_shape or report.unknown or (missing and not allow_missing))


# ---------------------------------------------------------------- building many networks


class _AnotherNetwork(Exception):
    """It has parameters that the file has not."""


def _built(config: Config, tensors: Tensors) -> nn.Module | None:
    """The network, on the meta device where it can be built there; None if it is another one."""
    create = ADAPTERS[config["name"]].create
    pruned = config["model"].endswith("_pruned")  # made with the widths that it had before
    for device in ("meta", "cpu"):
        try:
            with nullcontext() if pruned else _giving_up_early(tensors), torch.device(device):
                return create(config["model"])
        except _AnotherNetwork:
            return None
        except NotImplementedError:  # torchvision's RegNets ask for a value
            continue
    return None


@contextmanager
def _giving_up_early(tensors: Tensors) -> Iterator[None]:
    """Ends the construction of a network with more than SPARE parameters that the file has not.

    Parameters are told apart by the last part of their name and by shape.
    """
    known = {(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()}
    thread, foreign = threading.get_ident(), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal foreign
        if parameter is None or threading.get_ident() != thread:
            return
        foreign += (name, parameter.shape) not in known
        if foreign > SPARE:
            raise _AnotherNetwork

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


# ---------------------------------------------------------------- several with the same tensors


def _compute_the_same(found: list[Weights]) -> bool:
    """Whether all make the same features of an image of noise."""
    first, *others = found
    side = first.pixels.size or SIDE
    x_1C = _features(first, side)
    return all(_equal(x_1C, _features(other, side)) for other in others)


def _equal(x_1C: Tensor | None, y_1C: Tensor | None) -> bool:
    if x_1C is None or y_1C is None or x_1C.shape != y_1C.shape:
        return False
    return bool((x_1C - y_1C).abs().max() <= CLOSE * x_1C.abs().max())


@torch.no_grad()
def _features(weights: Weights, side: int) -> Tensor | None:
    """[1, C], in float64; None where the network refuses an image of this side."""
    trunk = TRUNKS.build(weights.config, "trunk")
    trunk.load_state_dict(weights.trunk, strict=False)  # all but counters of batches are there
    generator = torch.Generator().manual_seed(0)
    x_1CHW = torch.randn(1, 3, side, side, generator=generator, dtype=torch.float64)
    try:
        (y_1C,) = trunk.double().eval()(x_1CHW).values()
    except Exception:  # the libraries refuse in many ways; what cannot be compared is not equal
        return None
    return y_1C


def _choice(found: list[Weights], origin: str) -> str:
    configs = [weights.config or {} for weights in found]
    names = ", ".join(f"{config['name']} {config['model']}" for config in configs)
    name, model = configs[0].values()
    sizes = {weights.pixels.size for weights in found}
    size = sizes.pop() if len(sizes) == 1 else None
    return (
        f"weights: {origin} fits several networks that do not compute the same ({names}); name"
        f" the one that it is of: load(..., trunk={{'name': {name!r}, 'model': {model!r}}}), beside"
        f" init= on the command line 'trunk={{name: {name}, model: {model}}}'"
        + (f" labelled.size={size}" if size else "")
    )
