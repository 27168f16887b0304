"""What a run keeps of the classes that it was trained on."""

from types import SimpleNamespace

import pytest

from vissl_lite import ConfigError
from vissl_lite.engine.journal import keep_classes, read_classes


def test_names_are_kept_and_may_be_the_same_again(tmp_path):
    source = SimpleNamespace(classes=["cat", "東京", "two\nlines", ""])
    for _ in range(2):
        keep_classes(source, tmp_path / "run")
    assert read_classes(tmp_path / "run") == ["cat", "東京", "two lines", ""]


def test_a_run_does_not_go_on_with_other_classes(tmp_path):
    keep_classes(SimpleNamespace(classes=["cat", "dog"]), tmp_path)
    with pytest.raises(ConfigError, match=r"has other classes than those .*classes\.txt"):
        keep_classes(SimpleNamespace(classes=["dog", "cat"]), tmp_path)
    assert read_classes(tmp_path) == ["cat", "dog"]


def test_classes_without_names_leave_no_file(tmp_path):
    keep_classes(SimpleNamespace(classes=None), tmp_path)
    assert read_classes(tmp_path) is None
    assert not list(tmp_path.iterdir())
