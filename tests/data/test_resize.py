import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from PIL import __version__ as pillow_version
from torchvision.transforms.v2 import InterpolationMode, functional

import vissl_lite.data.resize as module
from vissl_lite.data.resize import crop_resize, resize
from vissl_lite.errors import ConfigError

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
both = pytest.mark.parametrize("interpolation", FILTERS)
MEAN = 0.1 if int(pillow_version.split(".")[0]) >= 13 else 0.4  # whether passes come in its order
NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)  # the hardest content


def pillow(pixels, size, interpolation="bilinear"):
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], FILTERS[interpolation]))


def difference(found, expected):
    """Mean and largest |difference|, in units of 1/255."""
    d = np.abs(found.astype(int) - expected.astype(int))
    return d.mean(), d.max()


def crops():
    """Random boxes of NOISE and sizes: from a pixel to the whole, up and down, each axis alone."""
    rng = np.random.default_rng(1)
    for _ in range(150):
        sides, size = (2 ** rng.uniform(0, 8.2, (2, 2))).astype(int)
        top, left = (int(rng.integers(0, n - s + 1)) for n, s in zip(NOISE.shape, sides))
        yield (left, top, left + int(sides[1]), top + int(sides[0])), tuple(size.tolist())


@both
def test_random_crops_equal_pillows(interpolation):
    """Mean below 0.1/255, none off by more than 2: two passes, each rounded to uint8."""
    for box, size in crops():
        found = crop_resize(NOISE, box, size, interpolation)
        expected = Image.fromarray(NOISE).crop(box).resize(size[::-1], FILTERS[interpolation])
        mean, largest = difference(found, np.asarray(expected))
        assert mean < MEAN, (box, size)
        assert largest <= 2, (box, size)


@both
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (7, 5)),
        ((1, 9), (4, 3)),
        ((9, 1), (3, 4)),
        ((1, 300), (1, 20)),
        ((300, 2), (1, 1)),
        ((300, 400), (1, 1)),
        ((300, 400), (300, 400)),
        ((300, 400), (300, 40)),
        ((300, 400), (30, 400)),
        ((2, 3), (600, 2)),
        ((3, 300), (300, 3)),
    ],
)
def test_extreme_sizes(old, new, interpolation):
    pixels = np.ascontiguousarray(NOISE[: old[0], : old[1]])
    found = resize(pixels, new, interpolation)
    assert found.shape == (*new, 3)
    assert difference(found, pillow(pixels, new, interpolation))[1] <= 1


@both
def test_photographic_sizes_equal_pillows(interpolation):
    """Boxes as random_resized_crop draws them, of noise; means over all crops, and of the worst."""
    rng = np.random.default_rng(2)
    for size in (224, 96):
        means = []
        for area in rng.uniform(0.05, 1.0, 60) * 300 * 400:
            ratio = np.exp(rng.uniform(-0.29, 0.29))
            width, height = (
                int(min(400, (area * ratio) ** 0.5)),
                int(min(300, (area / ratio) ** 0.5)),
            )
            pixels = NOISE[:height, :width]
            found = resize(pixels, (size, size), interpolation)
            means.append(difference(found, pillow(pixels, (size, size), interpolation))[0])
        assert np.mean(means) < MEAN / 10
        assert np.max(means) < MEAN


@pytest.mark.parametrize(
    ("old", "new"), [((290, 150), (96, 90)), ((290, 96), (96, 130)), ((290, 96), (96, 96))]
)
def test_columns_come_first_where_height_shrinks_most(old, new):
    """Then a pass along columns, rounded, and one along rows are the same thing bit for bit."""
    pixels = np.ascontiguousarray(NOISE[: old[0], : old[1]])
    columns = resize(pixels, (new[0], old[1]))
    np.testing.assert_array_equal(resize(pixels, new), resize(columns, new))


def test_enlarging_by_the_definition_in_float64():
    """Two roundings to uint8, so at most 1 apart, and a little for the fixed-point weights."""
    pixels = NOISE[:20, :30]

    def weights(old, new):
        centers = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        return (1 - np.abs(centers[:, None] - np.arange(old))).clip(0)

    exact = np.einsum("yh,xw,hwc->yxc", weights(20, 50), weights(30, 64), pixels.astype(float))
    assert np.abs(resize(pixels, (50, 64)) - exact).max() < 1.01


@pytest.mark.parametrize("linear", [False, True])
def test_any_strides_and_read_only_pixels(linear):
    if linear:
        pytest.importorskip("cv2")
    pixels = NOISE[40:200, 30:280]
    expected = resize(np.ascontiguousarray(pixels), (64, 48), linear=linear)
    frozen = np.ascontiguousarray(pixels)
    frozen.flags.writeable = False
    upside_down = np.ascontiguousarray(pixels[::-1])[::-1]
    channels_first = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
    before = NOISE.copy()
    for given in (pixels, frozen, upside_down, channels_first):
        np.testing.assert_array_equal(resize(given, (64, 48), linear=linear), expected)
    np.testing.assert_array_equal(before, NOISE)


@both
@pytest.mark.parametrize("linear", [False, True])
def test_out_is_written_in_place_and_nothing_beside_it(interpolation, linear):
    if linear:
        pytest.importorskip("cv2")
    batch_VBSSC = np.full((3, 4, 96, 96, 3), 7, np.uint8)
    for box in ((3, 5, 303, 205), (10, 10, 60, 50), (0, 7, 400, 299)):
        expected = crop_resize(NOISE, box, (96, 96), interpolation, linear=linear)
        slot = batch_VBSSC[1, 2]
        assert crop_resize(NOISE, box, (96, 96), interpolation, slot, linear) is slot
        np.testing.assert_array_equal(batch_VBSSC[1, 2], expected)
        batch_VBSSC[1, 2] = 7
        assert (batch_VBSSC == 7).all()


def test_the_kernel_writes_into_out_without_a_copy():
    out = torch.from_numpy(np.empty((2, 24, 20, 3), np.uint8)[1])
    strided = module._nchw(out.numpy())
    assert strided.is_contiguous(memory_format=torch.channels_last)
    result = module.KERNELS["bilinear"](
        module._nchw(NOISE), (24, 20), False, None, None, out=strided
    )
    assert result.data_ptr() == out.data_ptr()
    np.testing.assert_array_equal(out.numpy(), resize(NOISE, (24, 20)))


@pytest.mark.parametrize("linear", [False, True])
def test_out_with_gaps(linear):
    if linear:
        pytest.importorskip("cv2")
    wide = np.full((32, 80, 3), 7, np.uint8)
    resize(NOISE, (32, 40), out=wide[:, 20:60], linear=linear)
    np.testing.assert_array_equal(wide[:, 20:60], resize(NOISE, (32, 40), linear=linear))
    assert (wide[:, :20] == 7).all()
    assert (wide[:, 60:] == 7).all()


def test_results_do_not_share_memory():
    """The memory for contiguous crops is used again; what is given out is not."""
    first = crop_resize(NOISE, (5, 5, 90, 90), (85, 85))
    np.testing.assert_array_equal(first, NOISE[5:90, 5:90])
    second = crop_resize(NOISE, (100, 100, 185, 185), (85, 85))
    np.testing.assert_array_equal(first, NOISE[5:90, 5:90])
    np.testing.assert_array_equal(second, NOISE[100:185, 100:185])


def test_linear_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    for box, size in crops():
        left, top, right, bottom = box
        expected = cv2.resize(NOISE[top:bottom, left:right], size[::-1])
        np.testing.assert_array_equal(crop_resize(NOISE, box, size, linear=True), expected)


def test_linear_enlarges_as_pillow_does_but_for_its_rounding():
    pytest.importorskip("cv2")
    pixels = NOISE[:60, :80]
    mean, largest = difference(resize(pixels, (96, 96), linear=True), pillow(pixels, (96, 96)))
    assert mean < 0.3
    assert largest <= 1


def test_linear_without_opencv(monkeypatch):
    monkeypatch.setattr(module, "opencv", lambda: None)
    with pytest.raises(ConfigError, match=r"data\.resize: linear needs OpenCV; pip install"):
        resize(NOISE, (8, 8), linear=True)


@pytest.fixture(scope="module")
def photographs(photographs_tar):
    with tarfile.open(photographs_tar) as tar:
        files = [tar.extractfile(m) for m in tar if m.isfile()]
        return [np.asarray(Image.open(file).convert("RGB")) for file in files[::5]]


@both
def test_photographs_seen_for_evaluation(photographs, interpolation):
    """resize to a short side of 256 and the central 224, against Pillow and torchvision."""
    for pixels in photographs:
        height, width = (256 * side // min(pixels.shape[:2]) for side in pixels.shape[:2])
        top, left = round((height - 224) / 2), round((width - 224) / 2)
        middle = slice(top, top + 224), slice(left, left + 224)
        found = resize(pixels, (height, width), interpolation)[middle]
        mean, largest = difference(found, pillow(pixels, (height, width), interpolation)[middle])
        assert mean < MEAN
        assert largest <= 2
        x_CHW = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        y_CHW = functional.resize(x_CHW, [height, width], InterpolationMode(interpolation))
        theirs = functional.center_crop(y_CHW, [224, 224]).permute(1, 2, 0).numpy()
        assert difference(found, theirs)[0] < 0.4  # its passes always come in the other order
