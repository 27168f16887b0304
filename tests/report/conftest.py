"""One small SwAV training on digits, whose folder the tests of the report read."""

import pytest
from training import SMALL, composed, small, trained

from vissl_lite.engine.journal import save_config
from vissl_lite.report import maps
from vissl_lite.schema import plain

LABELLED = (
    "++labelled={train: {name: digits}, test: {name: digits, split: test}, size: 16,"
    " transforms: [{name: resize, short_side: 16}]}"
)
HEADS = "++heads=[{name: mlp, hidden: [16], out_dim: 8}, {name: prototypes, num_prototypes: 12}]"
WORDS = (
    *(LABELLED, HEADS, "loss=swav", "evaluations=[knn]", "hooks=[checkpoint,diagnose,evaluate]"),
    *("++train.max_steps=6", "++train.log_every=2", "++hooks.evaluate.at_start=true"),
)


def run_in(folder, *words):
    """A training with these words, and its config.yaml."""
    tree = plain(composed(*SMALL, *words))
    save_config({key: value for key, value in tree.items() if key != "hydra"}, folder)
    trained(small(*words), folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _small_maps():
    with pytest.MonkeyPatch.context() as own:
        own.setattr(maps, "POINTS", 60)
        yield


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("runs") / "first", *WORDS)
