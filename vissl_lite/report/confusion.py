"""Which classes a linear probe takes for which. Shape suffixes: N images, C classes."""

from __future__ import annotations

import numpy as np

from vissl_lite.evaluations._classifiers import fit, linear_classifier
from vissl_lite.report.look import Look
from vissl_lite.report.page import Html, details, section, table, tag
from vissl_lite.report.pictures import picture, tiles

MOST_CLASSES = 100  # a probe of more takes too long for a report
TABLE = 20  # classes that a table of all pairs is readable for
PAIRS, MISTAKES, SIDE = 10, 12, 82


def confusion(train: Look | None, test: Look | None) -> Html | None:
    """A probe fitted to `labelled.train`, judged on `labelled.test`; None without labels."""
    if not (train and test and train.labelled and test.labelled):
        return None
    count = len(train.label_N.unique())
    if count < 2:
        return None
    if train.classes != test.classes:
        return _left_out("the class names of labelled.train and labelled.test differ")
    if count > MOST_CLASSES:
        return _left_out(f"{count:,} classes; config=evaluate/logistic has no such limit")
    guess_N, said = predicted(train, test)
    label_N = test.label_N.numpy()
    matrix_CC = counted(label_N, guess_N)
    wrong = np.flatnonzero(guess_N != label_N)
    whole = _matrix(test, matrix_CC) if len(matrix_CC) <= TABLE else None
    return section(
        "Confusion of a linear probe",
        tag("p", _words(train, test, guess_N, said)),
        whole,
        _pairs(test, matrix_CC),
        _mistakes(test, guess_N, wrong),
    )


def _left_out(reason: str) -> Html:
    return section("Confusion of a linear probe", tag("p", f"Left out: {reason}."))


def predicted(train: Look, test: Look) -> tuple[np.ndarray, str]:
    """Class ids of the test images, [N], by scikit-learn's logistic regression; and a caveat."""
    model = linear_classifier("logistic", "standardise", 1.0, 200)
    done = fit(model, train.x_ND.double().numpy(), train.label_N.numpy())
    caveat = "" if done else " The solver stopped before its optimum, after 200 iterations."
    return model.predict(test.x_ND.double().numpy()), caveat


def counted(label_N: np.ndarray, guess_N: np.ndarray) -> np.ndarray:
    """[C, C]: images of the class of the row that were taken for the class of the column."""
    count = int(max(label_N.max(), guess_N.max())) + 1
    return np.bincount(label_N * count + guess_N, minlength=count**2).reshape(count, count)


def _words(train: Look, test: Look, guess_N: np.ndarray, caveat: str) -> str:
    right = (guess_N == test.label_N.numpy()).mean()
    return (
        "Logistic regression (scikit-learn, C = 1, standardised features, no augmentation), fitted"
        f" to {train.origin}, is right for {right:.1%} of {test.origin}.{caveat} A quick look; the"
        " numbers to quote are those of the evaluations."
    )


def _matrix(look: Look, matrix_CC: np.ndarray) -> Html:
    """Rows: the class; columns: what it was taken for; the darker, the larger its share."""
    names = [look.class_name(c) for c in range(len(matrix_CC))]
    rows = []
    for c, row in enumerate(matrix_CC):
        share = row / max(1, row.sum())
        rows.append([names[c], *(_cell(n, s, c == i) for i, (n, s) in enumerate(zip(row, share)))])
    caption = "Images of each class (row) by the class they were taken for (column)"
    return table(caption, ["", *names], rows)


def _cell(count: int, share: float, right: bool) -> Html:
    """A number on a shade of at most 45 %, on which it stays readable."""
    colour = "--s0" if right else "--s1"
    shade = f"background:color-mix(in srgb, var({colour}) {45 * share**0.5:.0f}%, transparent)"
    return tag("span", str(count) if count else "·", style=shade, class_="cell")


def _pairs(look: Look, matrix_CC: np.ndarray) -> Html | None:
    """The most frequent confusions."""
    off = matrix_CC * (1 - np.eye(len(matrix_CC), dtype=int))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(i // len(off)), int(i % len(off))) for i in order]
    rows = [
        [
            look.class_name(a),
            look.class_name(b),
            str(off[a, b]),
            f"{off[a, b] / matrix_CC[a].sum():.1%}",
        ]
        for a, b in pairs
        if off[a, b]
    ]
    if not rows:
        return None
    head = ["class", "taken for", "images", "of the class"]
    return details("Most frequent confusions", table("Most frequent confusions", head, rows))


def _mistakes(look: Look, guess_N: np.ndarray, wrong: np.ndarray) -> list[Html]:
    if not len(wrong):
        return []
    few = wrong[np.unique(np.linspace(0, len(wrong) - 1, MISTAKES).astype(int))]
    shown = [
        (
            picture(look.pixels(n), look.alt(n), SIDE),
            [look.label(n), tag("br"), f"taken for {look.class_name(int(guess_N[n]))}"],
        )
        for n in few.tolist()
    ]
    return [tag("h3", f"{len(few)} of the {len(wrong):,} mistakes"), tiles(shown)]
