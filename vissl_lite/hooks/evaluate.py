from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vissl_lite import HOOKS
from vissl_lite.engine.evaluate import Evaluations
from vissl_lite.hooks.base import Hook
from vissl_lite.parallel.failure import shared_failure
from vissl_lite.plugins import recipes
from vissl_lite.schema import at_least

if TYPE_CHECKING:
    from vissl_lite.engine.trainer import Trainer


@HOOKS.register("evaluate")
class Evaluate(Hook):
    """Runs all `evaluations` of the config on the current model, during and after training.

    With every_epochs=10: after 10, 20, 30, ... epochs, and once after the last step. That labelled
    images are missing, or that settings do not fit, is said before the first step. A run that is
    being stopped is not evaluated; a signal in the midst of it ends it after this batch of images,
    and its results are missing. `checkpoint` always comes after it, so that the checkpoint of a
    step knows its results.

    An evaluation that fails after the first step, by a mistake that shows only then or by a loss
    that is not finite, is left out: a warning names it and how to run it again, the others, the
    training and its checkpoints go on, the exit code is 0, and the warning is repeated at the end.
    The same where it fails on one process and the others come to its end within 30 s; where they
    wait for that one in a collective, the run ends with its error.

    Args:
        every_epochs: epochs between evaluations, also a fraction; 0: none in between.
        at_start: also before the first step: what random weights, or those of `init`, are worth.
        at_end: after the last step, whatever `every_epochs` says.

    Raises:
        ConfigError: before the first step, as `Evaluations` and its evaluations.
        NonFiniteLoss: of an evaluation before the first step.
    """

    def __init__(
        self,
        every_epochs: Annotated[float, at_least(0)] = 1.0,
        at_start: bool = False,
        at_end: bool = True,
    ):
        self.every_epochs, self.at_start, self.at_end = every_epochs, at_start, at_end
        self.evaluations: Evaluations | None = None

    def on_start(self, trainer: Trainer) -> None:
        if trainer.config.evaluations:
            self.evaluations = Evaluations(trainer.config, trainer.device, trainer.run_dir)
            numerics, note = trainer.parts.numerics, trainer.journal.note
            self.evaluations.check(self.evaluations.bench(trainer.model, numerics, note))
            if self.at_start and trainer.step == 0:
                self._evaluate(trainer, self.evaluations)

    def after_step(self, trainer: Trainer) -> None:
        due = trainer.at_end_of(self.every_epochs) or (self.at_end and trainer.finished)
        if due and self.evaluations and not trainer.stop.stops(at_log_step=True):
            self._evaluate(trainer, self.evaluations)
            trainer.speed.mark(trainer.step, trainer.loader.waited_s)  # no part of images/s

    def _evaluate(self, trainer: Trainer, evaluations: Evaluations) -> None:
        def stop_point() -> None:
            if trainer.stop.stops(at_log_step=True):
                raise Interrupted

        def left_out(name: str, own: Exception | None) -> bool:
            error = shared_failure(own, f"{name} of step {trainer.step}")
            if error is None:
                return False
            if trainer.step == 0:
                raise error
            trainer.journal.warn(
                f"evaluation {name} of step {trainer.step:,} failed and is left out:"
                f" {'; '.join(str(error).splitlines())}; to run it again (give its settings anew):"
                f" vissl-lite {_command(name)} init={trainer.run_dir}"
            )
            return True

        note, numerics = trainer.journal.note, trainer.parts.numerics
        run = evaluations.run(trainer.model, numerics, note, stop_point, left_out)
        try:
            for name, metrics in run:
                trainer.log_evaluation(name, metrics)
        except Interrupted:
            note(f"evaluation of step {trainer.step:,} given up: {trainer.stop.reason}", "warning")


def _command(name: str) -> str:
    """Words that run one evaluation on the weights of a run."""
    own = f"evaluate/{name}"
    return f"config={own}" if own in recipes() else f"config=evaluate/suite 'evaluations=[{name}]'"


class Interrupted(Exception):
    """A signal came during an evaluation."""
