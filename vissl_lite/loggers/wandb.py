"""Curves in Weights & Biases."""

import secrets
from pathlib import Path
from typing import Any, Literal

from vissl_lite import LOGGERS
from vissl_lite.errors import ConfigError
from vissl_lite.loggers._scalars import scalars


@LOGGERS.register("wandb")
class WandB:
    """Curves in Weights & Biases: every number as "train/loss" or "eval/knn/top1" by step.

    A resumed run continues its curves: the id of the W&B run is kept in run_dir/wandb_id. Sent are
    the records, the "start" record as config, and W&B's own machine statistics (GPU use, memory);
    never environment variables, the command line, code, git state or printed text.

    Args:
        project: W&B project.
        entity: W&B user or team; None takes the account's default.
        mode: "offline" writes to run_dir/wandb only; `wandb sync` sends it later.
        run_dir: folder of the run; its name becomes the name of the W&B run.

    Raises:
        ConfigError: the package wandb is not installed.
    """

    def __init__(
        self,
        project: str = "vissl_lite",
        entity: str | None = None,
        mode: Literal["online", "offline"] = "online",
        *,
        run_dir: Path,
    ):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "loggers.wandb: the package wandb is not installed; "
                "run 'pip install wandb', or leave this logger out"
            ) from error
        private = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self.run = wandb.init(
            project=project,
            entity=entity,
            name=Path(run_dir).name,
            id=_run_id(Path(run_dir)),
            resume="allow",
            dir=run_dir,
            mode=mode,
            settings=private,
        )
        self.run.define_metric("*", step_metric="step")

    def log(self, record: dict[str, Any]) -> None:
        if record["kind"] == "start":
            config = {key: value for key, value in record.items() if key != "kind"}
            self.run.config.update(config, allow_val_change=True)
        if values := scalars(record):
            self.run.log({**values, "step": record["step"]})

    def close(self) -> None:
        self.run.finish()


def _run_id(run_dir: Path) -> str:
    """The id of this folder's W&B run, drawn when first asked for."""
    path = run_dir / "wandb_id"
    if not path.exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(8))
    return path.read_text()
