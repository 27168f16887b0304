"""Memory per process of a linear head with many classes: rows kept apart, or gathered by FSDP2.

    OMP_NUM_THREADS=1 python benchmarks/class_shards.py [--ranks 4 --classes 100000 ...]

Real gloo processes take two fp32 steps (hashtag softmax, SGD with momentum) with each head, from
the same weights. Measured are the tensor bytes of the second step at its peak, with weights and
momentum, by torch's record of allocations; beside them the formula, K classes, D features, n images
per process, W processes:

    sharded     12 K D / W  (weight, gradient, momentum)  +  4 n K  (gradient of the logits)
                + 8 W n D  (gathered features and their gradient)
    gathered    12 K D / W  +  8 K D  (whole weight and gradient)  +  4 n K  (the same)

Last result: see RESULTS.md.
"""

import argparse
import copy
import multiprocessing
import os
import tempfile
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
    options = parser.parse_args()
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


def in_processes(sizes):
    """The answer of rank 0."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.SimpleQueue()
        ranks = [
            context.Process(target=on_rank, args=(r, sizes, folder, answers), daemon=True)
            for r in range(sizes[-1])
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit("a process failed")
        return answers.get()


def on_rank(rank, sizes, folder, answers):
    K, D, n, W = sizes
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=W)
    mesh = init_device_mesh("cpu", (W,))
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
    if rank == 0:
        answers.put(([ours["bytes"], theirs["bytes"]], differences))
    dist.barrier()
    dist.destroy_process_group()


def difference(a, b):
    """Largest absolute difference on this process, relative to the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def two_steps(head, x_ND, batch):
    """Loss and gradients of the first step, the peak of tensor bytes in the second."""
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    loss, dx = step(head, optimizer, x_ND, batch)
    first = {"loss": loss, "dx": dx, "dw": whole(head.weight.grad)}
    optimizer.zero_grad()
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    kept = sum(t.nbytes for t in local([*head.parameters(), *momenta]))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(head, optimizer, x_ND, batch)
    return first | {"bytes": kept + peak(record)}


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
