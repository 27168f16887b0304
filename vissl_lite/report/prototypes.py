"""Which prototypes are used, by which images. Shape suffixes: N images, K prototypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vissl_lite.report.charts import bars
from vissl_lite.report.look import Look
from vissl_lite.report.page import Html, section, tag
from vissl_lite.report.pictures import picture, tiles

SHOWN, IMAGES, SIDE = 6, 6, 82  # prototypes of each kind, images of each, pixels


def prototypes(look: Look, heads: list[dict[str, Any]]) -> Html | None:
    """The most and the least used ones with their images; None without prototypes.

    Args:
        heads: of the config, with their defaults; of several sets of prototypes the first is shown.
    """
    if look.logits_NK is None:
        return None
    counts = heads[-1]["num_prototypes"]
    several = isinstance(counts, list)
    score_NK = look.logits_NK[:, : counts[0] if several else counts]
    used_K = usage(score_NK)
    order = used_K.argsort(descending=True, stable=True).tolist()
    used = [k for k in order if used_K[k] > 0]
    kinds = {"Most used": used[:SHOWN], "Least used": used[SHOWN:][-SHOWN:]}
    shown = [
        (tag("h3", name), tag("div", [_row(look, score_NK, used_K, k) for k in ks], class_="sheet"))
        for name, ks in kinds.items()
        if ks
    ]
    words = tag("p", _words(used_K, look) + (" The first set is shown." if several else ""))
    chart = bars("Images per prototype, in order", used_K[order].tolist(), "prototypes")
    return section("Prototypes", words, tag("div", chart, class_="charts"), shown)


def usage(score_NK: Tensor) -> Tensor:
    """[K]: how many images have this prototype as their nearest."""
    return torch.bincount(score_NK.argmax(1), minlength=score_NK.shape[1])


def effective(used_K: Tensor) -> float:
    """exp of the entropy of the usage: as many equally used prototypes would have it."""
    p_K = used_K.double() / used_K.sum()
    return torch.special.entr(p_K).sum().exp().item()


def _words(used_K: Tensor, look: Look) -> str:
    used = int((used_K > 0).sum())
    return (
        f"Of {look.origin} each belongs to the prototype with the highest score. {used:,} of"
        f" {len(used_K):,} prototypes have an image; the usage is that of {effective(used_K):.1f}"
        " equally used ones (exp of its entropy). The pictures of a prototype are the images that"
        " score highest among its own."
    )


def _row(look: Look, score_NK: Tensor, used_K: Tensor, k: int) -> Html:
    own = (score_NK.argmax(1) == k).nonzero()[:, 0]
    best = own[score_NK[own, k].argsort(descending=True)][:IMAGES].tolist()
    row = tiles([(picture(look.pixels(n), look.alt(n), SIDE), look.label(n)) for n in best])
    return tag("div", tag("p", f"Prototype {k}: {_count(used_K[k])}{_pure(look, own)}"), row)


def _count(images: Tensor) -> str:
    return f"{int(images):,} image{'' if images == 1 else 's'}"


def _pure(look: Look, own: Tensor) -> str:
    """The most frequent class among a prototype's images."""
    if not look.labelled:
        return ""
    label_N = look.label_N[own]
    most = int(label_N.mode().values)
    return f", {(label_N == most).float().mean().item():.0%} of them {look.class_name(most)}"
