import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import functional

from vissl_lite.data import colours
from vissl_lite.data._jitter import jitter_all, jitter_sorted

JITTER = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)


@pytest.fixture(params=["rows", "all rows"])
def way(request, monkeypatch):
    """A CPU's way, and that of compiled code, whose operations give the same without compiling."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param == "all rows")
    return jitter_all if request.param == "all rows" else jitter_sorted


@pytest.fixture
def pictures() -> np.ndarray:
    """[48, 20, 28, 3]: waves, noise, greys, saturated colours, flat ones."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :28]
    waves = np.sin(x * y / 40 + rng.uniform(0, 6, (24, 3, 1, 1))) * 100 + 120
    noise = rng.normal(waves, 20).clip(0, 255).transpose(0, 2, 3, 1)
    other = rng.integers(0, 256, (24, 20, 28, 3))
    other[:6] = other[:6, ..., :1]
    other[6:12] = (other[6:12] > 127) * 255
    other[12:18] = other[12:18, :1, :1]
    other[18], other[19] = 0, 255
    return np.concatenate([noise, other]).astype(np.uint8)


def batch(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float()


def pillow(change, pictures: np.ndarray, parameters) -> torch.Tensor:
    images = [Image.fromarray(pixels) for pixels in pictures]
    return batch(np.stack([np.asarray(change(*both)) for both in zip(images, parameters)]))


def random_jitter(n: int, seed: int = 0) -> torch.Tensor:
    """Amounts as strong as any recipe's, a fifth of them neutral, all orders."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform((0.2, 0.2, 0.2, -0.5), (1.8, 1.8, 1.8, 0.5), (n, 4))
    amounts = np.where(rng.random((n, 4)) < 0.2, NEUTRAL, amounts)
    return torch.from_numpy(np.c_[amounts, rng.random((n, 4)).argsort(1)]).float()


def jittered(image: Image.Image, p: list[float]) -> Image.Image:
    for k in map(int, p[4:]):
        if p[k] != NEUTRAL[k]:
            image = JITTER[k](image, p[k])
    return image


EXACT = {
    "flip": (lambda n: np.arange(n) % 2, lambda i, on: ImageOps.mirror(i) if on else i),
    "grayscale": (
        lambda n: np.arange(n) % 2,
        lambda i, on: i.convert("L").convert("RGB") if on else i,
    ),
    "solarize": (lambda n: np.arange(n) * 7 % 257, lambda i, t: ImageOps.solarize(i, t)),
    "posterize": (lambda n: np.arange(n) % 8 + 1, lambda i, bits: ImageOps.posterize(i, bits)),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_pillows(name, pictures, way):
    draw, change = EXACT[name]
    parameters = draw(len(pictures))
    ours = getattr(colours, name)(batch(pictures), torch.from_numpy(parameters).float())
    assert torch.equal(ours, pillow(change, pictures, parameters.tolist()))


@pytest.mark.parametrize("k", range(3))
def test_linear_jitter_is_pillows(k, pictures, way):
    p_N8 = random_jitter(len(pictures))
    p_N8[:, :4] = torch.tensor(NEUTRAL).where(torch.arange(4) != k, p_N8[:, :4])
    ours = colours.jitter(batch(pictures), p_N8)
    assert torch.equal(ours, pillow(jittered, pictures, p_N8.tolist()))


def test_contrast_of_a_large_image_is_pillows():
    """The sum of its luma, 12.8 million, is still exact in float32."""
    pixels = np.random.default_rng(0).integers(250, 256, (1, 224, 224, 3)).astype(np.uint8)
    p_18 = torch.tensor([[1, 0.5, 1, 0, 0, 1, 2, 3]])
    theirs = pillow(lambda i, a: ImageEnhance.Contrast(i).enhance(a), pixels, [0.5])
    assert torch.equal(colours.jitter(batch(pixels), p_18), theirs)


def test_every_colour_turned(way):
    """All hues at steps of 5/255: nearly all colours come out as Pillow's, the rest a step off."""
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    for turn in (-0.5, -0.13, 0.002, 0.3):
        p_N8 = torch.tensor([[*NEUTRAL[:3], turn, 0, 1, 2, 3]]).repeat(len(cube), 1)
        difference = colours.jitter(batch(cube), p_N8) - pillow(jittered, cube, p_N8.tolist())
        assert (difference != 0).float().mean() < 0.01
        assert difference.abs().mean() < 0.01
        assert difference.abs().max() <= 6  # a step of h in a saturated colour


def test_hue_where_two_channels_are_nearly_the_largest(way):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2**14, 3))
    order = rng.permuted(np.tile(np.arange(3), (2**14, 1)), axis=1)
    first, second = order[:, :1], order[:, 1:2]
    top = pixels.max(1, keepdims=True)
    np.put_along_axis(pixels, first, top, 1)
    np.put_along_axis(pixels, second, np.maximum(top - rng.integers(0, 4, top.shape), 0), 1)
    picture = pixels.reshape(1, 128, 128, 3).astype(np.uint8)
    for turn in (-0.3, 0.1):
        p_18 = torch.tensor([[*NEUTRAL[:3], turn, 0, 1, 2, 3]])
        difference = colours.jitter(batch(picture), p_18) - pillow(jittered, picture, p_18.tolist())
        assert (difference != 0).float().mean() < 0.001
        assert difference.abs().max() <= 6


def test_jitter_is_pillows_in_every_order(pictures, way):
    pictures = np.concatenate([pictures] * 5)
    p_N8 = random_jitter(len(pictures))
    assert len({tuple(order) for order in p_N8[:, 4:].tolist()}) == 24
    difference = colours.jitter(batch(pictures), p_N8) - pillow(jittered, pictures, p_N8.tolist())
    assert (difference != 0).float().mean() < 0.01
    assert difference.abs().mean() < 0.05


def test_both_ways_of_jitter_give_the_same_bits(pictures):
    p_N8 = random_jitter(len(pictures))
    x_NCHW = batch(pictures)
    assert torch.equal(jitter_all(x_NCHW, p_N8), jitter_sorted(x_NCHW, p_N8))


def test_blur_is_pillows(pictures, way):
    sigma_N = torch.linspace(0, 3, len(pictures))
    sigma_N[:3] = torch.tensor([0.5, 1, 2])  # of many ties
    ours = colours.blur(batch(pictures), sigma_N)
    theirs = pillow(
        lambda i, sigma: i.filter(ImageFilter.GaussianBlur(sigma)), pictures, sigma_N.tolist()
    )
    difference = (ours - theirs).abs()
    assert (difference[3:] != 0).float().mean() < 0.005
    assert difference.mean((1, 2, 3)).max() < 0.2
    assert difference.max() <= 2
    assert torch.equal(colours.blur(batch(pictures), sigma_N, largest=5.0), ours)


def test_three_boxes_have_the_variance_of_the_gaussian():
    sigma_N = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.7], dtype=torch.float64)
    b_NK = colours.box(sigma_N, largest=3.7)
    k_K = torch.arange(b_NK.shape[1])
    torch.testing.assert_close(2 * b_NK.sum(1) - b_NK[:, 0], torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(3 * 2 * (b_NK * k_K**2).sum(1), sigma_N**2)


NEUTRALS = {
    "flip": [0.0],
    "grayscale": [0.0],
    "solarize": [256.0],
    "posterize": [8.0],
    "blur": [0.0],
    "jitter": [*NEUTRAL, 2, 0, 3, 1],
}


def parameters_of(name: str, n: int) -> torch.Tensor:
    if name == "jitter":
        return random_jitter(n)
    if name == "blur":
        return torch.linspace(0, 2, n)
    return torch.from_numpy(EXACT[name][0](n)).float()


@pytest.mark.parametrize("name", NEUTRALS)
def test_neutral_parameters_leave_images_as_they_are(name, pictures, way):
    p_NP = torch.tensor(NEUTRALS[name]).repeat(len(pictures), 1)
    p = p_NP if name == "jitter" else p_NP[:, 0]
    assert torch.equal(getattr(colours, name)(batch(pictures), p), batch(pictures))


@pytest.mark.parametrize("name", NEUTRALS)
def test_rows_do_not_depend_on_each_other(name, pictures, way):
    change, x_NCHW, p = getattr(colours, name), batch(pictures), parameters_of(name, len(pictures))
    given = x_NCHW.clone()
    together = change(x_NCHW, p)
    shuffled = torch.randperm(len(x_NCHW))
    assert torch.equal(change(x_NCHW[shuffled], p[shuffled]), together[shuffled])
    apart = [change(x_NCHW[n : n + 1], p[n : n + 1]) for n in range(len(x_NCHW))]
    assert torch.equal(torch.cat(apart), together)
    assert torch.equal(x_NCHW, given)  # and none of this changed them


@pytest.mark.parametrize("name", NEUTRALS)
def test_any_layout_in_memory(name, pictures, way):
    change, x_NCHW, p = getattr(colours, name), batch(pictures), parameters_of(name, len(pictures))
    assert not x_NCHW.is_contiguous()  # channels last
    assert torch.equal(change(x_NCHW, p), change(x_NCHW.contiguous(), p))
    assert change(x_NCHW[:0], p[:0]).shape == (0, 3, 20, 28)


@pytest.mark.slow
@pytest.mark.parametrize("name", NEUTRALS)
def test_compiled_gives_the_same_bits(name, pictures):
    change, x_NCHW, p = getattr(colours, name), batch(pictures), parameters_of(name, len(pictures))
    args = (2.0,) if name == "blur" else ()
    compiled = torch.compile(lambda x, p: change(x, p, *args), dynamic=False)(x_NCHW, p)
    assert torch.equal(compiled, change(x_NCHW, p, *args))
