"""Legend: ... any leading axes, N rows of this process, K prototypes."""

import torch
from torch import Tensor

from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.parallel.collectives import all_reduce_sum, is_distributed


@torch.no_grad()
def sinkhorn(cosine_NK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Codes [..., N, K], rows that sum to 1 and share the prototypes of all processes equally.

        Q = exp(cosine / epsilon)
        repeat `iterations` times:
            Q /= sum over the rows of all processes     (every prototype gets the same weight)
            Q /= sum over prototypes                    (every row gets weight 1)

    In the log domain, where no exp can overflow and no row can vanish. Only [..., K] crosses
    ranks, once per iteration; leading axes (crops) are independent problems solved together.
    Half precision is widened before the division by epsilon.
    Source: Cuturi 2013; Caron et al. 2020, arXiv 2006.09882, section 3.1 and appendix A.1.
    """
    with full_precision(cosine_NK):
        log_q_NK = (at_least_fp32(cosine_NK) - 1) / epsilon  # cosine <= 1, and constants cancel
        for _ in range(iterations):
            log_q_NK = log_q_NK - _logsumexp_of_all_rows(log_q_NK)
            log_q_NK = log_q_NK.log_softmax(-1)
        return log_q_NK.exp()


def _logsumexp_of_all_rows(log_q_NK: Tensor) -> Tensor:
    """[..., 1, K]. The sum is in float64, which holds exp(-2 / epsilon) for epsilon >= 0.003.

    No maximum needs to be agreed on: log_q is at most 0 at all times. After an iteration every
    column sums to 1 / K or more, because the row sums that divide it are at most K.
    """
    log_c_K = log_q_NK.logsumexp(-2, keepdim=True)
    if not is_distributed():
        return log_c_K
    return all_reduce_sum(log_c_K.double().exp()).log().to(log_c_K.dtype)
