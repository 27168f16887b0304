"""Features of all images of a source, by all processes together.

    rank 0: lock the folder, allocate, look what is done already
    rank r: its contiguous share of the missing blocks: read, compute, write at their place
    rank 0: names, labels, broken images; Parquet, if asked for

Shape suffixes: B images of a block, D features of a layer.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vissl_lite.engine.ahead import OneAhead, Results
from vissl_lite.engine.numerics import Numerics
from vissl_lite.errors import ConfigError
from vissl_lite.extract import parquet
from vissl_lite.extract.blocks import Block, Blocks, read_blocks
from vissl_lite.extract.finish import finish
from vissl_lite.extract.folder import Folder
from vissl_lite.extract.journal import Done, Journal
from vissl_lite.extract.subject import Subject
from vissl_lite.parallel.collectives import all_gather_cat, on_rank_zero, rank, world_size
from vissl_lite.progress import counter
from vissl_lite.shards.stopped import as_stopped


@dataclass
class Settings:
    """How features are computed and kept.

    Attributes:
        layers: of the trunk, averaged over their maps, or "embedding", the output of the last head
            that is no scorer, or "logits", those of the scorer; none: the layer that feeds the
            heads.
        dtype: of the arrays, "float32" or "float16".
        precision: of the computation, "fp32", "bf16" or "fp16".
        batch_size: images that the model sees at once.
        workers: processes per rank that read images.
    """

    layers: Sequence[str] = ()
    dtype: str = "float32"
    precision: str = "fp32"
    batch_size: int = 256
    workers: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def extract(
    subject: Subject, source: Any, identity: dict[str, Any], out: Path, settings: Settings
) -> dict[str, Any]:
    """Writes the features of every image once, in the order of the source; all ranks call it.

    Started again after a stop, with any number of processes, it goes on. On the same kind of device
    the result is the same bit for bit, for the batches of the model are.

    Args:
        identity: what tells the source from others.
        out: a folder (`folder.py`); or a file that ends in .parquet (`parquet.py`), made at the
            end from a folder beside it.

    Returns:
        The meta of the features: all that they depend on, and the number of broken images.

    Raises:
        BuildStopped: the disk is full, or cannot be written.
        ConfigError: unknown layer, a source without images, other features in `out`, or values
            that float16 does not hold.
    """
    if not len(source):
        raise ConfigError("extract: the source has no images")
    described = _described(subject, source, identity, settings)
    subject.keep_only(described["layers"])
    path = out
    if out.suffix == parquet.ENDING:
        path = out.with_name(f"{out.name}.unfinished")
        if out.exists():
            return _there(out, path, described)
    with Folder(path, described) as folder:
        start, undone = on_rank_zero(lambda: _begin(folder))
        own = np.array_split(np.array(undone, np.int64), world_size())[rank()].tolist()
        if own:
            blocks = Blocks(source, subject.views, settings.batch_size)
            with Journal(folder, start, rank()) as journal:
                _compute(subject, read_blocks(blocks, own, settings.workers), journal, settings)
        all_gather_cat(torch.zeros(1))  # all are done
        return on_rank_zero(lambda: _end(folder, out))


def _there(out: Path, path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The meta of a whole file; the folder that it was made from may still be there."""
    meta = parquet.same_meta(out, described)
    if rank() == 0:
        shutil.rmtree(path, ignore_errors=True)
    return meta


def _described(
    subject: Subject, source: Any, identity: dict[str, Any], settings: Settings
) -> dict[str, Any]:
    return {
        **subject.description,
        "layers": subject.check_layers(list(settings.layers)),
        "source": identity,
        "images": len(source),
        "dtype": settings.dtype,
        "precision": settings.precision,
        "batch_size": settings.batch_size,
    }


def _begin(folder: Folder) -> tuple[int, list[int]]:
    """The number of this start, and the blocks to do."""
    with as_stopped(folder.path):
        folder.begin()
    if folder.is_complete():
        return 0, []
    done = Done(folder)
    return done.start + 1, done.undone


def _end(folder: Folder, out: Path) -> dict[str, Any]:
    with as_stopped(folder.path):
        if not folder.is_complete():
            finish(folder, Done(folder))
        if folder.path != out:
            parquet.convert(folder, out)
    meta = folder.meta()
    if folder.path != out:
        shutil.rmtree(folder.path)
    return meta


@torch.no_grad()
def _compute(
    subject: Subject, blocks: Iterable[Block], journal: Journal, settings: Settings
) -> None:
    """Rows of this process's blocks."""
    folder, device = journal.folder, settings.device
    model, layers = subject.model.to(device), list(folder.layers)
    numerics = Numerics(settings.precision, "contiguous", reason="as given")

    def compute(images_BHWC: Tensor) -> Results:
        with numerics.autocast(device):
            found = model.layer_features(images_BHWC, layers)
        return {layer: found[layer].float() for layer in layers}

    for block, found in _counted(OneAhead(blocks, compute, device)):
        rows = {layer: _rows(layer, found[layer].numpy(), block, folder) for layer in layers}
        with as_stopped(folder.path):
            journal.add(block, rows)


def _counted(computed: OneAhead[Block]) -> Iterator[tuple[Block, Results]]:
    """The same; rank 0 shows how many images have passed, and how long it waited for them."""
    if rank() > 0:
        yield from computed
        return
    start = time.perf_counter()
    with counter("extract: images of rank 0") as count:
        for block, found in computed:
            yield block, found
            count.add(len(block.names))
    seconds = time.perf_counter() - start
    share = f"{100 * computed.waited_s / seconds:.0f} % of {seconds:.1f} s"
    print(f"extract: rank 0 waited for images {share}", file=sys.stderr)


def _rows(layer: str, x_BD: np.ndarray, block: Block, folder: Folder) -> bytes:
    """What is written of a block: NaN where an image is broken."""
    with np.errstate(over="ignore"):
        kept_BD = x_BD.astype(folder.dtype)
    beyond_B = (np.isinf(kept_BD) & np.isfinite(x_BD)).any(axis=1)
    if beyond_B.any():
        b = int(beyond_B.argmax())
        raise ConfigError(
            f"extract --dtype: {layer} of {block.names[b] or 'an image without a name'} has values"
            f" up to {np.abs(x_BD[b]).max():.3g}, float16 ends at 65504; give another --out and"
            " --dtype float32"
        )
    kept_BD[[b for b, _ in block.broken]] = np.nan
    return kept_BD.tobytes()
