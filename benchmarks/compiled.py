"""Do compiled blocks compute what eager ones do, and how much faster?

    python benchmarks/compiled.py [--steps 10] [--rounds 5]

The quickstart recipe in fp32, from the same weights on the same batches: the gradient of the first
step, eager and compiled, against float64; the losses of the first steps; CPU time of a step, in
turn. The largest part of that gradient is the stem's convolution.
"""

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

from vissl_lite.data.batch import Batch
from vissl_lite.engine.trainer import Trainer
from vissl_lite.overrides import compose

WORDS = [
    "config=quickstart",
    "precision=fp32",
    "memory.memory_format=contiguous",
    "device=cpu",
    "hooks=[]",
    "loggers=[]",
    "evaluations=[]",
]


def trainer(compiled: bool, dtype: torch.dtype = torch.float32) -> Trainer:
    torch.set_default_dtype(dtype)
    config = compose([*WORDS, f"compile={str(compiled).lower()}"])
    made = Trainer(config, Path(tempfile.mkdtemp()))
    torch.set_default_dtype(torch.float32)
    return made


def gradient(made: Trainer, batch: Batch) -> torch.Tensor:
    """Of the first step, all parameters in one vector, float64."""
    loss = made.loss(made.forward(batch.views), batch)
    (loss["loss"] if isinstance(loss, dict) else loss).backward()
    grads = [p.grad.flatten().double() for p in made.model.parameters() if p.grad is not None]
    made.optimizer.zero_grad(set_to_none=True)
    return torch.cat(grads)


def step(made: Trainer, batch: Batch) -> tuple[float, float]:
    """Loss, and seconds of CPU time."""
    start = time.process_time()
    made.train_step(batch)
    return made.meters.flush()[0]["loss"], time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    eager, compiled = trainer(False), trainer(True)
    batches = list(islice(eager.parts.loader(0), options.steps + options.rounds))

    exact = trainer(False, torch.float64)
    exact.model.load_state_dict(eager.model.state_dict())
    torch.set_default_dtype(torch.float64)
    truth = gradient(exact, batches[0])
    torch.set_default_dtype(torch.float32)
    for name, made in (("eager", eager), ("compiled", compiled)):
        off = (gradient(made, batches[0]) - truth).norm() / truth.norm()
        print(f"gradient, {name}: {off:.1e} from float64 (norm of the difference over norm)")

    losses = [(step(eager, b)[0], step(compiled, b)[0]) for b in batches[: options.steps]]
    for i in (1, options.steps):
        apart = max(abs(a - b) / abs(a) for a, b in losses[:i])
        print(f"losses of {i} steps: at most {apart:.1e} apart")

    times = [(step(eager, b)[1], step(compiled, b)[1]) for b in batches[options.steps :]]
    one, other = (statistics.median(t) for t in zip(*times))
    ratio = statistics.median(a / b for a, b in times)
    print(f"CPU time of a step, medians: eager {one:.3f} s, compiled {other:.3f} s")
    print(f"median ratio of {len(times)} pairs: {ratio:.2f}x as fast")


if __name__ == "__main__":
    main()
