"""Axes and lines; coordinates are checked against the numbers that they stand for."""

import math
import random
import re
from itertools import pairwise

import pytest

from vissl_lite.report.charts import (
    BOTTOM,
    HEIGHT,
    TOP,
    Scale,
    Series,
    bars,
    chart,
    log_ticks,
    short,
    sparkline,
    spread,
    thinned,
    ticks,
)


def test_a_logarithmic_axis_spaces_powers_of_ten_evenly():
    drawn = chart("a", [Series("", [1, 10, 100, 1000], [1, 2, 3, 4])], "rank", log_x=True)
    x = [float(found) for found in re.findall(r'cx="([\d.]+)"', drawn)]
    assert [b - a for a, b in pairwise(x)] == pytest.approx([(x[3] - x[0]) / 3] * 3, abs=0.2)
    assert re.findall(r">(1|10|100|1,000)</text>", drawn)[-4:] == ["1", "10", "100", "1,000"]
    assert "<svg" in chart("a", [Series("", [1], [2])], "rank", log_x=True)  # one rank


def test_ticks_are_round_and_few():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.56, 0.96) == [0.6, 0.7, 0.8, 0.9]
    assert ticks(-3, 12) == [0, 5, 10]
    rng = random.Random(0)
    for _ in range(500):
        low = rng.uniform(-1, 1) * 10 ** rng.randint(-6, 6)
        high = low + rng.random() * 10 ** rng.randint(-4, 6) + 1e-5
        found = ticks(low, high)
        assert 2 <= len(found) <= 6, (low, high)
        step = float(f"{found[1] - found[0]:.6g}")
        mantissa = round(step / 10 ** math.floor(math.log10(step) + 1e-9), 4)
        assert mantissa in (1, 2, 5, 10)
        tolerance = 1e-6 * (high - low) + 1e-9 * abs(low)
        assert low - tolerance <= found[0]
        assert found[-1] <= high + tolerance


def test_logarithmic_ticks():
    assert log_ticks(0.009, 120) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert log_ticks(0.9, 30) == pytest.approx([1, 2, 5, 10, 20])
    assert log_ticks(1.9, 4.1) == [2, 3, 4]


def test_a_line_is_where_its_numbers_are():
    text = chart("Loss", [Series("", [0, 1, 2], [0.0, 10.0, 5.0])], "epoch")
    d = re.search(r' d="M([^"]*)"', text)[1]
    (x0, y0), (x1, y1), (x2, y2) = [map(float, p.split()) for p in d.split("L")]
    high = 10 + 0.06 * 10  # a margin of 6 % above
    drawn = HEIGHT - TOP - BOTTOM
    for y, value in ((y0, 0), (y1, 10), (y2, 5)):
        assert y == pytest.approx(HEIGHT - BOTTOM - value / high * drawn, abs=0.06)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert text.count("<circle") == 3
    assert "<title>Loss</title>" in text
    assert "3 values, 0 to 10, last 5" in text


def test_a_gap_where_a_value_is_not_finite():
    series = Series("a", [0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])
    text = chart("Loss", [series, Series("b", [0, 3], [1.0, 2.0], 1)], "epoch")
    paths = re.findall(r' d="([^"]*)"', text)
    assert [(p.count("M"), p.count("L")) for p in paths] == [(2, 1), (1, 1)]
    assert 'stroke-dasharray="8 4"' in text  # not by colour alone
    assert text.count("<td") == 8  # the numbers of both, by epoch
    assert "No finite number" in chart("x", [Series("", [0], [math.nan])], "epoch")


def test_scales():
    assert (Scale.over([0.5, 1.0]).low, Scale.over([0.1, 1.0]).low) == (pytest.approx(0.47), 0.0)
    assert Scale.over([3.0, 3.0]).low < 3.0 < Scale.over([3.0, 3.0]).high
    log = Scale(1.0, 100.0, log=True)
    assert log(10.0) == pytest.approx(0.5)


def test_names_keep_apart_in_their_order():
    placed = spread([50, 52, 51, 190], 15, 12, 182)
    assert placed[0] < placed[2] < placed[1] < placed[3] <= 182
    gaps = [b - a for a, b in zip(sorted(placed), sorted(placed)[1:])]
    assert min(gaps) >= 15


def test_thinning_keeps_the_extremes():
    rng = random.Random(0)
    points = [(i, rng.gauss(0, 1)) for i in range(10_000)]
    points[4321] = (4321, 50.0)
    few = thinned(points, 300)
    assert len(few) <= 300
    assert few == sorted(few)
    assert {max(y for _, y in points), min(y for _, y in points)} <= {y for _, y in few}
    assert thinned(points[:300], 300) == points[:300]


def test_bars_and_short_numbers():
    text = bars("Use", [4.0, 2.0, 0.0], "prototypes")
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([^"]+)"', text)]
    assert heights == pytest.approx([170, 85, 0])
    assert [short(x) for x in (12345.6, 0.123456, 5e-5, math.inf, 0)] == [
        *("12,346", "0.1235", "5e-05", "inf", "0"),
    ]


def test_sparkline():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(1000)))) == 48
    assert sparkline([1.0, 1.0]) == "██"
