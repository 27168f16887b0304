"""Views of images that are all in memory: a whole batch at once, without Python per image.

Shape suffixes: M images held, B of a batch, V crops of one view group, N = V * B crops, P
parameters of a transform, S side of a crop, C, H, W of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vissl_lite.data.device import Batched, Chain
from vissl_lite.data.views import Draws, Views


class MemoryViews:
    """All crops of the images of a request, by the `on_batch` of the transforms.

    A crop depends on (seed, epoch, position, view) alone: on a CPU bit for bit, whatever batch it
    is in; on a GPU some values may be rounded the other way in a batch of another size.

    Args:
        views: groups whose transforms all have an `on_batch`.
        images_MHWC: uint8, on the device where the crops are made.
        compiled_for: images per batch for which the transforms of a group are compiled into one
            function; 0: never. See `Batched`.

    Raises:
        ConfigError: the transforms of a group do not end in its size.
    """

    def __init__(self, views: Views, images_MHWC: Tensor, seed: int, compiled_for: int = 0):
        self.views, self.seed = views, seed
        self.images_MCHW = images_MHWC.permute(0, 3, 1, 2).contiguous()  # planes suit colours
        self._sizes = [self._walk(g) for g in range(len(views.groups))]
        largest = [max(group.size, *images_MHWC.shape[1:3]) for group in views.groups]
        self._run = [
            Batched(group.transforms, size, compiled_for * group.count)
            for group, size in zip(views.groups, largest)
        ]

    def batch(self, index_B: Tensor, positions_B: np.ndarray, epoch: int) -> list[Tensor]:
        """uint8 [V, B, S, S, 3] for every group, in memory plane by plane.

        Args:
            index_B: int64, which images, on their device.
            positions_B: their places in the order of the epoch.
        """
        draws, found = self.views.draw(self.seed, epoch, positions_B), []
        for g, count in enumerate(self.views.counts):
            p_NP = self._parameters(g, draws)
            done_NCSS = self._run[g](index_B.repeat(count), p_NP, self._load)
            found.append(done_NCSS.unflatten(0, (count, -1)).permute(0, 1, 3, 4, 2))
        return found

    def _load(self, index_N: Tensor) -> Tensor:
        return self.images_MCHW.index_select(0, index_N)

    def _parameters(self, g: int, draws: Draws) -> list[Tensor]:
        """float32 [N, P] for every transform of the group, on the device."""
        transforms, sizes = self.views.groups[g].transforms, self._sizes[g]
        found = [
            transform.parameters(np.concatenate(draws.uniforms(g, t)), *sizes[t])
            for t, transform in enumerate(transforms)
        ]
        return to_device(found, self.images_MCHW.device)

    @torch.no_grad()
    def _walk(self, g: int) -> list[tuple[int, int]]:
        """Width and height of the images that each transform of the group gets."""
        draws = self.views.draw(self.seed, 0, np.zeros(1, np.int64))
        x_1CHW, sizes = self.images_MCHW[:1], []
        for t, transform in enumerate(self.views.groups[g].transforms):
            sizes.append((x_1CHW.shape[3], x_1CHW.shape[2]))
            p_1P = transform.parameters(draws.uniforms(g, t)[0], *sizes[-1])
            x_1CHW = Chain([transform])(x_1CHW, to_device([p_1P], x_1CHW.device))
        self.views.check_size(g, x_1CHW[0].permute(1, 2, 0).cpu().numpy())
        return sizes


def to_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Arrays as float32 tensors on a device: one copy, which does not wait for a GPU."""
    flat = np.concatenate([np.empty(0), *(array.ravel() for array in arrays)], dtype=np.float32)
    packed, to_gpu = torch.from_numpy(flat), device.type == "cuda"
    packed = (packed.pin_memory() if to_gpu else packed).to(device, non_blocking=to_gpu)
    parts = packed.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays)]
