"""Sources that worker processes can import."""

import os
import signal

import numpy as np

from vissl_lite import ConfigError
from vissl_lite.data.batch import Sample


class Numbers:
    """Image i has 12 x 12 pixels of value i; one index may harm a worker."""

    num_classes, classes = None, None

    def __init__(self, size: int = 24, harm: str = "", at: int = 5):
        self.size, self.harm, self.at, self.main = size, harm, at, os.getpid()

    def __len__(self):
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if self.harm and index == self.at and os.getpid() != self.main:
            getattr(self, self.harm)()
        return Sample(np.full((12, 12), index, np.uint8), name=f"number-{index}")

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def exit(self):
        os._exit(7)

    def refuse(self):
        raise ConfigError("data.source: no more numbers; count again")
