"""What a run writes: its config, records to all loggers, sentences to the user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

import vissl_lite
from vissl_lite import LOGGERS
from vissl_lite.config import Config
from vissl_lite.errors import ConfigError
from vissl_lite.io import replace_text
from vissl_lite.parallel.collectives import rank, world_size

CLASSES = "classes.txt"

if TYPE_CHECKING:
    from vissl_lite.engine.parts import Parts


class Journal:
    """The loggers of a run, on rank 0; silent on the others.

    Args:
        resumed_step: records of later steps, from before a kill, are removed.
    """

    def __init__(self, config: Config, run_dir: Path, resumed_step: int):
        self.config, self.run_dir, self.resumed_step = config, run_dir, resumed_step
        self.loggers: list[Any] = []
        self.again: list[str] = []

    def __enter__(self) -> Journal:
        if rank() == 0:
            self._open()
        return self

    def _open(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name, logger in self.config.loggers.items():
            self.loggers.append(LOGGERS.build(logger, f"loggers.{name}", run_dir=self.run_dir))
        for logger in self.loggers:
            if self.config.resume and hasattr(logger, "rewind"):
                logger.rewind(self.resumed_step)

    def __exit__(self, *_: object) -> None:
        for logger in self.loggers:
            logger.close()
        self.loggers = []

    def log(self, record: dict[str, Any]) -> None:
        """Gives a record to every logger."""
        for logger in self.loggers:
            logger.log(record)

    def note(self, text: str, level: str = "info") -> None:
        """A sentence for the user; level "info" or "warning"."""
        self.log({"kind": "note", "text": text, "level": level})

    def warn(self, text: str) -> None:
        """A warning that is repeated as the last word of the run."""
        self.note(text, "warning")
        self.again.append(text)

    def start(self, parts: Parts) -> None:
        """The first record of a run, and what was inferred for it."""
        trainable = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
        self.log(
            {
                "kind": "start",
                "recipe": self.config.recipe or "",
                "run_dir": str(self.run_dir),
                "device": device_name(parts.device),
                "precision": parts.numerics.precision,
                "world_size": world_size(),
                "epochs": self.config.train.epochs,
                "total_steps": parts.total_steps,
                "steps_per_epoch": parts.steps_per_epoch,
                "global_batch": self.config.train.batch_size,
                "params": trainable,
                "resumed_step": self.resumed_step,
            }
        )
        for text in parts.notes:
            self.note(text)

    def end(self, reason: str | None, step: int, seconds: float) -> None:
        """The last record; `reason` says why training ended early."""
        if reason is not None:
            reason += f"; go on with: vissl-lite resume={self.run_dir}"
        self.log({"kind": "end", "reason": reason or "done", "step": step, "seconds": seconds})
        for text in self.again:
            self.note(text, "warning")


def has_begun(run_dir: Path) -> bool:
    """Whether a run came to a result there; a mistake may have ended it before it had any."""
    if any(run_dir.glob("checkpoints/step-*")) or (run_dir / "results.json").is_file():
        return True
    records = run_dir / "metrics.jsonl"
    lines = records.read_text().splitlines() if records.is_file() else []
    return any('"kind": "train"' in line or '"kind": "eval"' in line for line in lines)


def check_is_run(run_dir: Path) -> None:
    """
    Raises:
        ConfigError: no run began there, so that none can go on.
    """
    if not (run_dir / "config.yaml").is_file():
        raise ConfigError(
            f"resume: {run_dir} holds no run, it has no config.yaml; go on with"
            " resume=FOLDER_OF_THE_RUN, or leave resume out to begin one"
        )


def save_config(tree: dict[str, Any], run_dir: Path) -> None:
    """Writes `run_dir/config.yaml`, which runs again as it is.

    Raises:
        ConfigError: the folder holds a run already; two in one folder would mix their records.
    """
    if has_begun(run_dir):
        raise ConfigError(
            f"hydra.run.dir: {run_dir} holds a run already; go on with resume={run_dir}, or choose"
            " another folder"
        )
    header = (
        f"# Composed by vissl_lite {vissl_lite.__version__}. Run it again:"
        f" vissl-lite config={run_dir / 'config.yaml'}\n"
        "defaults: [base, _self_]\n"
    )
    body = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.jsonl").unlink(missing_ok=True)  # notes of a run that a mistake ended
    replace_text(run_dir / "config.yaml", header + body)


def keep_classes(source: Any, run_dir: Path) -> None:
    """Writes the names of a source's classes to `run_dir/classes.txt`, in the order of their ids.

    Raises:
        ConfigError: the run began with other classes; what it has learnt would mean something else.
    """
    names = getattr(source, "classes", None)
    if names is None:
        return
    file, lines = run_dir / CLASSES, [" ".join(str(name).splitlines()) for name in names]
    if not file.is_file():
        replace_text(file, "".join(f"{line}\n" for line in lines))
    elif read_classes(run_dir) != lines:
        raise ConfigError(
            f"data.source: {source!r} has other classes than those that this run began with"
            f" ({file}); bring them back, or start a new run with init={run_dir}"
        )


def read_classes(run_dir: Path) -> list[str] | None:
    """What `keep_classes` wrote; None for a run without names."""
    file = run_dir / CLASSES
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else None


def device_name(device: torch.device) -> str:
    """A name that people know: the GPU's, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"
