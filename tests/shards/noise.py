"""A source that worker processes can import."""

import multiprocessing
import os
import signal
import time

import numpy as np

from vissl_lite.data.batch import Sample


class Noise:
    """Images of 300 to 5,200 bytes with labels and tags; some are broken, as told."""

    num_classes, classes = 4, ["a", "b", "c", "d"]

    def __init__(self, n=61, broken=(), slow=0.0):
        self.n, self.broken, self.slow, self.read = n, broken, slow, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read.append(index)
        time.sleep(self.slow)
        side = 8 + index * 7 % 32
        image = np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8)
        label = index % 4 if index % 5 else None
        image = b"no image" if index in self.broken else image
        return Sample(image, label, [index % 4] * (index % 3), f"noise/{index}")


class Deadly(Noise):
    """Kills the worker that reads image 40."""

    def __getitem__(self, index):
        if index == 40 and multiprocessing.parent_process():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)
