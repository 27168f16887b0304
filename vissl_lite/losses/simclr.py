"""Legend: V crops, B images of this process, D columns, N = V * B rows, M rows of all processes.

n: rows of a block.
"""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vissl_lite import LOSSES, ConfigError
from vissl_lite.data.batch import Batch
from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.parallel.collectives import gather_with_grad, rank, world_size
from vissl_lite.schema import above

ROWS = 512  # of the similarities that are in memory at a time


def nt_xent(z_VBD: Tensor, temperature: float) -> Tensor:
    """NT-Xent, the mean over all ordered pairs (i, j) of different crops of one image.

        s(i, k) = cos(z_i, z_k) / T
        l(i, j) = -log( exp s(i, j) / (exp s(i, j) + sum_k exp s(i, k)) )
                = -log sigmoid( s(i, j) - log sum_k exp s(i, k) ),   k: all crops of other images

    The images of all processes are negatives, and their gradient goes back to where they came
    from. With two crops this is equation 1 of the SimCLR paper; with more, the other crops of
    the same image are never negatives of each other. Only `ROWS` rows of s exist at a time; the
    backward pass computes them again.
    """
    crops, images, _ = z_VBD.shape
    z_VBD = F.normalize(z_VBD, dim=-1)
    negatives_N = log_negatives(z_VBD.flatten(0, 1), images, temperature)
    s_VVB = torch.einsum("ibd,jbd->ijb", z_VBD, z_VBD) / temperature
    loss_VVB = -F.logsigmoid(s_VVB - negatives_N.view(crops, 1, images))
    self_VV1 = torch.eye(crops, dtype=torch.bool, device=z_VBD.device)[..., None]
    return loss_VVB.masked_fill(self_VV1, 0).sum() / (crops * (crops - 1) * images)


def log_negatives(z_ND: Tensor, images: int, temperature: float) -> Tensor:
    """[N]: log sum_k exp s(i, k) over the crops k, of all processes, that show another image."""
    z_MD, n_N = gather_with_grad(z_ND), torch.arange(len(z_ND), device=z_ND.device)
    n_M = torch.arange(len(z_MD), device=z_ND.device)
    image_M = n_M // len(z_ND) * images + n_M % images  # crop-major within each process
    image_N = rank() * images + n_N % images

    def of_rows(z_nD: Tensor, image_n: Tensor) -> Tensor:
        s_nM = z_nD @ z_MD.T / temperature
        return s_nM.masked_fill(image_n[:, None] == image_M, -torch.inf).logsumexp(1)

    blocks = list(zip(z_ND.split(ROWS), image_N.split(ROWS)))
    if len(blocks) == 1:
        return of_rows(*blocks[0])
    return torch.cat([checkpoint(of_rows, *block, use_reentrant=False) for block in blocks])


@LOSSES.register("simclr")
class SimCLR(nn.Module):
    """SimCLR: each crop picks the other crop of its image among all images (NT-Xent).

    Takes the embeddings [V, B, D] of V >= 2 crops, in any number of view groups. The images of
    all processes are negatives; with gradient accumulation those of one micro-batch.
    Source: Chen et al. 2020, arXiv 2002.05709, section 2.1; multi-crop as in Caron et al. 2020.

    Args:
        temperature: T; 0.1 is the paper's (table 5).

    Raises:
        ConfigError: fewer than two crops, or only one image in the global batch.
    """

    needs = ()

    def __init__(self, temperature: Annotated[float, above(0)] = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, outputs: Any, batch: Batch) -> Tensor:
        z_VBD = outputs.embedding
        if len(z_VBD) < 2:
            raise ConfigError("loss: simclr compares crops of an image; make 2 or more views")
        if z_VBD.shape[1] * world_size() < 2:
            raise ConfigError("loss: simclr has no negatives in a batch of one image; enlarge it")
        with full_precision(z_VBD):
            return nt_xent(at_least_fp32(z_VBD), self.temperature)
