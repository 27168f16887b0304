import numpy as np
import pytest
import torchvision.transforms.transforms as tv
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import random_resized_crop
from vissl_lite.transforms.random_resized_crop import crop_box, crop_boxes

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class Replay:
    """Stands in for torch in torchvision's get_params and hands it given uniform numbers."""

    tensor, log, exp = staticmethod(np.array), staticmethod(np.log), staticmethod(np.exp)

    def __init__(self, uniforms):
        self.tries, self.places = iter(uniforms[:20]), iter(uniforms[20:])

    def empty(self, n):
        return self

    def uniform_(self, low, high):
        return low + (high - low) * np.float64(next(self.tries))

    def randint(self, low, high, size):
        return np.int64(low + next(self.places) * (high - low))


@pytest.mark.parametrize("size", [(500, 375), (32, 32), (8, 8), (40, 300), (700, 90), (1, 1)])
@pytest.mark.parametrize("scale", [SCALE, (0.05, 0.14), (0.9, 1.0)])
def test_box_is_torchvisions_for_the_same_numbers(size, scale, monkeypatch, rng):
    image = Image.new("RGB", size)
    for _ in range(200):
        uniforms = rng.random(22)
        monkeypatch.setattr(tv, "torch", Replay(uniforms))
        top, left, h, w = tv.RandomResizedCrop.get_params(image, scale, RATIO)
        monkeypatch.undo()
        box = crop_box(*size, scale, RATIO, uniforms.tolist())
        assert box == (left, top, left + w, top + h)


def test_moments_of_the_boxes_are_torchvisions(rng):
    n, image = 4000, Image.new("RGB", (500, 375))
    ours = np.array([crop_box(500, 375, SCALE, RATIO, rng.random(22).tolist()) for _ in range(n)])
    tijhw = np.array([tv.RandomResizedCrop.get_params(image, SCALE, RATIO) for _ in range(n)])
    theirs = np.stack(
        [tijhw[:, 1], tijhw[:, 0], tijhw[:, 1] + tijhw[:, 3], tijhw[:, 0] + tijhw[:, 2]], 1
    )
    for power in (1, 2):  # two-sample z test per coordinate, 4 standard errors
        a, b = ours.astype(float) ** power, theirs.astype(float) ** power
        z = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / n)
        assert np.abs(z).max() < 4


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((500, 375), SCALE, RATIO),
        ((32, 32), (0.2, 1.0), RATIO),
        ((37, 400), (0.05, 0.14), RATIO),
        ((40, 30), (0.9, 1.0), (2.0, 4.0)),
    ],
)
def test_many_boxes_at_once_are_the_same(size, scale, ratio, rng):
    u_ND = rng.random((25_000, 22))
    one_by_one = [crop_box(*size, scale, ratio, u) for u in u_ND.tolist()]
    np.testing.assert_array_equal(crop_boxes(*size, scale, ratio, u_ND), one_by_one)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_torchvisions(interpolation, photo, monkeypatch, rng):
    boxes = []

    def recorded(*args):
        boxes.append(crop_box(*args))
        return boxes[-1]

    monkeypatch.setattr(random_resized_crop, "crop_box", recorded)
    config = {"name": "random_resized_crop", "interpolation": interpolation}
    transform = TRANSFORMS.build(config, size=48)
    for _ in range(10):
        ours = transform(photo, rng)
        left, top, right, bottom = boxes.pop()
        theirs = F.resized_crop(
            *(photo, top, left, bottom - top, right - left, [48, 48]),
            InterpolationMode(interpolation),
        )
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_linear_is_linear_between_pixels_too(photo):
    """As in a JPEG that was shrunk while it was decoded: the box is rounded, nothing smoothed."""
    cv2 = pytest.importorskip("cv2")
    pixels, transform = np.asarray(photo), TRANSFORMS.build("random_resized_crop", size=16)
    transform.linear = True
    left, top, right, bottom = 3.75, 10.25, 90.5 + 0.25, 70.0
    expected = cv2.resize(pixels[10:70, 4:91], (16, 16), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(transform.on_array(pixels, [left, top, right, bottom]), expected)


@pytest.mark.parametrize("scale", [[0.0, 1.0], [0.5, 0.2], [0.5, 1.5]])
def test_impossible_scale(scale):
    config = {"name": "random_resized_crop", "scale": scale}
    with pytest.raises(
        ConfigError, match=r"^data.views\[0\].transforms\[0\].scale: .* must ascend"
    ):
        TRANSFORMS.build(config, "data.views[0].transforms[0]", size=32)
