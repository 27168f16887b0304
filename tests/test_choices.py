"""Names on the command line that do not exist are told all at once, with what else is wrong."""

import re

import pytest

from vissl_lite.choices import chosen, unknown_choices
from vissl_lite.errors import ConfigError
from vissl_lite.overrides import hydra_arguments
from vissl_lite.plugins import load_entries, register_with_hydra


@pytest.fixture(autouse=True)
def registered():
    load_entries()
    register_with_hydra()


def problems(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        hydra_arguments(list(words))
    return error.value.problems


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("loss=swav", ["swav"]),
        ("hooks=[evaluate,report]", ["evaluate", "report"]),
        ("loss=swav,simclr", ["swav", "simclr"]),
        ("hooks=[]", []),
        ("loss=null", []),
        ("loss=${oc.env:LOSS}", []),
        ("loss=[", []),
        ("config=glob(pretrain/s*)", []),
    ],
)
def test_names_in_a_word(word, names):
    assert chosen(word) == names


def test_every_unknown_name_and_every_other_mistake():
    found = problems(
        *("config=quickstart", "evaluations=[knn,detecton]", "trunk.dept=3", "loss.temperatur=1")
    )
    assert len(found) == 3
    assert found[0].startswith("evaluations: unknown 'detecton'; did you mean 'detection'?")
    assert found[1].startswith("trunk: unknown key 'dept'")
    assert found[2].startswith("loss: unknown key 'temperatur'")


def test_what_belongs_to_an_unknown_name_is_no_second_mistake():
    """`loss.weight` may be right for the loss that was meant."""
    assert len(problems("config=quickstart", "loss=simclrr", "loss.weight=2")) == 1
    assert len(problems("config=quickstart", "data/source=digit", "data.source.path=x")) == 1


def test_recipes_and_files_of_groups():
    found = problems("config=quikstart", "dataset=cifar1", "+augment=swa", "sweep=rl")
    assert [problem.split(";")[0] for problem in found] == [
        "config: unknown recipe 'quikstart'",
        "dataset: unknown 'cifar1'",
        "augment: unknown 'swa'",
        "sweep: unknown 'rl'",
    ]


def test_names_of_a_sweep():
    (problem,) = problems("-m", "config=quickstart", "loss=simclr,swavv")
    assert problem.startswith("loss: unknown 'swavv'; did you mean 'swav'?")


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["x.y=(", "train.epohcs=1"], ["x.y=( cannot be read", "train"]),
        (["x.y=(", "loss=simclrr", "=3"], ["loss", "x.y=( cannot be read", "'=3' sets nothing"]),
        (["loss=(", "loss.weight=2", "seed=x"], ["loss=( cannot be read", "seed"]),
        (["data/source=(", "data.source.x=2"], ["data/source=( cannot be read"]),
        (["+augment@data.views=(", "seed=x"], ["augment@data.views=( cannot be read", "seed"]),
        (["hooks=null", "data.views[0].size=x"], ["hooks", "data.views[0].size"]),
    ],
)
def test_words_that_mean_nothing_hide_no_other_mistake(words, places):
    found = problems("config=quickstart", *words)
    assert [re.split("[:;]", problem)[0] for problem in found] == places


def test_no_place_in_a_list_hides_no_other_mistake():
    with pytest.raises(ConfigError, match="loss: unknown 'swavv'; did you mean 'swav'"):
        hydra_arguments(["config=quickstart", "loss=swavv", "data.views.size=3"])


def test_a_place_as_messages_name_it():
    words = hydra_arguments(["config=quickstart", "data.views[0].size=9", "seed=[1]"])
    assert words[:3] == ["config=quickstart", "++data.views.0.size=9", "++seed=[1]"]


def test_right_names_files_configs_and_flags_pass():
    words = ["config=quickstart", "loss={name: mine}", "~hooks", "hydra/launcher=x", "--cfg", "job"]
    assert unknown_choices(words) == ([], words)
    words = ["config=run/config.yaml", "hooks=[]", "dataset=null", "seed=1"]
    assert unknown_choices(words) == ([], words)
