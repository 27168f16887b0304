"""The strategy of a single process."""

import torch
import torch.distributed as dist
from training import small

from vissl_lite.engine.strategy import choose_strategy


def test_one_process_is_wrapped_where_a_setting_needs_it():
    cpu = torch.device("cpu")
    assert choose_strategy(small(), cpu) == (None, "none")
    try:
        assert choose_strategy(small("++parallel.shard_size=1"), cpu) == ("hsdp", "none")
    finally:
        dist.destroy_process_group()
