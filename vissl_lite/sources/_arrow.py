"""Arrow IPC files, of which there are two formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def open_arrow(file: Path) -> Iterator[tuple[list[str], Iterator[pa.RecordBatch]]]:
    """Names of the columns, and the batches, of the file or the stream format.

    Hugging Face datasets are kept as streams. The file is mapped: only what is looked at is read.
    """
    import pyarrow as pa

    with pa.memory_map(str(file)) as memory:
        is_file = memory.read(6) == b"ARROW1"
        memory.seek(0)
        if is_file:
            opened = pa.ipc.open_file(memory)
            batches = map(opened.get_batch, range(opened.num_record_batches))
        else:
            opened = pa.ipc.open_stream(memory)
            batches = iter(opened)
        yield opened.schema.names, batches
