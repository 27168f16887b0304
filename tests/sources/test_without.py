"""A source less the images of a list equals the source with these images deleted."""

import itertools

import numpy as np
import pytest

from vissl_lite import SOURCES, ConfigError
from vissl_lite.plugins import load_entries
from vissl_lite.sources.without import read_list, write_list

TAGS = {"name": "digits_tags", "n": 50}


@pytest.fixture(autouse=True)
def entries():
    load_entries()


def listed(folder, source, places):
    built = SOURCES.build(source)
    write_list(folder / "out.tsv", {i: built[i].name for i in places})
    return {"name": "without", "source": source, "list": str(folder / "out.tsv")}


@pytest.mark.parametrize("places", [[0], [49], [3, 4, 5, 17, 49], [0, 1, 2], list(range(49)), []])
def test_equals_the_source_with_these_images_deleted(tmp_path, places):
    whole = SOURCES.build(TAGS)
    kept = [i for i in range(50) if i not in places]
    found = SOURCES.build(listed(tmp_path, TAGS, places))
    assert len(found) == len(kept)
    assert [found[i].name for i in range(len(found))] == [whole[i].name for i in kept]
    assert [found[i].tags for i in range(len(found))] == [whole[i].tags for i in kept]
    values, offsets = found.all_tags()
    rows = [values[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert rows == [whole[i].tags for i in kept]
    assert (found.images() == whole.images()[kept]).all()
    assert (found.num_classes, found.classes) == (55, whole.classes)


def test_labels_are_kept(tmp_path):
    digits = SOURCES.build({"name": "digits"})
    found = SOURCES.build(listed(tmp_path, {"name": "digits"}, [2, 7]))
    assert (found.all_labels() == np.delete(digits.all_labels(), [2, 7])).all()
    assert found[2].label == digits[3].label


def test_names_may_hold_tabs_and_ends_of_lines(tmp_path):
    write_list(tmp_path / "out.tsv", {7: "a\tb", 2: "ü 東", 9: "c\n5\td"})
    index, names = read_list(tmp_path / "out.tsv")
    assert (index.tolist(), names) == ([2, 7, 9], ["ü 東", "a\tb", "c 5\td"])


@pytest.mark.parametrize("text", ["", "a\nb\n", "index\tname\nx\ty\n", "index\tname\n3\n"])
def test_another_form_is_refused(tmp_path, text):
    (tmp_path / "out.tsv").write_text(text)
    config = {"name": "without", "source": TAGS, "list": str(tmp_path / "out.tsv")}
    with pytest.raises(ConfigError, match="is no list of images"):
        SOURCES.build(config)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({60: "x"}, "has images that .* has not"),
        ({3: "digits_tags/test/3"}, "image 3 is 'digits_tags/test/3' in .* another source"),
        ({i: f"digits_tags/train/{i}" for i in range(50)}, "leaves nothing"),
    ],
)
def test_a_list_for_another_source_is_refused(tmp_path, rows, message):
    write_list(tmp_path / "out.tsv", rows)
    config = {"name": "without", "source": TAGS, "list": str(tmp_path / "out.tsv")}
    with pytest.raises(ConfigError, match=message):
        SOURCES.build(config)
