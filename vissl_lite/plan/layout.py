"""How a model divides into groups that are sharded, gathered and reduced as one.

The same division as `parallel.wrap.shard`, by sizes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from vissl_lite.parallel.wrap import sharding_units


@dataclass(frozen=True)
class Group:
    """Parameters that travel together.

    Attributes:
        shapes: (rows, values per row, trainable) of each parameter; rows are what is sharded.
        low: gathered in 16 bit, where the precision is 16 bit.
    """

    shapes: tuple[tuple[int, int, bool], ...]
    low: bool = True

    def shard(self, ranks: int, trainable: bool = False) -> int:
        """Values on the first rank, ceil(rows / ranks) rows of each parameter."""
        return sum(
            -(-rows // ranks) * width
            for rows, width, trains in self.shapes
            if trains or not trainable
        )

    def padded(self, ranks: int, trainable: bool = False) -> int:
        """Values of all ranks, padding included: what is gathered or scattered."""
        return ranks * self.shard(ranks, trainable)

    @property
    def largest(self) -> int:
        """Values of the largest parameter."""
        return max((rows * width for rows, width, _ in self.shapes), default=0)


@dataclass(frozen=True)
class Layout:
    """All parameters of a model.

    Attributes:
        groups: in the order of `modules_of`.
        root: what belongs to no group; in fp32.
        classes: of heads that spread their classes over all ranks.
    """

    groups: tuple[Group, ...]
    root: Group
    classes: Group

    @property
    def all(self) -> tuple[Group, ...]:
        return *self.groups, self.root, self.classes

    def parameters(self, trainable: bool = False) -> int:
        return sum(group.shard(1, trainable) for group in self.all)


def modules_of(model: Any, split_above: int | None) -> list[tuple[nn.Module, bool]]:
    """(module, computes in 16 bit) of every group but the root; a part stands before its whole."""
    found: list[tuple[nn.Module, bool]] = []
    for net in filter(None, (model.teacher, model)):
        found += [(unit, True) for unit in sharding_units(net, split_above)]
        found += [(net, False)] if net is not model else []
    return found


def layout_of(model: Any, split_above: int | None) -> Layout:
    """Sizes of the groups of a model, which may be on the meta device."""
    own = [h for h in model.heads if getattr(h, "shard_classes", False)]
    classes = [p for h in own for p in h.parameters()]
    taken = set(classes)
    groups = []
    for module, low in modules_of(model, split_above):
        fresh = [p for p in module.parameters() if p not in taken]
        taken.update(fresh)
        groups.append(_group(fresh, low))
    rest = [p for p in model.parameters() if p not in taken]
    return Layout(tuple(groups), _group(rest, False), _group(classes, False))


def _group(parameters: list[nn.Parameter], low: bool) -> Group:
    return Group(
        tuple((len(p), p.numel() // max(1, len(p)), p.requires_grad) for p in parameters), low
    )
