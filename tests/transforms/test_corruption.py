import colorsys
import io

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling
from scipy.ndimage import correlate, gaussian_filter, map_coordinates, zoom

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import _corruptions_blur as blur
from vissl_lite.transforms import _corruptions_digital as digital
from vissl_lite.transforms import _corruptions_weather as weather
from vissl_lite.transforms._corruptions import CIFAR, IMAGENET, KINDS, corrupt

SMALL, LARGE = 32, 224  # sides whose strengths are published
NOT_ASCENDING = {  # in pixels; there, severities are of another kind, or harder for networks only
    *((side, kind) for side in (SMALL, LARGE) for kind in ("elastic_transform", "glass_blur")),
    *((side, "frost") for side in (SMALL, LARGE)),
    (LARGE, "snow"),
    (SMALL, "pixelate"),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def pictures():
    """Side -> uint8 picture: smooth shapes, an edge and some texture."""

    def draw(side):
        y, x = np.mgrid[:side, :side] / side
        waves = [0.5 + 0.3 * np.sin(9 * x * y + 7 * c * x + c) for c in range(3)]
        edge = 0.25 * ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06)[..., None]
        texture = 0.04 * gaussian_filter(rng().standard_normal((side, side)), 0.8)[..., None]
        return np.rint((np.stack(waves, 2) + edge + texture).clip(0, 1) * 255).astype(np.uint8)

    return {side: draw(side) for side in (SMALL, LARGE)}


def psnr(x, y):
    return -10 * np.log10(((x / 255 - y / 255.0) ** 2).mean())


@pytest.mark.parametrize("side", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
def test_every_severity_damages_and_each_more_than_the_last(kind, side, pictures):
    x = pictures[side]
    found = [psnr(x, corrupt(x, kind, severity, rng())) for severity in range(1, 6)]
    assert all(7 < quality < 60 for quality in found)
    if (side, kind) not in NOT_ASCENDING:
        assert found == sorted(found, reverse=True)
        assert found[0] > found[-1] + 0.5


def test_there_are_the_fifteen_of_the_paper():
    assert len(KINDS) == len(set(KINDS)) == 15
    for strengths in (IMAGENET, CIFAR):
        assert list(strengths) == list(KINDS)
        assert {len(rows) for rows in strengths.values()} == {5}


def build(kind, severity):
    return TRANSFORMS.build({"name": "corruption", "kind": kind, "severity": severity})


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_give_the_same_image(kind, photo):
    transform, again = build(kind, 5), build(kind, 5)
    first = np.asarray(transform(photo, rng(3)))
    np.testing.assert_array_equal(first, np.asarray(again(photo, rng(3))))
    assert first.shape == (90, 120, 3)
    assert not np.array_equal(first, np.asarray(photo))


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (64, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size(kind, size):
    image = Image.fromarray(rng().integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    assert build(kind, 2)(image, rng()).size == size


@pytest.mark.parametrize("kind", KINDS)
def test_flat_images_stay_finite(kind):
    for value in (0, 255):
        found = corrupt(np.full((20, 20, 3), value, np.uint8), kind, 5, rng())
        assert found.shape == (20, 20, 3)


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.08), (2, 0.12)])
def test_gaussian_noise_has_its_deviation(severity, sigma):
    noise = corrupt(np.full((300, 300, 3), 128, np.uint8), "gaussian_noise", severity, rng()) / 255
    assert noise.mean() == pytest.approx(128 / 255, abs=1e-3)
    assert noise.std() == pytest.approx(sigma, rel=0.01)


def test_shot_noise_has_the_variance_of_photons():
    noise = corrupt(np.full((300, 300, 3), 51, np.uint8), "shot_noise", 1, rng()) / 255
    assert noise.mean() == pytest.approx(0.2, rel=0.01)
    assert noise.var() == pytest.approx(0.2 / 60, rel=0.02)


def test_impulses_are_as_many_black_as_white():
    noise = corrupt(np.full((300, 300, 3), 100, np.uint8), "impulse_noise", 3, rng())
    shares = [(noise == value).mean() for value in (0, 255, 100)]
    assert shares == pytest.approx([0.045, 0.045, 0.91], abs=0.002)


def test_brightness_adds_to_the_value_and_keeps_the_hue(pictures):
    x = pictures[SMALL] / 255
    before, after = (
        np.array([colorsys.rgb_to_hsv(*colour) for colour in image.reshape(-1, 3)])
        for image in (x, weather.brightness(x, rng(), 1, 0.1))
    )
    before[:, 2] = np.minimum(before[:, 2] + 0.1, 1)
    np.testing.assert_allclose(after, before, atol=1e-12)
    black = corrupt(np.zeros((70, 70, 3), np.uint8), "brightness", 2, rng())
    assert (black == 51).all()


def test_contrast_shrinks_the_deviation_and_keeps_the_mean(pictures):
    x = pictures[LARGE].astype(float)
    y = corrupt(pictures[LARGE], "contrast", 2, rng()).astype(float)
    np.testing.assert_allclose(y.mean((0, 1)), x.mean((0, 1)), atol=0.1)
    np.testing.assert_allclose(y.std((0, 1)), 0.3 * x.std((0, 1)), rtol=0.01)


@pytest.mark.parametrize(("side", "quality"), [(LARGE, 15), (SMALL, 58)])
def test_jpeg_is_pillows(side, quality, pictures):
    file = io.BytesIO()
    Image.fromarray(pictures[side]).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file))
    found = corrupt(pictures[side], "jpeg_compression", 3, rng())
    np.testing.assert_array_equal(found, expected)


def test_pixels_are_those_of_pillows_boxes(pictures):
    image = Image.fromarray(pictures[LARGE])
    expected = image.resize((89, 89), Resampling.BOX).resize((224, 224), Resampling.BOX)
    found = corrupt(pictures[LARGE], "pixelate", 3, rng())
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_defocus_is_the_mean_over_a_disk(pictures):
    x = pictures[SMALL] / 255
    i, j = np.mgrid[-4:5, -4:5]
    disk = (i**2 + j**2 <= 9).astype(float)
    expected = correlate(x, (disk / disk.sum())[..., None], mode="mirror")
    found = blur.defocus_blur(x, rng(), 1, 3, 1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_streaks_of_a_point():
    """Horizontal: a half Gaussian beside the point; 45 degrees: on the diagonal."""
    point = np.zeros((41, 41, 1))
    point[20, 20] = 1
    weights = np.exp(-(np.arange(11) ** 2) / (2 * 3**2))
    weights /= weights.sum()
    level, slanted = (blur.streaks(point, 5, 3, degrees)[..., 0] for degrees in (0, 45))
    np.testing.assert_allclose(level[20, 10:21], weights[::-1], atol=1e-12)
    assert level.sum() == pytest.approx(1)
    assert slanted[np.arange(10, 21), np.arange(10, 21)].sum() == pytest.approx(1)


@pytest.mark.parametrize("factor", [1.05, 1.26, 3])
def test_the_middle_is_enlarged_as_by_scipy(factor, pictures):
    x = pictures[SMALL] / 255
    inner = int(np.ceil(32 / factor))
    first = (32 - inner) // 2
    cut = x[first : first + inner, first : first + inner]
    large = zoom(cut, (factor, factor, 1), order=1)
    first = (len(large) - 32) // 2
    expected = large[first : first + 32, first : first + 32]
    np.testing.assert_allclose(blur.enlarged(x, factor), expected, atol=1e-12)


def test_zoom_blur_is_the_mean_of_its_zooms(pictures):
    x = pictures[SMALL] / 255
    zooms = [blur.enlarged(x, factor) for factor in (1, 1.1, 1.2)]
    found = blur.zoom_blur(x, rng(), 1, 1.25, 0.1)
    np.testing.assert_allclose(found, (x + sum(zooms)) / 4, atol=1e-12)


def test_glass_copies_pixels_from_nearby(pictures):
    """Without the blur, against one pixel after the other."""
    x, reach = pictures[SMALL] / 255, 2
    expected, inside = x.copy(), range(32 - reach, reach, -1)
    steps = rng().integers(-reach, reach, (len(inside), len(inside), 2))
    for i, row in enumerate(inside):
        for j, column in enumerate(inside):
            down, right = steps[i, j]
            expected[row, column] = expected[row + down, column + right]
    np.testing.assert_array_equal(blur.glass_blur(x, rng(), 1, 0, reach, 1), expected)
    assert (expected != x).any(2).mean() > 0.6


def test_the_smoother_is_scipys_filter():
    field = rng().uniform(-1, 1, (20, 30))
    for sigma in (0, 0.7, 40):
        expected = gaussian_filter(field, sigma, mode="reflect", truncate=3)
        found = digital.smoother(20, sigma) @ field @ digital.smoother(30, sigma).T
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_elastic_places_follow_the_affine_map(pictures):
    """Without the fields: three points are where they were sent to."""
    x = pictures[SMALL] / 255
    affine = digital.random_affine((32, 32), 4, rng(2))
    to = 16 + 10 * np.array([[1, 1], [-1, 1], [-1, -1]]) + rng(2).uniform(-4, 4, (3, 2))
    expected = 16 + 10 * np.array([[1, 1], [-1, 1], [-1, -1]])
    np.testing.assert_allclose(np.c_[to, np.ones(3)] @ affine, expected, atol=1e-9)
    i, j = np.indices((32, 32))
    places = np.stack([i, j, np.ones_like(i)], 2) @ affine
    red = map_coordinates(x[..., 0], np.moveaxis(places, 2, 0), order=1, mode="mirror")
    found = digital.elastic_transform(x, rng(2), 1, 0, 0, 4)
    np.testing.assert_allclose(found[..., 0], red, atol=1e-12)


def test_plasma_is_rough_by_its_decay():
    maps = {decay: weather.plasma(128, decay, rng()) for decay in (1.4, 3.0)}
    for found in maps.values():
        assert (found.min(), found.max()) == (0, 1)
    rough, smooth = (np.abs(np.diff(maps[decay], axis=1)).mean() for decay in (1.4, 3.0))
    assert rough > 3 * smooth


def test_fog_keeps_the_largest_value_at_most():
    x = np.full((50, 50, 3), 0.5)
    found = weather.fog(x, rng(), 1, 2, 2)
    clouds = weather.plasma(50, 2, rng())[:50, :50, None]
    np.testing.assert_allclose(found, np.broadcast_to((0.5 + 2 * clouds) * 0.2, x.shape))


def test_lengths_grow_with_the_image():
    """At twice the side a point is blurred twice as far."""

    def spread(side):
        x = np.zeros((side, side, 3))
        x[side // 2, side // 2] = 1
        weights = blur.defocus_blur(x, rng(), side / 224, 8, 0.5)[..., 0]
        i = np.arange(side) - side // 2
        return np.sqrt((weights.sum(1) * i**2).sum() / weights.sum())

    assert spread(224) / spread(112) == pytest.approx(2, rel=0.05)


def test_mistakes():
    with pytest.raises(ConfigError, match=r"severity: 6 must be from 0 to 5"):
        build("fog", 6)
    with pytest.raises(ConfigError, match=r"kind: 'frog' is not one of .* did you mean 'fog'\?"):
        build("frog", 1)
