"""SimCLR ResNet-18 on the CIFAR-10 files, batch 128: our trainer against lightly's documented loop.

    pip install lightly; CIFAR10=... python benchmarks/lightly_simclr.py

Both train the same network (3x3 stem, no max-pooling) on the same cores in turn, each in a process
of its own, with its own transforms, loss and loader. Demand: at least 2.5x with our defaults, 1.1x
at equal precision. Last result: see RESULTS.md.
"""

import argparse
import multiprocessing

import lightly
import torch
from _cifar import alternate, cifar_folder, our_steps, our_trainer, report
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch import nn

BATCH = 128


class LightlySimCLR(nn.Module):
    """The model of lightly's CIFAR-10 benchmark."""

    def __init__(self):
        super().__init__()
        resnet = ResNetGenerator("resnet-18")
        self.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1))
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, x):
        return self.projection_head(self.backbone(x).flatten(start_dim=1))


def lightly_steps(workers: int):
    """lightly's documented training loop, one step each time it is advanced."""
    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0, cj_strength=0.5)
    dataset = LightlyDataset(str(cifar_folder() / "train"), transform=transform)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    model, criterion = LightlySimCLR(), NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    while True:
        for (x0, x1), _, _ in loader:
            loss = criterion(model(x0), model(x1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield


def take_steps(connection, workers: int):
    """In a process of its own, so that nothing that our trainer sets reaches it."""
    steps = lightly_steps(workers)
    while connection.recv():
        next(steps)
        connection.send(True)


def main():
    """Prints one line per precision of ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="of lightly's loader")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, lightly {lightly.__version__},"
        f" {torch.get_num_threads()} threads"
    )
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=take_steps, args=(there, args.workers))
    other.start()
    for name, overrides in {"our defaults": [], "both fp32": ["precision=fp32"]}.items():
        trainer = our_trainer(f"train.batch_size={BATCH}", "device=cpu", *overrides)
        print("; ".join(trainer.parts.notes))
        ours = our_steps(trainer)
        rates = alternate(
            lambda ours=ours: next(ours),
            lambda: (here.send(True), here.recv()),
            rounds=args.rounds,
            steps=3,
            batch=BATCH,
        )
        report(name, *rates, other="lightly")
    here.send(False)
    other.join()


if __name__ == "__main__":
    main()
