"""Metrics that stay on the device between two log lines."""

from __future__ import annotations

import resource
import sys

import torch
from torch import Tensor

from vissl_lite.parallel.collectives import gather_with_grad


class Meters:
    """Sums of scalars on the device; `flush` reads them all with one synchronisation.

    Also remembers, on the device, the first step whose loss was not finite.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.first_bad = torch.full((), -1.0, device=device)

    @torch.no_grad()
    def add(self, metrics: dict[str, Tensor], step: int) -> None:
        """Adds the metrics of one step, scalars; the norm of offloaded gradients is on the host."""
        for name, value in metrics.items():
            value = value.detach().to(self.device, torch.float32)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        fine = torch.isfinite(metrics["loss"]) | (self.first_bad >= 0)
        self.first_bad = torch.where(fine, self.first_bad, float(step))

    @torch.no_grad()
    def flush(self) -> tuple[dict[str, float], int | None]:
        """Means over steps and ranks since the last flush, and the first bad step, if any.

        All ranks call it together: one collective, one synchronisation with the device.
        """
        names, steps = list(self.sums), self.steps
        own = torch.stack([*self.sums.values(), self.first_bad])
        rows = gather_with_grad(own[None]).tolist()  # one per rank
        means = {n: sum(row[i] for row in rows) / steps / len(rows) for i, n in enumerate(names)}
        bad = [int(row[-1]) for row in rows if row[-1] >= 0]
        self.sums, self.steps = {}, 0
        return means, min(bad, default=None)

    def state_dict(self) -> dict[str, object]:
        return {"sums": self.sums, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.steps = state["steps"]


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory so far in GB: allocated on the GPU, or resident of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
