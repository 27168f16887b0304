"""Which images look most alike to the model. Shape suffixes: N images, Q queries, K neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vissl_lite.report.look import Look
from vissl_lite.report.page import Html, section, tag
from vissl_lite.report.pictures import picture, tiles

QUERIES, NEIGHBOURS, SIDE = 6, 7, 82


def neighbours(look: Look) -> Html:
    """A row of pictures for each of a few images."""
    if len(look.indices_N) < 2:
        return section("Nearest neighbours", tag("p", "There is one image only."))
    count = min(NEIGHBOURS, len(look.indices_N) - 1)
    cosine_NK, index_NK = nearest(look.x_ND, count)
    rows = [row(look, n, cosine_NK[n], index_NK[n]) for n in queries(look)]
    return section("Nearest neighbours", tag("p", _words(look, index_NK)), rows)


def nearest(x_ND: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(cosines, indices), [N, K] each, of the most similar other images, the best first."""
    z_ND = F.normalize(x_ND, dim=1)
    cosine_NN = (z_ND @ z_ND.T).fill_diagonal_(-2.0)
    return tuple(cosine_NN.topk(count, dim=1))  # pyright: ignore[reportReturnType]


def queries(look: Look, count: int = QUERIES) -> list[int]:
    """One image of each of a few classes that are evenly spread; without labels, of the source."""
    size = len(look.indices_N)
    if not look.labelled:
        return sorted({round((i + 0.5) * size / count - 0.5) for i in range(min(count, size))})
    classes = look.label_N.unique()
    step = max(1, len(classes) // count)
    first = [int((look.label_N == c).nonzero()[0]) for c in classes[::step][:count]]
    return first


def purity(label_N: Tensor, index_NK: Tensor) -> Tensor:
    """[N]: the share of an image's neighbours that are of its class."""
    return (label_N[index_NK] == label_N[:, None]).float().mean(1)


def _words(look: Look, index_NK: Tensor) -> str:
    text = (
        f"Cosine of the features that feed the heads ({look.weights}), over {look.origin}, seen as"
        " in evaluations."
        " The first picture of a row is the one asked for."
    )
    if look.labelled:
        share = purity(look.label_N, index_NK).mean().item()
        text += (
            f" Over all images {share:.1%} of the {index_NK.shape[1]} nearest are of the same class"
            f" (by chance {chance(look.label_N):.1%}); those of another class are marked ≠."
        )
    return text


def chance(label_N: Tensor) -> float:
    """Share of pairs of images, drawn with replacement, that are of one class."""
    return torch.bincount(label_N).float().div(len(label_N)).square().sum().item()


def row(look: Look, n: int, cosine_K: Tensor, index_K: Tensor) -> Html:
    """Image n, and its K neighbours with their cosines."""
    asked = (
        picture(look.pixels(n), f"asked for: {look.alt(n)}", SIDE),
        tag("strong", _name(look, n)),
    )
    found = []
    for cosine, m in zip(cosine_K.tolist(), index_K.tolist()):
        same = look.label_N[m] == look.label_N[n]
        mark = "" if same or not look.labelled else "≠ "
        name = f"{mark}{look.label(m)}"
        found.append(
            (picture(look.pixels(m), look.alt(m), SIDE), [name, tag("br"), f"{cosine:.3f}"])
        )
    return tiles([asked, *found])


def _name(look: Look, n: int) -> str:
    return look.label(n) or f"image {look.indices_N[n]}"
