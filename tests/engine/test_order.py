"""The sampler of a config: what it draws, what it says, what it refuses."""

import numpy as np
import pytest
import torch
from training import small

from vissl_lite import SOURCES, ConfigError
from vissl_lite.data.balance import tag_counts, tag_factors
from vissl_lite.engine.order import build_order, classes_of
from vissl_lite.engine.parts import Parts

TAGS = "++data.source={name: digits_tags, n: 2000}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))


def drawn_counts(config):
    source = SOURCES.build(config.data.source)
    order, notes = build_order(config, source)
    values, offsets = classes_of(source, "digits_tags")
    drawn = order.indices(0, np.arange(len(order)))
    rows = [values[offsets[i] : offsets[i + 1]] for i in drawn]
    return source, np.bincount(np.concatenate(rows), minlength=55), len(order), notes


@pytest.mark.parametrize("balance", ["sqrt", "uniform"])
def test_drawn_tags_are_the_expected_ones(balance):
    words = [TAGS, f"++data.sampler={{balance: {balance}, threshold: 0.05}}"]
    source, drawn_V, length, notes = drawn_counts(small(*words))
    values, offsets = classes_of(source, "digits_tags")
    factor_V = tag_factors(tag_counts(values, 55), 2000, balance, 0.05, 1.0)
    expected_V = np.zeros(55)
    total = 0.0
    for i in range(2000):
        tags = values[offsets[i] : offsets[i + 1]]
        r = max([1.0, *factor_V[tags]])
        expected_V[tags] += r
        total += r
    assert length == round(total)
    assert np.abs(drawn_V - expected_V).max() <= 3 + 0.05 * expected_V.max()
    chi_square = ((drawn_V - expected_V) ** 2 / expected_V).sum()
    assert chi_square < 30  # systematic sampling: far below the 55 of independent draws
    assert f"sampler: {balance}, threshold 0.05: 2,000 images make epochs of {length:,}" in notes[0]


def test_without_balance_every_image_once():
    _, _, length, notes = drawn_counts(small(TAGS))
    assert (length, notes) == (2000, [])


def test_labels_are_balanced_as_tags():
    words = "++data.sampler={balance: uniform, threshold: 0.2}"
    config = small("++data.source={name: digits}", words)
    source = SOURCES.build(config.data.source)
    order, _ = build_order(config, source)
    labels = source.all_labels()[order.indices(0, np.arange(len(order)))]
    count = np.bincount(labels)
    assert count.max() - count.min() <= 0.06 * count.mean()  # labels had 138 to 148 images


def test_a_training_has_epochs_of_that_length():
    config = small(TAGS, "++data.sampler={balance: sqrt, threshold: 0.1}", "++train.batch_size=50")
    parts = Parts(config, torch.device("cpu"))
    order, _ = build_order(config, parts.source)
    assert len(order) > 2300
    assert parts.steps_per_epoch == len(order) // 50
    assert any(note.startswith("sampler: sqrt") for note in parts.notes)


class Plain:
    """A source of a third party, with images only."""

    num_classes = None

    def __len__(self):
        return 20


def test_a_source_without_tags_cannot_be_balanced():
    config = small("++data.sampler={balance: sqrt}")
    with pytest.raises(ConfigError, match=r"source .* has no tags or labels that are known"):
        build_order(config, Plain())


def test_a_mixture_has_weights_or_a_balance():
    digits = {"name": "digits"}
    mix = SOURCES.build({"name": "mix", "sources": [digits, digits], "weights": [1, 2]})
    with pytest.raises(ConfigError, match="a mixture with weights has its shares already"):
        build_order(small("++data.sampler={balance: sqrt}"), mix)
