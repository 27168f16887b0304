"""What all ranks must have in common, and what is said when they have not.

Every sentence is said once for all ranks: the store of the job knows which have been.
"""

import hashlib
import json
import os
import platform
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import vissl_lite
from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import first_error, on_rank_zero, rank, world_size
from vissl_lite.parallel.process import (
    attempt_store,
    launched_rank,
    launched_world_size,
    name_ranks,
)
from vissl_lite.parallel.watchdog import stops_because

SHOWN = 5  # keys that differ
SEEN_S = 10.0  # until what one machine has written is seen on the others, whose NFS caches
GRACE_S = 5.0  # for the rank that failed first to say why
TOGETHER_S = 30.0  # from a rank's failure until the others are through
COMMUNICATION = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe")
OWN_FAULTS = ("unhandledcudaerror", "invalidusage", "invalidargument", "internalerror")  # of NCCL


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


# ---------------------------------------------------------------- the same failure, said once


def say_once(text: str) -> bool:
    """Whether no other rank of this attempt has said these words."""
    if launched_world_size() == 1:
        return True
    said = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    try:
        return attempt_store().add(f"said {said}", 1) == 1
    except dist.DistError:  # the rank that kept the store is gone
        return True


def epitaph(error: Exception) -> str:
    """What a rank says that stops because another rank has failed: which one, and how."""
    note = _note_of_the_first()
    if note is None:
        reason = re.sub(r"^\[\S+\] ", "", str(error).strip()).split(". ")[0].split("\n")[0]
        return (
            f"rank {launched_rank()} stops: it lost the connection to another rank, which was"
            f" killed or cut off from the network ({reason})"
        )
    return stops_because(launched_rank(), note)


def is_communication(error: Exception) -> bool:
    """Whether an error says that another process did not answer."""
    if launched_world_size() == 1:
        return False
    text = str(error).lower()
    if any(f"nccl{fault}" in text for fault in OWN_FAULTS):  # such as no memory for its buffers
        return False
    by_words = isinstance(error, RuntimeError) and any(word in text for word in COMMUNICATION)
    return isinstance(error, dist.DistError) or by_words


@contextmanager
def told_to_others() -> Iterator[None]:
    """The other ranks get to know why this one fails, whoever catches the error; a decorator."""
    try:
        yield
    except Exception as error:
        leave_note(error)
        raise


def leave_note(error: Exception) -> None:
    """Lets the other ranks know why this one fails, if it is the first and not after another."""
    if launched_world_size() == 1 or is_communication(error):
        return
    text = str(error).strip().split("\n")[0][:300]
    note = f"rank {launched_rank()} failed with {type(error).__name__}: {text}"
    try:
        attempt_store().compare_set("failed", "", note)
    except dist.DistError:  # the rank that kept the store is gone
        return


def shared_failure(error: Exception | None, what: str) -> Exception | None:
    """The failure of any rank at this, for all of them, which then go on together; else None.

    All ranks call it at the end of what they did. One that fails on the way to a collective leaves
    the others in it, where nothing can reach them: they do not come here, and it raises.

    Args:
        error: how this rank failed, if it did.
        what: a name used once in the attempt.

    Raises:
        Exception: `error`, if some rank is not here TOGETHER_S after this one; it ends the run.
    """
    if launched_world_size() == 1:
        return error
    store, key = attempt_store(), f"at the end of {what}"
    store.add(key, 1)
    if error is not None and not _all_come(store, key):
        raise error
    return first_error(error)


def _all_come(store: dist.Store, key: str) -> bool:
    deadline = time.monotonic() + TOGETHER_S
    while (count := store.add(key, 0)) < launched_world_size() and time.monotonic() < deadline:
        time.sleep(0.1)
    return count == launched_world_size()


def _note_of_the_first() -> str | None:
    deadline = time.monotonic() + GRACE_S
    with suppress(dist.DistError):  # the rank that kept the store is gone
        store = attempt_store()
        while time.monotonic() < deadline:
            if store.check(["failed"]):
                return store.get("failed").decode()
            time.sleep(0.1)
    return None
