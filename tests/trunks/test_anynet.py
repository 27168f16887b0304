import pytest
import torch

from vissl_lite.errors import ConfigError
from vissl_lite.trunks.anynet import anynet
from vissl_lite.trunks.regnet import regnet


def test_default_is_regnety_200mf():
    with torch.device("meta"):
        ours, theirs = anynet().state_dict(), regnet("y_200mf").state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_stages_as_given():
    trunk = anynet([1, 2, 1], [16, 24, 40], [8, 24, 20], se_ratio=0.0)
    assert trunk.widths == {"conv1": 32, "res2": 16, "res3": 24, "res4": 40}
    assert len(trunk.units()) == 5
    convs = [block.f.b[0] for block in trunk.units()[1:]]
    assert [conv.groups for conv in convs] == [2, 1, 1, 2]


def test_mistakes():
    with pytest.raises(
        ConfigError, match="2 depths, 1 widths and 2 group_widths; give one of each"
    ):
        anynet([1, 1], [8], [8, 8])
    with pytest.raises(ConfigError, match="group width 16 does not divide width 40; 32 would be"):
        anynet([1], [40], [16])
