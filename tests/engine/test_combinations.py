"""Numbers of processes that do not come out even."""

import pytest
from training import small

from vissl_lite.engine.combinations import check_continued, check_processes
from vissl_lite.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "world", "message"),
    [
        (
            ["++train.batch_size=4096"],
            504,
            "train.batch_size: 4096 images do not divide evenly over 504 processes; start 256 or"
            " 512 processes, or change it",
        ),
        (
            ["++train.batch_size=16"],
            32,
            "train.batch_size: 16 images do not divide evenly over 32 processes; start 16"
            " processes, or change it",
        ),
        (
            ["++train.batch_size=24", "++train.accumulate=2"],
            8,
            "train.accumulate: 3 images per process do not divide into 2 micro-batches; start 6 or"
            " 12 processes, or take a divisor of 3",
        ),
        (
            ["++train.batch_size=48", "++parallel.sync_bn=4"],
            6,
            "parallel.sync_bn: 6 processes do not split into groups of 4; start 4 or 8 processes,"
            " or change it",
        ),
        (
            ["++train.batch_size=18", "++parallel.strategy=hsdp", "++parallel.shard_size=4"],
            6,
            "parallel.shard_size: 6 processes do not split into groups of 4; change it",
        ),
    ],
)
def test_processes_that_do_not_come_out_even(words, world, message):
    """As after a restart without the nodes that were lost."""
    with pytest.raises(ConfigError) as raised:
        check_processes(small(*words), world)
    assert raised.value.problems == [message]


def test_a_run_that_goes_on_is_told_to_keep_its_batch():
    with pytest.raises(ConfigError) as raised:
        check_processes(small("++train.batch_size=4096", "++resume=true"), 504)
    assert raised.value.problems == [
        "train.batch_size: 4096 images do not divide evenly over 504 processes; start 256 or 512"
        " processes, or begin a new run with init=RUN: one that goes on keeps its batch (fewer"
        " GPUs: more images each, or train.accumulate)"
    ]


SAVED = {"step": 110, "lengths": {"batch_size": 128, "images": 1437, "steps_per_epoch": 11}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"batch_size": 64, "steps_per_epoch": 22},
            "train.batch_size: the run has gone 110 steps of 128 images; keep the batch (fewer"
            " GPUs: more images each, or train.accumulate), or begin a new run with init=RUN",
        ),
        (
            {"images": 1438},
            "data.source: the run has gone 110 steps on 1,437 images, and there are 1,438; bring"
            " back those of before, or begin a new run with init=RUN on these",
        ),
        (
            {"steps_per_epoch": 13},
            "data.sampler: the run has gone 110 steps in epochs of 11 steps, which now have 13;"
            " take its settings of before, or begin a new run with init=RUN",
        ),
    ],
)
def test_a_run_does_not_go_on_with_steps_of_another_length(changed, message):
    with pytest.raises(ConfigError) as raised:
        check_continued(SAVED["lengths"] | changed, SAVED)
    assert raised.value.problems == [message]


def test_a_run_goes_on_with_its_lengths_and_one_of_an_earlier_version_with_any():
    check_continued(SAVED["lengths"], SAVED)
    check_continued(SAVED["lengths"], {"step": 110})


def test_processes_that_do_come_out_even():
    config = small("++train.batch_size=4096", "++parallel.sync_bn=64", "++train.accumulate=2")
    for world in (64, 128, 512):
        check_processes(config, world)
