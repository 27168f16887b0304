"""A map of the features: what is alike lies together. Shape suffixes: N images, D features."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from vissl_lite.report.look import Look
from vissl_lite.report.neighbours import nearest, purity
from vissl_lite.report.page import Html, details, html, section, table, tag

POINTS = 500  # images on the map; t-SNE takes one to three seconds for them
SIDE, THUMB = 1200, 34  # pixels of the map and of an image on it
NAMED = 20  # classes at most whose names are written on the map
COLOURS = ["#0b5fae", "#b3400a", "#1b7236", "#8a2f8f", "#7d5a00"]
COLOURS += ["#56606b", "#b0203a", "#006a74", "#3d3dc4", "#55731d"]


def feature_map(look: Look) -> Html | None:
    """The map as a section; None for fewer than 30 images."""
    drawn = words_and_map(look)
    return section("Map of the features", *drawn) if drawn else None


def words_and_map(look: Look) -> tuple[Html, Html] | None:
    """t-SNE of the features with their images, the words first; None for fewer than 30 images."""
    if len(look.indices_N) < 30:
        return None
    chosen = np.unique(np.linspace(0, len(look.indices_N) - 1, POINTS).astype(int)).tolist()
    place_N2 = placed(look.x_ND[chosen])
    label_N = look.label_N[chosen]
    classes = label_N.unique().tolist() if look.labelled else []
    named = classes if len(classes) <= NAMED else []
    uri = _drawn(look, chosen, place_N2, named)
    names = [_class_name(look, c, place_N2[(label_N == c).numpy()]) for c in named]
    words = (
        f"{len(chosen)} images placed by t-SNE (scikit-learn, from the first principal components)"
        " of their features: neighbours on the map look alike to the model; distances between"
        " far groups mean little."
    )
    if named:
        words += " A name stands in the middle of its class; frames have one colour per class."
    drawn = tag("div", _svg(uri, names, words), class_="map")
    return tag("p", words), html([drawn, _table(look, classes)])


def placed(x_ND: Tensor) -> np.ndarray:
    """[N, 2] in [0, 1], the same whenever it is asked for.

        x <- x / |x|;  PCA to 50 dimensions;  t-SNE, started from the first two of them

    van der Maaten & Hinton 2008; the start from PCA keeps the large-scale order (Kobak & Berens
    2019, Nature Communications 10:5416).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    z_ND = F.normalize(x_ND, dim=1).double().numpy()
    if np.ptp(z_ND, axis=0).max() < 1e-9:  # collapsed: one point
        return np.full((len(z_ND), 2), 0.5)
    dims = min(50, *z_ND.shape)
    y_ND = PCA(dims, svd_solver="full").fit_transform(z_ND)
    perplexity = min(30.0, (len(z_ND) - 1) / 3)
    start = TSNE(2, perplexity=perplexity, init="pca", random_state=0, angle=0.8)
    y_N2 = start.fit_transform(y_ND)
    low, high = y_N2.min(0), y_N2.max(0)
    return (y_N2 - low) / np.maximum(high - low, 1e-9)


def _drawn(look: Look, chosen: list[int], place_N2: np.ndarray, named: list[int]) -> str:
    """All thumbnails on one JPEG, later ones over earlier ones."""
    sheet = Image.new("RGB", (SIDE, SIDE), "#f4f5f7")
    for n, (x, y) in zip(chosen, place_N2):
        thumb = ImageOps.fit(Image.fromarray(look.pixels(n)), (THUMB - 6, THUMB - 6))
        label = int(look.label_N[n])
        colour = COLOURS[named.index(label) % len(COLOURS)] if label in named else "#f4f5f7"
        corner = round(x * (SIDE - THUMB)), round(y * (SIDE - THUMB))
        sheet.paste(ImageOps.expand(thumb, 3, colour), corner)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _svg(uri: str, names: list[Html], words: str) -> Html:
    image = tag("image", href=uri, width=SIDE, height=SIDE)
    return tag(
        "svg",
        tag("title", "Map of the features"),
        tag("desc", words),
        image,
        names,
        viewBox=f"0 0 {SIDE} {SIDE}",
        role="img",
        aria_label="Map of the features",
    )


def _class_name(look: Look, label: int, place_N2: np.ndarray) -> Html:
    """At the image that is nearest to all others of its class."""
    distance_NN = np.abs(place_N2[:, None] - place_N2[None]).sum(-1)
    x, y = place_N2[distance_NN.sum(1).argmin()] * (SIDE - THUMB) + THUMB / 2
    return tag(
        "text", look.class_name(label), x=f"{x:.0f}", y=f"{y:.0f}", text_anchor="middle",
        dominant_baseline="central",
    )  # fmt: skip


def _table(look: Look, classes: list[int]) -> Html | None:
    """How pure the neighbourhood of each class is, over all images, the worst first."""
    if not classes:
        return None
    _, index_NK = nearest(look.x_ND, min(7, len(look.indices_N) - 1))
    pure_N, rows = purity(look.label_N, index_NK), []
    for c in look.label_N.unique().tolist():
        of_class = look.label_N == c
        others = look.label_N[index_NK[of_class]].flatten()
        others = others[others != c]
        most = look.class_name(int(torch.mode(others).values)) if len(others) else "none"
        rows.append((pure_N[of_class].mean().item(), look.class_name(c), int(of_class.sum()), most))
    rows.sort()
    shown = [[name, f"{count:,}", f"{pure:.1%}", most] for pure, name, count, most in rows[:50]]
    head = ["class", "images", "7 nearest of the same class", "most often taken for"]
    caption = "Classes by the purity of their neighbourhood, the worst first"
    return details("Numbers by class", table(caption, head, shown))
