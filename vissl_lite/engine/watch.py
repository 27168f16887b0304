"""What the loop keeps an eye on: signals, unreadable images, speed."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import all_reduce_sum, world_size
from vissl_lite.parallel.signals import STOPS, caught, more_telling, pass_on


class StopSignal:
    """Notes signals that ask the run to stop, instead of dying of them.

    These are SIGTERM, SIGINT, SIGHUP, and SIGUSR1 and SIGUSR2, which SLURM sends before the time
    limit if asked to. The second SIGINT kills as usual. When training has ended, SIGUSR1 or SIGUSR2
    goes on to the handler that was there before: submitit's, which puts the job back into the
    queue.

    Attributes:
        received: the first signal on any rank, or None.
        request: why a hook wants to stop, or None; a hook asks on all ranks at the same step.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.request: str | None = None
        self._agreed = False  # of several ranks, about the signal
        self._exits = ExitStack()

    def __enter__(self) -> StopSignal:
        self._exits.enter_context(caught(STOPS, self._note))
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._exits.close()
        if kind is None and self.received is not None:
            pass_on(self.received)

    def _note(self, number: int, frame: object) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = more_telling(self.received, number)

    def stops(self, at_log_step: bool) -> bool:
        """Whether to stop now: at once alone, with others at a log step, which waits anyway."""
        if self.request is not None or self._agreed:
            return True
        if world_size() == 1:
            return self.received is not None
        self._agreed = at_log_step and self._vote()
        return self._agreed

    def _vote(self) -> bool:
        """Whether any rank has received a signal, which then all have; they ask together.

        So rank 0, which alone can put a job back into the queue, learns what another one got.
        """
        votes = torch.zeros(signal.NSIG)
        votes[self.received or 0] = 1
        heard = [n for n in all_reduce_sum(votes).nonzero().flatten().tolist() if n]
        for number in heard:
            self.received = more_telling(self.received, number)
        return len(heard) > 0  # a signal that came since the vote is for the next one

    @property
    def reason(self) -> str | None:
        """Why training ended early, in words."""
        by_signal = f"stopped by {self.received.name}" if self.received else None
        return self.request or by_signal


class BrokenImages:
    """Counts unreadable images and stops the run when they are too many.

    Args:
        share: of all images seen; the first 1000 images count as 1000.
        file: gets every name with its reason, once.
    """

    def __init__(self, share: float, file: Path):
        self.share, self.file = share, file
        self.count, self.seen = 0, 0
        self.names: dict[str, None] = {}

    def add(self, broken: list[str], images: int) -> list[str]:
        """Notes the broken images of a batch; returns those not seen before.

        Raises:
            ConfigError: there are more than the given share; it lists the last ones.
        """
        self.seen += images
        self.count += len(broken)
        new = [name for name in dict.fromkeys(broken) if name not in self.names]
        if new:
            self.names.update(dict.fromkeys(new))
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as out:
                out.writelines(f"{name}\n" for name in new)
        if self.count > self.share * max(self.seen, 1000):
            shown = "\n  ".join(list(self.names)[-10:])
            raise ConfigError(
                f"data.max_broken: {self.count} of {self.seen} images could not be read, more than"
                f" {self.share:.1%}; mend or remove them, or allow more; all names are in"
                f" {self.file}, the last are\n  {shown}"
            )
        return new

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count, "seen": self.seen, "names": list(self.names)}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.seen = state["count"], state["seen"]
        self.names = dict.fromkeys(state["names"])


class Speed:
    """Images per second, share of time spent waiting for data, time to go."""

    def __init__(self, images_per_step: int):
        self.images_per_step = images_per_step
        self.mark(0, 0.0)

    def mark(self, step: int, waited_s: float) -> None:
        """Starts a new interval."""
        self._start, self._step, self._waited = time.perf_counter(), step, waited_s

    def read(self, step: int, last_step: int, waited_s: float) -> dict[str, float]:
        """Means over the interval that ends here, and starts the next one."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        steps, waited = max(step - self._step, 1), waited_s - self._waited
        self.mark(step, waited_s)
        return {
            "images_per_s": steps * self.images_per_step / seconds,
            "data_wait": min(waited / seconds, 1.0),
            "eta_s": (last_step - step) * seconds / steps,
        }
