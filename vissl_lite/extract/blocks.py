"""Images by blocks: block b of size B holds the images b * B .. (b + 1) * B of the source.

The blocks are batches of the model, the same ones with any number of processes, so that the
features are the same too, bit for bit. Shape suffixes: B images of a block, H, W, C of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.fast import FastViews
from vissl_lite.data.workers import from_workers, tell

UNLABELLED = -1


@dataclass
class Block:
    """Images of one block.

    Attributes:
        images_BHWC: uint8; zeros where an image is broken.
        names: "" where the source gives none.
        labels: class ids, -1 for none.
        broken: (place in the block, reason).
    """

    number: int
    images_BHWC: Tensor
    names: list[str]
    labels: list[int]
    broken: list[tuple[int, str]]


class Blocks(Dataset):
    """`blocks[b]`: block b of a source."""

    def __init__(self, source: Any, views: FastViews, batch_size: int):
        self.source, self.views, self.batch_size = source, views, batch_size

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, number: int) -> Block:
        start = number * self.batch_size
        index_B = np.arange(start, min(start + self.batch_size, len(self.source)))
        size = self.views.sizes[0]
        images_1BHWC = np.zeros((1, len(index_B), size, size, 3), np.uint8)
        draws = self.views.draw(0, 0, index_B)  # a random transform would repeat itself
        block = Block(number, torch.from_numpy(images_1BHWC[0]), [], [], [])
        for b, index in enumerate(index_B.tolist()):
            tell(index)
            sample = Sample(None)
            try:
                sample = self.source[index]
                self.views.write(sample.image, sample.name, draws, b, [images_1BHWC])
            except BrokenImage as error:
                sample.name = sample.name or error.name
                images_1BHWC[0, b] = 0
                block.broken.append((b, error.reason))
            block.names.append(sample.name)
            block.labels.append(UNLABELLED if sample.label is None else int(sample.label))
        return block


def read_blocks(blocks: Blocks, numbers: Sequence[int], workers: int) -> Iterator[Block]:
    """These blocks, in this order.

    Raises:
        ConfigError: the source or a transform says what is wrong.
        WorkerDied: one of the processes has ended.
    """
    if workers == 0:
        return map(blocks.__getitem__, numbers)
    return from_workers(blocks, numbers, workers, blocks.source, blocks.views)
