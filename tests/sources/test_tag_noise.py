"""Tags are replaced as often as asked, by tags as frequent as in the source, always the same."""

from unittest.mock import patch

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.sources import tag_noise

TAGS = {"name": "digits_tags", "n": 3000, "exponent": 1.0}


def noisy(share, seed=0, source=TAGS):
    load_entries()
    return SOURCES.build({"name": "tag_noise", "source": source, "share": share, "seed": seed})


def rows_of(source):
    values, offsets = source.all_tags()
    return [values[offsets[i] : offsets[i + 1]].tolist() for i in range(len(source))]


def test_no_noise_changes_nothing():
    found = noisy(0)
    assert rows_of(found) == rows_of(found.source)
    assert (found.num_classes, found.classes, len(found)) == (55, found.source.classes, 3000)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_replaced_tags_follow_the_frequencies_of_the_source(share):
    """Of images with one tag: the share that changed, and what took its place, within 5 sigma."""
    found = noisy(share)
    pairs = [(a[0], b[0]) for a, b in zip(rows_of(found.source), rows_of(found)) if len(a) == 1]
    before, after = np.array(pairs).T
    p_V = np.bincount(found.source.all_tags()[0], minlength=55)
    p_V = p_V / p_V.sum()
    kept = 1 - share + share * p_V[before].mean()  # a draw may give the same tag again
    sigma = np.sqrt(0.25 / len(pairs))
    assert abs((before == after).mean() - kept) < 5 * sigma
    drawn_V = np.bincount(after[before != after], minlength=55)
    expected_V = p_V * len(after[before != after])
    top = np.argsort(-p_V)[:5]
    assert (
        np.abs(drawn_V - expected_V)[top] < 6 * np.sqrt(expected_V[top]) + 0.1 * expected_V[top]
    ).all()


def test_an_image_keeps_its_wrong_tags():
    """Asked for one by one, or all at once, chunk by chunk."""
    found = noisy(0.5)
    with patch.object(tag_noise, "CHUNK", 700):
        rows = rows_of(found)
    assert [found[i].tags for i in range(0, 3000, 10)] == rows[::10]
    assert rows_of(noisy(0.5, seed=1)) != rows


@pytest.mark.parametrize(
    ("share", "source", "message"),
    [(1.5, TAGS, "is no probability"), (0.5, {"name": "digits"}, "does not tell its tags")],
)
def test_what_it_refuses(share, source, message):
    with pytest.raises(ConfigError, match=message):
        noisy(share, source=source)
