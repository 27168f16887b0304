"""Models, images and processes that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vissl_lite.data.batch import Batch, Tags


def materialise(module: nn.Module, dtypes: dict[nn.Parameter, torch.dtype]) -> None:
    """Replaces meta tensors by fake ones on the CPU, in place; call it in fake mode.

    Args:
        dtypes: of parameters that do not keep theirs.
    """
    made: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, t in own.items():
                if t is not None and t not in made:
                    new = torch.empty(
                        t.shape, dtype=dtypes.get(cast(Any, t), t.dtype), device="cpu"
                    )
                    is_weight = isinstance(t, nn.Parameter)
                    made[t] = nn.Parameter(new, t.requires_grad) if is_weight else new
                own[name] = None if t is None else cast(Any, made[t])


def fake_views(sizes: Sequence[tuple[int, int]], images: int, device: str) -> list[Tensor]:
    """uint8 crops, [crops, images, pixels, pixels, 3] of each view group."""
    return [torch.empty(v, images, s, s, 3, dtype=torch.uint8, device=device) for v, s in sizes]


def fake_batch(sizes: Sequence[tuple[int, int]], images: int) -> Batch:
    """Crops of (count, pixels) per group; a label and one tag for every image."""
    views = fake_views(sizes, images, "cpu")
    label_B = torch.zeros(images, dtype=torch.int64, device="cpu")
    offsets = torch.arange(images + 1, device="cpu")
    tags = Tags(label_B.clone(), offsets, list(range(images + 1)))
    return Batch(views, label_B.clone(), label_B, tags)


@contextmanager
def fake_world(size: int) -> Iterator[None]:
    """Inside, this process is rank 0 of `size`, and collectives do nothing."""
    if size == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()
