"""Where a training inside an evaluation stands, kept so that it goes on after a stop."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vissl_lite.parallel.collectives import broadcast_object, rank, world_size

if TYPE_CHECKING:
    from vissl_lite.engine.bench import Bench

FILE = "training.pt"
EVERY_S = 300.0  # between two writes


class Kept:
    """Weights, optimizer and step of a training, in the folder of its evaluation.

    The file belongs to one training: another network at the start, other settings or another number
    of processes begin anew. It goes when the training is done. Without a run nothing is kept.

    Args:
        parts: "network", "optimizer" and whatever else has a state_dict.
        settings: of the evaluation and the content of its annotations, all that the training
            depends on besides the network and the pixels.
    """

    def __init__(self, name: str, parts: dict[str, Any], settings: dict[str, Any], bench: Bench):
        self.parts, self.name, self.bench = parts, name, bench
        folder = bench.folder and bench.folder / "evaluations" / name
        self.file: Path | None = folder and folder / FILE
        self.identity = _identity([bench.model, parts["network"]], settings) if folder else ""
        self.written = time.monotonic()

    def begin(self) -> int:
        """Steps that are done; puts the parts where they were then. All ranks call it."""
        there = self.file is not None and self.file.is_file()
        if not broadcast_object(there):
            return 0
        assert self.file is not None
        kept = torch.load(self.file, map_location=self.bench.device, weights_only=True)
        if kept["identity"] != self.identity:
            return 0
        for key, part in self.parts.items():
            part.load_state_dict(kept[key])
        self.bench.note(f"{self.name}: goes on after iteration {kept['step']:,}")
        return kept["step"]

    def after(self, step: int, now: bool = False) -> None:
        """Writes when it is time, or now; rank 0 has what all have."""
        if self.file is None or rank() > 0:
            return
        if now or time.monotonic() - self.written > EVERY_S:
            self.written = time.monotonic()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            tmp = self.file.with_suffix(".tmp")
            states = {key: part.state_dict() for key, part in self.parts.items()}
            torch.save({**states, "step": step, "identity": self.identity}, tmp)
            os.replace(tmp, self.file)

    def end(self) -> None:
        if self.file is not None and rank() == 0:
            self.file.unlink(missing_ok=True)


def _identity(networks: list[nn.Module], settings: dict[str, Any]) -> str:
    found = hashlib.blake2b(f"{sorted(settings.items())} {world_size()}".encode(), digest_size=16)
    for network in networks:
        for name, t in network.state_dict().items():
            found.update(name.encode())
            found.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
