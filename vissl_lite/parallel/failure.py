"""What ranks tell each other when one fails, and what is said of it.

Every sentence is said once for all ranks: the store of the job knows which have been.
"""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from vissl_lite.parallel.collectives import first_error
from vissl_lite.parallel.process import attempt_store, launched_rank, launched_world_size
from vissl_lite.parallel.watchdog import stops_because

GRACE_S = 5.0  # for the rank that failed first to say why
TOGETHER_S = 30.0  # from a rank's failure until the others are through
COMMUNICATION = ("gloo", "nccl", "connection closed by peer", "connection reset", "broken pipe")
OWN_FAULTS = ("unhandledcudaerror", "invalidusage", "invalidargument", "internalerror")  # of NCCL


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
