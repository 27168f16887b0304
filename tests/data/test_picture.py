import io
import os
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vissl_lite.data.picture as module
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.data.picture import open_picture

fast = pytest.mark.skipif(module._simplejpeg() is None, reason="simplejpeg is not installed")


def waves(height, width):
    """A smooth colour image with some detail: JPEG and DCT scaling see something like a photo."""
    y, x = np.mgrid[:height, :width][..., None] / 7.0
    phase = np.array([0.0, 1.0, 2.5])
    detail = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    values = 128 + 60 * np.sin(x + phase) + 50 * np.cos(y * 1.3 - phase) + detail
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(image, format="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def outcome(read):
    """Pixels, or the words in which an image was refused."""
    try:
        return np.asarray(read())
    except BrokenImage as error:
        return str(error)


def assert_as_reference(image, name="x/1"):
    picture = outcome(lambda: open_picture(image, name).pixels())
    np.testing.assert_array_equal(picture, outcome(lambda: decode(image, name)))


WAVES = waves(45, 61)
ALPHA = Image.merge("RGBA", (*WAVES.split(), WAVES.getchannel("R")))
DEEP = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 109)
FILES = {
    **{f"jpeg {s}": encoded(WAVES, subsampling=s) for s in ("4:4:4", "4:2:2", "4:2:0")},
    "progressive": encoded(WAVES, progressive=True),
    "grey jpeg": encoded(WAVES.convert("L")),
    "rgb jpeg": encoded(WAVES, keep_rgb=True),
    "cmyk jpeg": encoded(WAVES.convert("CMYK")),
    "one pixel": encoded(WAVES.crop((0, 0, 1, 1))),
    "five pixels": encoded(WAVES.crop((0, 0, 5, 1))),
    "png": encoded(WAVES, "PNG"),
    "transparent": encoded(ALPHA, "PNG"),
    "16 bit": encoded(DEEP, "PNG"),
    "palette": encoded(WAVES.quantize(32), "GIF"),
    "animated": encoded(WAVES, "GIF", save_all=True, append_images=[WAVES.rotate(90)]),
    "webp": encoded(WAVES, "WEBP"),
    "tiff": encoded(WAVES, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", FILES)
def test_bytes_and_paths_give_the_pixels_of_the_reference(kind, tmp_path):
    path = tmp_path / "wrong_extension.jpg"  # content decides
    path.write_bytes(FILES[kind])
    for given in (FILES[kind], bytearray(FILES[kind]), memoryview(FILES[kind]), path, str(path)):
        assert_as_reference(given)
    picture = open_picture(path)
    assert (picture.width, picture.height) == decode(path).size


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_are_refused_in_the_words_of_the_reference(kind, tmp_path):
    path = tmp_path / "a.jpg"
    for kept in (0, 2, 3, 20, len(FILES[kind]) // 2, len(FILES[kind]) - 2):
        path.write_bytes(FILES[kind][:kept])
        assert_as_reference(FILES[kind][:kept])
        assert_as_reference(path)


def test_oriented_jpeg_stays_as_it_is_stored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    oriented = encoded(WAVES, exif=exif)
    picture = open_picture(oriented)
    assert (picture.width, picture.height) == (61, 45)
    assert_as_reference(oriented)


def test_images_and_arrays_pass():
    pixels = np.asarray(WAVES)
    assert open_picture(pixels).pixels() is pixels
    for given in (WAVES, WAVES.convert("L"), ALPHA, pixels[..., 0]):
        assert_as_reference(given)
    with pytest.raises(TypeError, match="uint8"):
        open_picture(pixels.astype(float))
    with pytest.raises(TypeError, match="bytes, a path"):
        open_picture(7)


@pytest.mark.parametrize(
    "path", ["/nowhere/a.jpg", Path("/nowhere/a.jpg"), "/", "nul\0.jpg", Path(__file__)]
)
def test_what_cannot_be_opened(path):
    with pytest.raises(BrokenImage):
        open_picture(path)
    assert_as_reference(path, "")


def test_a_file_without_the_right_to_read_it():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jpg")
        path.write_bytes(FILES["jpeg 4:2:0"])
        Path(folder).chmod(0o755)
        os.seteuid(user or 65534)  # root may read everything
        try:
            assert open_picture(path).width == WAVES.width
            os.seteuid(user)
            path.chmod(0)
            os.seteuid(user or 65534)
            with pytest.raises(BrokenImage, match=r"a\.jpg: cannot be read, Permission denied$"):
                open_picture(path)
            assert_as_reference(path, "")
        finally:
            os.seteuid(user)


def test_deleted_between_header_and_pixels(tmp_path):
    """A JPEG has been read as a whole by then; nothing is opened twice."""
    path = tmp_path / "a.jpg"
    path.write_bytes(FILES["jpeg 4:2:0"])
    picture = open_picture(path)
    path.unlink()
    np.testing.assert_array_equal(picture.pixels(), decode(FILES["jpeg 4:2:0"]))


@fast
@pytest.mark.parametrize("side", [14_000, 60_000])  # Pillow warns of the first, refuses the second
def test_decompression_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    data = bytearray(FILES["jpeg 4:4:4"])
    start = data.index(b"\xff\xc0") + 5  # height and width in the frame header
    data[start : start + 4] = side.to_bytes(2, "big") * 2
    decoded = []
    monkeypatch.setattr(module._simplejpeg(), "decode_jpeg", decoded.append)
    with pytest.raises(BrokenImage, match="decompression bomb") as caught:
        open_picture(bytes(data), "x/1")
    assert str(caught.value) == outcome(lambda: decode(bytes(data), "x/1"))
    assert not decoded


@pytest.mark.parametrize("kind", ["jpeg 4:2:0", "progressive", "grey jpeg", "cmyk jpeg"])
def test_damaged_jpegs_are_read_or_refused_as_by_the_reference(kind):
    """A warning of libjpeg alone must not make a file broken: Pillow reads on, then so do we."""
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(FILES[kind], np.uint8).copy()
        places = rng.integers(0, len(damaged), 3)
        damaged[places] = rng.integers(0, 256, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow warns of some of the damage
            expected = outcome(lambda: decode(damaged.tobytes(), "x"))  # noqa: B023
            found = outcome(lambda: open_picture(damaged.tobytes(), "x").pixels())  # noqa: B023
        np.testing.assert_array_equal(found, expected)
        refused += isinstance(expected, str)
    assert 10 < refused < 140


@fast
def test_simplejpeg_refuses_what_pillow_reads():
    """The case that the one above relies on: superfluous bytes before the end of the image."""
    data = FILES["jpeg 4:2:0"][:-2] + bytes(50) + b"\xff\xd9"
    with pytest.raises(ValueError, match="extraneous"):
        module._simplejpeg().decode_jpeg(data)
    np.testing.assert_array_equal(open_picture(data).pixels(), decode(FILES["jpeg 4:2:0"]))


def test_without_simplejpeg(monkeypatch):
    monkeypatch.setattr(module, "_simplejpeg", lambda: None)
    for data in FILES.values():
        assert_as_reference(data)
    assert_as_reference(FILES["jpeg 4:2:0"][:200])
    assert open_picture(encoded(Image.new("RGB", (900, 800)))).largest_shrink(100.0) == 1


@fast
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(803, 1101), (800, 1000), (17, 1), (9, 8)])
def test_shrunk_jpeg_is_pillows_draft(shrink, size):
    data = encoded(waves(*size), subsampling="4:2:0")
    found = open_picture(data).pixels(shrink)
    assert found.shape == (-(-size[0] // shrink), -(-size[1] // shrink), 3)
    draft = Image.open(io.BytesIO(data))
    draft.draft("RGB", found.shape[1::-1])
    if draft.size == found.shape[1::-1]:
        np.testing.assert_array_equal(found, draft.convert("RGB"))


@fast
def test_shrunk_jpeg_shows_the_same_image():
    """At most 4/255 on average from the means of blocks, in every scale."""
    data = encoded(waves(806, 1003), quality=95)
    whole = decode(data)
    for shrink in (2, 4, 8):
        found = open_picture(data).pixels(shrink).astype(float)
        assert np.abs(found - np.asarray(whole.reduce(shrink), float)).mean() < 4.0


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_what_is_no_jpeg_shrinks_by_means_of_blocks(shrink):
    found = open_picture(FILES["png"]).pixels(shrink)
    np.testing.assert_array_equal(found, WAVES.reduce(shrink))


@fast
def test_largest_shrink_leaves_every_crop_twice_its_view():
    picture = open_picture(encoded(Image.new("RGB", (800, 750))))
    needed = [0.3, 1.0, 3.9, 4.0, 7.9, 8.0, 15.9, 16.0, 1e9]
    assert [picture.largest_shrink(n) for n in needed] == [1, 1, 1, 2, 2, 4, 4, 8, 8]
    assert (
        open_picture(encoded(Image.new("RGB", (700, 750)))).largest_shrink(100.0) == 1
    )  # 0.5 megapixels
    assert open_picture(encoded(Image.new("RGB", (800, 750)), "PNG")).largest_shrink(100.0) == 1


def test_photographs_are_equal_bit_for_bit(photographs_tar):
    """libjpeg-turbo 3 in both; a bound of 1 where their versions differ would be as good."""
    largest = count = 0
    with tarfile.open(photographs_tar) as tar:
        for member in (m for m in tar if m.isfile()):
            data = tar.extractfile(member).read()
            small = encoded(decode(data).resize((32, 32)))  # of CIFAR's size
            for image in (data, small):
                expected = np.asarray(decode(image), np.int16)
                largest = max(largest, np.abs(open_picture(image).pixels() - expected).max())
            count += 1
    assert count == 250
    assert largest <= 1
