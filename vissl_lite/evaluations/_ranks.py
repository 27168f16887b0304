"""Work that processes share out among themselves."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vissl_lite.errors import ConfigError
from vissl_lite.parallel.collectives import all_reduce_sum, first_error, rank, world_size


def share_out(tasks: int, columns: int, row: Callable[[int], Sequence[float]]) -> Tensor:
    """[tasks, columns], float64, equal on all processes: row t is `row(t)`.

    Rank r of W computes the rows r, r + W, ...; on any W each of them is the same.

    Raises:
        ConfigError: that of any row, on all processes.
    """
    table, failed = torch.zeros(tasks, columns, dtype=torch.float64), None
    try:
        for t in range(rank(), tasks, world_size()):
            table[t] = torch.tensor(row(t), dtype=torch.float64)
    except ConfigError as error:
        failed = error
    if error := first_error(failed):
        raise error
    return all_reduce_sum(table)
