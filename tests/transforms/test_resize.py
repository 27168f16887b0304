import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from vissl_lite import TRANSFORMS, ConfigError


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("short_side", [17, 64, 200])
@pytest.mark.parametrize("turn", [False, True])
def test_pixels_are_torchvisions(interpolation, short_side, turn, photo, rng):
    image = photo.transpose(Image.Transpose.ROTATE_90) if turn else photo
    config = {"name": "resize", "short_side": short_side, "interpolation": interpolation}
    ours = TRANSFORMS.build(config, size=32)(image, rng)
    theirs = F.resize(image, short_side, InterpolationMode(interpolation))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(("size", "side"), [(224, 256), (96, 109), (160, 182)])
def test_short_side_follows_from_the_view(size, side, photo, rng):
    assert min(TRANSFORMS.build("resize", size=size)(photo, rng).size) == side


def test_crop_fraction_above_one():
    with pytest.raises(ConfigError, match=r"crop_fraction: \[1.5, 1.0\] must ascend"):
        TRANSFORMS.build({"name": "resize", "crop_fraction": 1.5}, size=32)
