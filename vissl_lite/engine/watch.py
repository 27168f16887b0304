"""What the loop keeps an eye on: signals, unreadable images, speed."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

import torch

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import all_reduce_sum, is_distributed


class StopSignal:
    """Notes SIGTERM and SIGINT instead of dying of them; the second SIGINT kills as usual.

    Attributes:
        received: the first signal, or None.
        request: why a hook wants to stop, or None; a hook asks on all ranks at the same step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.request: str | None = None

    def __enter__(self) -> StopSignal:
        self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)

    def stops(self, at_log_step: bool) -> bool:
        """Whether to stop now: at once alone, with others at a log step, which waits anyway."""
        if self.request is not None:
            return True
        if not is_distributed():
            return self.received is not None
        return at_log_step and self._agreed()

    def _agreed(self) -> bool:
        """Whether any rank has received a signal; all ranks ask at the same step."""
        vote = torch.tensor([float(self.received is not None)])
        if all_reduce_sum(vote).item() == 0:
            return False
        self.received = self.received or signal.SIGTERM
        return True

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
                f" {self.share:.1%}; all names are in {self.file}, the last are\n  {shown}"
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
