"""The loop, and what it keeps."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vissl_lite.config import Config
from vissl_lite.data.batch import Batch
from vissl_lite.engine import checkpoint, grad_cache, state
from vissl_lite.engine.build import build_hooks
from vissl_lite.engine.flops import peak_flops
from vissl_lite.engine.journal import Journal, keep_classes
from vissl_lite.engine.malloc import keep_freed_memory
from vissl_lite.engine.meters import Meters, peak_memory_gb
from vissl_lite.engine.numerics import autotuned
from vissl_lite.engine.parts import Parts
from vissl_lite.engine.watch import BrokenImages, Speed, StopSignal
from vissl_lite.layers.norm import average_statistics
from vissl_lite.model import Outputs
from vissl_lite.parallel.collectives import on_rank_zero, rank
from vissl_lite.parallel.process import choose_device
from vissl_lite.parallel.shards import clip_grad_norm_
from vissl_lite.parallel.wrap import accumulating

LossesAndOutputs = tuple[dict[str, Tensor], Outputs]


class Trainer:
    """Trains what a config describes. One visible loop:

        for batch in loader:                      # resumable, on the device
            schedules
            for micro in split(batch):            # gradient accumulation
                outputs = model(micro.views); loss = objective(outputs, micro)
                backward(loss)
            clip; step; teacher update
            hooks                                 # log, probe, checkpoint, diagnose

    Args:
        config: checked.
        run_dir: everything of the run lies in it.

    Attributes:
        autotune: cuDNN times its algorithms for the shapes that are new to it in a step.
        step: optimizer steps done.
        results: last value of every metric, "loss" and "knn.top1" among them.
        stop: hears signals; `stop.reason` says why the training ended early, if it did.
    """

    autotune = True  # crops come in few sizes; the images of evaluations may not

    def __init__(self, config: Config, run_dir: Path):
        self.config, self.run_dir = config, run_dir
        self.device = choose_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.step, self.results = 0, {}
        self.checkpointer = checkpoint.Checkpointer(run_dir / "checkpoints")
        latest = self.checkpointer.latest() if config.resume else None
        saved = checkpoint.load(latest) if latest else None
        with autotuned(self.autotune):
            self.parts = Parts(config, self.device, saved and saved[0])
        on_rank_zero(lambda: keep_classes(self.parts.source, run_dir))
        self.model, self.loss, self.optimizer = (
            self.parts.model,
            self.parts.loss,
            self.parts.optimizer,
        )
        self.forward = self.parts.forward
        self.hooks = build_hooks(config)
        self.meters = Meters(self.device)
        self.broken = BrokenImages(config.data.max_broken, run_dir / "broken_images.txt")
        self.stop = StopSignal()
        self.speed = Speed(config.train.batch_size)
        if latest and saved:
            self._restore(latest, *saved)
        self.journal = Journal(config, run_dir, resumed_step=self.step)

    # ------------------------------------------------------------------ the loop

    def fit(self) -> None:
        """Trains to the last step, or to a signal; afterwards `results` holds the metrics."""
        start = time.perf_counter()
        with self.stop, self.journal:
            self.journal.start(self.parts)
            self._call("on_start")
            self.loader = self.parts.loader(self.step)
            self.speed.mark(self.step, 0.0)
            for batch in self.loader:
                self._note_broken(batch)
                self.train_step(batch)
                if self.at_log_step:
                    self._log_step()  # a checkpoint of this step has it behind itself
                self._call("after_step")
                if self.stop.stops(self.at_log_step):
                    break
            self._call("on_end")
            self.journal.end(self.stop.reason, self.step, time.perf_counter() - start)

    def train_step(self, batch: Batch) -> None:
        """One optimizer step: forward, backward, clip, step, teacher."""
        torch.manual_seed(step_seed(self.config.seed, self.step, rank()))  # dropout, drop path
        self.parts.schedules.apply(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        micros = self.split(batch)
        metrics: dict[str, Tensor] = {}
        for i, micro in enumerate(micros):
            last = i + 1 == len(micros)
            for name, value in self._forward_backward(micro, len(micros), last).items():
                metrics[name] = metrics.get(name, 0) + value.detach() / len(micros)
        self._update(metrics)
        self.meters.add(metrics, self.step)
        self.step += 1

    def _forward_backward(self, micro: Batch, micros: int, last: bool) -> dict[str, Tensor]:
        with autotuned(self.autotune):
            if self.config.train.grad_cache is not None:
                losses, outputs = self._cached(micro, self.config.train.grad_cache)
            else:
                losses, outputs = self._in_one_graph(micro, micros, last)
        for hook in self.hooks.values():
            hook.after_backward(self, outputs, micro)
        return losses

    def _in_one_graph(self, micro: Batch, micros: int, last: bool) -> LossesAndOutputs:
        with contextlib.nullcontext() if last else accumulating(self.forward):
            with self.parts.numerics.autocast(self.device):
                outputs = self.forward(micro.views)
            losses = self.loss(outputs, micro)
            losses = losses if isinstance(losses, dict) else {"loss": losses}
            self.parts.scaler.scale(losses["loss"] / micros).backward()
        return losses, outputs

    def _cached(self, batch: Batch, chunk: int) -> LossesAndOutputs:
        return grad_cache.backward(
            self.model,
            self.forward,
            self.loss,
            batch,
            chunk,
            scale=self.parts.scaler.scale,
            accumulating=lambda: accumulating(self.forward),
            autocast=lambda: self.parts.numerics.autocast(self.device),
        )

    def _update(self, metrics: dict[str, Tensor]) -> None:
        scaler, clip = self.parts.scaler, self.config.train.clip_grad_norm
        if hasattr(self.loss, "before_step"):
            self.loss.before_step(self.model, self.step)  # may freeze, hence before the norms
        scaler.unscale_(self.optimizer)
        if clip is not None:
            metrics["grad_norm"] = clip_grad_norm_(self.model.parameters(), clip)
        scaler.step(self.optimizer)
        scaler.update()
        self.model.after_step()
        self.model.update_teacher(self.parts.schedules.values["teacher_momentum"])

    def split(self, batch: Batch) -> list[Batch]:
        """Equal micro-batches."""
        size = len(batch) // self.config.train.accumulate
        return [batch.slice(i, i + size) for i in range(0, len(batch), size)]

    # ------------------------------------------------------------------ where we are

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction."""
        return self.step / self.parts.steps_per_epoch

    @property
    def finished(self) -> bool:
        return self.step >= self.parts.last_step

    @property
    def at_log_step(self) -> bool:
        return self.step % self.config.train.log_every == 0 or self.finished

    def at_end_of(self, every_epochs: float, step: int | None = None) -> bool:
        """Whether a step, the one just done if None, is the last of a period of so many epochs."""
        done = self.step if step is None else step
        period = every_epochs * self.parts.steps_per_epoch
        if not period:
            return False
        before, now = (int(step / period + 1e-9) for step in (done - 1, done))
        return now > before

    # ------------------------------------------------------------------ what is told

    def _log_step(self) -> None:
        means, bad_step = self.meters.flush()
        speed = self.speed.read(self.step, self.parts.last_step, self.loader.waited_s)
        record = {
            "kind": "train",
            "step": self.step,
            "epoch": self.epoch,
            "total_steps": self.parts.total_steps,
            **means,
            "lr": self.parts.schedules.values["lr"],
            **speed,
            **self._compute(speed["images_per_s"]),
            "memory_gb": peak_memory_gb(self.device),
        }
        if bad_step is not None:
            record["bad_step"] = bad_step
        self._call("on_log", record)
        self.results |= {k: v for k, v in record.items() if isinstance(v, float)}
        self.journal.log(record)

    def _compute(self, images_per_s: float) -> dict[str, float]:
        """Achieved TFLOP/s per process, and its share of the device's peak where that is known."""
        flops = images_per_s * self.parts.flops_per_image * self.parts.local_batch
        flops /= self.config.train.batch_size
        peak = peak_flops(self.device)
        return {"tflops": flops / 1e12} | ({"mfu": flops / peak} if peak else {})

    def log_evaluation(self, name: str, metrics: dict[str, float]) -> None:
        """Puts `name.metric` into the results and an "eval" record into the logs."""
        self.results |= {f"{name}.{metric}": value for metric, value in metrics.items()}
        self.journal.log({"kind": "eval", "name": name, "step": self.step, **metrics})

    def request_stop(self, reason: str) -> None:
        """Ends training after this step; a hook calls it on all ranks at the same step."""
        self.stop.request = reason

    @property
    def exit_code(self) -> int:
        """0 when done, 128 + n after signal n, as shells count."""
        return 128 + self.stop.received if self.stop.received else 0

    def _note_broken(self, batch: Batch) -> None:
        for name in self.broken.add(batch.broken or [], len(batch)):
            self.journal.note(f"broken image replaced by the next one: {name}", "warning")

    def _call(self, event: str, *args: Any) -> None:
        for hook in self.hooks.values():
            getattr(hook, event)(self, *args)

    # ------------------------------------------------------------------ what is kept

    def save(self, then: Callable[[Path], None] = lambda path: None) -> Path:
        """Writes a checkpoint of this step; all ranks call it together.

        Args:
            then: called on rank 0 once it is complete, maybe later and from another thread.

        Raises:
            SaveFailed: on all ranks.
        """
        average_statistics(self.model)
        shared = self.parts.state_dict() | {
            "step": self.step,
            "results": self.results,
            "hooks": {name: hook.state_dict() for name, hook in self.hooks.items()},
        }
        own = {
            "loss": self.loss.state_dict(),
            "meters": self.meters.state_dict(),
            "broken": self.broken.state_dict(),
        }
        tensors = state.tensors(self.model, self.optimizer)
        return self.checkpointer.save(self.step, tensors, shared, own, then)

    def _restore(self, path: Path, shared: dict[str, Any], own: dict[str, Any] | None) -> None:
        self.parts.notes += [*self.checkpointer.damaged(), f"resumed from {path}"]
        state.load(path, self.model, self.optimizer)
        self.parts.load_state_dict(shared)
        self.step, self.results = shared["step"], shared["results"]
        for name in self.hooks.keys() & shared["hooks"].keys():
            self.hooks[name].load_state_dict(shared["hooks"][name])
        if own is None:
            text = "another number of processes: queues and the like start empty, as in a new run"
            self.parts.notes.append(text)
            return
        self.loss.load_state_dict(own["loss"])
        self.meters.load_state_dict(own["meters"])
        self.broken.load_state_dict(own["broken"])


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for each run seed, step and rank."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")
