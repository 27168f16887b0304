"""`vissl-lite extract` and `vissl-lite nearest`: features in files, and what is alike in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vissl_lite import SOURCES
from vissl_lite.data.loader import choose_workers
from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.extract.extract import Settings, extract
from vissl_lite.extract.nearest import features_of, nearest, row_of
from vissl_lite.extract.stored import open_features
from vissl_lite.extract.subject import Subject
from vissl_lite.loggers._format import printable
from vissl_lite.parallel.collectives import rank
from vissl_lite.parallel.command import PATIENCE_S, start, without_launch
from vissl_lite.parallel.launch import die_with_parent, processes_to_start
from vissl_lite.parallel.process import adopt_launcher, choose_device, join_group
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.words import SOURCE_IS, Parser, identity, source_config, whole

USAGE = f"""usage: vissl-lite extract MODEL SOURCE [key=value ...] --out PATH [options]

Features of all images of a source, each once, in its order. Started again after a stop, it goes on.

MODEL is a run (its newest checkpoint), a checkpoint, or whatever else vissl_lite.load reads.
{SOURCE_IS}
launch.processes=N starts N processes on this machine; without it one per GPU, else one.

--out PATH        a folder of arrays LAYER.npy (docs/features.md), or one file that ends in .parquet
--layer NAME      of the trunk, averaged over its map; "embedding", the output of the heads; or
                  "logits"; may be repeated; default: the layer that feeds the heads
--dtype D         of what is written: float32 (default) or float16
--precision P     of the computation: fp32 (default), bf16, fp16
--size N          side of the images in pixels; default: that of the run or the weights, else 224
--batch-size N    images that the model sees at once; default 256
--workers N       processes per rank that read images; default: none on a CPU, else by cores
--device D        auto (default), cpu or cuda
"""
NEAREST_USAGE = """usage: vissl-lite nearest FEATURES IMAGE|INDEX [-k 10] [--layer NAME]

The images whose features have the largest cosine with those of one image: cosine, index, name.

FEATURES is what vissl-lite extract wrote. IMAGE is a file, which the same model looks at; INDEX is
the place of an image in the source, counted from 0; it is not shown itself.

-k N              how many; default 10
--layer NAME      default: the first
"""


def main(words: Sequence[str]) -> int:
    """`vissl-lite extract`; returns its exit code.

    Raises:
        ConfigError: a mistake in the words, or something wrong with model, source or folder.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    adopt_launcher()
    own, how = without_launch(words)
    options = _parsed(own)
    processes = processes_to_start(how, options.device)
    if processes > 1:
        return start(["extract", *own], processes)
    die_with_parent()
    try:
        _extract(options)
    except BuildStopped as error:
        print(f"extract: {error}", file=sys.stderr)
        return 1
    return 0


def _extract(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    config = source_config(options.source, "extract")
    source = SOURCES.build(config, "extract")
    subject = Subject.load(options.model, options.size)
    join_group(PATIENCE_S, options.device)
    for note in subject.notes if rank() == 0 else []:
        print(note)
    settings = Settings(
        layers=options.layer,
        dtype=options.dtype,
        precision=options.precision,
        batch_size=options.batch_size,
        workers=choose_workers("auto" if options.workers is None else options.workers, device),
        device=device,
    )
    meta = extract(subject, source, identity(config, "extract"), options.out, settings)
    if rank() == 0:
        print(summary(meta, options.out))


def summary(meta: dict[str, Any], out: Path) -> str:
    """What has been written, in a few lines."""
    layers = ", ".join(f"{layer} [{meta['images']}, {n}]" for layer, n in meta["layers"].items())
    broken = f"{meta['broken']:,} broken, their rows are NaN" if meta["broken"] else "none broken"
    return "\n".join(
        [
            str(out),
            f"  features  {layers}, {meta['dtype']}",
            f"  images    {meta['images']:,}, {broken}",
            f"  alike     vissl-lite nearest {out} INDEX|IMAGE",
        ]
    )


def nearest_main(words: Sequence[str]) -> int:
    """`vissl-lite nearest`; returns its exit code.

    Raises:
        ConfigError: a mistake in the words, no features, or an image that has none.
    """
    if not words or {"-h", "--help"} & set(words):
        print(NEAREST_USAGE)
        return 0
    parser = Parser("nearest")
    parser.add_argument("features", metavar="FEATURES", type=_path)
    parser.add_argument("image", metavar="IMAGE|INDEX")
    parser.add_argument("-k", type=whole(1, 10**6), default=10)
    parser.add_argument("--layer")
    options = parser.parse_args(words)
    features = open_features(options.features)
    layer = options.layer or next(iter(features.meta["layers"]))
    _check_layer(layer, features.meta["layers"])
    index = int(options.image) if options.image.isdecimal() else None
    if index is None:
        query_D = features_of(_path(options.image), features.meta, layer)
    else:
        query_D = row_of(features, layer, index)
    for cosine, i in zip(*nearest(query_D, features, layer, options.k, leave_out=index)):
        print(printable(f"{cosine:7.4f}  {i}  {features.name(int(i))}").rstrip())
    return 0


def _check_layer(layer: str, known: dict[str, int]) -> None:
    if layer not in known:
        close = did_you_mean(layer, known) or ";"
        raise ConfigError(f"nearest --layer: no features of {layer!r}{close} of {', '.join(known)}")


# ---------------------------------------------------------------- words


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser("extract")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("source", nargs="+", metavar="SOURCE")
    parser.add_argument("--out", required=True, type=_path)
    parser.add_argument("--layer", action="append", default=[])
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--size", type=whole(1, 65_535))
    parser.add_argument("--batch-size", type=whole(1, 10**6), default=256)
    parser.add_argument("--workers", type=whole(0, 4096))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_intermixed_args(words)


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
