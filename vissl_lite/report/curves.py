"""The sections with curves: training, evaluations, speed; of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence

from vissl_lite.report.charts import Series, chart
from vissl_lite.report.page import Html, section, table, tag
from vissl_lite.report.runs import Run

LOGARITHMIC = ("loss", "grad_norm")  # where a few powers of ten may lie between start and end
SPEED = {
    "images_per_s": "Images per second",
    "data_wait": "Share of the time spent waiting for data",
    "memory_gb": "Peak memory in GB",
    "tflops": "Achieved TFLOP/s per process",
    "mfu": "Share of the device's peak FLOP/s",
}
TITLES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient before clipping",
    "embedding_std": "Spread of the embeddings (0: collapsed)",
    "effective_rank": "Effective rank of the embeddings",
    "same_image_cosine": "Cosine of two crops of one image",
    "other_image_cosine": "Cosine of crops of two images",
}
COSINES = {"same_image_cosine": "one image", "other_image_cosine": "two images"}
SLOW = 0.2  # share of the time waiting for data that is worth a sentence


def training(runs: Sequence[Run]) -> Html:
    """Loss, learning rate, and everything else that the loss and the hooks measured."""
    keys = list(dict.fromkeys(k for run in runs for k in run.measured() if k not in SPEED))
    if not keys:
        return section("Training", tag("p", "No training step has been recorded."))
    together = [k for k in COSINES if k in keys] if len(runs) == 1 else []
    drawn = [_of_column(runs, key) for key in keys if key not in together]
    return section("Training", _charts([*drawn, *([_cosines(runs[0])] if together else [])]))


def speed(runs: Sequence[Run]) -> Html | None:
    """How fast it went, and what it waited for."""
    keys = [key for key in SPEED if any(run.column(key) for run in runs)]
    if not keys:
        return None
    return section("Speed and memory", _words(runs), _charts([_of_column(runs, k) for k in keys]))


def evaluations(runs: Sequence[Run]) -> Html | None:
    """The last value of every metric, a row per run, and how they developed."""
    names = _metrics(runs)
    if not names:
        return None
    rows = [[run.name, *(_last(run, *name) for name in names)] for run in runs]
    head = [f"{evaluation} {metric}" for evaluation, metric in names]
    if len(runs) == 1:
        first = runs[0].evaluations()
        rows = [
            [h, _value(first[e][m][0][1]), _last(runs[0], e, m)] for h, (e, m) in zip(head, names)
        ]
        shown = table("Evaluations: first and last value", ["metric", "first", "last"], rows)
    else:
        shown = table("Evaluations: the last value of each run", ["run", *head], rows)
    drawn = [_of_metric(runs, *name) for name in _distinct(runs, names)]
    return section("Evaluations", shown, _charts(drawn) if drawn else None)


def _metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    found = {(e, m): None for run in runs for e, ms in run.evaluations().items() for m in ms}
    return list(found)


def _distinct(runs: Sequence[Run], names: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those with a curve; kNN gives the same numbers as top1 and under the name of its setting."""
    found: dict[tuple, tuple[str, str]] = {}
    for evaluation, metric in names:
        if _points(runs, evaluation, metric) > len(runs):
            values = [run.evaluations().get(evaluation, {}).get(metric) for run in runs]
            found.setdefault((evaluation, str(values)), (evaluation, metric))
    return list(found.values())


def _points(runs: Sequence[Run], evaluation: str, metric: str) -> int:
    return sum(len(run.evaluations().get(evaluation, {}).get(metric, ())) for run in runs)


def _last(run: Run, evaluation: str, metric: str) -> str:
    found = run.evaluations().get(evaluation, {}).get(metric)
    return _value(found[-1][1]) if found else ""


def _value(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _of_column(runs: Sequence[Run], key: str) -> Html:
    series = [_series(run, i, run.column(key), len(runs)) for i, run in enumerate(runs)]
    title = SPEED.get(key) or TITLES.get(key) or key
    drawn = [s for s in series if s.x]
    largest, least = max(max(s.y) for s in drawn), min(min(s.y) for s in drawn)
    log = key in LOGARITHMIC and 0 < 30 * least < largest
    return chart(title, drawn, "epoch", log, from_zero=key in SPEED)


def _cosines(run: Run) -> Html:
    """Both in one chart, for what counts is how far they are apart."""
    found = [(name, run.column(key)) for key, name in COSINES.items()]
    series = [
        Series(name, [x for x, _ in points], [y for _, y in points], i)
        for i, (name, points) in enumerate(found)
    ]
    return chart("Cosine of two crops, of ...", series, "epoch")


def _of_metric(runs: Sequence[Run], evaluation: str, metric: str) -> Html:
    found = [run.evaluations().get(evaluation, {}).get(metric, []) for run in runs]
    series = [
        _series(run, i, points, len(runs)) for i, (run, points) in enumerate(zip(runs, found))
    ]
    return chart(f"{evaluation} {metric}", [s for s in series if s.x], "epoch")


def _series(run: Run, i: int, points: list[tuple], count: int) -> Series:
    name = (run.name if len(run.name) < 18 else f"…{run.name[-16:]}") if count > 1 else ""
    return Series(name, [x for x, _ in points], [y for _, y in points], i)


def _charts(charts: Sequence[Html]) -> Html:
    return tag("div", list(charts), class_="charts")


def _words(runs: Sequence[Run]) -> list[Html]:
    """A sentence about each run: its rate, and whether reading images slows it."""
    said = []
    for run in runs:
        rates, waits = ([y for _, y in run.column(k)] for k in ("images_per_s", "data_wait"))
        if not rates:
            continue
        late, rate = waits[len(waits) // 2 :], rates[len(rates) // 2 :]
        text = f"{sorted(rate)[len(rate) // 2]:,.0f} images/s in the second half (median)"
        wait = sum(late) / max(1, len(late))
        text += f", {wait:.0%} of the time waiting for data."
        if wait > SLOW:
            text += " Images come slower than the model could take them: see vissl-lite bench data."
        said.append(tag("p", f"{run.name}: {text}" if len(runs) > 1 else text))
    return said
