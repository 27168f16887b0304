"""The order in which a training calls its hooks."""

from training import small, trained

from vissl_lite import HOOKS
from vissl_lite.hooks.base import Hook


def recorder(calls, last=False):
    class Recorder(Hook):
        """Notes every call."""

        def __getattribute__(self, name):
            if name.startswith(("on_", "after_")):
                calls.append(name)
            return super().__getattribute__(name)

    Recorder.last = last
    return Recorder


def test_hooks_are_called_in_order(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(HOOKS._entries, "recorder", recorder(calls))
    trained(small("++hooks.recorder={}", "++train.max_steps=2"), tmp_path)
    step = ["after_backward", "on_log", "after_step"]
    assert calls == ["on_start", *step, *step, "on_end"]


def test_a_last_hook_comes_last_wherever_it_stands(tmp_path, monkeypatch):
    first, second = [], []
    monkeypatch.setitem(HOOKS._entries, "a", recorder(first, last=True))
    monkeypatch.setitem(HOOKS._entries, "b", recorder(second))
    words = ["++hooks.a={}", "++hooks.b={}", "++train.max_steps=1"]
    trainer = trained(small(*words), tmp_path)
    assert list(trainer.hooks) == ["b", "a"]
    assert first == second


def test_a_plain_hook_does_nothing_and_keeps_nothing(tmp_path, monkeypatch):
    class Plain(Hook):
        """Nothing."""

    monkeypatch.setitem(HOOKS._entries, "plain", Plain)
    with_hook = trained(small("++hooks.plain={}", "++train.max_steps=2"), tmp_path / "a")
    without = trained(small("++train.max_steps=2"), tmp_path / "b")
    assert with_hook.results["loss"] == without.results["loss"]
    assert with_hook.hooks["plain"].state_dict() == {}
