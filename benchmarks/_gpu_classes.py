"""What a classifier of many tags costs on a GPU: time and peak memory of a step by vocabulary.

    python benchmarks/_gpu_classes.py [--cpu-toy]
    torchrun --nproc-per-node=8 benchmarks/_gpu_classes.py

1,024 images per process with 3 tags each, 2,048 features, bf16: the head, hashtag softmax, backward
pass and SGD with momentum on fp32 weights, without a trunk. With the scores of all tags (`linear`),
with those of 8,192 drawn ones (`sampled_linear`) and, on several processes, with the tags spread
over them (`linear` with shard_classes). What does not fit is told.
"""

import argparse
import gc
import os
import time
from types import SimpleNamespace

import torch
import torch.distributed as dist
from _gpu_cell import is_oom
from torch.distributed.device_mesh import init_device_mesh

from vissl_lite.data.batch import Batch, Tags
from vissl_lite.heads.linear import Linear
from vissl_lite.heads.sampled_linear import SampledLinear
from vissl_lite.losses.hashtag_softmax import HashtagSoftmax
from vissl_lite.parallel.shards import local
from vissl_lite.profile import memory

TAGS, IMAGES, FEATURES, SAMPLED = (17_000, 200_000, 1_500_000), 1024, 2048, 8192
TOY_TAGS, TOY_IMAGES, TOY_FEATURES, TOY_SAMPLED = (2000, 20_000), 64, 128, 512
WARMUP, STEPS = 2, 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-toy", action="store_true", help="small, on this CPU")
    toy = parser.parse_args().cpu_toy
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    device = torch.device("cpu" if toy else f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if not toy:
        torch.cuda.set_device(device)
    if several:
        dist.init_process_group("gloo" if toy else "cpu:gloo,cuda:nccl")
    vocabularies = TOY_TAGS if toy else TAGS
    images, features = (TOY_IMAGES, TOY_FEATURES) if toy else (IMAGES, FEATURES)
    sampled = TOY_SAMPLED if toy else SAMPLED
    kinds = ["linear", "sampled_linear", *(["linear, spread"] if several else [])]
    if not several or dist.get_rank() == 0:
        print(f"{images:,} images per process, {features:,} features, {sampled:,} sampled, bf16")
    for tags in vocabularies:
        for kind in kinds:
            found = measured(kind, tags, images, features, sampled, device)
            if not several or dist.get_rank() == 0:
                print(f"{tags:>9,} tags, {kind:<14}: {found}", flush=True)
    if several:
        dist.destroy_process_group()


def measured(kind, tags, images, features, sampled, device) -> str:
    """Milliseconds and GB of this process; on a CPU the GB beside the program's."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    memory.reset_peak(device)
    before = memory.peak(device) if device.type == "cpu" else 0
    try:
        milliseconds = timed(made(kind, tags, features, sampled, device), images, tags, device)
    except RuntimeError as error:
        if not is_oom(error):
            raise
        return "out of memory"
    return f"{milliseconds:9.2f} ms a step, {(memory.peak(device) - before) / 1e9:6.2f} GB"


def made(kind, tags, features, sampled, device):
    if kind == "linear, spread":
        with torch.device("meta"):
            head = Linear(tags, True, in_dim=features)
        head.shard_(init_device_mesh(device.type, (dist.get_world_size(),)))
        head.to_empty(device=device)
        for p in local(head.parameters()):
            torch.nn.init.normal_(p, std=0.01)
        return head
    with device:
        if kind == "linear":
            return Linear(tags, in_dim=features)
        return SampledLinear(sampled, tags, in_dim=features)


def timed(head, images, tags, device) -> float:
    """Mean over the steps after the first ones, which make the optimizer's state."""
    torch.manual_seed(0)
    rows = torch.randint(tags, (images, 3)).tolist()
    batch = Batch([], torch.arange(images), tags=Tags.pack(rows)).to(device)
    x_ND = torch.randn(images, head.in_features, device=device)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    for i in range(WARMUP + STEPS):
        if i == WARMUP:
            wait(device)
            start = time.perf_counter()
        step(head, optimizer, x_ND, batch)
    wait(device)
    return 1e3 * (time.perf_counter() - start) / STEPS


def step(head, optimizer, x_ND, batch):
    with torch.autocast(x_ND.device.type, torch.bfloat16):
        logits = head(x_ND.clone().requires_grad_()).unflatten(0, (1, len(x_ND)))
    loss = HashtagSoftmax()(SimpleNamespace(logits=[logits]), batch)["loss"]
    del logits
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
