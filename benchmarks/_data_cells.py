"""Images and a small trunk for the benchmarks `data_{meaning,training,workers}.py`."""

import os
import platform
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vissl_lite import TRUNKS
from vissl_lite.data.opencv import opencv
from vissl_lite.layers.init import init_convnet_
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.layers.unit import Unit
from vissl_lite.trunks._trunk import Crops, Trunk

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder() -> Path:
    """The folder with the archives: $VISSL_LITE_DATA."""
    return Path(os.environ.get("VISSL_LITE_DATA", SHARED))


def photographs() -> list[bytes]:
    """All 250, encoded."""
    with tarfile.open(data_folder() / "imagenet-samples-250.tar") as tar:
        return [tar.extractfile(member).read() for member in tar if member.isfile()]


def cifar_arrays(count: int) -> np.ndarray:
    """[N, 32, 32, 3]: training images, as many of each class."""
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(unpack_cifar(Path(folder), -(-count // 10), 0).glob("train/*/*"))
        return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])[:count]


def unpack_photographs(to: Path, copies: int = 1) -> Path:
    """`to`/<class>/<photograph>, each under so many names; returns `to`."""
    with tarfile.open(data_folder() / "imagenet-samples-250.tar") as tar:
        for member in (m for m in tar if m.isfile()):
            name = Path(member.name)
            (to / name.stem).mkdir(parents=True)
            first = to / name.stem / f"0{name.suffix}"
            first.write_bytes(tar.extractfile(member).read())
            for copy in range(1, copies):
                os.link(first, first.with_stem(str(copy)))
    return to


def unpack_cifar(to: Path, train: int, test: int) -> Path:
    """`to`/{train,test}/<class>: the first so many images of each class; returns `to`."""
    most, found = {"train": train, "test": test}, Counter()
    with tarfile.open(data_folder() / "cifar10-images.tar.xz") as tar:
        for member in (m for m in tar if m.isfile()):
            folder = Path(member.name).parent
            if found[folder] < most[folder.parts[0]]:
                found[folder] += 1
                (to / folder).mkdir(parents=True, exist_ok=True)
                (to / member.name).write_bytes(tar.extractfile(member).read())
    return to


class Conv(Unit):
    """y = relu(norm(3x3 convolution of x))"""

    def __init__(self, channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.norm = BatchNorm2d(out_channels)

    def block(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


@TRUNKS.register("four_convs")
class FourConvs(Trunk):
    """Four 3x3 convolutions with 32 to 256 channels: a net that is quicker than its data.

    Args:
        stride: of the first convolution; 2 for the others.
    """

    def __init__(self, stride: int = 2):
        super().__init__()
        channels = [3, 32, 64, 128, 256]
        strides = [stride, 2, 2, 2]
        self.blocks = nn.ModuleList(map(Conv, channels, channels[1:], strides))
        self.widths = {f"conv{i}": width for i, width in enumerate(channels[1:], 1)}
        self.init_weights()

    def walk(self, crops: Crops) -> Iterator[tuple[str, Crops]]:
        for name, block in zip(self.widths, self.blocks):
            crops = block(crops)
            yield name, crops

    def units(self) -> list[nn.Module]:
        return list(self.blocks)

    def init_weights(self) -> None:
        self.apply(init_convnet_)


def about() -> str:
    """Versions and cores, for the head of a table."""
    cv2 = opencv()
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__},"
        f" numpy {np.__version__}, OpenCV {cv2.__version__ if cv2 else 'not installed'},"
        f" {len(os.sched_getaffinity(0))} cores"
    )
