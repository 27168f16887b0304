"""Needs acme_ssl and vissl_lite installed, as `.ci/run` does."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from acme_ssl.parts import Plain

from vissl_lite import LOSSES, TRUNKS, ConfigError
from vissl_lite.plugins import load_entries, recipes


def naive(x, y, weight):
    """The definition, one pair after the other."""
    unit = [[row / row.norm() for row in z] for z in (x, y)]
    aligned = sum((a - b).norm() ** 2 for a, b in zip(*unit)) / len(x)
    spread = [
        [math.exp(-2 * (a - b).norm() ** 2) for a, b in itertools.combinations(z, 2)] for z in unit
    ]
    return aligned + weight * sum(math.log(sum(s) / len(s)) for s in spread) / 2


def test_loss_is_its_definition():
    load_entries()
    z_VBD = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    loss = LOSSES.build({"name": "acme_alignment", "weight": 0.5}, "loss")
    found = loss(SimpleNamespace(embedding=z_VBD), None)["loss"]
    torch.testing.assert_close(found, naive(*z_VBD, 0.5), rtol=1e-5, atol=1e-6)


def test_loss_refuses_three_crops():
    load_entries()
    with pytest.raises(ConfigError, match="make 2 views"):
        LOSSES.build("acme_alignment", "loss")(SimpleNamespace(embedding=torch.ones(3, 2, 4)), None)


def test_trunk_keeps_the_contract():
    load_entries()
    trunk = TRUNKS.build({"name": "acme_plain", "channels": [4, 8]}, "trunk")
    assert isinstance(trunk, Plain)
    outputs = trunk(torch.zeros(2, 3, 16, 16), ("conv2", "conv1"))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "conv2": (2, 8, 4, 4),
        "conv1": (2, 4, 8, 8),
    }
    assert list(outputs) == ["conv2", "conv1"]
    assert len(trunk.units()) == len(trunk.widths) == 2


def test_recipe_is_found():
    assert "pretrain/acme/plain_digits" in recipes()
