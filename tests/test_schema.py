"""Values are converted without loss or refused with a sentence."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from vissl_lite.schema import above, at_least, between, conform, defaults_of, parameters_of


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        ("1e-6", float, 1e-6),  # YAML 1.1 reads 1e-6 as a string
        (None, int | None, None),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ([[1], [2.5]], list[list[float]], [[1.0], [2.5]]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ("cosine", Literal["cosine", "dot"], "cosine"),
        ("auto", int | Literal["auto"], "auto"),
        (4, int | Literal["auto"], 4),
        ("x/y", Path, Path("x/y")),
        (1, Any, 1),
        (True, bool, True),
    ],
)
def test_conform_converts(value, hint, expected):
    converted, problems = conform(value, hint, "here")
    assert problems == []
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (2.5, int, "here: 2.5 is not a whole number"),
        (True, int, "here: True is not a whole number"),
        ("abc", float, "here: 'abc' is not a number"),
        ("yes", bool, "here: 'yes' is not true or false"),
        (
            "cos",
            Literal["cosine", "dot"],
            "here: 'cos' is not one of cosine, dot; did you mean 'cosine'?",
        ),
        ([1.0], tuple[float, float], "here: needs 2 values, got 1: [1.0]"),
        ([1, "x"], list[int], "here[1]: 'x' is not a whole number"),
        ("many", int | None, "here: 'many' is not a whole number or null"),
        ("a", tuple[str, ...] | None, "here: 'a' is not a list or null; write [a]"),
        (7, str, "here: 7 is not a string"),
        (3, list[int], "here: 3 is not a list"),
    ],
)
def test_conform_refuses(value, hint, message):
    assert conform(value, hint, "here")[1] == [message]


def test_defaults_of_a_nested_dataclass():
    @dataclass
    class Inner:
        size: int
        names: list = field(default_factory=lambda: ["a"])

    @dataclass
    class Outer:
        inner: Inner
        scale: tuple[float, float] = (0.1, 1.0)

    tree = defaults_of(parameters_of(Outer))
    assert tree == {"inner": {"size": "???", "names": ["a"]}, "scale": [0.1, 1.0]}
    assert conform({"size": 3, "nmaes": []}, Inner, "inner")[1] == [
        "inner: unknown key 'nmaes' for 'inner'; did you mean 'names'? accepted: size, names=['a']"
    ]
    assert conform({"size": 3}, Inner, "inner")[0] == Inner(3)


@dataclass
class Ranges:
    steps: Annotated[int | None, at_least(1)] = None
    workers: Annotated[int | Literal["auto"], at_least(0)] = "auto"
    share: Annotated[float, between(0, 1)] = 0.5
    part: Annotated[float, above(0, at_most=1)] = 1.0
    std: Annotated[tuple[float, float], above(0)] = (1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"steps": 1, "workers": 0, "share": 1, "part": 1, "std": [1e-9, 2]}, []),
        ({"steps": None, "workers": "auto", "share": 0}, []),
        (
            {"steps": 0, "workers": -8, "share": 1.5},
            [
                "x.steps: 0; needs 1 or more",
                "x.workers: -8; needs 0 or more",
                "x.share: 1.5; needs 0 to 1",
            ],
        ),
        (
            {"part": 0, "std": [0, -1]},
            [
                "x.part: 0; needs more than 0, at most 1",
                "x.std[0]: 0; needs more than 0",
                "x.std[1]: -1; needs more than 0",
            ],
        ),
        ({"share": "nan"}, ["x.share: nan; needs 0 to 1"]),
        (
            {"steps": "x", "share": "x"},
            [
                "x.steps: 'x' is not a whole number or null",
                "x.share: 'x' is not a number",
            ],
        ),
    ],
)
def test_ranges_hold_for_numbers_and_for_all_in_a_list(given, problems):
    assert conform(given, Ranges, "x")[1] == problems


def test_a_section_that_a_config_lacks_gets_its_defaults():
    """Configs of runs that began before the section existed."""

    @dataclass
    class New:
        size: int = 3

    @dataclass
    class Root:
        new: New = field(default_factory=New)

    assert conform({}, Root, "root") == (Root(New(3)), [])
