"""What every entry of every registry owes its users, third-party entries included."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vissl_lite
from vissl_lite import REGISTRIES
from vissl_lite.data.batch import Batch, Sample, Tags
from vissl_lite.plugins import FOLDERS, load_entries
from vissl_lite.shards.build import build as pack
from vissl_lite.shards.convert import Settings
from vissl_lite.sources.without import write_list

load_entries()
ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
FOLDER = dict(zip(("source", "transform", "trunk", "head", "loss"), FOLDERS[:5])) | dict(
    zip(("optimizer", "schedule", "hook", "evaluation", "logger"), FOLDERS[5:])
)
RUNTIME = {
    "transform": {"size": 8},
    "head": {"in_dim": 8, "num_classes": 5},
    "loss": {"embed_dim": 8, "num_samples": 100, "num_classes": 5, "steps_per_epoch": 10},
    "schedule": {"total_steps": 100, "steps_per_epoch": 10},
}
GIVEN = {  # what an entry cannot do without
    ("source", "image_folder"): {"path": "{tmp}/images"},
    ("source", "file_list"): {"path": "{tmp}/list.txt"},
    ("source", "table"): {"path": "{tmp}/table.csv"},
    ("source", "tar_shards"): {"path": "{tmp}/shard.tar"},
    ("source", "packed"): {"path": "{tmp}/shards"},
    ("source", "torchvision"): {"dataset": "FakeData", "split": None},
    ("source", "mix"): {"sources": ["digits", "digits"]},
    ("source", "subset"): {"source": "digits", "share": 0.1},
    ("source", "tag_noise"): {"source": "digits_tags"},
    ("source", "without"): {"source": "digits", "list": "{tmp}/without.tsv"},
    ("loss", "binary_cross_entropy"): {"target": "tags"},
    ("schedule", "multistep"): {"milestones": ["5 epochs"]},
    ("schedule", "composite"): {"schedules": ["constant", "cosine"], "lengths": [0.1, "rest"]},
    ("schedule", "warmup"): {"length": 0.1, "then": "cosine"},
    ("evaluation", "detection"): {
        **{f"images_{split}": "{tmp}/images" for split in ("train", "test")},
        **{f"annotations_{split}": "{tmp}/coco.json" for split in ("train", "test")},
    },
    ("evaluation", "segmentation"): {
        **{f"images_{split}": "{tmp}/images" for split in ("train", "test")},
        **{f"labels_{split}": "{tmp}/images" for split in ("train", "test")},
        "classes": 2,
    },
}
OPTIONAL = {  # need another package
    ("logger", "wandb"): "wandb",
    ("trunk", "timm"): "timm",
    ("evaluation", "detection"): "pycocotools",
}
COCO = """{
    "images": [{"id": 1, "file_name": "0.png", "width": 9, "height": 9}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3],
                     "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}],
    "categories": [{"id": 1, "name": "square"}]}"""


def of(kind):
    return [name for k, name in ENTRIES if k == kind]


def ours(kind, name):
    return vissl_lite.registry.origin(REGISTRIES[kind][name]).startswith("vissl_lite.")


@pytest.fixture
def build(tmp_path, monkeypatch):
    """build(kind, name) makes the entry from its defaults."""
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))

    def make(kind, name, **runtime):
        if (kind, name) in OPTIONAL:
            pytest.importorskip(OPTIONAL[kind, name])
        given = {k: fill(v, tmp_path) for k, v in GIVEN.get((kind, name), {}).items()}
        where = f"{kind}.{name}"
        config = {"name": name, **given}
        return REGISTRIES[kind].build(config, where, **RUNTIME.get(kind, {}), **runtime)

    return make


def fill(value, tmp):
    """Puts an image, a list, a table, a tar and shards into `tmp`."""
    if not (isinstance(value, str) and "{tmp}" in value):
        return value
    (tmp / "images").mkdir(exist_ok=True)
    Image.new("L", (9, 9)).save(tmp / "images" / "0.png")
    (tmp / "coco.json").write_text(COCO)
    (tmp / "list.txt").write_text("images/0.png\n")
    (tmp / "table.csv").write_text("image\nimages/0.png\n")
    write_list(tmp / "without.tsv", {0: REGISTRIES["source"]["digits"]()[0].name})
    import tarfile

    with tarfile.open(tmp / "shard.tar", "w") as tar:
        tar.add(tmp / "images" / "0.png", "0.png")
    pack(REGISTRIES["source"]["synthetic"](n=1, size=9), {}, Settings(), tmp / "shards", 1, 0)
    return value.replace("{tmp}", str(tmp))


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_has_a_docstring_of_its_own(kind, name):
    entry = REGISTRIES[kind][name]
    assert entry.__doc__
    first = REGISTRIES[kind].describe(name).summary
    assert 10 < len(first) <= 100
    assert first.endswith((".", ":")) or ":" in first
    assert inspect.isfunction(entry) or entry.__doc__ not in {b.__doc__ for b in entry.__mro__[1:]}


@pytest.mark.parametrize(("kind", "name"), [e for e in ENTRIES if ours(*e)])
def test_lives_in_a_file_of_its_name_with_a_test_of_its_own(kind, name):
    module = REGISTRIES[kind][name].__module__
    assert module == f"vissl_lite.{FOLDER[kind]}.{name}"
    assert (ROOT / "tests" / FOLDER[kind] / f"test_{name}.py").is_file()


@pytest.mark.parametrize(("kind", "name"), [e for e in ENTRIES if ours(*e)])
def test_every_parameter_is_annotated(kind, name):
    parameters = inspect.signature(REGISTRIES[kind][name]).parameters.values()
    bare = [p.name for p in parameters if p.annotation is p.empty]
    assert bare == []


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_defaults_pass_their_own_check(kind, name):
    """A default that its own annotation refuses would make `group=name` fail."""
    given = GIVEN.get((kind, name), {})
    problems = REGISTRIES[kind].problems({"name": name, **given}, "here", name)
    assert [p for p in problems if "needs a value" not in p] == []


@pytest.mark.parametrize("name", of("source"))
def test_source(build, name):
    source = build("source", name)
    sample = source[0]
    assert len(source) > 0
    assert isinstance(sample, Sample)
    assert sample.name
    assert source.num_classes is None or source.num_classes > 0
    with pytest.raises(IndexError):
        source[len(source)]


@pytest.mark.parametrize("name", of("transform"))
def test_transform_takes_and_gives_rgb(build, name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8))
    before = np.asarray(image).copy()
    out = build("transform", name)(image, np.random.default_rng(1))
    assert out.mode == "RGB"
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize("name", of("trunk"))
def test_trunk_builds_from_defaults_on_the_meta_device(build, name):
    if name == "torchvision":
        pytest.skip("torchvision's constructors are not made for the meta device")
    with torch.device("meta"):
        trunk = build("trunk", name)
        layer, width = list(trunk.widths.items())[-1]
        out = trunk(torch.empty(2, 3, 224, 224), (layer,))[layer]
    assert out.shape[:2] == (2, width)
    assert trunk.units()


@pytest.mark.parametrize("name", of("head"))
def test_head_forward_backward_state(build, name):
    head = build("head", name)
    x_ND = torch.randn(6, 8, requires_grad=True)
    out = head(x_ND)
    outs = out if isinstance(out, list) else [out]
    outs = [o if isinstance(o, torch.Tensor) else o.unflatten(0, (6, 1)).mean() for o in outs]
    torch.stack([o.square().mean() for o in outs]).sum().backward()
    assert all(o.shape[0] == 6 and o.isfinite().all() for o in outs)
    assert x_ND.grad.isfinite().all()
    again = build("head", name)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=0, atol=0)


class Scorer(nn.Linear):
    def scores(self, z):
        return [self(z)]


@pytest.mark.parametrize("name", of("loss"))
def test_loss_is_finite_and_so_are_its_gradients(build, name):
    loss, scorer = build("loss", name), Scorer(8, 5, bias=False)
    z_VBD = torch.randn(2, 6, 8, requires_grad=True)
    outputs = SimpleNamespace(
        features=z_VBD,
        embedding=z_VBD,
        logits=scorer.scores(z_VBD),
        model=SimpleNamespace(scorer=scorer),
        teacher=None,
    )
    tags = Tags.pack([[0, 1], [], [2], [3], [4], [1, 2]])
    batch = Batch([], torch.arange(6), label_B=torch.arange(6) % 5, tags=tags)
    result = loss(outputs, batch)
    result = result if isinstance(result, dict) else {"loss": result}
    result["loss"].backward()
    assert result["loss"].shape == ()
    assert all(value.isfinite() for value in result.values())
    assert not any(value.requires_grad for key, value in result.items() if key != "loss")
    assert z_VBD.grad.isfinite().all()
    again = build("loss", name)
    again.load_state_dict(loss.state_dict())


@pytest.mark.parametrize("name", of("optimizer"))
def test_optimizer_goes_downhill(build, name):
    torch.manual_seed(0)
    p = nn.Parameter(torch.ones(4, 4))
    groups = [
        {"params": [p], "names": ["p"], "lr": 0.05, "weight_decay": 0.0, "lars_exclude": False}
    ]
    optimizer = build("optimizer", name, params=groups)
    for _ in range(5):
        optimizer.zero_grad()
        (p.square().sum()).backward()
        optimizer.step()
    assert p.square().sum() < 16
    state = optimizer.state_dict()
    build("optimizer", name, params=groups).load_state_dict(state)


@pytest.mark.parametrize("name", of("schedule"))
def test_schedule_is_finite_everywhere(build, name):
    schedule = build("schedule", name)
    values = [schedule(step / 100) for step in range(101)]
    assert np.isfinite(values).all()
    assert schedule(0.3) == schedule(0.3)


@pytest.mark.parametrize("name", sorted({*of("hook")} - {"probe"}))  # it gets its state on_start
def test_hook_state_round_trip(build, name):
    state = build("hook", name).state_dict()
    again = build("hook", name)
    again.load_state_dict(state)
    assert repr(again.state_dict()) == repr(state)


@pytest.mark.parametrize("name", of("evaluation"))
def test_evaluation_builds(build, name):
    assert callable(build("evaluation", name).evaluate)


@pytest.mark.parametrize("name", of("logger"))
def test_logger_takes_every_kind_of_record(build, name, tmp_path):
    logger = build("logger", name, run_dir=tmp_path)
    for kind in ("start", "train", "eval", "note", "end"):
        logger.log(
            {"kind": kind, "step": 1, "loss": 0.5, "name": "knn", "text": "x", "reason": "y"}
        )
    logger.close()


def test_no_two_uses_of_random_numbers_share_a_stream():
    pattern = re.compile(r"^(?:ORDER|UNIFORMS|STREAM) = (\d+)", re.MULTILINE)
    files = (ROOT / "vissl_lite").rglob("*.py")
    streams = [int(number) for file in files for number in pattern.findall(file.read_text())]
    assert len(streams) > 10
    assert len(set(streams)) == len(streams)
