import numpy as np
import pytest
import torch
import torchvision.transforms.transforms as tv
from PIL import Image

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import random_erasing

SIZE = (60, 40)


def boxes(n, rng, **parameters):
    """(left, top, width, height) of the hole in a white image, for those that have one."""
    config = {"name": "random_erasing", "p": 1.0, "fill": [0, 0, 0], **parameters}
    transform, white = TRANSFORMS.build(config), Image.new("RGB", SIZE, "white")
    found = []
    for _ in range(n):
        dark = np.asarray(transform(white, rng))[..., 0] == 0
        y, x = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
        assert dark.sum() == len(x) * len(y), "not one rectangle"
        found.append((x[0], y[0], len(x), len(y)))
    return np.array(found, float)


def test_moments_of_the_holes_are_torchvisions(rng):
    n, image = 4000, torch.zeros(3, SIZE[1], SIZE[0])
    draws = [tv.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0]) for _ in range(n)]
    theirs = np.array([(left, top, w, h) for top, left, h, w, _ in draws], float)
    ours = boxes(n, rng)
    for power in (1, 2):  # two-sample z test per coordinate, 4 standard errors
        a, b = ours**power, theirs**power
        z = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / n)
        assert np.abs(z).max() < 4


def test_limits_of_area_and_ratio(rng):
    w, h = boxes(500, rng, scale=[0.1, 0.2], ratio=[0.5, 2.0])[:, 2:].T
    area, ratio = w * h / (SIZE[0] * SIZE[1]), h / w
    assert 0.09 < area.min() < 0.11 < 0.19 < area.max() < 0.21
    assert 0.45 < ratio.min() < 0.55 < 1.8 < ratio.max() < 2.2


def test_fill_and_probability(photo, rng):
    colour = TRANSFORMS.build({"name": "random_erasing", "fill": [1, 2, 3]})
    changed = [np.asarray(colour(photo, rng)) for _ in range(1000)]
    holes = [(c != np.asarray(photo)).any(-1) for c in changed]
    assert all((c[hole] == [1, 2, 3]).all() for c, hole in zip(changed, holes))
    assert abs(np.mean([hole.any() for hole in holes]) - 0.5) < 4 * np.sqrt(0.25 / 1000)


def test_noise_is_uniform(rng):
    config = {"name": "random_erasing", "p": 1.0, "fill": "noise", "scale": [0.5, 0.5]}
    black = Image.new("RGB", (300, 300))
    noise = np.asarray(TRANSFORMS.build(config)(black, rng), float)
    inside = noise[noise.any(-1)]
    assert len(inside) == pytest.approx(45000, rel=0.02)
    assert abs(inside.mean() - 127.5) < 1
    assert abs(inside.std() - 73.9) < 1


def test_noise_of_different_seeds_is_independent():
    place = np.arange(200 * 200 * 3)
    a, b = (random_erasing.noise(seed, place).astype(float) for seed in (1, 2))
    counts = np.bincount(a.astype(int), minlength=256)
    assert ((counts - 468.75) ** 2 / 468.75).sum() < 345  # 99.99 % quantile for 255 d.o.f.
    limit = 4 / np.sqrt(len(place))
    assert abs(np.corrcoef(a, b)[0, 1]) < limit
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < limit


def test_unknown_fill():
    with pytest.raises(ConfigError, match="fill: 'gray' is not"):
        TRANSFORMS.build({"name": "random_erasing", "fill": "gray"})
