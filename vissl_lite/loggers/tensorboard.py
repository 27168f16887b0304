"""Curves in TensorBoard."""

from pathlib import Path
from typing import Any

from vissl_lite import LOGGERS
from vissl_lite.errors import ConfigError
from vissl_lite.loggers._scalars import scalars


@LOGGERS.register("tensorboard")
class TensorBoard:
    """Curves in TensorBoard: every number as "train/loss" or "eval/knn/top1" by step.

    Look at them with `tensorboard --logdir runs`.

    Args:
        run_dir: folder of the run; the event files lie in run_dir/tensorboard.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, *, run_dir: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "loggers.tensorboard: the package tensorboard is not installed; "
                "run 'pip install tensorboard', or leave this logger out"
            ) from error
        self.folder, self.new_writer = Path(run_dir) / "tensorboard", SummaryWriter
        self.writer = SummaryWriter(self.folder)

    def log(self, record: dict[str, Any]) -> None:
        for tag, value in scalars(record).items():
            self.writer.add_scalar(tag, value, record["step"])

    def rewind(self, step: int) -> None:
        """Hides what an interrupted run wrote after `step`."""
        self.writer.close()
        self.writer = self.new_writer(self.folder, purge_step=step + 1)

    def close(self) -> None:
        self.writer.close()
