"""Mistakes that users make, and the message that each one gets: docs/errors.md.

UPDATE_DOCS=1 pytest tests/test_errors.py      # writes the page anew
"""

import os
import re
from pathlib import Path

import pytest
from command import command
from training import small, trained

from vissl_lite import plugins
from vissl_lite.errors import did_you_mean

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"
FOLDER = "data/source=image_folder"
ROWS = [
    ("a typo in a key", ["optimizer.lrr=0.1"], 2),
    ("a typo in a name", ["loss=simclrr"], 2),
    ("a typo in a list element", ["data.views=[{size: 32, transforms: [random_resized_crp]}]"], 2),
    ("a wrong type", ["train.epochs=ten"], 2),
    ("a missing path", [FOLDER, "data.source.path={tmp}/phtoos"], 2),
    ("a recipe whose images are elsewhere", ["dataset=cifar10"], 2),
    ("an empty folder", [FOLDER, "data.source.path={tmp}/empty"], 2),
    ("unreadable images", [FOLDER, "data.source.path={tmp}/broken"], 2),
    ("resuming a run that is not there", ["resume={tmp}/runs/quickstart/2026-01-02"], 2),
    ("weights of another architecture", ["init={tmp}/run", "trunk.depth=34"], 2),
    ("no GPU for a CUDA setting", ["device=cuda"], 2),
    ("a batch that does not divide", ["train.batch_size=64", "train.accumulate=3"], 2),
    ("several mistakes at once", ["train.epoch=3", "loss.temprature=0.2", "seed=x"], 2),
]
PLUGIN = "a plugin that fails to import"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders that the mistakes need."""
    tmp = tmp_path_factory.mktemp("mistakes")
    for name in ("photos", "empty", "broken/dog"):
        (tmp / name).mkdir(parents=True)
    for i in range(200):
        (tmp / "broken" / "dog" / f"{i}.jpg").write_bytes(b"no jpeg")
    trained(small("++train.max_steps=1", "hooks=[checkpoint]"), tmp / "run")
    (tmp / "run" / "config.yaml").write_text("trunk: {name: resnet, depth: 18}\n")
    return tmp


def message(words, folders):
    """(exit code, what is printed on stderr) of a command line, in this process."""
    words = [word.replace("{tmp}", str(folders)) for word in words]
    if not words[0].startswith("resume"):
        words = ["config=quickstart", *words]
    done = command(*words, cwd=folders)
    text = re.sub(r"(?m)^(INFO|WARNING) .*\n", "", done.stderr)
    text = re.sub(r"/\S*/mistakes\d*", "/data", text)
    return done.returncode, re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", "DATE", text).strip()


@pytest.mark.parametrize(("mistake", "words", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_each_mistake_gets_its_sentence(mistake, words, code, folders, monkeypatch):
    if "device=cuda" in words:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("CIFAR10", raising=False)
    got, text = message(words, folders)
    assert got == code, text
    assert "Traceback" not in text
    line = " ".join(words).replace("{tmp}", "/data")
    section = f"## {mistake}\n\n`{line}`\n\n```\n{text}\n```\n"
    check_page(mistake, section)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train.accumulate=0"], "train.accumulate: 0; needs 1 or more"),
        (["train.grad_cache=0"], "train.grad_cache: 0; needs 1 or more"),
        (
            ["parallel.strategy=hsdp", "parallel.shard_size=0"],
            "parallel.shard_size: 0; needs 1 or more",
        ),
    ],
)
def test_nothing_is_divided_by_zero(words, sentence, folders):
    code, text = message([*words, "device=cpu", "hooks=[]"], folders)
    assert code == 2
    assert text.startswith(f"config error\n  {sentence}")


@pytest.mark.parametrize("word", ["data.views=[{size: 32", "train.epochs=1=2", "recipe=(x"])
def test_what_cannot_be_read_is_named(word, folders):
    code, text = message([word], folders)
    assert code == 2
    assert text.startswith(f"config error\n  {word} cannot be read; close every bracket and quote;")


@pytest.mark.parametrize(
    ("word", "options", "meant"),
    [
        ("lrr", ["betas", "lr"], "lr"),
        ("temp", ["weight", "temperature"], "temperature"),
        ("temperatures_of_all", ["weight", "temperature"], "temperature"),
        ("kep", ["every_steps", "keep_last"], "keep_last"),
        ("x", ["xylem"], None),
        ("xylem", ["x", "y_z"], None),
        ("seed", ["every_epochs"], None),
    ],
)
def test_what_was_meant(word, options, meant):
    assert did_you_mean(word, options) == (f"; did you mean {meant!r}?" if meant else "")


def test_a_plugin_that_fails_to_import_stops_nobody(tmp_path, monkeypatch, caplog):
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vissl_lite.plugins]\nacme = acme_parts\n")
    (tmp_path / "acme_parts.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    failed = plugins._load_third_parties()
    assert isinstance(failed["acme"], ModuleNotFoundError)
    assert not any(name != "acme" for name in failed)
    check_page(
        PLUGIN, f"## {PLUGIN}\n\nThe run goes on.\n\n```\nWARNING {caplog.messages[-1]}\n```\n"
    )


def check_page(title, section):
    """The page has exactly this section; with UPDATE_DOCS=1 it gets it."""
    titles = [row[0] for row in ROWS] + [PLUGIN]
    found = re.findall(
        r"(?ms)^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text() if PAGE.exists() else ""
    )
    sections = {name: f"## {name}\n{body}" for name, body in found}
    if os.environ.get("UPDATE_DOCS"):
        sections[title] = section
        head = (
            "# What mistakes look like\n\nExit code 2, no traceback, nothing lost."
            " This page is written by `UPDATE_DOCS=1 pytest tests/test_errors.py`.\n\n"
        )
        body = "\n\n".join(sections[name].strip() for name in titles if name in sections)
        PAGE.write_text(f"{head}{body}\n")
    else:
        assert sections[title].strip() == section.strip()
