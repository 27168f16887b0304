import math
import re

from command import command

from vissl_lite.overrides import compose
from vissl_lite.report.show import schedules_of


def test_shows_a_recipe_before_it_is_trained(tmp_path):
    done = command("show", "config=quickstart", "train.epochs=20", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "quickstart: 220 steps of 128 images, 11 in each of 20 epochs"
    assert re.fullmatch(r"lr +[▁▂▃▄▅▆▇█]{48}  0 to 0.005", lines[1])
    assert re.fullmatch(r"wrote show.html \(\d\d\.\d kB\)", lines[2])
    text = (tmp_path / "show.html").read_text()
    assert text.count("<img") == 4 * 2
    assert "http:" not in text
    assert "SimCLR, small ResNet-18" in text


def test_schedules_are_those_of_the_training():
    config = compose(["config=quickstart"])
    lr = schedules_of(config, 11, 440)["lr"]
    assert len(lr) == 400
    warmup = 0.05
    for i, value in enumerate(lr):
        where = round(i * 439 / 399) / 440
        cosine = (1 + math.cos(math.pi * (where - warmup) / (1 - warmup))) / 2
        expected = 5e-3 * (where / warmup if where < warmup else cosine)
        assert abs(value - expected) < 1e-12


def test_without_the_images(tmp_path):
    recipe = "config=pretrain/swav/resnet50_in1k_800ep"
    done = command("show", recipe, "--out=a.html", cwd=tmp_path)
    assert done.returncode == 0
    assert "800 epochs in steps of 4,096 images" in done.stdout
    assert "neither views nor numbers of steps: data.source.path" in done.stdout
    text = (tmp_path / "a.html").read_text()
    assert "None can be drawn: data.source.path" in text
    assert text.count("<svg") == 1


def test_mistakes(tmp_path):
    done = command("show", "config=quickstart", "--out", cwd=tmp_path)
    assert done.returncode == 2
    assert "show: argument --out: expected one argument" in done.stderr
    done = command("show", "config=quickstart", "--ot", "a.html", cwd=tmp_path)
    assert (done.returncode, "unrecognized arguments: --ot" in done.stderr) == (2, True)
    done = command("show", "config=quickstart", "--out=.", cwd=tmp_path)
    assert (done.returncode, "show --out: . is a folder" in done.stderr) == (2, True)
