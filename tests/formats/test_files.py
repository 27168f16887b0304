"""What is read from a file, and what is refused."""

import argparse
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vissl_lite.errors import ConfigError
from vissl_lite.formats.files import read_file


class Foreign:
    """Something of which only its module knows what loading it does."""


def test_nested_tensors_get_dotted_names(tmp_path):
    a, b, c = torch.ones(2), torch.zeros(3), torch.arange(4)
    saved = {"state_dict": OrderedDict({"module.w": a}), "optimizer": {"state": {0: {"m": b}}}}
    torch.save({**saved, "epoch": 3, "queue": [None, c]}, tmp_path / "x")
    tensors, card = read_file(tmp_path / "x")
    assert list(tensors) == ["state_dict.module.w", "optimizer.state.0.m", "queue.1"]
    assert torch.equal(tensors["queue.1"], c)
    assert card == {}


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_the_name_of_a_file_means_nothing(name, tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / name, {"trunk": "{}"})
    tensors, card = read_file(tmp_path / name)
    assert torch.equal(tensors["w"], torch.ones(2))
    assert card == {"trunk": "{}"}
    torch.save({"w": torch.ones(3)}, tmp_path / name)
    assert read_file(tmp_path / name)[0]["w"].shape == (3,)


def test_files_from_before_torch_1_6(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "x")
    assert torch.equal(read_file(tmp_path / "x")[0]["w"], torch.ones(2))


@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_classes_are_refused_with_the_remedy(zipped, tmp_path):
    saved = {"w": torch.ones(2), "args": argparse.Namespace(model=Foreign())}
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConfigError, match=r"Unsupported global: GLOBAL .*Foreign.*torch\.save"):
        read_file(tmp_path / "x.pth")


def test_nothing_is_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'pwned')!r}, 'w').close()",)

    torch.save({"w": torch.ones(2), "x": Attack()}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Attack()))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(ConfigError):
            read_file(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(ConfigError, match="is a TorchScript archive; where you trust it"):
        read_file(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"xx", b"<html>404</html>", b"PK\x03\x04xx"])
def test_what_is_no_weights_is_said(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=r"is neither \.safetensors nor written by torch\.save"):
        read_file(tmp_path / "x.pth")


def test_damaged_files(tmp_path):
    (tmp_path / "x").write_bytes(b"hello world")
    with pytest.raises(ConfigError, match=r"neither \.safetensors nor written by torch\.save"):
        read_file(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(ConfigError, match="or damaged"):
        read_file(tmp_path / "x")
    torch.save({"w": torch.ones(999)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-500])
    with pytest.raises(ConfigError, match="or damaged"):
        read_file(tmp_path / "x")
    save_file({"w": torch.ones(999)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-500])
    with pytest.raises(ConfigError, match="is damaged"):
        read_file(tmp_path / "x")
