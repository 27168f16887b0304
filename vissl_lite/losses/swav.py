"""Legend: V crops, A of them get codes, B images of this process, D columns, K prototypes."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vissl_lite import LOSSES, ConfigError
from vissl_lite.data.batch import Batch
from vissl_lite.layers.precision import at_least_fp32, full_precision
from vissl_lite.losses._common import scores_of
from vissl_lite.losses._queue import EmbeddingQueue
from vissl_lite.losses._sinkhorn import sinkhorn
from vissl_lite.parallel.collectives import all_reduce_sum, world_size
from vissl_lite.schema import above, at_least


def swapped_prediction(
    cosine_VBK: Tensor, codes_ABK: Tensor, assigned: tuple[int, ...], temperature: float
) -> Tensor:
    """Every crop predicts the codes of the other crops of its image.

    loss = mean_{a in assigned} mean_{v != a} mean_b  -sum_k codes[a, b, k] log p[v, b, k]
    p = softmax(cosine / temperature)
    """
    log_p_VBK = (cosine_VBK / temperature).log_softmax(-1)
    loss_AV = -torch.einsum("abk,vbk->av", codes_ABK, log_p_VBK) / cosine_VBK.shape[1]
    crops = len(cosine_VBK)
    same_AV = take(torch.eye(crops, dtype=torch.bool, device=loss_AV.device), assigned)
    return loss_AV.masked_fill(same_AV, 0).sum() / (len(assigned) * (crops - 1))


def take(x_V: Tensor, assigned: tuple[int, ...]) -> Tensor:
    """x_V[assigned], without the host waiting for the device."""
    return torch.stack([x_V[a] for a in assigned])


@torch.no_grad()
def prototype_usage(codes: list[Tensor]) -> Tensor:
    """Share of the prototypes that are the largest in the code of some row of some process."""
    used = [q.new_zeros(q.shape[-1]).index_fill(0, q.argmax(-1).flatten(), 1) for q in codes]
    return (all_reduce_sum(torch.cat(used)) > 0).float().mean()


@torch.no_grad()
def code_entropy(codes: list[Tensor]) -> Tensor:
    """Mean entropy of a code in nats: 0 when hard, ln K when it says nothing."""
    return torch.stack([torch.special.entr(q).sum(-1).mean() for q in codes]).mean()


@LOSSES.register("swav")
class SwAV(nn.Module):
    """SwAV: every crop predicts the balanced cluster codes of the other crops of its image.

    Takes embeddings [V, B, D] and the cosines [V, B, K] of one or several sets of prototypes (head
    `prototypes`), which are averaged. Codes are balanced over the images of all processes and the
    queue; with gradient accumulation over those of one micro-batch. Metrics: `prototype_usage`,
    `code_entropy`. Source: Caron et al. 2020, arXiv 2006.09882, section 3; defaults are those
    of its ImageNet runs (SEER: epsilon 0.03, 10 iterations).

    Args:
        temperature: of the predictions.
        epsilon: sharpness of the codes, the smaller the sharper; 0.003 or more.
        sinkhorn_iterations: 1 or more.
        crops_for_assign: the crops that get codes; the others only predict.
        queue_length: embeddings of earlier steps that balance the codes of small batches, counted
            over all processes and rounded down to whole batches; 3840 for batches of 256.
        queue_start_epoch: when the queue is first used; it has been filled by then.
        freeze_prototypes_steps: first steps in which the prototypes stay as they are; 313 is one
            epoch of ImageNet-1k in batches of 4096.
        hard_assignment_steps: first steps in which codes are rounded to the largest prototype.

    Raises:
        ConfigError: a value out of range, a crop that does not exist, a queue below one batch.
    """

    needs = ()
    needs_scores = True

    def __init__(
        self,
        temperature: Annotated[float, above(0)] = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        crops_for_assign: tuple[int, ...] = (0, 1),
        queue_length: Annotated[int, at_least(0)] = 0,
        queue_start_epoch: Annotated[float, at_least(0)] = 0.0,
        freeze_prototypes_steps: Annotated[int, at_least(0)] = 0,
        hard_assignment_steps: Annotated[int, at_least(0)] = 0,
        *,
        embed_dim: int,
        steps_per_epoch: int,
    ):
        super().__init__()
        if epsilon < 0.003:
            raise ConfigError(
                f"loss.epsilon: {epsilon} is too sharp for float32; take 0.003 or more"
            )
        if sinkhorn_iterations < 1:
            raise ConfigError(
                "loss.sinkhorn_iterations: codes collapse without any; take 1 or more"
            )
        self.temperature, self.epsilon = temperature, epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.assigned = tuple(crops_for_assign)
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self.hard_assignment_steps = hard_assignment_steps
        self.queue_start = round(queue_start_epoch * steps_per_epoch)
        self.queue = None
        if queue_length:
            local = queue_length // world_size()
            self.queue = EmbeddingQueue(len(self.assigned), local, embed_dim)

    def forward(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        heads = scores_of(outputs, "swav")
        self._check_crops(len(heads[0]))
        with full_precision(heads[0]):
            codes = self._codes(heads, outputs.model, batch.step)
            losses = [
                swapped_prediction(cosine, q, self.assigned, self.temperature)
                for cosine, q in zip(heads, codes)
            ]
        if self.queue is not None:  # from step 0 on, so that it is full when its time comes
            z_ABD = take(outputs.embedding.detach(), self.assigned)
            self.queue.push(F.normalize(at_least_fp32(z_ABD), dim=-1))
        return {
            "loss": torch.stack(losses).mean(),
            "prototype_usage": prototype_usage(codes),
            "code_entropy": code_entropy(codes),
        }

    @torch.no_grad()
    def _codes(self, heads: list[Tensor], model: Any, step: int) -> list[Tensor]:
        """[A, B, K] per set of prototypes, balanced over batch and queue."""
        images, balanced = heads[0].shape[1], [take(cosine, self.assigned) for cosine in heads]
        if self.queue is not None:
            queued_AQD = self._usable(self.queue, images, step)
            again = model.scorer.scores(queued_AQD)  # by the prototypes of today
            balanced = [torch.cat(pair, dim=1) for pair in zip(balanced, again)]
        codes = [sinkhorn(c, self.epsilon, self.sinkhorn_iterations)[:, :images] for c in balanced]
        if step < self.hard_assignment_steps:
            codes = [torch.zeros_like(q).scatter_(-1, q.argmax(-1, keepdim=True), 1) for q in codes]
        return codes

    def _usable(self, queue: EmbeddingQueue, images: int, step: int) -> Tensor:
        """[A, Q, D]: as many whole batches as fit; Q = 0 before the start and until it is full."""
        rows = queue.rows_AQD.shape[1] // images * images
        if rows == 0:
            raise ConfigError(
                "loss.queue_length: holds less than one batch; take several times the global batch,"
                " or 0 for none"
            )
        return queue.newest(rows if step >= self.queue_start else 0)

    def _check_crops(self, crops: int) -> None:
        if crops < 2 or not self.assigned or not set(self.assigned) <= set(range(crops)):
            raise ConfigError(
                f"loss.crops_for_assign: swav needs 2 crops or more and codes for crops"
                f" {list(self.assigned)}, but the views make {crops}"
            )

    def before_step(self, model: Any, step: int) -> None:
        """Freezes the prototypes at the start: they would follow features that mean nothing yet."""
        if step < self.freeze_prototypes_steps:
            for parameter in model.scorer.parameters():
                parameter.grad = None
