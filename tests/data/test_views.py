import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from vissl_lite import ConfigError
from vissl_lite.data.decode import decode
from vissl_lite.data.random import generator, uniforms
from vissl_lite.data.views import ViewGroup, Views
from vissl_lite.plugins import load_entries

load_entries()
PRESETS = Path(__file__).resolve().parents[2] / "configs" / "augment"
MULTI_CROP = [
    {
        "count": count,
        "size": size,
        "transforms": [
            {"name": "random_resized_crop", "scale": scale},
            "random_horizontal_flip",
            "color_jitter",
        ],
    }
    for count, size, scale in [(2, 32, [0.14, 1.0]), (3, 16, [0.05, 0.14])]
]


@pytest.fixture
def image():
    y, x = np.mgrid[:60, :80]
    return Image.fromarray(np.stack([3 * x, 4 * y, x + y], -1).astype(np.uint8))


def test_one_array_per_group(image):
    views = Views.build(MULTI_CROP)
    arrays = views(image, seed=0, epoch=0, position=0)
    assert (views.counts, views.sizes) == ([2, 3], [32, 16])
    assert [a.shape for a in arrays] == [(2, 32, 32, 3), (3, 16, 16, 3)]
    assert all(a.dtype == np.uint8 for a in arrays)
    assert len({crop.tobytes() for group in arrays for crop in group}) == 5


def test_pure_function(image):
    views = Views.build(MULTI_CROP)
    first = views(image, 1, 2, 3)
    views(image, 9, 9, 9)
    again = pickle.loads(pickle.dumps(views))(image, 1, 2, 3)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in again]
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)]:
        assert (views(image, *other)[0] != first[0]).any()


def test_view_index_counts_over_all_groups(image):
    """Transform t of crop v follows uniforms(seed, epoch, position, v, t)."""
    views = Views.build(MULTI_CROP)
    crops = [(g, crop) for g, group in enumerate(views(image, 5, 6, 7)) for crop in group]
    for v, (g, crop) in enumerate(crops):
        expected = image
        for t, transform in enumerate(views.groups[g].transforms):
            u = uniforms(5, 6, np.array([7]), v, t, transform.draws)
            p = transform.parameters(u, *expected.size)[0]
            expected = transform.on_image(expected, p)
        np.testing.assert_array_equal(crop, np.asarray(expected))


def test_a_transform_of_somebody_else_has_a_generator_of_its_own(image):
    numbers = []

    def noted(image, rng):
        numbers.append(rng.random())
        return image.crop((0, 0, 16, 16))

    Views([ViewGroup(1, 16, [noted]), ViewGroup(2, 16, [noted])])(image, 5, 6, 7)
    assert numbers == [generator(5, 6, 7, v).random() for v in range(3)]


def test_no_transforms_for_images_that_fit(image):
    square = image.crop((0, 0, 32, 32))
    (crops,) = Views([ViewGroup(count=1, size=32, transforms=[])])(square, 0, 0, 0)
    np.testing.assert_array_equal(crops[0], np.asarray(square))


def test_wrong_size_says_what_to_add(image):
    groups = [*MULTI_CROP, {"size": 48, "transforms": ["resize"]}]
    with pytest.raises(
        ConfigError,
        match=r"^data.views\[2\]: .* 72x54 pixels instead of 48x48; add random_resized_crop",
    ):
        Views.build(groups)(image, 0, 0, 0)


def test_all_problems_at_once():
    config = OmegaConf.create(
        [
            {"size": 32, "transforms": [{"name": "color_jiter"}, "resize"]},
            {"size": 32, "transforms": [{"name": "color_jitter", "hue": 0.9, "p": 2}]},
            {"size": 32, "transforms": [{"name": "solarize", "treshold": 1}], "crops": 2},
            {"transforms": []},
            {"count": 0, "size": -1, "transforms": []},
            7,
        ]
    )
    with pytest.raises(ConfigError) as raised:
        Views.build(config, "v")
    found = "\n".join(raised.value.problems)
    for expected in [
        "v[0].transforms[0]: unknown transform 'color_jiter'; did you mean 'color_jitter'?",
        "v[1].transforms[0].hue: 0.9 must be from 0 to 0.5",
        "v[2].transforms[0]: unknown key 'treshold' for transform 'solarize'; did you mean",
        "v[2]: unknown key 'crops'",
        "v[3]: 'v[3]' needs a value for 'size'",
        "v[4].count: 0; needs 1 or more",
        "v[4].size: -1; needs 1 or more",
        "v[5]: 7 is not a mapping",
    ]:
        assert expected in found


@pytest.mark.parametrize("config", [[], None, {"size": 3}, "simclr"])
def test_not_a_list(config):
    with pytest.raises(ConfigError, match=r"^data.views: .* is no list of groups"):
        Views.build(config)


EXPECTED = {
    "byol": [(1, 224), (1, 224)],
    "digits": [(2, 32)],
    "dino": [(1, 224), (1, 224), (8, 96)],
    "simclr": [(2, 224)],
    "simclr_cifar": [(2, 32)],
    "supervised": [(1, 224)],
    "supervised_cifar": [(1, 32)],
    "swav": [(2, 224), (6, 96)],
    "swav_2x160_4x96": [(2, 160), (4, 96)],
    "swav_2x224_4x96": [(2, 224), (4, 96)],
    "swav_cifar": [(2, 32)],
}


def test_no_preset_without_an_expectation():
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("preset", EXPECTED)
def test_preset(preset):
    text = (PRESETS / f"{preset}.yaml").read_text()
    assert text.startswith("# @package data\n# ")
    config = OmegaConf.create(text)
    views = Views.build(config.views)
    assert list(zip(views.counts, views.sizes)) == EXPECTED[preset]
    assert config.get("std", [0.229, 0.224, 0.225])[0] == (0.228 if preset == "swav" else 0.229)


@pytest.fixture(scope="module")
def photograph(photographs_tar):
    with tarfile.open(photographs_tar) as tar:
        return tar.extractfile("imagenet-samples/n01440764_tench.JPEG").read()


@pytest.mark.parametrize("preset", EXPECTED)
def test_preset_on_a_photograph(preset, photograph):
    image = decode(photograph)
    if "cifar" in preset or preset == "digits":
        image = image.resize((32, 32))
    views = Views.build(OmegaConf.load(PRESETS / f"{preset}.yaml").views)
    groups = [views(image, 0, 0, position) for position in range(4)]
    crops = [crop for arrays in groups for group in arrays for crop in group]
    assert 60 < np.mean([crop.mean() for crop in crops]) < 190
    assert np.median([crop.std() for crop in crops]) > 15
    assert len({crop.tobytes() for crop in crops}) == len(crops)
