"""Photographs with their true and their predicted tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vissl_lite.data.decode import BrokenImage
from vissl_lite.data.picture import open_picture
from vissl_lite.hashtags.predict import Prediction, TrueTags
from vissl_lite.report.page import Html, page, section, tag
from vissl_lite.report.pictures import picture

SIDE = 128  # pixels of a picture
RIGHT = "✓\N{NO-BREAK SPACE}"
LEGEND = "The bars are probabilities; ✓ and bold letters mark a tag that the image has."


@dataclass(frozen=True)
class Counts:
    """What the predictions are worth on images whose tags are known.

    Attributes:
        first: images whose most probable tag is one of theirs.
        found: tags that are among the K of their image.
    """

    tagged: int = 0
    tags: int = 0
    first: int = 0
    found: int = 0

    def plus(self, true: Sequence[str], predicted: Sequence[str]) -> Counts:
        """With one image more; one without tags does not count."""
        if not true:
            return self
        hits = len(set(true) & set(predicted))
        return Counts(
            self.tagged + 1,
            self.tags + len(true),
            self.first + (predicted[0] in true),
            self.found + hits,
        )

    def __str__(self) -> str:
        first, found = self.first / self.tagged, self.found / self.tags
        return (
            f"of {self.tagged:,} images with known tags {first:.1%} have the most probable one;"
            f" {found:.1%} of their {self.tags:,} tags are among the predicted"
        )


def predictions_page(
    rows: Sequence[Prediction], source: Any, run: str, counts: Counts, images: int
) -> str:
    """The page.

    Args:
        rows: images that can be read, to be shown.
        images: of the whole source.
    """
    found = f" In all, {counts}." if counts.tagged else ""
    lead = f"By {run}: {len(rows)} of {images:,} images, evenly spread.{found}"
    return page(
        "Predicted tags", [section("Images", tag("p", LEGEND), gallery(rows, source))], lead
    )


def gallery(rows: Sequence[Prediction], source: Any) -> Html:
    """The images, each with its tags; those that cannot be read a second time are left out."""
    true = TrueTags(source)
    shown = [_shown(row, source, true) for row in rows]
    return tag("div", shown, class_="charts")


def _shown(row: Prediction, source: Any, true: TrueTags) -> Html | None:
    try:
        sample = source[row.index]
        pixels = open_picture(sample.image, sample.name).pixels()
    except BrokenImage:
        return None
    known = None if sample.tags is None else true.named(sample.tags)
    name = row.name or f"image {row.index}"
    text = [
        _true(known, row.tags),
        tag("div", [_bar(t, p, t in (known or ())) for t, p in _pairs(row)]),
    ]
    inside = [picture(pixels, name, SIDE), tag("div", text, style="flex:1;min-width:0")]
    return tag(
        "figure",
        tag("div", inside, style="display:flex;gap:.8rem;align-items:flex-start"),
        tag("figcaption", name, style="font-size:.8rem;overflow-wrap:anywhere"),
    )


def _pairs(row: Prediction) -> list[tuple[str, float]]:
    return list(zip(row.tags, row.probabilities))


def _true(known: list[str] | None, predicted: Sequence[str]) -> Html | None:
    """The image's own tags; None where the source has none for any image."""
    if known is None:
        return None
    words = [(RIGHT if name in predicted else "") + f"#{name}" for name in known]
    return tag("p", "true: ", ", ".join(words) or "no tag", style="margin:0 0 .3rem")


def _bar(name: str, p: float, right: bool) -> Html:
    """A tag with its probability as a number and as a bar."""
    word = tag("strong", f"{RIGHT}#{name}") if right else f"#{name}"
    colour = "--s2" if right else "--s5"
    bar = f"width:{100 * p:.1f}%;height:.35rem;margin-bottom:.2rem;background:var({colour})"
    line = [tag("span", word), tag("span", f"{p:.1%}", class_="num")]
    style = "display:flex;justify-content:space-between;gap:.5rem;line-height:1.3"
    return tag("div", tag("div", line, style=style), tag("div", style=bar, aria_hidden="true"))
