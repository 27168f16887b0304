"""The tree of settings: numbers out of range are told before anything is built."""

import pytest
from training import small

from vissl_lite.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("data.workers=-1", "data.workers: -1; needs 0 or more"),
        ("data.max_broken=5", "data.max_broken: 5; needs 0 to 1"),
        ("data.std=[0,1,1]", "data.std[0]: 0; needs more than 0"),
        ("data.views=[{size: 0, transforms: []}]", "data.views[0].size: 0; needs 1 or more"),
        (
            "data.views=[{size: 8, count: 0, transforms: []}]",
            "data.views[0].count: 0; needs 1 or more",
        ),
        ("data.sampler.threshold=0", "data.sampler.threshold: 0; needs more than 0"),
        ("data.sampler.smallest=2", "data.sampler.smallest: 2; needs more than 0, at most 1"),
        ("train.batch_size=-8", "train.batch_size: -8; needs 1 or more"),
        ("train.log_every=0", "train.log_every: 0; needs 1 or more"),
        ("train.max_steps=0", "train.max_steps: 0; needs 1 or more"),
        ("train.epochs=-1", "train.epochs: -1; needs 0 or more"),
        ("train.clip_grad_norm=-1", "train.clip_grad_norm: -1; needs more than 0"),
        ("labelled.batch_size=0", "labelled.batch_size: 0; needs 1 or more"),
        ("lr_scaling.reference_batch=0", "lr_scaling.reference_batch: 0; needs 1 or more"),
        ("teacher_momentum=2", "teacher_momentum: 2; needs 0 to 1"),
        ("seed=-1", "seed: -1; needs 0 to 9223372036854775807"),
        ("optimizer.lr=-1", "optimizer.lr: -1; needs 0 or more"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay: -1; needs 0 or more"),
        ("optimizer.betas=[2,0.9]", "optimizer.betas[0]: 2; needs 0 to 1"),
        ("trunk.width_multiplier=0", "trunk.width_multiplier: 0; needs more than 0"),
        ("heads=[{name: mlp, hidden: [], out_dim: 0}]", "heads[0].out_dim: 0; needs 1 or more"),
        ("hooks.checkpoint.every_epochs=-1", "hooks.checkpoint.every_epochs: -1; needs 0 or more"),
    ],
)
def test_numbers_out_of_range(word, problem):
    with pytest.raises(ConfigError) as caught:
        small("optimizer=adamw", f"++{word}")
    assert caught.value.problems == [problem]


def test_no_epochs_are_those_of_an_evaluation():
    assert small("++train.epochs=0").train.epochs == 0
