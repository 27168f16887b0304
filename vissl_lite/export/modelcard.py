"""README.md of a model on the hub: what it is, how it is loaded and was trained, how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import vissl_lite
from vissl_lite.export.subject import Subject
from vissl_lite.report.runs import Run


def model_card(subject: Subject, name: str, library: str, usage: str) -> str:
    """Markdown with the hub's YAML header.

    Args:
        name: of the folder, the title.
        library: "transformers" or "timm".
        usage: lines of Python that load the folder.
    """
    width = list(subject.trunk.widths.values())[-1]
    channels, side = subject.config["in_channels"], subject.side
    parts = [
        _header(library),
        f"# {name}",
        f"A trunk without classifier: images [N, {channels}, {side}, {side}] to features"
        f" [N, {width}]. Exported by vissl_lite {vissl_lite.__version__} for {library}.",
        f"```python\n{usage}\n```",
        _pixels(subject),
        "## Training",
        *_training(subject),
        "## Evaluation",
        _evaluation(subject.run),
        "## Licence",
        "None is chosen yet: `license: unknown` above is a placeholder. State the licence of the"
        " weights before publishing them.",
    ]
    return "\n\n".join(parts) + "\n"


def _header(library: str) -> str:
    known = {"library_name": library, "pipeline_tag": "image-feature-extraction"}
    text = yaml.safe_dump({**known, "tags": ["vissl_lite"]}, sort_keys=False)
    return f"---\n{text}license: unknown  # placeholder\n---"


def _pixels(subject: Subject) -> str:
    mean, std = subject.trunk.mean, subject.trunk.std
    if mean is None:
        return "How pixels were normalised in training is not known: the weights do not tell."
    return f"Pixels in [0, 1] are normalised by mean {list(mean)} and std {list(std)}."


def _training(subject: Subject) -> list[str]:
    settings = ", ".join(f"{key}={value}" for key, value in subject.config.items() if key != "name")
    rows = {"trunk": f"{subject.config['name']}: {settings}"}
    if subject.run is None:
        return [_table(("", ""), rows.items()), "The weights do not belong to a known run."]
    run = Run.read(subject.run)
    rows |= {
        "recipe": run.tree["recipe"],
        "loss": run.tree["loss"]["name"],
        "images": run.tree["data"]["source"]["name"],
        "epochs": run.tree["train"]["epochs"],
        "batch size": run.tree["train"]["batch_size"],
    }
    return [_table(("", ""), rows.items()), *([f"    {run.command}"] if run.command else [])]


def _evaluation(run: Path | None) -> str:
    """The last values of every evaluation in the run."""
    every = Run.read(run).kind("eval") if run else []
    last = {record["name"]: record for record in every}
    rows = [
        (name, metric, f"{float(value):.4f}", record["step"])
        for name, record in last.items()
        for metric, value in record.items()
        if metric not in ("kind", "name", "step")
    ]
    return _table(("evaluation", "metric", "value", "step"), rows) if rows else "Not evaluated."


def _table(titles: tuple[str, ...], rows: Any) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    """Text that neither ends its cell nor is read as HTML."""
    text = str(value).replace("\n", " ").replace("|", "\\|")
    return text.replace("&", "&amp;").replace("<", "&lt;")
