"""A part that the command line takes instead of the recipe's has nothing of the recipe's."""

import pytest
import yaml
from command import command

from vissl_lite.config import check
from vissl_lite.overrides import compose

SIMCLR, SUPERVISED = (
    "config=pretrain/simclr/resnet18_cifar10_200ep",
    "config=supervised/resnet18_cifar10_100ep",
)


@pytest.mark.parametrize(
    ("words", "part", "expected", "left"),
    [
        ([SIMCLR, "loss=swav"], "loss", {"temperature": 0.1}, "loss.temperature=0.5"),
        ([SIMCLR, "trunk=vit", "trunk.size=tiny"], "trunk", {"size": "tiny"}, "trunk.depth=18"),
        ([SIMCLR, "trunk={name: vit, size: base}"], "trunk", {"size": "base"}, "trunk.depth=18"),
        (
            [SUPERVISED, "optimizer=adamw", "optimizer.lr=0.001"],
            "optimizer",
            {"weight_decay": 0.05, "lr": 0.001},
            "optimizer.nesterov=True",
        ),
        (
            ["config=quickstart", "data.source={name: synthetic, size: 50}"],
            "data.source",
            {"size": 50},
            "data.source.split=train",
        ),
        (
            ["config=quickstart", "schedules.lr={name: multistep, milestones: [0.5]}"],
            "schedules.lr",
            {"milestones": [0.5]},
            "schedules.lr.then=cosine",
        ),
    ],
)
def test_a_part_of_another_name_begins_anew(words, part, expected, left, capsys):
    config = compose(words)
    for key in part.split("."):
        config = config[key] if isinstance(config, dict) else getattr(config, key)
    assert expected.items() <= config.items()
    told = capsys.readouterr().err
    assert told.startswith(f"note: {part}: {config['name']} instead of ")
    assert left in told


@pytest.mark.parametrize(
    "words",
    [["trunk=resnet", "trunk.depth=34"], ["trunk={name: resnet, depth: 34}"], ["++trunk.depth=34"]],
)
def test_the_same_part_keeps_what_the_recipe_says(words, capsys):
    assert {"depth": 34, "stem": "cifar"}.items() <= compose([SIMCLR, *words]).trunk.items()
    assert capsys.readouterr().err == ""


def test_what_the_user_takes_out_is_out(capsys):
    trunk = compose([SIMCLR, "trunk=vit", "~trunk.depth", "~trunk.stem", "trunk.size=tiny"]).trunk
    assert (trunk["name"], trunk["size"]) == ("vit", "tiny")
    assert capsys.readouterr().err == ""


def test_a_file_of_a_group_is_taken_whole(capsys):
    trunk = compose(["config=pretrain/swav/resnet50_in1k_100ep", "trunk=resnet18_small"]).trunk
    assert (trunk["depth"], trunk["width_multiplier"]) == (18, 0.25)


def test_in_every_job_of_a_sweep(tmp_path):
    words = ["-m", "config=quickstart", "optimizer=adamw,sgd", "hooks=[]", "evaluations=[]"]
    done = command(*words, "loggers=[jsonl]", "train.max_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [note] = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    assert note.startswith("note: optimizer: sgd instead of adamw; left out of the recipe: ")
    assert "optimizer.lr=0.005" in note


def test_cfg_job_shows_what_runs(tmp_path):
    show = [SIMCLR, "trunk=vit", "trunk.size=tiny", "hooks=[checkpoint]", "--cfg", "job"]
    done = command(*show, "--resolve", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert list(shown["hooks"]) == ["checkpoint"]
    assert "stem" not in shown["trunk"]
    assert shown["trunk"] == yaml.safe_load(command(*show, "-p", "trunk", cwd=tmp_path).stdout)
    assert check(shown) == compose(show[:4])


def test_cfg_job_of_one_value(tmp_path):
    show = ["config=quickstart", "--cfg=job"]
    assert "recipe: ${hydra:runtime.choices.config}\n" in command(*show, cwd=tmp_path).stdout
    assert command(*show, "-p", "recipe", cwd=tmp_path).stdout == "quickstart\n"
    done = command(*show, "-p", "optimiser", cwd=tmp_path)
    assert (done.returncode, "the config has no 'optimiser'" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())  # only shown
