"""What was run: the comment of a recipe as a table, and how long a run took."""

import re
from html import unescape

import pytest

from vissl_lite.plugins import recipe_files
from vissl_lite.report.about import about, facts, shown_card
from vissl_lite.report.runs import Run, card

START = {"kind": "start", "global_batch": 100, "resumed_step": 0}
CONFIG = {"loss": {"a<b": "x" * 200}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").touch()
    return tmp_path


def rated(step, rate):
    return {"kind": "train", "step": step, "images_per_s": rate}


def test_every_word_of_every_card_is_shown():
    for text in filter(None, map(card, recipe_files())):
        shown = shown_card(text).partition("<table>")[2]
        words = unescape(re.sub("<[^>]+>", " ", shown)).split()
        title, _, entries = text.partition("\n")
        entries = re.sub(r"^(\w[^:\n]*):", r"\1 ", entries, flags=re.MULTILINE)
        assert words == f"{title} {entries}".split()
    assert shown_card("Mine\n\nas I like < it") == "<pre>Mine\n\nas I like &lt; it</pre>"


def test_the_time_is_that_of_the_steps_until_the_run_has_ended(folder):
    records = [START, rated(10, 100.0), rated(30, 50.0)]  # 10 s and 40 s
    assert facts(Run(folder, {}, records))["time"] == "0:50 for the steps alone"
    resumed = [{**START, "resumed_step": 20}, rated(30, 10.0)]  # 100 s more
    assert facts(Run(folder, {}, records + resumed))["time"] == "2:30 for the steps alone"
    end = {"kind": "end", "reason": "done", "seconds": 65.0}
    assert facts(Run(folder, {}, [*records, end]))["time"] == "1:05"


def test_long_words_can_be_broken(folder):
    text = about(Run(folder, CONFIG, []))
    assert f"<code>{folder}</code>" in text
    assert '<th scope="row">loss.<wbr>a&lt;b</th><td><code>&quot;xxx' in text
    assert f"{'x' * 158}…</code>" in text
