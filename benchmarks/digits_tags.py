"""Hashtag prediction on mosaics of digits: precision of the predicted tags on held-out mosaics.

    python benchmarks/digits_tags.py

Trains the recipe pretrain/hashtag/digits_tags and asks the trained classifier for the most probable
tag of mosaics of digits that were not trained on: the share that is right, against the same network
untrained and against always guessing the most frequent tag. Last result: see RESULTS.md.
"""

import tempfile
import time
from pathlib import Path

import hydra
import numpy as np
import torch

from vissl_lite import SOURCES
from vissl_lite.config import check
from vissl_lite.data.batch import Tags
from vissl_lite.data.decode import decode
from vissl_lite.engine.build import build_views
from vissl_lite.engine.trainer import Trainer
from vissl_lite.plugins import load_entries, register_with_hydra

IMAGES = 2000


def held_out(trainer: Trainer) -> tuple[torch.Tensor, Tags]:
    """Mosaics of the test digits as the model sees them, uint8 [1, B, H, W, C], and their tags."""
    source = SOURCES.build({"name": "digits_tags", "split": "test", "n": IMAGES})
    samples = [source[i] for i in range(IMAGES)]
    reference = build_views(trainer.config)
    views = [reference(decode(s.image), 1, 0, position)[0] for position, s in enumerate(samples)]
    crops = torch.from_numpy(np.stack(views, axis=1))
    return crops, Tags.pack([sample.tags or () for sample in samples])


@torch.no_grad()
def precision(trainer: Trainer, crops_1BHWC: torch.Tensor, tags: Tags) -> tuple[float, float]:
    """Shares of tagged mosaics whose most probable tag is right, and whose commonest guess is."""
    trainer.model.eval()
    logits_BK = trainer.model([crops_1BHWC]).logits[0][0]
    trainer.model.train()
    rows, tagged = tags.rows_T(), int((tags.counts_B() > 0).sum())
    commonest = tags.values_T.bincount().argmax()
    right = (logits_BK.argmax(1)[rows] == tags.values_T).sum().item()
    return right / tagged, (tags.values_T == commonest).sum().item() / tagged


def main():
    """Prints one line."""
    load_entries()
    register_with_hydra()
    words = ["config=pretrain/hashtag/digits_tags", "++recipe=benchmark", "++precision=fp32"]
    with hydra.initialize(version_base="1.3", config_path=None):
        config = hydra.compose("defaults", [*words, "hooks=[]", "loggers=[]"])
    trainer = Trainer(check(config), Path(tempfile.mkdtemp()))
    crops, tags = held_out(trainer)
    untrained, guess = precision(trainer, crops, tags)
    start = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - start
    trained, _ = precision(trainer, crops, tags)
    print(
        f"precision@1 on {IMAGES} held-out mosaics, {trainer.parts.source.num_classes} tags:"
        f" trained {trained:.3f}, untrained {untrained:.3f}, most frequent tag {guess:.3f},"
        f" ratio to guessing {trained / guess:.1f}; {seconds:.0f} s of training,"
        f" torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
