"""A vocabulary in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.hashtags.folder import IMAGES, STATISTICS, examples, read_classes, read_json
from vissl_lite.hashtags.page import facts
from vissl_lite.hashtags.tags import tag_of
from vissl_lite.hashtags.vocabulary import TagClass
from vissl_lite.sources._hashtags import CLASSES, check_together
from vissl_lite.sources._source import shown

TOP, TAIL, MERGED, MEMBERS, EXAMPLES = 10, 5, 10, 6, 5


def show(folder: Path) -> None:
    """Prints the statistics, the most and least frequent classes and the largest merged ones."""
    classes = read_classes(folder)
    check_together(folder / IMAGES, folder / CLASSES)
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in facts(read_json(folder / STATISTICS)).items():
        table.add_row(name, value)
    console.print(table)
    numbered = list(enumerate(classes))
    merged = sorted(
        (pair for pair in numbered if len(pair[1].members) > 1),
        key=lambda pair: (-len(pair[1].members), pair[0]),
    )
    _print(console, "most frequent", numbered[:TOP])
    _print(console, "least frequent", numbered[max(TOP, len(numbered) - TAIL) :])
    _print(console, "merged from most tags", merged[:MERGED])


def show_tag(folder: Path, word: str) -> None:
    """Prints the class that a tag belongs to, its members and some of its images.

    Raises:
        ConfigError: no class has this tag.
    """
    classes = read_classes(folder)
    check_together(folder / IMAGES, folder / CLASSES)
    tag = tag_of(word)
    owner = {member: i for i, each in enumerate(classes) for member, _ in each.members}
    owner |= {each.name: i for i, each in enumerate(classes)}
    if tag not in owner:
        raise ConfigError(
            f"hashtags show: no class of {folder} has the tag {word!r}"
            f"{did_you_mean(tag, owner) or '; it was rare, blocked or never used'}"
        )
    number, console = owner[tag], Console(highlight=False)
    each = classes[number]
    synset = f", WordNet {each.synset}" if each.synset else ""
    console.print(
        f"#{each.name}: class {number} of {len(classes):,}, {each.images:,} images{synset}",
        style="bold",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("member")
    table.add_column("images", justify="right")
    for member, count in each.members:
        table.add_row(Text(f"#{member}"), f"{count:,}")
    console.print(table)
    for name in examples(folder, number, EXAMPLES):
        console.print(Text(f"  {shown(name)}"))


def _print(console: Console, title: str, classes: Sequence[tuple[int, TagClass]]) -> None:
    if not classes:
        return
    console.print(f"\n{title}", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("class", overflow="fold")
    table.add_column("images", justify="right")
    table.add_column("members", overflow="fold")
    for number, each in classes:
        table.add_row(f"{number}", Text(f"#{each.name}"), f"{each.images:,}", Text(_members(each)))
    console.print(table)


def _members(each: TagClass) -> str:
    if len(each.members) == 1:
        return ""
    more = len(each.members) - MEMBERS
    listed = ", ".join(f"{tag} {count:,}" for tag, count in each.members[:MEMBERS])
    return listed + (f", {more} more" if more > 0 else "")
