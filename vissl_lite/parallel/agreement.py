"""What all ranks must have in common: config, code, versions, the run folder."""

import hashlib
import json
import os
import platform
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import vissl_lite
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import on_rank_zero, rank, world_size
from vissl_lite.parallel.process import name_ranks

SHOWN = 5  # keys that differ
SEEN_S = 10.0  # until what one machine has written is seen on the others, whose NFS caches


# ---------------------------------------------------------------- the same config and code


def check_agreement(config: Mapping[str, Any]) -> None:
    """Compares config, code and versions of all ranks, by one collective; all call it together.

    Raises:
        ConfigError: they differ; it names the keys, the values and the ranks that have them.
    """
    if world_size() == 1:
        return
    own = flat(config) | versions()
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, own)
    if problems := differences(everyone):
        raise ConfigError(*problems)


def check_alike(place: str, own: str, remedy: str) -> None:
    """Compares what all ranks have at a place; all call it together.

    Raises:
        ConfigError: they differ; it says who has what, and the remedy.
    """
    if world_size() == 1:
        return
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, {place: own})
    if any(facts != everyone[0] for facts in everyone):
        raise ConfigError(f"{place}: {_who_has_what(place, everyone)}; {remedy}")


def differences(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """One sentence for each of the first keys that do not have the same value on all ranks."""
    keys = dict.fromkeys(key for own in facts for key in own)
    wrong = [key for key in keys if len({own.get(key) for own in facts}) > 1]
    sentences = [f"the ranks disagree on {key}: {_who_has_what(key, facts)}" for key in wrong]
    more = [f"and on {len(wrong) - SHOWN} more keys"] if len(wrong) > SHOWN else []
    remedy = ["start every rank with the same command, config files and installed packages"]
    return sentences[:SHOWN] + more + remedy if wrong else []


def _who_has_what(key: str, facts: Sequence[Mapping[str, str]]) -> str:
    ranks = defaultdict(list)
    for r, own in enumerate(facts):
        ranks[own.get(key)].append(r)
    return ", ".join(f"{shortened(value)} on {name_ranks(who)}" for value, who in ranks.items())


def shortened(value: str | None) -> str:
    """A value for a sentence."""
    text = "not set" if value is None else value
    return text if len(text) <= 60 else f"{text[:57]}..."


def flat(tree: Any, where: str = "") -> dict[str, str]:
    """{"optimizer.lr": "0.1", ...}: every leaf of a tree as JSON, a list being a leaf."""
    if not isinstance(tree, Mapping) or not tree:
        return {where: json.dumps(tree, sort_keys=True, default=str)}
    dot = f"{where}." if where else ""
    leaves = (flat(value, f"{dot}{key}") for key, value in tree.items())
    return {key: value for leaf in leaves for key, value in leaf.items()}


def versions() -> dict[str, str]:
    """Of everything whose change may change results."""
    return {
        "the version of torch": torch.__version__,
        "the version of python": platform.python_version(),
        "the code of vissl_lite": f"{vissl_lite.__version__} ({code_digest()})",
    }


def code_digest() -> str:
    """Of all Python files of this package: a version number forgets what a checkout has changed."""
    package, digest = Path(vissl_lite.__file__).parent, hashlib.blake2b(digest_size=4)
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- the same folder


def check_folder(run_dir: Path) -> None:
    """Whether all ranks see the run folder of rank 0, which leaves a file there for a moment.

    All ranks call it together. The file has a name that no machine has looked for before, as NFS
    remembers what was not there.

    Raises:
        ConfigError: some ranks do not see it, or rank 0 cannot write there.
    """
    if world_size() == 1:
        return
    file = on_rank_zero(lambda: _left_in(run_dir))
    seen: list[Any] = [None] * world_size()
    dist.all_gather_object(seen, _appears(run_dir, file.name))
    if rank() == 0:
        file.unlink()
    if blind := [r for r, sees in enumerate(seen) if not sees]:
        raise ConfigError(
            f"run_dir: {name_ranks(blind)} {'does' if len(blind) == 1 else 'do'} not see"
            f" {file.parent} of rank 0; give run_dir=FOLDER on a file system that all machines"
            " share"
        )


def _left_in(folder: Path) -> Path:
    file = folder / f".seen-by-all-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise ConfigError(
            f"run_dir: {folder} cannot be written to ({error.strerror}); give another"
            " run_dir=FOLDER"
        ) from None
    return file


def _appears(folder: Path, name: str) -> bool:
    deadline = time.monotonic() + SEEN_S
    while True:
        with suppress(OSError):
            if name in os.listdir(folder):  # opening a folder asks the server for what is new
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
