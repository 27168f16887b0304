"""What every trunk shares: from a walk through the network to the layers asked for."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vissl_lite.errors import ConfigError, did_you_mean

Crops = Sequence[Tensor]  # one tensor per resolution


class Trunk(nn.Module):
    """A network without its classifier: `trunk(x_NCHW, ("res4", "res5")) -> {"res4": ..., ...}`.

    With a list of tensors, one per resolution, it gives a list for each layer, unless `takes_lists`
    is False.

    A subclass sets `widths` and implements `walk`, `units` and `init_weights`.

    Attributes:
        widths: channels of every layer that it can give, in network order; the last is the default.
        library: of an adapter, the library that its network `model` is from; else None.
        removed: of an adapter, the modules of the library's network that it has not.
    """

    widths: dict[str, int]
    library: str | None = None
    removed: tuple[str, ...] = ()
    takes_lists = True

    def walk(self, crops: Crops) -> Iterator[tuple[str, Crops]]:
        """Yields (layer, outputs) in network order, computing each when it is asked for."""
        raise NotImplementedError

    def units(self) -> list[nn.Module]:
        """Stem and blocks: what checkpointing, compilation and sharding wrap one by one."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Fresh weights and buffers, in place; for a network that was built on the meta device."""
        raise NotImplementedError

    def forward(self, x: Tensor | Crops, layers: Sequence[str] | None = None) -> dict[str, Any]:
        """The outputs of `layers` (default: the last) in the order asked; stops after them.

        Args:
            x: [N, C, H, W], or a list of them with any H and W.

        Raises:
            ConfigError: a name is not in `widths`.
        """
        layers, found = self.checked(layers), {}
        for name, outputs in self.walk([x] if isinstance(x, Tensor) else x):
            if name in layers:
                found[name] = outputs[0] if isinstance(x, Tensor) else outputs
            if len(found) == len(layers):
                break
        return {name: found[name] for name in layers}

    def checked(self, layers: Sequence[str] | None) -> tuple[str, ...]:
        """`layers` without repetition, or the last layer; see `forward`."""
        for name in layers or ():
            if name not in self.widths:
                raise ConfigError(
                    f"trunk: unknown layer {name!r}{did_you_mean(name, self.widths) or ';'}"
                    f" layers: {', '.join(self.widths)}"
                )
        return tuple(dict.fromkeys(layers or [list(self.widths)[-1]]))


def probe_widths(trunk: Trunk, layers: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    """Channels of those `layers` whose output is a vector [N, C] or a map [N, C, H, W].

    Runs `trunk` on the meta device with a square image of `shape` [C, S, S]. A map [N, H, W, C]
    shows by sides that differ.
    """
    trunk.widths = dict.fromkeys(layers, 0)
    # parameters stay parameters, for torch.fx records no other tensors
    state = {k: nn.Parameter(p.to("meta"), False) for k, p in trunk.named_parameters()}
    state |= {k: buffer.to("meta") for k, buffer in trunk.named_buffers()}
    x, mode = torch.empty(1, *shape, device="meta"), trunk.training
    with torch.no_grad():
        outputs = torch.func.functional_call(trunk.eval(), state, (x, layers))
    trunk.train(mode)
    fits = {k: y for k, y in outputs.items() if y.ndim == 2 or (y.ndim == 4 and _square(y))}
    return {name: y.shape[1] for name, y in fits.items()}


@torch.no_grad()
def copy_tensors(source: nn.Module, target: nn.Module) -> None:
    """Parameters and buffers, non-persistent ones included, of an equal network."""
    for old, new in zip(_tensors(target), _tensors(source), strict=True):
        old.copy_(new)


@contextmanager
def refusing_pickles() -> Iterator[None]:
    """Every torch.load inside accepts tensors only, those of other libraries included."""
    with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):
        yield


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _square(y_NCHW: Tensor) -> bool:
    return y_NCHW.shape[2] == y_NCHW.shape[3]
