"""The command as a user types it, its page and its data."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from vissl_lite.errors import ConfigError
from vissl_lite.failures import block
from vissl_lite.overrides import compose
from vissl_lite.plan.command import main, plan_of
from vissl_lite.plan.html import page
from vissl_lite.plan.table import WIDTH

SMALL = ["config=quickstart", "world_size=4", "gpu=v100-16gb", "batch=4"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """One for all of this file: most ask for the same plan."""
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path_factory.getbasetemp() / "plan_command"))


def test_prints_a_table_and_names_the_fastest(capsys):
    main(SMALL)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("quickstart: ")
    assert [line.split()[:2] for line in lines if line.startswith("zero3")] == [
        ["zero3", "none"],
        ["zero3", "selective"],
        ["zero3", "block"],
    ]
    assert "hsdp" not in out  # one machine: the same as zero3
    assert "Fastest that fits into 13.8 GiB: parallel.strategy=reference_ddp" in out
    assert sum(" best" in line for line in lines) == 1


class Page(HTMLParser):
    """Counts cells, notes what stays open."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag, attrs):
        self.cells += tag == "td"
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_writes_page_and_data(tmp_path, capsys):
    written, data = tmp_path / "plan.html", tmp_path / "plan.json"
    main([*SMALL, f"html={written}", f"json={data}"])
    text = written.read_text()
    parser = Page()
    parser.feed(text)
    assert parser.open == []
    assert parser.cells == 4 * 3 * 15
    assert "http" not in text  # nothing is fetched
    kept = json.loads(data.read_text())
    assert len(kept["cells"]) == 4 * 3
    assert kept["cells"][0]["peak"] == sum(kept["cells"][0]["memory"].values())


def test_a_page_escapes_what_it_shows():
    plan = plan_of(compose(["config=quickstart"]), {"batch": "4"})
    text = page(replace(plan, recipe="<i>"), "<b>")
    assert "<code>&lt;b&gt;</code>" in text
    assert "<b>" not in text
    assert "<i>:" not in text


def test_is_quick_the_second_time(monkeypatch, capsys):
    main(SMALL)
    first = capsys.readouterr().out
    monkeypatch.setattr("vissl_lite.plan.subject.trace_step", None)
    main(SMALL)
    assert capsys.readouterr().out == first


def test_data_need_not_exist():
    config = compose(["config=pretrain/seer/regnety_32gf", "train.batch_size=64"])
    assert config.recipe == "pretrain/seer/regnety_32gf"
    assert config.train.batch_size == 64


def test_data_that_is_needed_and_does_not_exist():
    words = ["config=pretrain/hashtag/regnety_16gf", "batch=4"]
    with pytest.raises(ConfigError, match="where the last head has its out_dim"):
        main(words)


def test_usage(capsys):
    main([])
    assert capsys.readouterr().out.startswith("usage: vissl-lite plan config=RECIPE")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["world_size=4"], "config: no recipe given"),
        (["config=quickstart", "world_size=many"], "world_size: 'many' is not a number"),
        (["config=quickstart", "gpu=v1000"], "gpu: unknown 'v1000'"),
        (["config=quickstart", "gpu_memory=0"], "gpu_memory: '0' is no size"),
        (["config=quickstart", "html=no/where.html"], "/no; make it, or name another file"),
        (["config=quickstart", "json="], "json: . is a folder; name a file in it"),
        (["config=quickstart", "world_sise=4"], "did you mean 'world_size'?"),
        (["config=quickstart", "loss.temprature=1"], "did you mean 'temperature'"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(ConfigError) as error:
        main(words)
    assert message in block(error.value)
