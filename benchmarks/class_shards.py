"""Memory per process of a linear head with many classes: rows kept apart, or gathered by FSDP2.

    OMP_NUM_THREADS=1 python benchmarks/class_shards.py [--ranks 4 --classes 100000 ...]
    OMP_NUM_THREADS=1 python benchmarks/class_shards.py --scaling --classes 1500000 --dim 512

Real gloo processes take two fp32 steps (hashtag softmax, SGD with momentum) with each head, from
the same weights. Measured are the tensor bytes of the second step at its peak, with weights and
momentum, by torch's record of allocations; beside them the formula, K classes, D features, n images
per process, W processes:

    sharded     12 K D / W  (weight, gradient, momentum)  +  4 n K  (gradient of the logits)
                + 8 W n D  (gathered features and their gradient)
    gathered    12 K D / W  +  8 K D  (whole weight and gradient)  +  4 n K  (the same)

With --scaling only the rows kept apart, on 1, 2 and 4 processes, with seconds per step; 64 images
in all.

Last result: see RESULTS.md.
"""

import argparse
import copy
import multiprocessing
import os
import tempfile
import time
from types import SimpleNamespace

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its remarks about a missing GPU

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.profiler import ProfilerActivity, profile

from vissl_lite.data.batch import Batch, Tags
from vissl_lite.heads.linear import Linear
from vissl_lite.losses.hashtag_softmax import HashtagSoftmax
from vissl_lite.parallel.shards import local, whole

PUBLISHED = [(17_000, 7392, 16, 64), (100_000, 2048, 128, 64), (1_500_000, 2048, 128, 64)]
GB = 1e9


def formulas(K, D, n, W):
    """Bytes per process: sharded, gathered."""
    own = 12 * K * D / W
    return own + 4 * n * K + 8 * W * n * D, own + 8 * K * D + 4 * n * K


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--images", type=int, default=16, help="per process")
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    if options.scaling:
        return scaling(options.classes, options.dim)
    sizes = (options.classes, options.dim, options.images, options.ranks)
    print(f"torch {torch.__version__}; GB per process, sharded against gathered")
    for case in PUBLISHED:
        print(f"{shown(case)}: formula {compared(*formulas(*case))}")
    measured, differences = in_processes(sizes)
    print(f"{shown(sizes)}: formula {compared(*formulas(*sizes))}")
    print(f"{shown(sizes)}: measured {compared(*measured)}")
    print("largest difference: " + ", ".join(f"{k} {v:.1e}" for k, v in differences.items()))


def shown(sizes):
    return "{:,} classes, {} features, {} images, {} processes".format(*sizes)


def compared(sharded, gathered):
    return f"{sharded / GB:.3f} against {gathered / GB:.3f}, {gathered / sharded:.1f}x"


def scaling(K, D, images=64):
    print(f"torch {torch.__version__}; {K:,} classes, {D} features, {images} images in all")
    for W in (1, 2, 4):
        measured, seconds = in_processes((K, D, images // W, W), alone)
        print(f"{W} processes: {measured / GB:.2f} GB each, {seconds:.2f} s per step")
    measured, seconds = in_processes((K, D, images, 1), dense)
    print(f"ordinary layer: {measured / GB:.2f} GB, {seconds:.2f} s per step")


def in_processes(sizes, job=None):
    """The answer of rank 0."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        ranks = [
            context.Process(
                target=on_rank, args=(r, sizes, folder, answers, job or both), daemon=True
            )
            for r in range(sizes[-1])
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit("a process failed")
        return answers.get()


def on_rank(rank, sizes, folder, answers, job):
    W = sizes[-1]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=W)
    found = job(rank, sizes, init_device_mesh("cpu", (W,)))
    if rank == 0:
        answers.put(found)
    dist.barrier()
    dist.destroy_process_group()


def alone(rank, sizes, mesh):
    """Peak bytes and seconds of a step of the sharded head, never whole in any process."""
    with torch.device("meta"):
        head = Linear(sizes[0], True, in_dim=sizes[1])
    head.shard_(mesh)
    return measured_steps(head, rank, sizes)


def dense(rank, sizes, mesh):
    """The same of an ordinary layer in one process."""
    return measured_steps(Linear(sizes[0], in_dim=sizes[1]), rank, sizes)


def measured_steps(head, rank, sizes):
    K, D, n, _ = sizes
    head.to_empty(device="cpu")
    for p in local(head.parameters()):
        torch.nn.init.normal_(p, std=0.01)
    torch.manual_seed(1 + rank)
    x_ND = torch.randn(n, D)
    batch = Batch([], torch.arange(n), tags=Tags.pack(torch.randint(K, (n, 3)).tolist()))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    step(head, optimizer, x_ND, batch)
    optimizer.zero_grad()
    measured = bytes_of_step(head, optimizer, x_ND, batch)
    start = time.perf_counter()
    for _ in range(3):
        step(head, optimizer, x_ND, batch)
    return measured, (time.perf_counter() - start) / 3


def both(rank, sizes, mesh):
    """Bytes of sharded and gathered head, and how far they differ."""
    K, D, n, _ = sizes
    torch.manual_seed(0)
    gathered = Linear(K, True, in_dim=D)
    sharded = copy.deepcopy(gathered)
    sharded.shard_(mesh)
    fully_shard(gathered, mesh=mesh)
    torch.manual_seed(1 + rank)
    x_ND = torch.randn(n, D)
    batch = Batch([], torch.arange(n), tags=Tags.pack(torch.randint(K, (n, 3)).tolist()))
    ours, theirs = (two_steps(head, x_ND, batch) for head in (sharded, gathered))
    differences = {key: difference(ours[key], theirs[key]) for key in ("loss", "dx", "dw")}
    return [ours["bytes"], theirs["bytes"]], differences


def difference(a, b):
    """Largest absolute difference on this process, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def two_steps(head, x_ND, batch):
    """Loss and gradients of the first step, the peak of tensor bytes in the second."""
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    loss, dx = step(head, optimizer, x_ND, batch)
    first = {"loss": loss, "dx": dx, "dw": whole(head.weight.grad)}
    optimizer.zero_grad()
    return first | {"bytes": bytes_of_step(head, optimizer, x_ND, batch)}


def bytes_of_step(head, optimizer, x_ND, batch):
    """Weights, momentum, and what a step takes beside them at its peak."""
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    kept = sum(t.nbytes for t in local([*head.parameters(), *momenta]))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(head, optimizer, x_ND, batch)
    return kept + peak(record)


def step(head, optimizer, x_ND, batch):
    x_ND = x_ND.clone().requires_grad_()
    logits = head(x_ND).unflatten(0, (1, len(x_ND)))
    loss = HashtagSoftmax()(SimpleNamespace(logits=[logits]), batch)["loss"]
    del logits
    loss.backward()
    optimizer.step()
    return loss.detach(), x_ND.grad


def peak(record):
    """Most bytes above those at the start."""
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return sizes.cumsum(0).max().item()


if __name__ == "__main__":
    main()
