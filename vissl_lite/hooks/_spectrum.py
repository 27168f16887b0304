"""How embeddings are spread. Legend: N rows, D columns, V crops, B images."""

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding_std(z_ND: Tensor) -> Tensor:
    """Spread over the unit sphere: 1 when even, 0 when all rows point the same way.

        sqrt(D) * mean_d std_n( z_nd / |z_n| )  <=  sqrt(1 - |mean_n z_n / |z_n||^2)

    An isotropic Gaussian gives 1 (Chen & He 2021, arXiv 2011.10566, section 4.1, times sqrt(D)).
    """
    return F.normalize(z_ND, dim=1).std(0, correction=0).mean() * z_ND.shape[1] ** 0.5


def effective_rank(z_ND: Tensor) -> Tensor:
    """How many directions the rows use: RankMe without its epsilon, between 1 and min(N, D).

        exp( -sum_k p_k ln p_k ),  p = s / sum(s),  s: singular values of z

    (Roy & Vetterli 2007; Garrido et al. 2023, arXiv 2210.02885, equation 1.) The singular values
    are roots of the eigenvalues of the smaller Gram matrix; float64 keeps them exact to 1e-8 of
    the largest. 0.4 s for 1024 x 2048 on one CPU core, where an SVD takes 0.7 s. A matrix of zeros
    has rank 1, one with a nan or inf has rank nan.
    """
    z = z_ND.double()
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    fine = gram.isfinite().all()  # eigvalsh raises where it is not
    s_K = torch.linalg.eigvalsh(gram.where(fine, 0)).clamp(min=0).sqrt()
    p_K = s_K / s_K.sum().clamp(min=torch.finfo(s_K.dtype).tiny)
    return torch.special.entr(p_K).sum().exp().where(fine, torch.nan)


def pair_cosines(z_VBD: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine between crops of the same image (two different crops) and of different images.

        same      = sum_b ( |sum_v z_vb|^2 - V ) / (B V (V - 1))
        different = ( |sum_vb z_vb|^2 - sum_b |sum_v z_vb|^2 ) / (B (B - 1) V^2)

    with rows normalised; needs V >= 2 and B >= 2.
    """
    crops, images, _ = z_VBD.shape
    z_BD = F.normalize(z_VBD, dim=-1).sum(0)
    own, total = z_BD.square().sum(), z_BD.sum(0).square().sum()
    same = (own - images * crops) / (images * crops * (crops - 1))
    return same, (total - own) / (images * (images - 1) * crops**2)
