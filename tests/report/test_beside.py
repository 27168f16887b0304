"""Pictures of several runs on one page: the same images asked for, one column for each run."""

import dataclasses
import re
import shutil

import pytest
import torch
from report.browser import CHROMIUM, probe

from vissl_lite.report.beside import Seen, asked
from vissl_lite.report.look import Looker
from vissl_lite.report.report import write_report
from vissl_lite.report.runs import Run

CPU = torch.device("cpu")
COLUMN = re.compile(r"<figure><figcaption>(first|second|third)</figcaption>")


@pytest.fixture(scope="module")
def folders(run_dir, tmp_path_factory):
    """The run, the same with other views, and the same without a checkpoint."""
    second, third = (tmp_path_factory.mktemp("others") / name for name in ("second", "third"))
    shutil.copytree(run_dir, second)
    config = second / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    third.mkdir()
    shutil.copy(run_dir / "config.yaml", third)
    return [run_dir, second, third]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "three.html"
    [why] = write_report(folders, file, CPU)
    assert why == "Neighbours and map of third: the run has no complete checkpoint."
    return file


def of(page, title):
    """The section with this heading."""
    return page.read_text().partition(f">{title}</h2>")[2].partition("</section>")[0]


def test_runs_with_the_same_views_share_them(page):
    names = re.findall(r"<figure><figcaption>([^<]+)</figcaption><p>", of(page, "Views"))
    assert names == ["first, third", "second"]


def test_the_same_images_are_asked_for(page):
    text = of(page, "Nearest neighbours")
    assert COLUMN.findall(text) == ["first", "second"] * 6
    assert text.count("<img") == 6 * 2 * (1 + 3)
    wanted = re.findall(r'alt="asked for: ([^"]+)"', text)
    assert wanted[::2] == wanted[1::2]
    assert len(set(wanted)) == 6
    assert text.count("<td>checkpoint step-00000006</td><td>all 359 images of labelled.test") == 2


def test_a_map_for_each_run_and_its_words_once(page):
    text = of(page, "Map of the features")
    assert COLUMN.findall(text) == ["first", "second"]
    assert text.count("<p>60 images placed by t-SNE") == 1


def test_looks_at_different_numbers_of_images(run_dir):
    """The same images at other places; another source has images of its own."""
    look = Looker(Run.read(run_dir), CPU).split("test")
    assert look is not None
    third = dataclasses.replace(
        look, indices_N=look.indices_N[::3], label_N=look.label_N[::3], x_ND=look.x_ND[::3]
    )
    same, other = {"name": "digits"}, {"name": "fake"}
    seen = [Seen("a", same, look), Seen("b", other, look), Seen("c", same, third)]
    lines = asked(seen)
    assert [set(places) for places in lines] == 6 * [{0, 2}] + 6 * [{1}]
    for places in lines[:6]:
        assert look.indices_N[places[0]] == third.indices_N[places[2]]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_in_a_browser(page, tmp_path):
    for width in (390, 1280):
        found = probe(page, width, tmp_path)
        assert (found["scroll"], found["wide"], found["broken"]) == (width, [], 0)
        assert found["images"] == 2 * 4 * 2 + 6 * 2 * 4  # crops, neighbours
