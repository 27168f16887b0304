import math

import pytest

from vissl_lite.hooks._verdicts import VERDICTS
from vissl_lite.report.runs import Run
from vissl_lite.report.verdict import diagnosis, judge

GOOD = {"kind": "train", "loss": 2.0, "embedding_std": 0.97, "effective_rank": 20.0}
GOOD |= {"same_image_cosine": 0.9, "other_image_cosine": 0.1}


@pytest.fixture
def run(run_dir):
    return Run.read(run_dir)


def judged(run, *records):
    run.records = list(records)
    return judge(run)


def test_a_healthy_run(run):
    title, text, good = judged(run, GOOD)
    assert (title, good) == ("No sign of collapse.", True)
    assert "spread of 0.97" in text
    assert "89% of the way" in text  # (0.9 - 0.1) / (1 - 0.1)
    assert "crops of two images 0.00:" in judged(run, GOOD | {"other_image_cosine": -0.004})[1]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"loss": math.log(12)}, "stuck at ln K"),  # its 12 prototypes
        ({"embedding_std": 0.01}, "collapse"),
        ({"effective_rank": 1.2}, "dimensional collapse"),
        ({"same_image_cosine": 0.1}, "no invariance"),
    ],
)
def test_findings_with_what_the_run_advised(run, change, name):
    note = {"kind": "note", "level": "warning", "text": f"{name}: it. Try, in this order: this"}
    title, text, good = judged(run, note, *5 * [GOOD | change])
    assert (title.lower(), good) == (f"{name}:".lower(), False)
    assert text.endswith("Try, in this order: this.")
    assert name in VERDICTS
    assert "it." not in diagnosis([run])  # the same again as a warning
    assert judged(run, GOOD, *4 * [GOOD | change])[2]  # not yet `patience` of them


def test_no_verdict_without_numbers_or_with_labels(run):
    assert judged(run, {"kind": "train", "loss": 1.0})[:1] == ("No verdict.",)
    run.tree = {**run.tree, "loss": {"name": "cross_entropy"}}
    title, text, good = judged(run, GOOD | {"embedding_std": 0.0})
    assert (title, good) == ("No verdict.", True)
    assert "labels or tags" in text
