"""Values in quotes of Hydra's."""

import pytest

from vissl_lite.grammar import quoted, unquoted


@pytest.mark.parametrize(
    "value", ["runs/x", "a=b", "a b", "it's", "a,b", "[x]", "${x}", "a b\\", "a\\' b"]
)
def test_quotes(value):
    assert unquoted(f"init={value}") == value
    if value[0] != "$":
        assert unquoted(f"init={quoted(value)}") == value
