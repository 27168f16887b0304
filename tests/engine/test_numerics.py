"""Precision and layout are chosen by measuring, and measuring leaves no trace."""

import copy

import pytest
import torch
from training import small

from vissl_lite.engine import numerics
from vissl_lite.engine.parts import Parts

CPU = torch.device("cpu")


@pytest.fixture
def parts():
    return Parts(small(), CPU)


def test_what_is_given_is_taken(parts):
    chosen = numerics.choose("bf16", "channels_last", parts.model, [], CPU)
    assert (chosen.precision, chosen.memory_format, chosen.reason) == (
        *("bf16", "channels_last"),
        "as given",
    )


def test_the_fastest_is_taken_and_ties_go_to_the_first(parts, monkeypatch):
    seconds = {"contiguous": 1.0, "channels_last": 0.97}
    monkeypatch.setattr(numerics, "_measure", lambda n, *_: seconds[n.memory_format])
    views = parts.example(4).views
    assert numerics.choose("fp32", "auto", parts.model, views, CPU).memory_format == "contiguous"
    seconds["channels_last"] = 0.5
    chosen = numerics.choose("fp32", "auto", parts.model, views, CPU)
    assert chosen.memory_format == "channels_last"
    assert "channels_last 500 ms" in chosen.reason


def test_measuring_leaves_no_trace(parts):
    before = copy.deepcopy(parts.model.state_dict())
    state = torch.random.get_rng_state()
    numerics.choose("fp32", "auto", parts.model, parts.example(4).views, CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in parts.model.state_dict().items())
    assert all(p.grad is None for p in parts.model.parameters())
    assert all(p.is_contiguous() for p in parts.model.parameters())  # FSDP takes no others


def test_scores_of_some_classes_only_are_measured_too():
    head = "++heads=[{name: sampled_linear, sampled: 3, out_dim: 10}]"
    parts = Parts(small(head, "loss=cross_entropy", "++memory.memory_format=auto"), CPU)
    assert "measured on 16 images: fp32 contiguous" in parts.numerics.reason


def test_bf16_is_a_candidate_only_where_the_cpu_has_it(monkeypatch):
    for fast in (True, False):
        monkeypatch.setattr(numerics, "has_fast_bf16_cpu", lambda fast=fast: fast)
        assert numerics._precisions("auto", CPU) == (["fp32", "bf16"] if fast else ["fp32"])
