"""Numbers of tags from several processes, each of which begins anew, become the same classes."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa

from vissl_lite.hashtags.passes import Found
from vissl_lite.hashtags.spill import Spill


class Numbering:
    """What a process says of batches; forgets its tags after every third."""

    def __init__(self, process):
        self.process, self.batches, self.tags = process, 0, []

    def __call__(self, rows):
        if self.batches % 3 == 0:
            self.tags = []
        self.batches += 1
        new = sorted({tag for row in rows for tag in row} - set(self.tags))
        self.tags += new
        numbers = [self.tags.index(tag) for row in rows for tag in row]
        counts, tags = np.array(list(map(len, rows)), np.int32), np.array(numbers, np.int32)
        dictionary = self.process, (self.batches - 1) // 3
        return Found(dictionary, new, counts, tags, Counter(), 0, 0)


def test_against_the_tags_themselves(tmp_path):
    draw, spill, all_rows = random.Random(0), Spill(tmp_path / "spill"), []
    processes = [Numbering(7), Numbering(3), Numbering(5)]
    class_of = {"東京": 0, "sun": 1, "t0": 2, "t1": 2, "t5": 3}
    words = [*class_of, *map("t{}".format, range(6, 30))]
    for batch in range(40):
        rows = [draw.sample(words, draw.randint(0, 5)) for _ in range(draw.randint(1, 20))]
        images = pa.array([f"{batch}/{i}" for i in range(len(rows))], pa.large_string())
        spill.add(images, draw.choice(processes)(rows))
        all_rows += rows
    spill.close()
    assert len(list(spill.folder.glob("*.txt"))) > 10
    assert dict(spill.counts.sorted()) == Counter(tag for row in all_rows for tag in row)
    found, names = [], []
    for images, counts_N, ids_T in spill.classes(class_of.get):
        found += [part.tolist() for part in np.split(ids_T, np.cumsum(counts_N)[:-1])]
        names += images.to_pylist()
    assert found == [sorted({class_of[tag] for tag in row if tag in class_of}) for row in all_rows]
    assert (names[0], len(names)) == ("0/0", len(all_rows))
