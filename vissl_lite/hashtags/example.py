"""Images with captions as people write them, to try the three commands on.

    images/train/00000.png, images/test/...   mosaics of handwritten digits (source `digits_tags`)
    captions.parquet, test.parquet            image, caption
    aliases.tsv, block.txt                    for `hashtags build --aliases`, `--block`

What an image shows, a 3 beside a 7, is written as #threeseven, and less often as #Three_Seven,
#3and7, in other scripts, or with a wrong letter. Tags that say nothing of the image, #love, stand
between them, some images lack their tags, and some captions are empty.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vissl_lite.data.random import generator
from vissl_lite.errors import ConfigError
from vissl_lite.sources.digits import Split
from vissl_lite.sources.digits_tags import PAIRS, DigitsTags

ALIASES, BLOCK, CAPTIONS, TEST = "aliases.tsv", "block.txt", "captions.parquet", "test.parquet"
STREAM = 19  # of `generator`
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RUSSIAN = ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"]
HINDI = ["शून्य", "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ"]
CHINESE = list("零一二三四五六七八九")
SHARES = (0.50, 0.09, 0.08, 0.07, 0.07, 0.06, 0.05, 0.05, 0.03)  # of the `spellings`
NOISE = ("love", "instagood", "tbt", "nofilter", "latergram")
NOISY = 0.12  # probability of each of them
EMPTY = 0.01
BEFORE = ("on the way home", "look at this!", "wrote it myself", "exam no #1", "so tired today", "")
AFTER = ("", "", "more: x.com/#all", "thanks @anna", "a#b", "&#39;nuff said")


def spellings(pair: int) -> list[list[str]]:
    """The ways to write a pair of digits, each as the words of one tag; the first is canonical.

    English, with an underscore, in the other order, in Chinese, in digits, with a letter left out,
    in Hindi, in Russian, with two letters swapped.
    """
    a, b = PAIRS[pair]
    word = ENGLISH[a] + ENGLISH[b]
    return [
        [ENGLISH[a], ENGLISH[b]],
        [ENGLISH[a], "_", ENGLISH[b]],
        [ENGLISH[b], "and", ENGLISH[a]],
        [CHINESE[a], CHINESE[b]],
        [str(a), "and", str(b)],
        [word[:2] + word[3:]],
        [HINDI[a], HINDI[b]],
        [RUSSIAN[a], RUSSIAN[b]],
        [word[:-2] + word[-1] + word[-2]],
    ]


def write_example(folder: Path, images: int, test: int, seed: int) -> None:
    """Writes `images` captioned images to learn from and `test` held-out ones, of other digits.

    The same files for the same arguments.

    Raises:
        ConfigError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"hashtags example: {folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in (
        (CAPTIONS, _rows(folder, "train", images, seed)),
        (TEST, _rows(folder, "test", test, seed)),
    ):
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / table)
    lines = ["\t".join(map("".join, spellings(pair))) for pair in range(len(PAIRS))]
    (folder / ALIASES).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / BLOCK).write_text("\n".join(NOISE) + "\n", encoding="utf-8")


def _rows(folder: Path, split: Split, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Writes the images of a split and gives their rows."""
    source = DigitsTags(count, split=split, seed=seed)
    (folder / "images" / split).mkdir(parents=True)
    for i in range(count):
        name, sample = f"images/{split}/{i:05}.png", source[i]
        Image.fromarray(sample.image).save(folder / name)
        rng = generator(seed, ("train", "test").index(split), i, 0, STREAM)
        yield {"image": name, "caption": caption(list(sample.tags or ()), rng)}


def caption(pairs: list[int], rng: np.random.Generator) -> str:
    """A few words, the pairs as tags in any order, and tags that mean nothing."""
    if rng.random() < EMPTY:
        return ""
    tags = [_written(pair, rng) for pair in pairs]
    tags += [_cased([word], rng) for word in NOISE if rng.random() < NOISY]
    tags += [f"day{rng.integers(10**6)}"] if rng.random() < NOISY else []  # of one image only
    shuffled = [f"#{tags[i]}" for i in rng.permutation(len(tags))]
    return " ".join(filter(None, [rng.choice(BEFORE), *shuffled, rng.choice(AFTER)]))


def _written(pair: int, rng: np.random.Generator) -> str:
    return _cased(spellings(pair)[rng.choice(len(SHARES), p=SHARES)], rng)


def _cased(words: list[str], rng: np.random.Generator) -> str:
    """threeseven, ThreeSeven or THREESEVEN."""
    how = (str, str.capitalize, str.upper)[rng.choice(3, p=(0.6, 0.3, 0.1))]
    return "".join(map(how, words))
