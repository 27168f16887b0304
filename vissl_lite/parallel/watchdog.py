"""Which ranks a run waits for, when it stands still."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

from vissl_lite.parallel.process import name_ranks

EXIT_STUCK = 75  # EX_TEMPFAIL: try again
EXIT_OTHER_RANK = 76  # of a rank that ends because another one has failed
AFTER_FAILURE_S = 15.0  # for this rank to notice by itself that another one has failed


@dataclass(frozen=True)
class Place:
    """Where a rank is.

    Attributes:
        step: optimizer steps done; -1 before the first.
        where: the innermost function of ours or the user's, before it torch.distributed's, if it
            is in one: "all_reduce of all_reduce_sum (collectives.py:48)".
        waits: inside a collective, or in a backward pass, which has them inside.
    """

    step: int
    where: str
    waits: bool


class Watchdog:
    """Ends a run of several ranks that stands still, and says which of them are missing.

    Every rank publishes its place in the store of the job. A rank whose place has not changed for
    `timeout_s` seconds compares it with those of the others. If some are behind, or elsewhere, or
    give no sign of life, rank 0 says so and all processes end with code 75. If all are in the same
    place, nothing is done: they compute. Nor if none is in a collective and some move, such as
    one that lists images while the others wait for the list.

    When a rank has failed, on gloo the connection breaks; on NCCL the others would wait for it in
    their collective until that times out. They end AFTER_FAILURE_S after its note, or after the
    store is gone, with code 76.

    A thread looks at the Python stack a few times per timeout, so that collectives of any back end
    are seen and none is slowed.

    Args:
        timeout_s: seconds.
        store: shared by all ranks; the thread alone uses this connection.
        hint: last line of the message.
    """

    def __init__(self, timeout_s: float, store: dist.Store, rank: int, world: int, hint: str = ""):
        self.timeout_s, self.store, self.hint = timeout_s, store, hint
        self.rank, self.world = rank, world
        self.poll_s = min(5.0, timeout_s / 8)
        self.step: Callable[[], int] = lambda: -1
        self._done, self._beat, self._moves = threading.Event(), 0, 0

    def __enter__(self) -> Watchdog:
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        seen, since, failed = None, time.monotonic(), float("inf")
        try:
            while not self._done.wait(self.poll_s):
                if (now := self._look()) != seen:
                    seen, since, self._moves = now, time.monotonic(), self._moves + 1
                self._publish(now[0])
                if time.monotonic() - since > self.timeout_s:
                    self._judge(now)
                if self.store.check(["failed"]):
                    failed = min(failed, time.monotonic())
                if time.monotonic() - failed > AFTER_FAILURE_S:
                    self._follow(self.store.get("failed").decode())
                if self.store.check(["stuck"]):
                    self._end(self.store.get("stuck").decode())
        except dist.DistError:
            if not self._done.wait(AFTER_FAILURE_S):  # on gloo the group's errors come before
                self._follow("the process that kept the job's store, rank 0's or torchrun, is gone")

    def _look(self) -> tuple[Place, list[tuple[int, int]]]:
        frame = sys._current_frames()[self._watched]
        stack = []
        deeper: FrameType | None = frame
        while deeper is not None:
            stack.append((id(deeper.f_code), deeper.f_lasti))
            deeper = deeper.f_back
        return place_of(frame, self.step()), stack

    def _publish(self, place: Place) -> None:
        self._beat += 1
        self.store.set(f"place {self.rank}", json.dumps([*astuple(place), self._moves, self._beat]))

    def _judge(self, seen: tuple[Place, list[tuple[int, int]]]) -> None:
        """Looks twice: a rank whose words have not changed in between gives no sign of life."""
        before = self._everyone()
        for _ in range(4):
            time.sleep(self.poll_s)
            if self._look() != seen:  # it goes on after all
                return
            self._publish(seen[0])
        pairs = list(zip(before, self._everyone()))
        places = [Place(*new[:3]) if new and new != old else None for old, new in pairs]
        move = any(old and new and old[3] != new[3] for old, new in pairs)
        if move and not any(place and place.waits for place in places):
            return
        if message := describe(places, self.timeout_s):
            self.store.compare_set("stuck", "", "\n  ".join(filter(None, [message, self.hint])))

    def _everyone(self) -> list[list | None]:
        """[step, where, waits, moves, beat] of every rank, None of one that has said nothing."""
        keys = [f"place {r}" for r in range(self.world)]
        known = [key for key in keys if self.store.check([key])]
        said = dict(zip(known, map(json.loads, self.store.multi_get(known))))
        return [said.get(key) for key in keys]

    def _follow(self, note: str) -> None:
        print(stops_because(self.rank, note), file=sys.stderr, flush=True)
        os._exit(EXIT_OTHER_RANK)

    def _end(self, message: str) -> None:
        """Rank 0 speaks; if it cannot, the first other one that has waited for it."""
        if self.rank == 0:
            self.store.set("said", "")
        else:
            time.sleep(4 * self.poll_s)
        if self.rank == 0 or self.store.add("spokesmen", int(not self.store.check(["said"]))) == 1:
            print(message, file=sys.stderr, flush=True)
        os._exit(EXIT_STUCK)


def stops_because(rank: int, note: str) -> str:
    """What a rank says that ends after another one; `note` is that of the first."""
    return f"rank {rank} stops, because {note}"


def place_of(frame: FrameType, step: int) -> Place:
    """The innermost function that is not torch's, and whether torch waits below it, in what."""
    torch_folder, here, waits = os.path.dirname(str(torch.__file__)), frame, False
    collective = ""
    while here.f_back is not None and here.f_code.co_filename.startswith(torch_folder):
        file = here.f_code.co_filename
        communicates = "/distributed/" in file
        waits |= communicates or "/autograd/" in file
        if communicates and not collective:
            collective = f"{here.f_code.co_name} of "
        here = here.f_back
    name = f"{os.path.basename(here.f_code.co_filename)}:{here.f_lineno}"
    return Place(step, f"{collective}{here.f_code.co_name} ({name})", waits)


def describe(places: Sequence[Place | None], timeout_s: float) -> str | None:
    """The sentences about a run that stands still; None if no rank is missing.

    Missing are the ranks that give no sign of life (place None); else those that are behind; else
    those that do not wait while others do. Otherwise all ranks are named with their places.
    """
    alive = [place for place in places if place is not None]
    latest = max((place.step for place in alive), default=0)
    some_wait = any(place.waits for place in alive)
    silent = [r for r, place in enumerate(places) if place is None]
    behind = [r for r, place in enumerate(places) if place and place.step < latest]
    busy = [r for r, place in enumerate(places) if place and some_wait and not place.waits]
    missing = silent or behind or busy
    if not missing and len(set(places)) == 1:
        return None
    waiting = [r for r in range(len(places)) if r not in missing]
    return "\n  ".join(
        [
            f"the run stands still: nothing has moved for {timeout_s:g} s (launch.timeout_s)",
            *_grouped("missing", missing, places),
            *_grouped("waiting", waiting, places),
        ]
    )


def _grouped(title: str, ranks: Sequence[int], places: Sequence[Place | None]) -> list[str]:
    groups: dict[Place | None, list[int]] = {}
    for r in ranks:
        groups.setdefault(places[r], []).append(r)
    return [f"{title}: {name_ranks(who)}, {_text(place)}" for place, who in groups.items()]


def _text(place: Place | None) -> str:
    if place is None:
        return "no sign of life"
    when = "before the first step" if place.step < 0 else f"after step {place.step}"
    return f"{when}, in {place.where}"
