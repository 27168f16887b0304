import json

import torch
from export.subjects import subject, worst
from safetensors import safe_open

import vissl_lite
from vissl_lite.export.safetensors import SafeTensors


def test_nothing_changes(tmp_path):
    exported, file = subject(name="resnet", depth=18), tmp_path / "w.safetensors"
    target = SafeTensors(exported)
    target.write(file)
    with torch.no_grad():
        assert worst(target.features(file, exported.probe()), exported) == 0
    loaded, state = vissl_lite.load(file), exported.trunk.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())
    assert (loaded.mean, loaded.std, loaded.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None)


def test_the_header_tells_the_trunk_and_its_pixels(tmp_path):
    exported = subject(name="resnet", depth=18, stem="cifar", width_multiplier=0.125)
    SafeTensors(exported).write(tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        card = file.metadata()
    assert json.loads(card["trunk"]) == exported.config
    assert (json.loads(card["mean"]), json.loads(card["std"])) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert card.keys() == {"trunk", "vissl_lite", "mean", "std"}
