"""Legend: A crops, B images of this process, Q rows, D columns."""

import torch
from torch import Tensor, nn


class EmbeddingQueue(nn.Module):
    """The last Q embeddings of this process per crop, newest first.

    Everything is in buffers, so that a run resumes with it; each process has its own.
    """

    rows_AQD: Tensor
    count: Tensor

    def __init__(self, crops: int, length: int, dim: int):
        super().__init__()
        self.register_buffer("rows_AQD", torch.zeros(crops, length, dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._pushed = 0  # `count` on the host, so that no step waits for the device
        self.register_load_state_dict_post_hook(lambda queue, _: queue._recount())

    def _recount(self) -> None:
        self._pushed = int(self.count)

    def newest(self, rows: int) -> Tensor:
        """[A, rows, D], or [A, 0, D] as long as fewer have been pushed."""
        return self.rows_AQD[:, : rows if self._pushed >= rows else 0]

    @torch.no_grad()
    def push(self, z_ABD: Tensor) -> None:
        length = self.rows_AQD.shape[1]
        self.rows_AQD.copy_(torch.cat([z_ABD, self.rows_AQD], dim=1)[:, :length])
        self._pushed = min(self._pushed + z_ABD.shape[1], length)
        self.count.fill_(self._pushed)
