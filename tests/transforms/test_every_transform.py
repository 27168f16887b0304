"""What holds for every transform: a pure function of image and generator, RGB in, RGB out.

The forms of a transform are compared in test_forms.py.
"""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_lite import TRANSFORMS

OWN = [name for name in TRANSFORMS if TRANSFORMS.describe(name).origin.startswith("vissl_lite.")]


def global_states():
    numbers = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numbers[1].tolist(), numbers[2:]


def run(transform, image, seed):
    return transform(image, np.random.Generator(np.random.Philox(key=seed)))


@pytest.mark.parametrize("name", OWN)
def test_pure_function_of_image_and_generator(name, photo):
    transform = TRANSFORMS.build(name, size=32)
    before, states = np.asarray(photo).copy(), global_states()
    results = [run(transform, photo, seed) for seed in range(12)]
    again = [run(pickle.loads(pickle.dumps(transform)), photo, seed) for seed in range(12)]
    assert all(isinstance(r, Image.Image) and r.mode == "RGB" for r in results)
    assert [r.tobytes() for r in results] == [r.tobytes() for r in again]
    np.testing.assert_array_equal(np.asarray(photo), before)
    assert global_states() == states, "a global random state was used"


@pytest.mark.parametrize("name", sorted(set(OWN) - {"resize", "center_crop"}))
def test_different_numbers_give_different_images(name, photo):
    transform = TRANSFORMS.build(name, size=32)
    assert len({run(transform, photo, seed).tobytes() for seed in range(12)}) > 1


@pytest.mark.parametrize("name", OWN)
def test_no_global_generator_is_called(name, photo, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("global random numbers")

    for module, functions in [
        (torch, "rand randn randint randperm normal bernoulli multinomial"),
        (torch.Tensor, "uniform_ normal_ random_ bernoulli_"),
        (random, "random uniform randint choice shuffle gauss"),
        (np.random, "rand randn randint random uniform choice permutation default_rng"),
    ]:
        for function in functions.split():
            monkeypatch.setattr(module, function, forbidden)
    for seed in range(4):
        run(TRANSFORMS.build(name, size=32), photo, seed)


@pytest.mark.parametrize("name", OWN)
def test_described_and_named_after_its_file(name):
    described = TRANSFORMS.describe(name)
    assert described.summary.endswith(".")
    assert described.origin.split(".")[2] == name
