"""Numbers of processes that do not come out even."""

import pytest
from training import small

from vissl_lite.engine.combinations import check_processes
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


def test_processes_that_do_come_out_even():
    config = small("++train.batch_size=4096", "++parallel.sync_bn=64", "++train.accumulate=2")
    for world in (64, 128, 512):
        check_processes(config, world)
