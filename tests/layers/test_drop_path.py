import torch

from vissl_lite.layers.drop_path import DropPath, drop_path


def test_keeps_whole_samples_and_the_mean():
    x = torch.ones(20000, 2, 3)
    y = drop_path(x, 0.2)
    assert set(y.flatten().tolist()) == {0.0, 1.25}
    assert torch.equal(y, y[:, :1, :1].expand_as(y))
    assert abs(y.mean() - 1) < 0.02  # 5 standard errors are 0.018


def test_acts_in_training_only():
    x = torch.randn(8, 4)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    assert (DropPath(0.5).train()(x) == 0).any()
