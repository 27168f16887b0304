"""Shares of tags, as expected and as drawn, of a run that balances them."""

import re
from pathlib import Path

import numpy as np
import pytest
from training import small

from vissl_lite import SOURCES
from vissl_lite.engine.order import balanced, classes_of
from vissl_lite.report import frequencies
from vissl_lite.report.runs import Run

WORDS = (
    "++data.source={name: digits_tags, n: 1000}",
    "++data.sampler={balance: sqrt, threshold: 0.05}",
)


def run_of(*words):
    run = Run(Path("run"), {}, [])
    run.__dict__["config"] = small(*words)  # in place of a file
    return run


@pytest.mark.parametrize("size", [None, 300])
def test_drawn_tags_are_those_of_the_images_in_the_order(size):
    config = small(*WORDS)
    source = SOURCES.build(config.data.source)
    order, expected_V, _ = balanced(config, source)
    size = size or len(order)
    found_V = frequencies.drawn(order, size, *classes_of(source, ""), 55)
    index_B = order.indices(0, np.arange(size))
    naive_V = np.bincount([tag for i in index_B for tag in source[i].tags], minlength=55)
    assert (found_V == naive_V).all()
    assert expected_V.sum() * len(order) == pytest.approx(
        naive_V.sum() * len(order) / size, rel=0.1
    )


def test_the_table_shows_natural_expected_and_drawn_shares():
    text = str(frequencies.frequencies(run_of(*WORDS)))
    config = small(*WORDS)
    source = SOURCES.build(config.data.source)
    order, expected_V, _ = balanced(config, source)
    count_V = np.bincount(classes_of(source, "")[0], minlength=55)
    top = int(count_V.argmax())
    cells = re.findall(rf"<th scope=\"row\">{source.classes[top]}</th>(.*?)</tr>", text)[0]
    rank, natural, expected, drawn = re.findall(r">([\d.,e-]+)<", cells)
    assert rank == "1"
    assert float(natural) == pytest.approx(count_V[top] / 1000, rel=1e-3)
    assert float(expected) == pytest.approx(expected_V[top], rel=1e-3)
    drawn_V = frequencies.drawn(order, len(order), *classes_of(source, ""), 55)
    assert float(drawn) == pytest.approx(drawn_V[top] / len(order), rel=1e-3)
    assert abs(drawn_V[top] - expected_V[top] * len(order)) < 8
    assert f"1,000 images make epochs of {len(order):,}. What is drawn was counted over all" in text


def test_without_balance_there_is_none():
    assert frequencies.frequencies(run_of(WORDS[0])) is None


def test_stretches_cover_every_rank_once():
    for count in (1, 2, 55, 1_500_000):
        starts = frequencies.stretches(count)
        assert starts[0] == 0
        assert starts[-1] < count
        assert len(starts) <= frequencies.POINTS
        assert (np.diff(starts) > 0).all()
