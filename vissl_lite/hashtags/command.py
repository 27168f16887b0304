"""`vissl-lite hashtags example|build|show|predict`: from captions to predicted tags."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.hashtags.build import Rules, build
from vissl_lite.hashtags.example import ALIASES, BLOCK, CAPTIONS, write_example
from vissl_lite.hashtags.folder import PAGE
from vissl_lite.hashtags.page import facts
from vissl_lite.hashtags.read import Captions, Columns
from vissl_lite.hashtags.show import show, show_tag
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.sources._source import existing, existing_file, shown
from vissl_lite.words import Parser, cores, whole

USAGE = """usage: vissl-lite hashtags build FILE [FILE ...] --out DIR [options]
       vissl-lite hashtags show DIR [TAG]
       vissl-lite hashtags predict RUN SOURCE [key=value ...] --out FILE [options]
       vissl-lite hashtags example DIR [--images 6000] [--test 2000] [--seed 0]

build    counts the hashtags of captions, merges them into classes (rules: docs/hashtags.md)
show     what a vocabulary holds, or one tag: its class, the members of it, some images
predict  the most probable tags of images; more with vissl-lite hashtags predict --help
example  writes small images with captions, aliases.tsv and block.txt, to try all this on

FILE is a .csv, .tsv, .jsonl, .ndjson, .parquet, .arrow or .feather file, or a pattern of them.

--out DIR             new or empty
--image-column NAME   path or id of the image; default "image"
--caption-column NAME text with #tags; default "caption", unless --tags-column is given
--tags-column NAME    lists of tags, or texts with white space, commas or semicolons between tags
--root DIR            folder that relative images start from; default: that of each file
--min-count N         least number of images of a class; default 1
--top N               keep the N most frequent classes; default: all
--wordnet DIR         merge the synonyms of WordNet, such as /usr/share/wordnet of wordnet-base
--nouns               keep only tags that are nouns of WordNet
--aliases FILE        lines "tag TAB alias TAB alias ..." to merge; they precede WordNet
--block FILE          tags to leave out, one per line
--targets FILE        keep only what matches one of these classes: a line has names with commas
                      between them, or an ImageNet id such as n02132136
--vocabulary DIR      take the classes of this vocabulary as they are, for held-out or later
                      captions, and tell how far it covers them; in place of the seven above
--processes N         default: all cores. The result does not depend on it
"""


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code.

    Raises:
        ConfigError: a mistake in the words, or something wrong with the files.
    """
    if words[:1] == ["predict"]:  # has more to say
        return _predict(words[1:])
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    if words[0] not in COMMANDS:
        close = did_you_mean(words[0], COMMANDS) or ";"
        raise ConfigError(f"hashtags: unknown {words[0]!r}{close} there are: {', '.join(COMMANDS)}")
    try:
        return COMMANDS[words[0]](words[1:])
    except BuildStopped as error:
        print(f"hashtags {words[0]}: {error}", file=sys.stderr)
        return 1


def _build(words: Sequence[str]) -> int:
    options = _parsed(words)
    captions = _captions(options, "hashtags build")
    rules = Rules(
        options.min_count,
        options.top,
        options.nouns,
        options.wordnet,
        options.aliases,
        options.block,
        options.targets,
        options.vocabulary,
    )
    out = Path(options.out).expanduser().absolute()
    numbers = build(captions, rules, out, options.processes)
    print(out)
    width = max(map(len, facts(numbers)))
    for name, value in facts(numbers).items():
        print(f"  {name:{width}}  {value}")
    print(f"  {'plots':{width}}  {out / PAGE}")
    print(f"  {'to read them':{width}}  {{name: table, path: {out}/images.parquet, tags: classes}}")
    if captions.long:
        print(
            f"note: texts of CSV longer than 64 KB: {captions.long:,}, the first of image"
            f" {shown(captions.first_long)[:80]!r}; where a quote is not closed, the rows behind it"
            " become part of the text"
        )
    return 0


def _show(words: Sequence[str]) -> int:
    if not 1 <= len(words) <= 2:
        raise ConfigError(
            f"hashtags show: needs a folder and perhaps a tag, got {len(words)} words"
        )
    folder = existing(words[0], "hashtags show")
    if len(words) == 1:
        show(folder)
    else:
        show_tag(folder, words[1])
    return 0


def _example(words: Sequence[str]) -> int:
    parser = Parser("hashtags example")
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--images", type=whole(1, 10**6), default=6000)
    parser.add_argument("--test", type=whole(1, 10**6), default=2000)
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0)
    options = parser.parse_args(words)
    folder = Path(options.folder).expanduser()
    write_example(folder, options.images, options.test, options.seed)
    print(f"{folder}: {options.images:,} images with captions, {options.test:,} to test on")
    print("next:")
    print(
        f"  vissl-lite hashtags build {folder}/{CAPTIONS} --aliases {folder}/{ALIASES}"
        f" --block {folder}/{BLOCK} --min-count 10 --out {folder}/vocab"
    )
    return 0


def _predict(words: Sequence[str]) -> int:
    from vissl_lite.hashtags.predict_command import main  # needs PyTorch

    return main(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "build": _build,
    "show": _show,
    "predict": _predict,
    "example": _example,
}


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("hashtags build")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--out", required=True)
    parser.add_argument("--image-column", default="image")
    for name in ("caption-column", "tags-column", "root"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--processes", type=whole(1, 4096), default=cores())
    for name in ("wordnet", "aliases", "block", "targets", "vocabulary"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--nouns", action="store_true")
    parser.add_argument("--min-count", type=whole(1, 10**12), default=1)
    parser.add_argument("--top", type=whole(1, 10**9))
    return parser.parse_intermixed_args(words)


def _captions(options: argparse.Namespace, command: str) -> Captions:
    caption = options.caption_column or (None if options.tags_column else "caption")
    return Captions(
        _files(options.files, command),
        Columns(options.image_column, caption, options.tags_column),
        existing(options.root, f"{command}: --root") if options.root else None,
    )


def _files(patterns: Sequence[str], command: str) -> list[Path]:
    """The files that all patterns mean, each once, sorted by path: their order does not matter."""
    found: set[Path] = set()
    for pattern in patterns:
        wanted = os.path.expanduser(pattern)
        if glob.has_magic(wanted) and not os.path.exists(wanted):
            files = [Path(file).absolute() for file in glob.glob(wanted, recursive=True)]
            if not files:
                raise ConfigError(f"{command}: no file fits {pattern!r}; check the folder")
        else:
            files = [existing_file(pattern, command)]
        found |= set(files)
    return sorted(found)
