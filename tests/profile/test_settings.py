"""Words of the command line, and the config that is measured."""

from pathlib import Path

import pytest
from training import small

from vissl_lite.errors import ConfigError
from vissl_lite.profile.settings import Settings, for_measuring, split_words


def test_settings_and_the_rest():
    words = ["config=quickstart", "steps=7", "train.batch_size=8", "images=resident", "json=a.json"]
    settings, rest = split_words(words)
    assert settings == Settings(steps=7, images="resident", json=Path("a.json"))
    assert rest == ["config=quickstart", "train.batch_size=8"]


def test_all_mistakes_at_once():
    words = ["steps=0", "warmup=x", "images=sintetic", "trace=/no/where.json", "json=a.txt"]
    with pytest.raises(ConfigError) as error:
        split_words(words)
    assert [problem.split(":")[1].strip() for problem in error.value.problems] == words
    assert "did you mean 'synthetic'" in str(error.value)


def test_a_source_that_is_not_there_is_replaced_and_named():
    missing = small("data/source=image_folder", "++data.source.path=/no/where")
    config, [note] = for_measuring(missing, Settings())
    assert config.data.source == {"name": "synthetic", "size": 18, "n": 1_000_000_000}
    assert "/no/where" in note
    kept, notes = for_measuring(missing, Settings(images="source"))
    assert kept.data.source == missing.data.source
    assert notes == []


def test_a_source_that_is_there_stays():
    config, notes = for_measuring(small(), Settings())
    assert config.data.source["name"] == "digits"
    assert notes == []


def test_a_loss_on_tags_gets_images_with_tags():
    config = small("loss=hashtag_softmax", "++heads=[linear]")
    measured, _ = for_measuring(config, Settings(images="synthetic"))
    assert measured.data.source["name"] == "digits_tags"


def test_long_enough_and_without_traces_in_the_file_system():
    config, _ = for_measuring(small("++train.max_steps=1"), Settings(steps=50))
    assert config.train.epochs >= 50 + 5 + 3
    assert config.train.max_steps is None
    assert config.loggers == config.hooks == {}
