"""`run_ranks(fn, world, *args)`: the function on real gloo processes, one result per rank.

`Ranks(world)` are processes for several such calls: their imports and caches are made once.
"""

import importlib.util
import inspect
import multiprocessing
import pickle
import pkgutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

from vissl_lite import plugins

_ENTRIES = [
    f"vissl_lite.{folder}.{module.name}"
    for folder in plugins.FOLDERS
    for module in pkgutil.iter_modules([Path(plugins.__file__).with_name(folder)])
    if not module.name.startswith("_")
]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(  # imported once per test run; Dynamo by the first custom op
    [
        *("torch", "torch._dynamo", "torchvision", "pytest", "hydra"),
        *("sklearn.datasets", "sklearn.linear_model", "vissl_lite.engine.trainer"),
        *_ENTRIES,
    ]
)


def run_ranks(fn: Callable, world: int, *args: Any, timeout: float = 60) -> list:
    """[fn(0, world, *args), ..., fn(world - 1, world, *args)], each in a process of a gloo group.

    Args:
        fn: a module-level function of a test file; `args` and results must be picklable.
        timeout: seconds for all ranks together, after which they are killed.

    Raises:
        RuntimeError: a rank raised (its traceback is the message) or died.
        TimeoutError: not all ranks answered in time.
    """
    with Ranks(world, timeout) as ranks:
        return ranks(fn, *args)


class Ranks:
    """Processes of a gloo group: `ranks(fn, *args)` is `run_ranks` in the same ones each time.

    What a function leaves in its process, such as a changed constant, the next one finds. After an
    error the next call gets new processes.
    """

    def __init__(self, world: int, timeout: float = 60):
        self.world, self.timeout = world, timeout
        self._ranks: list[tuple[BaseProcess, Connection]] = []

    def __call__(self, fn: Callable, *args: Any) -> list:
        if not self._ranks:
            self._start()
        where = (inspect.getfile(fn), fn.__module__, fn.__qualname__)
        try:
            for _, connection in self._ranks:
                connection.send((where, pickle.dumps(args)))
            return _collect([connection for _, connection in self._ranks], self.timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process, connection in self._ranks:
            process.kill()
            process.join()
            connection.close()
        if self._ranks:
            self._folder.cleanup()
        self._ranks = []

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        for rank in range(self.world):
            near_end, far_end = FORKSERVER.Pipe()
            process = FORKSERVER.Process(
                target=_rank_main,
                args=(far_end, rank, self.world, self._folder.name, self.timeout),
                daemon=True,
            )
            process.start()
            far_end.close()  # now the child holds the only one: its death reads as end of file
            self._ranks.append((process, near_end))


def _collect(answers: list[Connection], timeout: float) -> list:
    results, deadline = {}, time.monotonic() + timeout
    while missing := [r for r in range(len(answers)) if r not in results]:
        ready = wait([answers[r] for r in missing], max(0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {missing} gave no result within {timeout} s")
        for rank in (answers.index(connection) for connection in ready):
            results[rank] = _receive(rank, answers[rank])
    return [results[r] for r in range(len(answers))]


def _receive(rank: int, answer: Connection) -> Any:
    try:
        succeeded, result = pickle.loads(answer.recv_bytes())
    except (EOFError, ConnectionResetError):
        raise RuntimeError(f"rank {rank} died without a result") from None
    if not succeeded:
        raise RuntimeError(f"rank {rank} raised:\n{result}")
    return result


def _rank_main(connection: Connection, rank: int, world: int, folder: str, timeout: float) -> None:
    torch.set_num_threads(1)
    while True:
        where, args = connection.recv()
        try:
            torch.manual_seed(0)
            path, module, name = where
            fn = getattr(_load(path, module), name)
            if not dist.is_initialized():
                dist.init_process_group(
                    "gloo",
                    init_method=f"file://{folder}/rendezvous",
                    rank=rank,
                    world_size=world,
                    timeout=timedelta(seconds=timeout),
                )
            message = (True, fn(rank, world, *pickle.loads(args)))
        except BaseException:
            message = (False, traceback.format_exc())
        connection.send_bytes(pickle.dumps(message))


def _load(path: str, name: str) -> ModuleType:
    """The test file under the name that pytest gave it, which `import` would not find."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(path))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
