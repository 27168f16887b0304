"""A bounded cache on disk for pieces of remote files, shared by the processes of a machine."""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from vissl_lite.errors import ConfigError

FILLED = 0.9  # of the limit is kept when blocks are removed
SLACK = 0.01  # of the limit a process writes before it looks at the sizes again
ABANDONED_S = 3600.0  # a half-written block so old belongs to a process that was killed


class Blocks:
    """Blocks of files, each in a file of its own; the least recently read ones go first.

    A block appears under its name by a rename, so that no process ever sees half of one; the time
    of last change of its file is when it was last read. Each process looks at all sizes after
    writing 1 % of the limit and removes blocks down to 90 %, so that the limit holds for ten
    processes that write at once.

    Args:
        folder: of the cache; other programs must not write into it.
        limit: bytes.
        size: bytes of a block.
    """

    def __init__(self, folder: Path, limit: int, size: int):
        self.folder, self.limit, self.size = folder, limit, size
        self._written = 0
        with _as_config_error(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def read(
        self, key: str, start: int, stop: int, end: int, fetch: Callable[[int, int], bytes]
    ) -> bytes:
        """Bytes start..stop of a file; what is not here comes by one call of `fetch`.

        Args:
            key: names the file and its state.
            end: size of the file.
            fetch: gives the bytes of a range of the file.
        """
        numbers = range(start // self.size, (stop - 1) // self.size + 1)
        pieces = {n: self._cached(key, n, start, stop) for n in numbers}
        missing = [n for n in numbers if pieces[n] is None]
        if missing:
            first = missing[0] * self.size
            content = fetch(first, min((missing[-1] + 1) * self.size, end))
            for n in range(missing[0], missing[-1] + 1):
                block = content[n * self.size - first : (n + 1) * self.size - first]
                self._store(self._path(key, n), block)
                low, high = self._bounds(n, start, stop)
                pieces[n] = block[low:high]
        return b"".join(piece for piece in pieces.values() if piece)

    def forget(self, key: str, start: int, stop: int) -> None:
        """Removes the blocks that hold these bytes."""
        for n in range(start // self.size, (stop - 1) // self.size + 1):
            self._path(key, n).unlink(missing_ok=True)

    def _path(self, key: str, number: int) -> Path:
        return self.folder / f"{key}-{self.size}-{number:06d}"

    def _bounds(self, number: int, start: int, stop: int) -> tuple[int, int]:
        """Where start..stop begins and ends within a block."""
        first = number * self.size
        return max(start - first, 0), min(stop - first, self.size)

    def _cached(self, key: str, number: int, start: int, stop: int) -> bytes | None:
        low, high = self._bounds(number, start, stop)
        try:
            descriptor = os.open(self._path(key, number), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            os.utime(descriptor)
            return os.pread(descriptor, high - low, low)
        finally:
            os.close(descriptor)

    def _store(self, path: Path, block: bytes) -> None:
        half = path.with_name(f".{uuid.uuid4().hex}")
        with _as_config_error(self.folder):
            half.write_bytes(block)
            os.replace(half, path)
        self._written += len(block)
        if self._written > SLACK * self.limit:
            self._written = 0
            self._evict()

    def _evict(self) -> None:
        """Removes the blocks that were not read for longest; the others wait, or it would grow."""
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            blocks = sorted(self._blocks())
            surplus = sum(size for _, size, _ in blocks) - FILLED * self.limit
            for _, size, path in blocks:
                if surplus <= 0:
                    break
                Path(path).unlink(missing_ok=True)
                surplus -= size

    def _blocks(self) -> list[tuple[float, int, str]]:
        """(last read, size, path) of every block; half-written ones that nobody finishes go."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    state = entry.stat()
                    if not entry.name.startswith("."):
                        found.append((state.st_mtime, state.st_size, entry.path))
                    elif entry.name != ".lock" and time.time() - state.st_mtime > ABANDONED_S:
                        os.unlink(entry.path)
        return found


@contextlib.contextmanager
def _as_config_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"packed: the cache {folder} cannot be written ({error.strerror}); make room, set"
            " cache_gib lower, or name another folder with $VISSL_LITE_CACHE"
        ) from error
