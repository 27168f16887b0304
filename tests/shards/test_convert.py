"""What shards keep of an image: its bytes, a smaller JPEG, or pixels."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling
from sklearn.datasets import load_sample_image

from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage, decode
from vissl_lite.shards.convert import Settings, convert, convert_chunk, shrink

PHOTO = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("short_side", [None, 427, 1000])
def test_what_needs_no_change_keeps_its_bytes(kind, short_side, tmp_path):
    content = encoded(PHOTO, kind)
    (tmp_path / "a").write_bytes(content)
    for image in (content, memoryview(content), tmp_path / "a", str(tmp_path / "a")):
        assert convert(Sample(image), Settings(short_side)) == (content, (640, 427))


def test_shrunk_images_are_jpegs_of_the_given_quality():
    contents = {q: convert(Sample(encoded(PHOTO, "PNG")), Settings(256, q)) for q in (50, 90)}
    expected = np.asarray(PHOTO.resize((384, 256), Image.Resampling.LANCZOS), np.float64)
    for content, size in contents.values():
        image = Image.open(io.BytesIO(content))
        assert image.size == size == (384, 256)
        assert get_sampling(image) == 2  # 4:2:0
    error = {q: np.abs(np.asarray(decode(c)) - expected).mean() for q, (c, _) in contents.items()}
    assert error[90] < 4 < error[50]


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((640, 427), 400, (600, 400)),
        ((427, 640), 400, (400, 600)),
        ((500, 500), 64, (64, 64)),
        ((1000, 3), 2, (667, 2)),
        ((399, 5000), 400, (399, 5000)),
    ],
)
def test_sizes(size, short_side, expected):
    assert shrink(Image.new("RGB", size), short_side).size == expected


def test_lanczos_stays_closest_to_what_training_makes_of_the_original():
    """A view cut from the shrunk photograph against the same view of the original, in 1/255."""

    def error(resample):
        small = PHOTO.resize((384, 256), resample)
        scale = 640 / 384
        box = (40, 30, 40 + 200, 30 + 200)  # of the small one: 333 pixels of the original
        views = [
            image.resize((96, 96), Image.Resampling.BILINEAR, [s * edge for edge in box])
            for image, s in ((small, 1), (PHOTO, scale))
        ]
        return np.abs(np.subtract(*(np.asarray(v, np.float64) for v in views))).mean()

    kernels = Image.Resampling
    ours = error(kernels.LANCZOS)
    assert ours < 1.5
    assert ours < min(error(kernels.BICUBIC), error(kernels.BILINEAR), error(kernels.BOX))


def test_raw_pixels():
    content, (width, height) = convert(Sample(PHOTO.convert("L")), Settings(256, raw=True))
    assert (width, height) == (384, 256)
    grey = np.asarray(shrink(PHOTO.convert("L").convert("RGB"), 256))
    assert np.array_equal(np.frombuffer(content, np.uint8).reshape(256, 384, 3), grey)


@pytest.mark.parametrize("image", [np.arange(48, dtype=np.uint8).reshape(8, 6), PHOTO])
def test_pixels_of_a_source_are_kept_without_loss(image):
    content, _ = convert(Sample(image), Settings())
    assert np.array_equal(decode(content), decode(image))


def test_broken_images_are_named_and_the_others_keep_their_order(tmp_path):
    good = encoded(PHOTO)
    source = [
        Sample(good, 3, name="a"),
        Sample(good[:5000], 4, name="b"),
        Sample(str(tmp_path / "none.jpg"), 5, name="c"),
        Sample(b"", 6, name=""),
        Sample(good, 7, [1, 2], name="e"),
    ]
    chunk = convert_chunk(source, Settings(), 0, 5)
    assert (chunk.names, chunk.labels, chunk.tags) == (["a", "e"], [3, 7], [None, [1, 2]])
    assert [name for name, _ in chunk.broken] == ["b", "c", "image 3"]
    assert chunk.broken[1][1] == "No such file or directory"
    with pytest.raises(BrokenImage, match=r"b: cannot be read"):
        convert(source[1], Settings())
