"""Words in Hydra's grammar."""

import pytest

from vissl_lite.grammar import quoted, sweeps, unquoted


@pytest.mark.parametrize(
    "value", ["runs/x", "a=b", "a b", "it's", "a,b", "[x]", "${x}", "a b\\", "a\\' b"]
)
def test_quotes(value):
    assert unquoted(f"init={value}") == value
    if value[0] != "$":
        assert unquoted(f"init={quoted(value)}") == value


def test_words_that_make_several_jobs():
    words = ["a=1,2", "++a.b=x,y", "a=range(3)", "config=glob(*)", "a=interval(0,1)"]
    assert all(map(sweeps, words))
    words = ["a=1", "a=[1,2]", "a='1,2'", "~a=1,2", "-m", "a={b:1,c:2}", "a=[", "a"]
    assert not any(map(sweeps, words))
