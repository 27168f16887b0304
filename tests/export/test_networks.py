"""The networks that everybody uses, by every target; bound 1e-5 of the largest feature."""

import pytest
import torch
from export.subjects import NETWORKS, subject, worst

from vissl_lite.export.huggingface import HuggingFace
from vissl_lite.export.safetensors import SafeTensors
from vissl_lite.export.timm import Timm
from vissl_lite.export.torchvision import TorchVision


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request):
    return subject(**NETWORKS[request.param])


@pytest.mark.parametrize("target", [SafeTensors, TorchVision, Timm, HuggingFace])
@torch.no_grad()
def test_parity(exported, target, tmp_path):
    made, file = target(exported), tmp_path / "weights"
    made.write(file)
    features = made.features(file, exported.probe())
    if features is None:
        pytest.skip(f"{made.program} is not installed")
    assert worst(features, exported) < 1e-5
