import numpy as np
import pytest
import torch
from PIL import Image
from pretended_gpu import pretended_gpu
from torch.utils._python_dispatch import TorchDispatchMode

from vissl_lite import ConfigError
from vissl_lite.data import device
from vissl_lite.data.device import Chain, worth_compiling
from vissl_lite.data.memory import MemoryViews
from vissl_lite.data.transform import Transform
from vissl_lite.data.views import ViewGroup, Views
from vissl_lite.plugins import load_entries

load_entries()
COLOURS = [
    "random_horizontal_flip",
    {"name": "color_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "random_grayscale",
    "gaussian_blur",
    "solarize",
]
GROUPS = [
    {"count": 2, "size": 32, "transforms": ["random_resized_crop", *COLOURS]},
    {"count": 1, "size": 12, "transforms": ["random_resized_crop", "random_horizontal_flip"]},
]


class Brighten(Transform):
    """A third party's, without a form of ours."""

    draws = 1

    def parameters(self, u_ND, width, height):
        return np.c_[np.floor(u_ND * 100), np.full(len(u_ND), width)]

    def on_image(self, image, p):
        return image.point(lambda value: min(255, int(value + p[0])))

    def on_batch(self, x_NCHW, p_NP):
        assert (p_NP[:, 1] == x_NCHW.shape[3]).all()
        return x_NCHW + p_NP[:, 0, None, None, None]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    waves = np.sin(x * y / 40 + rng.uniform(0, 6, (40, 3, 1, 1))) * 100 + 120
    return rng.normal(waves, 10).clip(0, 255).transpose(0, 2, 3, 1).astype(np.uint8)


def crops(of: MemoryViews, positions, epoch: int = 3) -> list[torch.Tensor]:
    """Position p of the epoch shows image 7 p mod 40."""
    positions = np.asarray(positions)
    return of.batch(torch.from_numpy(7 * positions % 40), positions, epoch)


def reference(views: Views, images: np.ndarray, positions, epoch: int = 3) -> list[np.ndarray]:
    rows = [views(Image.fromarray(images[7 * p % 40]), 5, epoch, p) for p in positions]
    return [np.stack(group, 1) for group in zip(*rows)]


def test_agrees_with_the_reference(images):
    views = Views.build(GROUPS)
    ours = crops(MemoryViews(views, torch.from_numpy(images), seed=5), range(40))
    assert [tuple(v.shape) for v in ours] == [(2, 40, 32, 32, 3), (1, 40, 12, 12, 3)]
    for group, theirs in zip(ours, reference(views, images, range(40))):
        assert group.dtype == torch.uint8
        difference = np.abs(group.numpy().astype(int) - theirs)
        assert difference.mean() < 0.02
        assert (difference > 0).mean() < 0.02


def test_third_party_transform(images):
    views = Views([ViewGroup(count=2, size=32, transforms=[Brighten(), Brighten()])])
    (ours,) = crops(MemoryViews(views, torch.from_numpy(images), seed=5), range(10))
    np.testing.assert_array_equal(ours, reference(views, images, range(10))[0])


def test_no_transforms(images):
    views = Views([ViewGroup(count=1, size=32, transforms=[])])
    held = torch.from_numpy(images)
    (ours,) = MemoryViews(views, held, seed=5).batch(torch.tensor([3, 1]), np.arange(2), 0)
    assert torch.equal(ours[0], held[[3, 1]])


@pytest.mark.parametrize("chunk", [2**20, 2**13])
def test_same_bits_in_any_batch(images, chunk, monkeypatch):
    monkeypatch.setattr(device, "CHUNK", {"cpu": chunk})
    held = MemoryViews(Views.build(GROUPS), torch.from_numpy(images), seed=5)
    whole = crops(held, range(32))
    halves = [crops(held, range(16)), crops(held, range(16, 32))]
    order = np.random.default_rng(0).permutation(32)
    mixed = crops(held, order)
    for g, expected in enumerate(whole):
        assert torch.equal(torch.cat([half[g] for half in halves], 1), expected)
        assert torch.equal(mixed[g], expected[:, order])
        assert torch.equal(crops(held, [17])[g], expected[:, 17:18])


def test_depends_on_seed_epoch_and_position(images):
    views, held = Views.build(GROUPS), torch.from_numpy(images)
    first = crops(MemoryViews(views, held, seed=5), [0, 40])[0]
    assert (first[:, 0] != first[:, 1]).any()  # both show image 0
    assert (first[0] != first[1]).any()
    assert (crops(MemoryViews(views, held, seed=6), [0])[0] != first[:, :1]).any()
    assert (crops(MemoryViews(views, held, seed=5), [0], epoch=4)[0] != first[:, :1]).any()


def test_wrong_size_is_said_at_once(images):
    views = Views.build([{"size": 24, "transforms": ["random_horizontal_flip"]}])
    with pytest.raises(ConfigError, match=r"data.views\[0\]: its transforms give 32x32 pixels"):
        MemoryViews(views, torch.from_numpy(images), seed=5)


class Copies(TorchDispatchMode):
    """Of each copy to the GPU, whether the host goes on meanwhile."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to_gpu = str(kwargs.get("device", "")).startswith("cuda")
        if func.name() == "aten::_to_copy" and to_gpu and not args[0].is_cuda:
            self.found.append(kwargs.get("non_blocking", False))
        return func(*args, **kwargs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
def test_one_copy_per_group_and_no_wait_for_it(images):
    views = Views.build(
        [
            {"size": 32, "transforms": ["random_resized_crop", *COLOURS, "random_erasing"]},
            {"size": 12, "transforms": ["resize", "center_crop", "random_horizontal_flip"]},
        ]
    )
    expected = crops(MemoryViews(views, torch.from_numpy(images), seed=5), range(10))
    with pretended_gpu():
        held = MemoryViews(views, torch.from_numpy(images).to("cuda"), seed=5)
        index_B = (7 * torch.arange(10) % 40).to("cuda")
        with Copies() as copies:
            found = held.batch(index_B, np.arange(10), 3)
        assert copies.found == [True, True]
        assert all(torch.equal(f.cpu(), e) for f, e in zip(found, expected))


def test_rounds_after_each_transform():
    x_NCHW = torch.full((1, 3, 1, 1), 1, dtype=torch.uint8)

    class Half(Transform):
        def on_batch(self, x_NCHW, p_NP):
            return x_NCHW * 1.5

    assert Chain([Half(), Half()])(x_NCHW, [torch.empty(1, 0)] * 2).unique().tolist() == [3]


def test_compiling_pays_in_long_runs(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    cpu = torch.device("cpu")
    assert worth_compiling(cpu, crops=100 * 100_000, size=32)
    assert not worth_compiling(cpu, crops=100_000, size=32)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not worth_compiling(cpu, crops=100 * 100_000, size=32)


@pytest.mark.slow
def test_compiled_gives_the_same_bits(images, monkeypatch):
    views, held = Views.build(GROUPS[:1]), torch.from_numpy(images)
    compiled = MemoryViews(views, held, seed=5, compiled_for=25)
    monkeypatch.setattr(device, "COMPILED_CHUNK", 17 * 32 * 32)  # 50 crops in 3 parts of 17
    plain = MemoryViews(views, held, seed=5)
    for positions in (range(25), range(15, 40), range(3)):
        assert torch.equal(crops(compiled, positions)[0], crops(plain, positions)[0])
