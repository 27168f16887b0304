"""All forms of a transform do the same for the same parameters; differences are in 1/255.

Shape suffixes: N images, D uniforms, P parameters, H, W, C of an image.
"""

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_lite import TRANSFORMS
from vissl_lite.data.opencv import opencv
from vissl_lite.data.transform import Transform, has_batch_form

OWN = [name for name in TRANSFORMS if TRANSFORMS.describe(name).origin.startswith("vissl_lite.")]
DRAWS = 16
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
EXACT = (0.0, 0)

# Largest mean, over all draws, and largest single difference from on_image on any content below.
ON_ARRAY = {
    "color_jitter": (0.5, 30),  # 8-bit HSV that is rounded elsewhere
    "gaussian_blur": (0.4, 3),  # rounded three times instead of six
    "random_resized_crop": (0.01, 1),
    "resize": (0.01, 2),
}
ON_BATCH = {
    "color_jitter": (0.01, 20),
    "gaussian_blur": (0.5, 40),  # edges are continued once instead of three times
    "random_affine": (0.2, 1),
    "random_resized_crop": (0.02, 1),
    "random_rotation": (0.2, 1),
    "resize": (0.01, 1),
}
CASES = [
    ("center_crop", {}),
    ("center_crop", {"size": 151}),
    ("color_jitter", {"p": 1.0}),
    ("color_jitter", {"saturation": 0.0, "hue": 0.5}),
    ("corruption", {}),
    ("gaussian_blur", {"p": 0.8}),
    ("posterize", {"bits": 3}),
    ("rand_augment", {"num_ops": 3}),
    ("random_affine", {"shear": 10}),
    ("random_affine", {"interpolation": "bicubic", "fill": 200}),
    ("random_crop", {"padding": 40}),
    ("random_crop", {"padding": 40, "mode": "reflect"}),
    ("random_crop", {"padding": 40, "mode": "symmetric"}),
    ("random_crop", {"padding": 40, "mode": "edge"}),
    ("random_erasing", {}),
    ("random_erasing", {"fill": "noise"}),
    ("random_grayscale", {"p": 0.8}),
    ("random_horizontal_flip", {}),
    ("random_resized_crop", {}),
    ("random_resized_crop", {"interpolation": "bicubic"}),
    ("random_rotation", {"degrees": 180, "fill": 9}),
    ("random_rotation", {"interpolation": "bicubic"}),
    ("resize", {}),
    ("resize", {"interpolation": "bicubic", "short_side": 60}),
    ("solarize", {"p": 0.8}),
]
STILL = [
    ("center_crop", {}),
    ("color_jitter", {"p": 0.0}),
    ("color_jitter", {"p": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}),
    ("corruption", {"severity": 0}),
    ("gaussian_blur", {"p": 0.0}),
    ("posterize", {"p": 0.0}),
    ("posterize", {"p": 1.0, "bits": 8}),
    ("rand_augment", {"num_ops": 0}),
    ("random_affine", {"degrees": 0, "translate": [0, 0], "scale": [1, 1]}),
    ("random_crop", {"padding": 0}),
    ("random_erasing", {"p": 0.0}),
    ("random_grayscale", {"p": 0.0}),
    ("random_horizontal_flip", {"p": 0.0}),
    ("random_resized_crop", {"scale": [1, 1], "ratio": [1, 1]}),
    ("random_resized_crop", {"scale": [1, 1], "ratio": [1, 1], "interpolation": "bicubic"}),
    ("random_rotation", {"degrees": 0}),
    ("resize", {"short_side": 32}),
    ("solarize", {"p": 0.0}),
]


def build(name: str, config: dict) -> Transform:
    size = config.get("size", 32)
    given = {key: value for key, value in config.items() if key != "size"}
    return TRANSFORMS.build({"name": name, **given}, size=size)


def drawn(transform: Transform, image: Image.Image) -> np.ndarray:
    u_ND = np.random.default_rng(5).random((DRAWS, transform.draws))
    return transform.parameters(u_ND, *image.size)


@pytest.fixture
def contents(photo) -> list[Image.Image]:
    """A picture, its extremes, flat colours, and one pixel in width."""
    values = np.random.default_rng(3)
    on_off = values.integers(0, 2, (90, 120, 3), dtype=np.uint8) * 255
    noise = values.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    flat = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (10, 200, 30)]
    images = [photo, Image.fromarray(on_off), Image.fromarray(noise), photo.resize((1, 12))]
    return images + [Image.new("RGB", (40, 30), colour) for colour in flat]


@pytest.fixture(params=["opencv", "pillow"])
def library(request, monkeypatch):
    """With OpenCV, and as if it were not installed."""
    if request.param == "opencv":
        pytest.importorskip("cv2")
    else:
        monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    yield request.param
    opencv.cache_clear()


def check(ours: Sequence, theirs: Sequence, bound: tuple[float, int]) -> None:
    gap_NHWC = np.abs(np.stack(ours).astype(int) - np.stack(theirs).astype(int))
    assert gap_NHWC.mean() <= bound[0]
    assert gap_NHWC.max() <= bound[1]


def test_all_transforms_are_compared():
    assert {name for name, _ in CASES} == {name for name, _ in STILL} == set(OWN)
    without = {name for name, config in CASES if not has_batch_form(build(name, config))}
    assert without == {"corruption", "rand_augment"}


@pytest.mark.parametrize(("name", "config"), CASES)
def test_arrays_are_as_images(name, config, contents, library):
    transform = build(name, config)
    exact = library == "pillow" and name not in ("random_resized_crop", "resize")
    for image in contents:
        pixels, ours, theirs = np.array(image), [], []
        for p in drawn(transform, image).tolist():
            theirs.append(np.asarray(transform.on_image(image, p)))
            ours.append(transform.on_array(pixels, p))
            slots = np.zeros((3, *theirs[-1].shape), np.uint8)
            assert transform.on_array(pixels, p, slots[1]) is not pixels
            np.testing.assert_array_equal(slots[1], ours[-1])
            assert not slots[[0, 2]].any()
            assert np.array_equal(pixels, np.asarray(image)), "its input changed"
        check(ours, theirs, EXACT if exact else ON_ARRAY.get(name, EXACT))


@pytest.mark.parametrize(("name", "config"), [c for c in CASES if build(*c).shape == "kept"])
def test_arrays_change_in_place(name, config, contents, library):
    transform = build(name, config)
    for image in contents:
        for p in drawn(transform, image).tolist():
            pixels = np.array(image)
            assert transform.on_array(pixels, p, pixels) is pixels
            np.testing.assert_array_equal(pixels, transform.on_array(np.asarray(image), p))


def on_batch(
    transform: Transform, pixels_NHWC: np.ndarray, p_NP: np.ndarray, device: str = "cpu"
) -> torch.Tensor:
    x_NCHW = torch.from_numpy(pixels_NHWC).to(device).permute(0, 3, 1, 2).float()
    before_NCHW = x_NCHW.clone()
    y_NCHW = transform.on_batch(x_NCHW, torch.from_numpy(p_NP).float().to(device))
    assert torch.equal(x_NCHW, before_NCHW), "its input changed"
    assert torch.equal(y_NCHW, y_NCHW.round().clamp(0, 255)), "not whole numbers from 0 to 255"
    return y_NCHW.permute(0, 2, 3, 1).cpu()


@pytest.mark.parametrize(("name", "config"), [c for c in CASES if has_batch_form(build(*c))])
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_batches_are_as_images(name, config, contents, device):
    transform = build(name, config)
    for image in contents:
        p_NP = drawn(transform, image)
        theirs = [np.asarray(transform.on_image(image, p)) for p in p_NP.tolist()]
        ours = on_batch(transform, np.stack([np.asarray(image)] * DRAWS), p_NP, device)
        check(ours.numpy(), theirs, ON_BATCH.get(name, EXACT))


@pytest.mark.parametrize(("name", "config"), [c for c in CASES if has_batch_form(build(*c))])
def test_rows_of_a_batch_are_independent(name, config, photo):
    transform, p_NP = build(name, config), drawn(build(name, config), photo)
    turned = photo.transpose(Image.Transpose.ROTATE_180)
    images_NHWC = np.stack([np.asarray(photo), np.asarray(turned)] * (DRAWS // 2))
    together = on_batch(transform, images_NHWC, p_NP)
    order = np.random.default_rng(0).permutation(DRAWS)
    assert torch.equal(on_batch(transform, images_NHWC[order], p_NP[order]), together[order])
    for n in range(DRAWS):
        alone = on_batch(transform, images_NHWC[n : n + 1], p_NP[n : n + 1])
        assert torch.equal(alone[0], together[n])


@pytest.mark.parametrize(("name", "config"), CASES)
def test_parameters_do_not_depend_on_other_rows(name, config):
    transform = build(name, config)
    u_ND = np.random.default_rng(6).random((300, transform.draws))
    together = transform.parameters(u_ND, 120, 90)
    assert together.shape[0] == 300
    assert together.dtype == np.float64
    for n in range(300):
        alone = transform.parameters(u_ND[n : n + 1], 120, 90)
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize(("name", "config"), STILL)
def test_neutral_parameters_change_nothing(name, config, photo, library):
    transform, image = build(name, config), photo.crop((20, 30, 52, 62))
    pixels, p_NP = np.asarray(image), drawn(build(name, config), image)
    for p in p_NP.tolist():
        np.testing.assert_array_equal(np.asarray(transform.on_image(image, p)), pixels)
        np.testing.assert_array_equal(transform.on_array(pixels, p), pixels)
    if has_batch_form(transform):
        y_NHWC = on_batch(transform, np.stack([pixels] * DRAWS), p_NP)
        np.testing.assert_array_equal(y_NHWC.numpy(), np.stack([pixels] * DRAWS))
