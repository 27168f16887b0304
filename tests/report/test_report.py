"""Whole pages: of a run, of what is missing, of several; and in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from command import command
from PIL import Image
from report.browser import CHROMIUM, probe, screenshot

from vissl_lite.report.report import write_report

CPU = torch.device("cpu")
VOID = {"br", "img", "meta", "wbr"}
SECTIONS = [
    *("What was run", "Diagnosis", "Evaluations", "Training", "Speed and memory", "Views"),
    *("Nearest neighbours", "Map of the features", "Prototypes", "Confusion of a linear probe"),
]


class Checked(HTMLParser):
    """Every tag is closed in order; keeps headings, pictures and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.addresses = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        if name == "img":
            self.images.append(given)
        self.addresses += [given[key] for key in ("src", "href") if key in given]
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.addresses += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append((int(self.open[-1][1]), text))


@pytest.fixture(scope="module")
def report(run_dir, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report([run_dir], file, CPU) == []
    return file


def test_every_section_is_there_and_nothing_comes_from_elsewhere(report):
    text = report.read_text()
    page = Checked(text)
    assert [title for level, title in page.headings if level == 2] == SECTIONS
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(image["alt"] for image in page.images)
    assert all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert len(text) < 1_000_000
    assert text.count("<svg") == text.count('role="img"') == text.count("<title>") - 1


def test_what_is_missing_is_said(run_dir, tmp_path):
    shutil.copy(run_dir / "config.yaml", tmp_path)
    missing = write_report([tmp_path], tmp_path / "a.html", CPU)
    [why] = missing
    assert why.startswith("Neighbours, map, prototypes and confusion: the run has no complete")
    headings = [title for _, title in Checked((tmp_path / "a.html").read_text()).headings]
    assert headings[1:] == ["What was run", "Diagnosis", "Training", "Views", "Left out"]
    tree = (run_dir / "config.yaml").read_text().replace("name: digits", "name: image_folder")
    (tmp_path / "config.yaml").write_text(tree)
    missing = write_report([tmp_path], tmp_path / "b.html", CPU)
    assert missing[0].startswith("Views: ")


def test_a_run_that_evaluates(run_dir, tmp_path):
    text = (run_dir / "config.yaml").read_text().replace("epochs: 1", "epochs: 0")
    (tmp_path / "config.yaml").write_text(text.replace("init: null", f"init: {run_dir}"))
    record = {"kind": "eval", "name": "knn", "step": 0, "top1": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert write_report([tmp_path], tmp_path / "a.html", CPU) == []
    found = [title for level, title in Checked((tmp_path / "a.html").read_text()).headings]
    assert "Views" not in found
    assert {"Evaluations", "Nearest neighbours", "Prototypes"} <= set(found)


def test_several_runs(run_dir, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    text = (run_dir / "config.yaml").read_text().replace("temperature: 0.1", "temperature: 0.2")
    (other / "config.yaml").write_text(text)
    shutil.copy(run_dir / "metrics.jsonl", other)
    write_report([run_dir, other], tmp_path / "two.html", CPU, pictures=False)
    text = (tmp_path / "two.html").read_text()
    Checked(text)
    assert '<th scope="row">loss.<wbr>temperature</th>' in text
    assert text.count('stroke-dasharray="8 4"') == text.count("<svg")  # the second in every chart
    assert '<th scope="row">second</th>' in text
    assert "optimizer.lr" not in text  # what is the same


def test_the_command(run_dir, tmp_path):
    done = command("report", str(run_dir), "--out", "a.html", "--brief", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"wrote a.html \(\d+\.\d kB\)\n", done.stdout)
    done = command("report", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path} is no run" in done.stderr
    done = command("report", *9 * [str(run_dir)], cwd=tmp_path)
    assert (done.returncode, "9 runs; at most 8 can be told apart" in done.stderr) == (2, True)
    done = command("report", str(run_dir), "--out", "no/a.html", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
    done = command("report", str(run_dir), "--out", ".", cwd=tmp_path)
    assert (done.returncode, "is a folder; name a file" in done.stderr) == (2, True)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_in_a_browser(report, tmp_path):
    for width in (390, 1280):
        found = probe(report, width, tmp_path)
        assert found["width"] == found["scroll"] == width
        assert found["wide"] == []
        assert found["broken"] == 0
        assert found["images"] > 40
        matrix = "Images of each class (row) by the class they were taken for (column)"
        assert found["scrolled"] == ([matrix] if width == 390 else [])
        screenshot(report, width, 3000, tmp_path / "page.png", tmp_path)
        with Image.open(tmp_path / "page.png") as shot:
            colours = shot.convert("RGB").crop((0, 0, width, 3000)).getcolors(2**24)
        assert len(colours) > 200  # it is drawn, not blank
