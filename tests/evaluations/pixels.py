"""The digits' pixels as features: a bench without a model."""

from types import SimpleNamespace

import torch

from vissl_lite.engine.features import FeatureSet
from vissl_lite.sources.digits import load_digits


def digits(split):
    """Pixels [N, 64] and labels [N] of one split."""
    images, labels = load_digits(split, 0)
    return torch.from_numpy(images).flatten(1).float() / 255, torch.from_numpy(labels)


class PixelBench:
    """Layer "pixels"; and "noise", which says nothing about the class."""

    num_classes, device = 10, torch.device("cpu")
    model = SimpleNamespace(layer="pixels")

    def __init__(self, train_images=None, test_images=None):
        self.count = {"train": train_images, "test": test_images}
        self.notes = []
        self.note = self.notes.append

    def files(self, name):
        return None

    def features(self, split, layers):
        x_ND, label_N = (t[: self.count[split]] for t in digits(split))
        noise = torch.randn(len(x_ND), 8, generator=torch.Generator().manual_seed(1))
        known = {"pixels": x_ND, "noise": noise}
        return FeatureSet({layer: known[layer] for layer in layers}, label_N, [])
