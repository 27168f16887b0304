"""The fast back end means what the reference means, wherever its parts run."""

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.data.batch import Batch
from vissl_lite.data.dataset import ViewDataset
from vissl_lite.data.fast import FastViews
from vissl_lite.data.sampler import Order
from vissl_lite.data.views import ViewGroup, Views
from vissl_lite.plugins import load_entries

load_entries()
SIMCLR = [
    {"name": "random_resized_crop", "scale": [0.08, 1.0]},
    "random_horizontal_flip",
    "color_jitter",
    "random_grayscale",
    "gaussian_blur",
    {"name": "solarize", "p": 0.3},
]
MULTI_CROP = [
    {"count": 2, "size": 64, "transforms": SIMCLR},
    {"count": 4, "size": 32, "transforms": SIMCLR},
]
LISTS = {
    "simclr": SIMCLR,
    "evaluation": ["resize", "center_crop"],
    "small": ["random_crop", "random_horizontal_flip"],
    "digits": [{"name": "resize", "short_side": 32}, "random_affine", *SIMCLR[:3]],
    "erased": ["random_resized_crop", "random_erasing", "random_rotation"],
    "pillow only": ["random_resized_crop", "rand_augment", "random_horizontal_flip"],
}


@pytest.fixture
def image():
    """All frequencies and colours, larger than any crop."""
    y, x = np.mgrid[:150, :200]
    waves = [np.sin(x * y / (900 + 500 * c)) * 70 + 100 + 20 * c for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 10, (150, 200, 3))
    return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


def made(views, image, positions, on_device=None):
    """uint8 [V, B, S, S, 3] per group; by the reference where `on_device` is None."""
    sides = zip(views.counts, views.sizes)
    outs = [np.zeros((v, len(positions), s, s, 3), np.uint8) for v, s in sides]
    backend = views if on_device is None else FastViews(views, on_device)
    draws = backend.draw(3, 1, positions)
    for b in range(len(positions)):
        backend.write(image, "", draws, b, outs)
    if on_device is None:
        return outs
    tensors = [torch.from_numpy(out) for out in outs]
    batch = Batch(tensors, torch.from_numpy(positions), unfinished=draws.on_device)
    done = ViewDataset(None, backend, Order([1]), 0).finish(batch)
    assert not done.unfinished
    return [view.numpy() for view in done.views]


def difference(a, b):
    return np.abs(np.concatenate([(x.astype(float) - y).ravel() for x, y in zip(a, b)])).mean()


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("name", LISTS)
def test_same_meaning_as_the_reference(image, name, on_device):
    """Mean |difference| below 1 of 255; crops of other places would differ by 50."""
    source = image.resize((36, 36)) if name == "small" else image
    size = 36 if name == "small" else 48
    views = Views.build([{"count": 3, "size": size, "transforms": LISTS[name]}])
    expected = made(views, source, np.arange(5))
    assert difference(made(views, source, np.arange(5), on_device), expected) < 1.0


@pytest.mark.parametrize("on_device", [None, False, True])
def test_an_image_does_not_depend_on_its_batch(image, on_device):
    views = Views.build(MULTI_CROP)
    whole = made(views, image, np.arange(8), on_device)
    for chosen in ([5], [2, 3, 4], [7, 0]):
        some = made(views, image, np.array(chosen), on_device)
        assert all((a == b[:, chosen]).all() for a, b in zip(some, whole))


def test_the_device_gets_the_longest_end_that_it_can_do():
    lists = (SIMCLR, LISTS["pillow only"], LISTS["evaluation"])
    views = Views.build([{"size": 8, "transforms": transforms} for transforms in lists])
    chains = FastViews(views, on_device=True).chains
    assert [(c.settled, c.device) for c in chains] == [(1, 1), (1, 2), (2, 2)]
    assert FastViews(views, on_device=True).leaves_work
    assert not FastViews(views, on_device=False).leaves_work


def test_a_transform_of_somebody_else_runs_in_the_worker(image):
    """It gets a Pillow image and the generator that it has in the reference."""

    def mirrored_or_not(image, rng):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image

    crop, flip, *_ = Views.build([{"size": 24, "transforms": SIMCLR}]).groups[0].transforms
    views = Views([ViewGroup(3, 24, [crop, mirrored_or_not, flip])])
    expected = made(views, image, np.arange(6))
    for on_device in (False, True):
        assert difference(made(views, image, np.arange(6), on_device), expected) < 0.2


def test_the_image_is_not_changed(image):
    before = np.asarray(image).copy()
    views = Views([ViewGroup(1, 150, [])])
    square = before[:, :150].copy()
    made(views, square, np.arange(2), False)
    flip = {"name": "random_horizontal_flip", "p": 1.0}
    flips = Views.build([{"size": 150, "transforms": [flip]}])
    made(flips, square, np.arange(2), False)
    np.testing.assert_array_equal(square, before[:, :150])


@pytest.mark.parametrize("then", [[], ["random_affine"], ["random_horizontal_flip"]])
@pytest.mark.parametrize("on_device", [False, True])
def test_wrong_size_says_what_to_add(image, then, on_device):
    views = Views.build([{"size": 48, "transforms": ["resize", *then]}])
    with pytest.raises(ConfigError, match=r"^data.views\[0\]: .* 72x54 pixels instead of 48x48"):
        made(views, image, np.arange(1), on_device)


def test_large_photographs_are_decoded_small_only_if_no_crop_loses(tmp_path):
    """Crops of the whole of 3200 x 2400 pixels; of a small part the decoder must not shrink."""
    y, x = np.mgrid[:2400, :3200]
    pixels = np.stack([np.sin(x / 40) * 100 + 120, np.cos(y / 55) * 100 + 120, (x + y) / 25], -1)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "large.jpg", quality=95)
    for scale in ([0.9, 1.0], [0.001, 0.002]):
        crop = {"name": "random_resized_crop", "scale": scale}
        views = Views.build([{"count": 2, "size": 64, "transforms": [crop]}])
        expected = made(views, tmp_path / "large.jpg", np.arange(3))
        assert difference(made(views, tmp_path / "large.jpg", np.arange(3), False), expected) < 1.5
