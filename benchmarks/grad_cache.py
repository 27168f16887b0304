"""SimCLR at batch 4,096 with the memory of 256: GradCache against the whole batch, on a CPU.

    CIFAR10=... python benchmarks/grad_cache.py

One forward and backward pass, each in a process of its own, one thread, fp32. The model is a small
ResNet with GroupNorm in place of BatchNorm, so that both gradients are those of one function. The
images are CIFAR-10's, or noise where $CIFAR10 is not set; the second crop is the first, mirrored.
Memory is what the pass adds to the process at its peak; the C library maps large tensors one by one
(otherwise holes in its heap count too). What the loss alone takes at batch 4,096 has its own line.
Demand: the gradients equal to 1e-12 in float64 (batch 128, chunk 32). Last result: see RESULTS.md.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vissl_lite.data.batch import Batch
from vissl_lite.engine import grad_cache
from vissl_lite.heads.mlp import MLP
from vissl_lite.layers.norm import BatchNorm2d
from vissl_lite.losses.simclr import SimCLR
from vissl_lite.model import Outputs, SSLModel
from vissl_lite.trunks.resnet import ResNet

BATCH, CHUNK, SIDE, DIM = 4096, 256, 32, 128
Gradients = dict[str, Tensor]


def small_model() -> SSLModel:
    torch.manual_seed(0)
    trunk = with_group_norm(ResNet(18, width_multiplier=0.75))
    head = MLP((256,), DIM, norm="none", in_dim=trunk.widths["res5"])
    return SSLModel(trunk, [head], mean=[0.5] * 3, std=[0.25] * 3)


def with_group_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        norm = isinstance(child, BatchNorm2d)
        setattr(
            module, name, nn.GroupNorm(4, child.num_features) if norm else with_group_norm(child)
        )
    return module


def gradients(model: SSLModel, views: Tensor, chunk: int | None = None) -> Gradients:
    """Of SimCLR; by GradCache if there is a chunk."""
    batch, loss = Batch([views], torch.arange(views.shape[1])), SimCLR()
    if chunk is None:
        loss(model(batch.views), batch).backward()
    else:
        grad_cache.backward(model, model, loss, batch, chunk)
    return {name: p.grad for name, p in model.named_parameters()}


def whole_batch(views: Tensor) -> Gradients:
    return gradients(small_model(), views)


def cached(views: Tensor) -> Gradients:
    return gradients(small_model(), views, CHUNK)


def one_chunk(views: Tensor) -> Gradients:
    return gradients(small_model(), views[:, :CHUNK])


def loss_alone(views: Tensor) -> Gradients:
    z_VBD = torch.randn(*views.shape[:2], DIM, requires_grad=True)
    SimCLR()(Outputs(z_VBD, z_VBD), None).backward()
    return {}


def measured(run: Callable[[Tensor], Gradients], path: str) -> tuple[float, float, dict]:
    """MiB that `run` adds to this process at its peak, CPU seconds, gradients."""
    import torch._dynamo  # 100 MiB of modules that torch imports when checkpointing is first used

    torch.set_num_threads(1)
    views = torch.from_numpy(np.load(path))
    run(views[:, :2])  # what torch allocates once
    resident, start = resident_mib(), time.process_time()
    found = run(views)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return peak - resident, seconds, {name: grad.numpy() for name, grad in found.items()}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def images(folder: str | None) -> tuple[np.ndarray, str]:
    """uint8 [BATCH, SIDE, SIDE, 3], and what they are."""
    if folder is None:
        shape = (BATCH, SIDE, SIDE, 3)
        return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), "noise"
    paths = sorted(Path(folder, "train").glob("*/*.jpg"))
    chosen = paths[:: len(paths) // BATCH][:BATCH]
    return np.stack([np.asarray(Image.open(path)) for path in chosen]), "CIFAR-10"


def difference(got: dict, expected: dict) -> str:
    """Of all gradients as one vector, and of the parameter where it is largest."""
    norm = {k: np.linalg.norm(got[k] - g) for k, g in expected.items()}
    size = {k: np.linalg.norm(g) for k, g in expected.items()}
    whole = np.linalg.norm(list(norm.values())) / np.linalg.norm(list(size.values()))
    return f"{whole:.1e}, worst parameter {max(norm[k] / size[k] for k in size):.1e}"


def main() -> None:
    pixels, origin = images(os.environ.get("CIFAR10"))
    views = np.stack([pixels, pixels[:, :, ::-1]])
    print(f"torch {torch.__version__}, one thread, 2 x {BATCH} crops of {SIDE} px, {origin}")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)  # read by the processes started below
    runs = {"a whole batch": whole_batch, "b GradCache": cached, "c batch 256": one_chunk}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/views.npy", views)
        for label, run in [*runs.items(), ("loss at 4096", loss_alone)]:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                results.append(process.apply(measured, (run, f"{folder}/views.npy")))
            print(f"{label:13s} {results[-1][0]:6.0f} MiB {results[-1][1]:6.1f} CPU s", flush=True)
    (a, a_s, exact), (b, b_s, ours), (c, _, _), _ = results
    print(f"memory: a / b {a / b:.2f}, b / c {b / c:.2f}; CPU time: b / a {b_s / a_s:.2f}")
    print(f"relative difference of the gradients, a against b, fp32: {difference(ours, exact)}")
    few = torch.from_numpy(views[:, :128].copy())
    exact, ours = (gradients(small_model().double(), few, chunk) for chunk in (None, 32))
    print(f"the same in float64, batch 128, chunk 32: {difference(ours, exact)}")


if __name__ == "__main__":
    main()
