import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vissl_lite.data.decode import BrokenImage, decode

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(image):
    return encoded(image, "PNG")


def test_every_kind_of_input_gives_the_same_pixels(tmp_path):
    image, path = Image.fromarray(RGB), tmp_path / "a.png"
    path.write_bytes(png(image))
    for given in (png(image), memoryview(png(image)), path, str(path), image, RGB):
        decoded = decode(given)
        assert decoded.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(decoded), RGB)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats_are_pillows(format):
    data = encoded(Image.fromarray(RGB), format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(format):
    """convert("RGB") of Pillow would make everything above 255 white."""
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    decoded = np.asarray(decode(encoded(Image.fromarray(deep), format)))
    np.testing.assert_array_equal(decoded, np.repeat((deep >> 8)[..., None], 3, 2))


def test_palette_gray_bilevel_and_cmyk():
    image = Image.fromarray(RGB)
    palette = image.quantize(64)
    np.testing.assert_array_equal(decode(png(palette)), palette.convert("RGB"))
    for mode in ("L", "1"):
        plane = np.asarray(image.convert(mode).convert("L"))
        np.testing.assert_array_equal(
            decode(png(image.convert(mode))), np.repeat(plane[..., None], 3, 2)
        )
    np.testing.assert_array_equal(decode(RGB[..., 0]), np.repeat(RGB[..., :1], 3, 2))
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = np.asarray(decode(encoded(cmyk, "JPEG", quality=95)), int)
    assert np.abs(red - [255, 0, 0]).max() <= 3


def test_transparency_lies_on_black():
    alpha = np.random.default_rng(1).integers(0, 256, (20, 30, 1), np.uint8)
    rgba = Image.fromarray(np.concatenate([RGB, alpha], -1))
    exact = RGB.astype(float) * (alpha / 255)
    assert np.abs(np.asarray(decode(png(rgba)), float) - exact).max() <= 1
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([200, 100, 50, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    data = encoded(palette, "PNG", transparency=0)
    np.testing.assert_array_equal(decode(data), [[[0, 0, 0], [10, 20, 30]]])


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    assert decode(encoded(Image.fromarray(RGB), "JPEG", exif=exif)).size == (30, 20)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_of_several_frames(format):
    first, options = Image.fromarray(RGB), {"lossless": True} if format == "WEBP" else {}
    second = Image.fromarray(255 - RGB)
    data = encoded(first, format, save_all=True, append_images=[second], **options)
    alone = decode(encoded(first, format, **options))
    np.testing.assert_array_equal(decode(data), alone)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated(format):
    data = encoded(Image.fromarray(np.tile(RGB, (8, 8, 1))), format)
    with pytest.raises(BrokenImage, match=r"^x/1: cannot be read, "):
        decode(data[: len(data) // 2], "x/1")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "it is empty"),
        (Path("/dev/null"), "it is empty"),
        (b"<html>404</html>", "Pillow does not know its format"),
        ("/nowhere/a.jpg", "No such file or directory"),
        (Image.new("F", (4, 4)), "floating-point numbers of unknown range"),
    ],
)
def test_reasons(image, reason):
    with pytest.raises(BrokenImage, match=reason) as caught:
        decode(image)
    assert "\n" not in str(caught.value)


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenImage, match=r"600 pixels.*decompression bomb"):
        decode(png(Image.fromarray(RGB)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some of the damage
def test_damaged_data_never_raise_anything_else(format):
    rng = np.random.default_rng(2)
    data = np.frombuffer(encoded(Image.fromarray(RGB), format), np.uint8)
    broken = 0
    for _ in range(200):
        damaged = data.copy()
        places = rng.integers(0, min(len(data), 400), 6)
        damaged[places] = rng.integers(0, 256, 6)
        try:
            assert decode(damaged.tobytes()).mode == "RGB"
        except BrokenImage:
            broken += 1
    assert broken > 0


def test_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(BrokenImage("a.jpg", "empty")))
    assert (error.name, error.reason) == ("a.jpg", "empty")
    assert str(error) == "a.jpg: cannot be read, empty"


def test_a_path_names_itself(tmp_path):
    with pytest.raises(BrokenImage) as caught:
        decode(tmp_path / "gone.png")
    assert caught.value.name == str(tmp_path / "gone.png")


@pytest.mark.parametrize("image", [RGB.astype(float), RGB[..., :2], RGB[None], 7, None])
def test_what_is_no_image_is_a_bug_of_the_source(image):
    with pytest.raises(TypeError, match=r"uint8|array"):
        decode(image)
