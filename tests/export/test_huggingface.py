"""Against transformers' own classes, which must find every tensor; skips without transformers.

Features agree to 1e-5 of the largest.
"""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml
from export.subjects import on_meta, subject, worst
from huggingface_hub import ModelCard
from PIL import Image

from vissl_lite.data.views import Views
from vissl_lite.errors import ConfigError
from vissl_lite.export import huggingface
from vissl_lite.export.huggingface import HuggingFace
from vissl_lite.export.subject import Subject

TINY = {"name": "resnet", "depth": 18, "width_multiplier": 0.25}
ANYNET = {"name": "anynet", "depths": [1, 2], "widths": [16, 64], "group_widths": [16, 32]}
VIT = {"name": "vit", "size": "tiny", "patch_size": 8, "image_size": 32}
OTHERS = {
    "ResNetModel, basic": TINY,
    "ResNetModel, bottlenecks": {"name": "resnet", "width_multiplier": 0.5, "in_channels": 1},
    "RegNetModel, X": {"name": "regnet", "preset": "x_200mf"},
    "RegNetModel, Y": {"name": "regnet", "preset": "y_400mf", "stem_width": 16},
    "RegNetModel, group as wide as a stage": ANYNET,
    "ViTModel": {**VIT, "heads": 6},
    "Dinov2Model": {**VIT, "layer_scale": 0.5},
}  # fmt: skip
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)


@needs_transformers
@pytest.mark.parametrize("name", OTHERS)
@torch.no_grad()
def test_transformers_finds_every_tensor_and_computes_the_same(name, tmp_path):
    import transformers

    target = HuggingFace(subject(**OTHERS[name]))
    target.write(tmp_path / "w")
    architecture = json.loads((tmp_path / "w" / "config.json").read_text())["architectures"][0]
    assert architecture == name.partition(",")[0]
    features = target.features(tmp_path / "w", target.subject.probe())
    assert worst(features, target.subject) < 1e-5
    network, keywords = getattr(transformers, architecture), target.reader.keywords
    info = network.from_pretrained(tmp_path / "w", output_loading_info=True, **keywords)[1]
    assert not any(info.values())


def run_of(tmp_path, **labelled):
    """The folder of a run that looks at images like that."""
    config = {
        "recipe": "mine", "loss": {"name": "simclr"}, "labelled": labelled,
        "data": {"source": {"name": "digits"}}, "train": {"epochs": 3, "batch_size": 64},
    }  # fmt: skip
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / ".hydra" / "overrides.yaml").write_text("- config=mine\n- data.source.path=/my photos\n")
    records = [("knn", 10, 0.25), ("linear", 10, 0.5), ("knn", 20, 0.75)]
    lines = [{"kind": "eval", "name": n, "step": s, "top1": v} for n, s, v in records]
    text = "".join(json.dumps(line) + "\n" for line in [{"kind": "train", "step": 1}, *lines])
    (run / "metrics.jsonl").write_text(text + '{"kind": "ev')
    return run


TRANSFORMS = [{"name": "resize", "short_side": 44, "interpolation": "bicubic"}, "center_crop"]


def of_run(tmp_path, transforms, **config):
    exported = subject(**config)
    run = run_of(tmp_path, transforms=transforms)
    return Subject(exported.trunk, exported.config, 32, run)


def seen_by_us(image, exported):
    """Our view of an image, normalised: [1, C, H, W]."""
    group = {"count": 1, "size": exported.side, "transforms": TRANSFORMS}
    views = Views.build([group])
    out = np.empty((1, 1, exported.side, exported.side, 3), np.uint8)
    views.write(image, "", views.draw(0, 0, np.arange(1)), 0, [out])
    mean, std = torch.tensor(exported.trunk.mean), torch.tensor(exported.trunk.std)
    return ((torch.from_numpy(out[0]) / 255 - mean) / std).permute(0, 3, 1, 2)


@pytest.fixture
def image():
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(small).resize((120, 90))  # resizers differ at edges of pixels


@needs_transformers
@torch.no_grad()
def test_the_printed_lines_see_an_image_as_the_run_did(tmp_path, image):
    target = HuggingFace(of_run(tmp_path, TRANSFORMS, **VIT))
    target.write(tmp_path / "w")
    names = {"images": [image]}
    exec(target.usage(tmp_path / "w"), names)
    ours = seen_by_us(image, target.subject)
    theirs = names["processor"]([image], return_tensors="pt")["pixel_values"]
    assert (theirs - ours).abs().max() < 3 / 255 / 0.4
    (expected,) = target.subject.trunk(ours).values()
    torch.testing.assert_close(names["features"], expected, rtol=0.02, atol=0.02)


@torch.no_grad()
def test_where_only_timm_has_such_a_network(tmp_path, image):
    target = HuggingFace(of_run(tmp_path, TRANSFORMS, name="timm", model="convnext_atto"))
    assert target.program == "timm"
    target.write(tmp_path / "w")
    x = target.subject.probe()
    assert worst(target.features(tmp_path / "w", x), target.subject) < 1e-5
    names = {"image": image}
    exec(target.usage(tmp_path / "w"), names)
    assert (names["transform"](image)[None] - seen_by_us(image, target.subject)).abs().max() < 1e-5
    config = json.loads((tmp_path / "w" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    assert not {"tag", "license", "paper_ids"} & set(config["pretrained_cfg"])


def test_the_card_of_a_run(tmp_path):
    target = HuggingFace(of_run(tmp_path, TRANSFORMS, **TINY))
    target.write(tmp_path / "mine")
    text = (tmp_path / "mine" / "README.md").read_text()
    card = ModelCard(text)
    assert (card.data.library_name, card.data.license) == ("transformers", "unknown")
    assert (
        "# mine\n\nA trunk without classifier: images [N, 3, 32, 32] to features [N, 128]." in text
    )
    assert "| recipe | mine |\n| loss | simclr |\n| images | digits |\n| epochs | 3 |" in text
    assert "    vissl-lite config=mine 'data.source.path=/my photos'\n" in text
    rows = ["| knn | top1 | 0.7500 | 20 |", "| linear | top1 | 0.5000 | 10 |"]
    assert "\n".join(["| evaluation | metric | value | step |", "| --- " * 4 + "|", *rows]) in text
    assert "a placeholder. State the licence" in text


def test_what_nothing_tells_is_not_made_up(tmp_path):
    exported = subject(**TINY)
    exported.trunk.mean = exported.trunk.std = None
    target = HuggingFace(exported)
    target.write(tmp_path / "w")
    names = sorted(path.name for path in (tmp_path / "w").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert "Processor" not in target.usage(tmp_path / "w")
    text = (tmp_path / "w" / "README.md").read_text()
    assert "How pixels were normalised in training is not known" in text
    assert "do not belong to a known run.\n\n## Evaluation\n\nNot evaluated." in text


def test_another_way_to_look_at_images_has_no_preprocessor(tmp_path):
    target = HuggingFace(of_run(tmp_path, ["posterize", "resize"], **TINY))
    assert target.reader.preprocessor is None
    assert (
        "# no preprocessor_config.json: images are normalised, and shown by posterize, resize"
        in (target.usage(tmp_path))
    )


def test_images_that_are_shown_as_they_are(tmp_path):
    preprocessor = HuggingFace(of_run(tmp_path, [], **TINY)).reader.preprocessor
    assert not preprocessor["do_resize"]
    assert not preprocessor["do_center_crop"]
    assert preprocessor["image_mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({**TINY, "stem": "cifar"}, "its stem is CIFAR's, 3x3 without pooling"),
        ({"name": "torchvision"}, "it is the trunk torchvision"),
        ({**ANYNET, "group_widths": [4, 8]}, "its stages have groups of several widths"),
        ({**ANYNET, "se_ratio": 0.5}, "its squeeze-excitation has the ratio 0.5"),
    ],
)
def test_what_neither_can_express(config, reason):
    with pytest.raises(ConfigError) as error:
        HuggingFace(on_meta(**config))
    assert reason in error.value.problems[0]
    assert error.value.problems[0].startswith("export: transformers has no network like this")
    assert error.value.problems[1].startswith("export: timm has no network like this trunk")


@torch.no_grad()
def test_without_transformers_there_is_no_check(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface, "find_spec", lambda name: None)
    target = HuggingFace(subject(**TINY))
    assert target.features(tmp_path, target.subject.probe()) is None
