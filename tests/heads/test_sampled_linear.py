"""What the sample does to losses: tests/layers/test_sampled_logits.py."""

import pytest
import torch
from training import records, small, trained

from vissl_lite import HEADS, ConfigError
from vissl_lite.heads.linear import Linear
from vissl_lite.heads.sampled_linear import SampledLinear
from vissl_lite.layers.sampled_logits import SampledLogits


def test_trains_on_a_sample_and_evaluates_on_all_classes():
    torch.manual_seed(0)
    head = SampledLinear(sampled=4, in_dim=6, num_classes=30)
    torch.manual_seed(0)
    plain = Linear(in_dim=6, num_classes=30)
    x = torch.randn(5, 6)
    z = head(x)
    assert isinstance(z, SampledLogits)
    assert z.shape == (5, 30)
    assert len(z.sample_S.unique()) == 4
    assert head(x).sample_S.tolist() != z.sample_S.tolist()
    torch.testing.assert_close(head.eval()(x), plain(x))


def test_there_are_never_more_samples_than_classes():
    assert SampledLinear(in_dim=6, num_classes=30).sampled == 30


def test_no_sample_is_refused():
    with pytest.raises(ConfigError, match=r"sampled: 0; needs 1 or more"):
        HEADS.build({"name": "sampled_linear", "sampled": 0}, in_dim=6, num_classes=30)


def test_a_training_learns_tags_from_samples(tmp_path):
    """Ten of 55 tags a step: the loss falls from ln 55 = 4.0."""
    words = [
        "++data.source={name: digits_tags, n: 96}",
        "++heads=[{name: sampled_linear, sampled: 10}]",
        "loss=hashtag_softmax",
        "++train={epochs: 8, batch_size: 32, log_every: 1}",
        "++optimizer.lr=0.01",
    ]
    trained(small(*words), tmp_path)
    losses = [record["loss"] for record in records(tmp_path)]
    assert losses[0] == pytest.approx(4.0, abs=0.2)
    assert sum(losses[-5:]) / 5 < 3.4
