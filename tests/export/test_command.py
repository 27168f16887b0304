import json

import pytest
import torch
from command import command
from export.subjects import subject
from safetensors.torch import save_file

import vissl_lite
from vissl_lite.export import command as module
from vissl_lite.export.safetensors import SafeTensors

RESNET = {"name": "resnet", "depth": 18}
CIFAR = {**RESNET, "stem": "cifar", "width_multiplier": 0.125}


@pytest.fixture
def weights(tmp_path):
    def write(**config):
        exported = subject(**config)
        card = {"trunk": json.dumps(exported.config), "vissl_lite": "0.1.0"}
        save_file(exported.trunk.state_dict(), tmp_path / "mine.bin", card)
        return exported

    return write


def test_writes_checks_and_says_how_to_load(weights, tmp_path):
    exported = weights(**RESNET)
    done = command("export", "mine.bin", "--to", "torchvision", "--size", "64", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, pixels, *usage = done.stdout.splitlines()
    start = "mine.torchvision.pth: 44.8 MB, largest difference 0.0e+00 of features up to "
    assert first.startswith(start)
    assert first.endswith("(2 images of 64 pixels)")
    assert pixels.startswith("# pixels in [0, 1], normalised")
    assert usage[1] == "model = torchvision.models.resnet18()"
    state = torch.load(tmp_path / "mine.torchvision.pth", weights_only=True)
    assert torch.equal(state["conv1.weight"], exported.trunk.conv1.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.bin", "mine.torchvision.pth"]


def test_out_in_a_new_folder_and_never_over_a_file(weights, tmp_path):
    exported = weights(**CIFAR)
    words = ("export", "mine.bin", "--to", "safetensors", "--size", "32", "--out")
    out = tmp_path / "new" / "w.safetensors"
    assert command(*words, str(out), cwd=tmp_path).returncode == 0
    assert torch.equal(vissl_lite.load(out).conv1.weight, exported.trunk.conv1.weight)
    before = out.stat()
    done = command(*words, str(out), cwd=tmp_path)
    assert done.returncode == 2
    assert "exists already; name another file with --out" in done.stderr
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    done = command(*words, "w.pth", cwd=tmp_path)
    assert "ends in .safetensors, --out is w.pth" in done.stderr


def test_nothing_is_written_when_the_features_differ(weights, tmp_path, monkeypatch):
    class Wrong(SafeTensors):
        def features(self, file, x_NCHW):
            y_NF = super().features(file, x_NCHW)
            return y_NF + 1.1e-5 * y_NF.abs().max().clamp_min(1)

    weights(**CIFAR)
    monkeypatch.setitem(module.TARGETS, "safetensors", Wrong)
    done = command("export", "mine.bin", "--to", "safetensors", "--size", "32", cwd=tmp_path)
    assert done.returncode == 1
    assert "more than 1e-05; nothing written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.bin"]


def test_what_a_target_cannot_express_is_one_sentence(weights, tmp_path):
    weights(**CIFAR)
    done = command("export", "mine.bin", "--to", "torchvision", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "config error\n  export: torchvision has no network like this trunk: its stem is CIFAR's,"
        " 3x3 without pooling; --to safetensors and --to onnx take any trunk\n"
    )


def test_a_vit_has_positions_for_one_size(weights, tmp_path):
    weights(name="vit", size="tiny", patch_size=8, image_size=32)
    words = ("export", "mine.bin", "--to", "timm")
    done = command(*words, "--size", "64", cwd=tmp_path)
    assert "positions are for images of 32 pixels, not 64; leave out --size" in done.stderr
    done = command(*words, cwd=tmp_path)
    assert "(2 images of 32 pixels)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mine.bin", "--to", "tim"), "unknown target 'tim'; did you mean 'timm'?"),
        (("mine.bin",), "the following arguments are required: --to"),
        (("nothing.pth", "--to", "timm"), "nothing.pth is neither a run with checkpoints"),
        (("mine.bin", "--to", "timm", "--size", "x"), "'x' is no whole number from 1"),
    ],
)
def test_mistakes(words, message, tmp_path):
    done = command("export", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_help(tmp_path):
    done = command("export", "--help", cwd=tmp_path)
    assert done.stdout.startswith("usage: vissl-lite export WEIGHTS --to TARGET")
