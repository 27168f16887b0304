"""The signature is the schema, and every mistake is told at once, with its place."""

import pickle
from typing import Annotated, Any

import pytest
import torch

from vissl_lite.errors import ConfigError
from vissl_lite.registry import REGISTRIES, Registry


@pytest.fixture
def parts():
    """A registry of its own; the global table of registries is left as it was."""
    before = dict(REGISTRIES)
    registry = Registry("part", runtime=("width",))

    @registry.register("plain")
    class Plain:
        """A plain part. With more text."""

        def __init__(self, rate: float = 0.1, steps: int = 3, *, width: int):
            self.rate, self.steps, self.width = rate, steps, width

    @registry.register("wrapper")
    def wrapper(inner: Annotated[Any, registry], more: Annotated[list, registry] = ()):
        """Wraps others."""
        return inner, more

    yield registry
    REGISTRIES.clear()
    REGISTRIES.update(before)


def test_builds_with_defaults_and_runtime(parts):
    part = parts.build({"name": "plain", "steps": 5}, width=8, something_else=1)
    assert (part.rate, part.steps, part.width) == (0.1, 5, 8)
    assert parts.build("plain", width=1).steps == 3


def test_tells_every_problem_at_once(parts):
    config = {"name": "plain", "rat": 1, "steps": 2.5, "rate": "fast"}
    with pytest.raises(ConfigError) as caught:
        parts.build(config, "model.part", width=1)
    assert caught.value.problems == [
        "model.part: unknown key 'rat' for part 'plain'; did you mean 'rate'?"
        " accepted: rate=0.1, steps=3",
        "model.part.rate: 'fast' is not a number",
        "model.part.steps: 2.5 is not a whole number",
    ]


def test_a_name_is_no_list_of_entries(parts):
    problems = parts.problems({"name": "wrapper", "inner": "plain", "more": "plain"}, "part")
    assert problems == ["part.more: 'plain' is not a list; write ['plain']"]


def test_nested_entries_are_checked_with_their_place(parts):
    config = {
        "name": "wrapper",
        "inner": "plian",
        "more": [{"name": "plain"}, {"name": "plain", "x": 1}],
    }
    problems = parts.problems(config, "part")
    assert problems[0].startswith("part.inner: unknown part 'plian'; did you mean 'plain'?")
    assert problems[1].startswith("part.more[1]: unknown key 'x' for part 'plain'")
    assert parts.problems({"name": "wrapper"}, "part") == [
        "part: part 'wrapper' needs a value for 'inner'"
    ]


def test_a_runtime_value_is_no_yaml_key(parts):
    assert "unknown key 'width'" in parts.problems({"name": "plain", "width": 3})[0]


def test_duplicate_names_name_both_origins(parts):
    with pytest.raises(
        ValueError, match=r"part 'plain' is already .*Plain; .*other needs another name"
    ):

        @parts.register("plain")
        def other():
            """Another."""


def test_describe(parts):
    described = parts.describe("plain")
    assert described.summary == "A plain part. With more text."
    assert [str(p) for p in described.parameters] == ["rate=0.1", "steps=3"]
    assert described.origin.endswith("Plain")


def test_foreign_classes_register_as_they_are(parts):
    parts.register("adagrad")(torch.optim.Adagrad)
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match="needs a value for 'params'"):
        parts.build("adagrad")
    optimizer = parts.build({"name": "adagrad", "params": [weight], "lr": 0.5})
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_value_error_of_a_foreign_class_gets_its_place(parts):
    parts.register("adagrad")(torch.optim.Adagrad)
    with pytest.raises(ConfigError) as caught:
        parts.build({"name": "adagrad", "params": [torch.zeros(1)], "lr": -1.0}, "optimizer")
    assert caught.value.problems == ["optimizer: Invalid learning rate: -1.0"]


def test_other_errors_of_an_entry_stay_what_they_are(parts):
    """A UnicodeDecodeError is a ValueError too, and about no setting."""

    @parts.register("reads")
    def reads():
        """Reads."""
        return b"\xff".decode()

    with pytest.raises(UnicodeDecodeError):
        parts.build("reads")


def test_config_error_survives_a_process_border():
    error = pickle.loads(pickle.dumps(ConfigError("a", "b")))
    assert error.problems == ["a", "b"]
