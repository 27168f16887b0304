"""Against ONNX Runtime; bound 1e-5 of the largest feature. Skips without it."""

import json

import pytest
import torch
from export.subjects import NETWORKS, subject, worst

from vissl_lite.errors import ConfigError
from vissl_lite.export import onnx as target_onnx
from vissl_lite.export.onnx import Onnx

SMALL = {"name": "resnet", "depth": 18, "stem": "cifar", "width_multiplier": 0.125}
ADAPTER = {"name": "torchvision", "model": "mobilenet_v3_small"}
OTHERS = {"small": SMALL, "adapter": ADAPTER}


@pytest.fixture
def needs_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("needs_onnx")
@pytest.mark.parametrize(
    "name", [*OTHERS, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS)]
)
def test_onnx_runtime_computes_the_same(name, tmp_path):
    import onnxruntime

    exported, file = subject(**{**OTHERS, **NETWORKS}[name]), tmp_path / "w.onnx"
    target = Onnx(exported)
    target.write(file)
    x = exported.probe()
    assert worst(target.features(file, x), exported) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["w.onnx"]
    names = {"images": torch.cat([x, x[:1]]).numpy()}  # another number of images
    exec(target.usage(file), names)
    torch.testing.assert_close(names["features"][2], names["features"][0], rtol=1e-4, atol=1e-4)
    session = onnxruntime.InferenceSession(file)
    assert json.loads(session.get_modelmeta().custom_metadata_map["mean"]) == [0.1, 0.2, 0.3]


def test_without_onnx(monkeypatch):
    monkeypatch.setattr(target_onnx, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs onnx and onnxscript; pip install onnx onnxscript"):
        Onnx(subject(**SMALL))


def test_without_onnx_runtime_there_is_no_check(monkeypatch, tmp_path):
    monkeypatch.setattr(target_onnx, "find_spec", lambda name: name != "onnxruntime" or None)
    exported = subject(**SMALL)
    assert Onnx(exported).features(tmp_path / "w.onnx", exported.probe()) is None
