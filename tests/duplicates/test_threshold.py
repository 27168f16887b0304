"""The threshold of fewest mistakes, by trying all of them; samples; the table to fill in."""

import numpy as np
import pytest

from vissl_lite import ConfigError
from vissl_lite.duplicates.find import Pairs
from vissl_lite.duplicates.threshold import choose, read_sample, sample, write_sample


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_makes_fewer_mistakes(seed):
    rng = np.random.default_rng(seed)
    cosine = np.round(rng.uniform(0.5, 1, 30), 2)  # with ties
    same, weight = rng.random(30) < 2 * (cosine - 0.5), rng.uniform(1, 5, 30)

    def mistakes(t):
        taken = cosine >= t
        return (weight * (taken & ~same)).sum() + (weight * (~taken & same)).sum()

    threshold, sentence = choose(same, cosine, weight)
    tried = [mistakes(t) for t in [*cosine, *(cosine + 1e-6), 0, 1.1]]
    assert mistakes(threshold) == pytest.approx(min(tried))
    taken = cosine >= threshold
    precision = (weight * same)[taken].sum() / weight[taken].sum() if taken.any() else 1
    assert f"precision {precision:.3f}" in sentence


def test_all_the_same_and_all_different():
    cosine, weight = np.array([0.9, 0.8]), np.ones(2)
    assert choose(np.array([True, True]), cosine, weight)[0] <= 0.8
    assert choose(np.array([False, False]), cosine, weight)[0] > 0.9


def test_a_sample_stands_for_all_pairs():
    rng = np.random.default_rng(0)
    cosine = np.sort(rng.beta(8, 2, 2000))[::-1]
    index = np.arange(2000)
    pairs = Pairs(index, index, index * 0, cosine, 2000, np.zeros(1))
    chosen, weight = sample(pairs, 100)
    assert len(set(chosen.tolist())) == len(chosen) <= 100
    assert weight.sum() == pytest.approx(2000)
    tenths = np.histogram(cosine[chosen], 10, (cosine.min(), cosine.max()))[0]
    assert tenths.max() == 10
    assert (tenths[5:] == 10).all()


def test_the_table_is_read_back(tmp_path):
    rows = [("1", 0.9, 3, "a", "b", 1), ("", 0.8, 1, "c", "d", 2), ("0", 0.7, 2.5, "e", "f", 3)]
    write_sample(tmp_path / "sample.tsv", rows)
    same, cosine, weight = read_sample(tmp_path / "sample.tsv")
    assert (same.tolist(), cosine.tolist(), weight.tolist()) == (
        [True, False],
        [0.9, 0.7],
        [3, 2.5],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no file .*; run without --sample"),
        ("a\tb\n", r"is no sample\.tsv"),
        ("same\tcosine\tstands for\nyes\t1\t1\n", "'yes' in column 'same'; write 1 or 0"),
        ("same\tcosine\tstands for\n1\t1\t1\n\t1\t1\n", "has 1 judged pairs; fill in"),
        ("same\tcosine\tstands for\n1\t0,9\t1\n0\t0,8\t1\n", "without numbers .*'0,9'"),
    ],
)
def test_what_is_no_judged_sample(tmp_path, text, message):
    if text is not None:
        (tmp_path / "sample.tsv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_sample(tmp_path / "sample.tsv")
