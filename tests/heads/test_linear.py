import pytest
import torch

from vissl_lite import HEADS, ConfigError
from vissl_lite.heads.linear import Linear


def test_starts_small_and_without_bias():
    head = Linear(1000, in_dim=500)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert abs(head.weight.mean().item()) < 1e-4
    assert not head.bias.any()


def test_is_an_affine_map_and_a_scorer():
    x, head = torch.randn(5, 4), Linear(3, in_dim=4)
    torch.nn.init.normal_(head.bias)
    torch.testing.assert_close(head(x), x @ head.weight.T + head.bias)
    assert head.scorer


@pytest.mark.parametrize(("out_dim", "expected"), [(None, 10), (3, 3)])
def test_width_comes_from_the_source_unless_given(out_dim, expected):
    head = HEADS.build({"name": "linear", "out_dim": out_dim}, in_dim=4, num_classes=10)
    assert head.out_dim == expected
    assert head(torch.randn(2, 4)).shape == (2, expected)


def test_classes_to_be_sharded_start_as_all_others_do():
    """What the shards do: tests/parallel/test_class_shards.py."""
    config = {"name": "linear", "shard_classes": True}
    torch.manual_seed(0)
    sharded = HEADS.build(config, in_dim=4, num_classes=10)
    torch.manual_seed(0)
    plain = HEADS.build("linear", in_dim=4, num_classes=10)
    assert sharded.shard_classes
    assert not plain.shard_classes
    assert torch.equal(sharded.weight, plain.weight)
    assert torch.equal(sharded(torch.ones(2, 4)), plain(torch.ones(2, 4)))


def test_says_that_somebody_must_know_the_classes():
    with pytest.raises(ConfigError, match="set out_dim"):
        Linear(in_dim=4)
