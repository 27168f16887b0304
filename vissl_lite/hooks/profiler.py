"""Where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from torch.profiler import ProfilerActivity, profile, schedule

from vissl_lite import HOOKS
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.collectives import rank
from vissl_lite.schema import at_least

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer

ROWS = 30  # of the table


@HOOKS.register("profiler")
class Profiler(Hook):
    """Records a few steps with torch.profiler, on rank 0.

    `RUN/trace/rank0.json.gz` opens in https://ui.perfetto.dev; `RUN/trace/top.txt` lists the
    operators that take the most time themselves. Slows these steps down; not for daily use.

    Args:
        start_step: steps of this session before the recording; the first ones are never typical.
        steps: how many are recorded; a trace grows by some MB per step.
    """

    def __init__(
        self,
        start_step: Annotated[int, at_least(1)] = 10,
        steps: Annotated[int, at_least(1)] = 5,
    ):
        self.when = schedule(skip_first=start_step - 1, wait=0, warmup=1, active=steps, repeat=1)
        self.start_step, self.done = start_step, False

    def on_start(self, trainer: Trainer) -> None:
        if rank() != 0:
            return
        on_gpu = trainer.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        self.profile = profile(
            activities=activities,
            schedule=self.when,
            on_trace_ready=lambda profile: self._write(trainer, profile),
        )
        self.profile.start()

    def after_step(self, trainer: Trainer) -> None:
        if rank() == 0 and not self.done:
            self.profile.step()
            if self.done:
                self.profile.stop()

    def on_end(self, trainer: Trainer) -> None:
        if rank() != 0 or self.done:
            return
        self.profile.stop()
        if not self.done:
            text = f"hooks.profiler: the run ended within {self.start_step} steps; nothing recorded"
            trainer.journal.note(text, "warning")

    def _write(self, trainer: Trainer, profile: profile) -> None:
        folder = trainer.run_dir / "trace"
        folder.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(folder / "rank0.json.gz"))
        order = "self_device_time_total" if trainer.device.type == "cuda" else "self_cpu_time_total"
        table = profile.key_averages().table(sort_by=order, row_limit=ROWS)
        (folder / "top.txt").write_text(table)
        self.done = True
        trainer.journal.note(
            f"profile: {folder / 'rank0.json.gz'} for ui.perfetto.dev, {folder / 'top.txt'}"
        )
