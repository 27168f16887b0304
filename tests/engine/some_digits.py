"""A small model and a source with broken and unlabelled images."""

import torch

from vissl_lite import HEADS, TRUNKS
from vissl_lite.data.batch import Sample
from vissl_lite.engine.numerics import Numerics
from vissl_lite.model import SSLModel
from vissl_lite.plugins import load_entries
from vissl_lite.sources.digits import Digits

CPU, FP32 = torch.device("cpu"), Numerics("fp32", "contiguous", "")


def small_model():
    load_entries()
    torch.manual_seed(0)
    trunk = {"name": "resnet", "depth": 18, "stem": "cifar", "width_multiplier": 0.125}
    trunk = TRUNKS.build(trunk)
    mlp = HEADS.build({"name": "mlp", "hidden": [16], "out_dim": 6}, in_dim=64)
    linear = HEADS.build({"name": "linear", "out_dim": 3}, in_dim=6)
    model = SSLModel(trunk, [mlp, linear], mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
    with torch.no_grad():  # statistics that differ from those of a batch
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
    return model


class SomeDigits:
    """Digits of which some are broken and some have no label."""

    num_classes, classes = 10, None

    def __init__(self, size, broken=(), unlabelled=()):
        self.digits, self.size = Digits("test"), size
        self.broken, self.unlabelled = broken, unlabelled

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        sample = self.digits[index]
        image = b"no image" if index in self.broken else sample.image
        return Sample(image, None if index in self.unlabelled else sample.label, name=f"n{index}")
