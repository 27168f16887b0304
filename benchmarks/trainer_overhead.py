"""What the trainer costs: its images/s against a hand-written loop, same model, data, precision.

    CIFAR10=... python benchmarks/trainer_overhead.py

Demand: ratio at least 0.97. Last result: see RESULTS.md.
"""

import torch
import torch.nn.functional as F
from _cifar import alternate, cifar_folder, our_steps, our_trainer, report
from torch.utils.data import DataLoader

BATCH = 64


def hand_written(trainer):
    """The loop that one would write for this one case, with nothing around it."""
    model, optimizer, dataset = trainer.model, trainer.optimizer, trainer.parts.dataset
    sampler = trainer.parts.sampler(0, trainer.parts.total_steps)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, collate_fn=lambda batch: batch)
    mean, std, layout = model.mean, model.std, model.memory_format
    for batch in loader:
        crops = batch.views[0].flatten(0, 1).permute(0, 3, 1, 2)
        x = crops.to(torch.float32, memory_format=layout).sub_(mean).div_(std)
        with trainer.parts.numerics.autocast(trainer.device):
            z = model.heads[0](model.trunk(x, (model.layer,))[model.layer].mean((2, 3)))
        z = F.normalize(z.float(), dim=1)
        logits = (z @ z.T / trainer.loss.temperature).fill_diagonal_(-torch.inf)
        target = torch.arange(len(z)).roll(len(z) // 2)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()
        yield


def main():
    """Alternates blocks of both on the same model and prints the ratio."""
    cifar_folder()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    trainer = our_trainer(f"++train.batch_size={BATCH}", "++device=cpu")
    print("; ".join(trainer.parts.notes))
    ours, theirs = our_steps(trainer), hand_written(trainer)
    rates = alternate(lambda: next(ours), lambda: next(theirs), rounds=9, steps=4, batch=BATCH)
    report("trainer", *rates, other="hand-written loop")


if __name__ == "__main__":
    main()
