"""Ranks that do not agree, and what is said of it."""

from pathlib import Path
from unittest.mock import patch

import torch
from training import SMALL, composed

from vissl_lite import cli
from vissl_lite.errors import ConfigError
from vissl_lite.parallel import agreement
from vissl_lite.parallel.agreement import check_agreement, check_folder, differences, flat
from vissl_lite.parallel.launch import Launch
from vissl_lite.schema import plain

CONFIG = {"optimizer": {"lr": 0.1}, "data": {"views": [{"size": 32}]}, "hooks": {}}


def test_the_leaves_of_a_tree():
    assert flat(CONFIG) == {"optimizer.lr": "0.1", "data.views": '[{"size": 32}]', "hooks": "{}"}
    assert flat({"a": [{"x": 1, "y": 2}]}) == flat({"a": [{"y": 2, "x": 1}]})


def test_no_sentence_where_all_agree():
    assert differences([flat(CONFIG)] * 8) == []


def test_each_key_with_its_values_and_ranks():
    facts = [{"optimizer.lr": "0.1", "seed": "0"} for _ in range(8)]
    facts[3]["optimizer.lr"] = facts[4]["optimizer.lr"] = "0.2"
    del facts[7]["seed"]
    assert differences(facts) == [
        "the ranks disagree on optimizer.lr: 0.1 on ranks 0-2, 5-7, 0.2 on ranks 3-4",
        "the ranks disagree on seed: 0 on ranks 0-6, not set on rank 7",
        "start every rank with the same command, config files and installed packages",
    ]


def test_many_differences_are_counted():
    facts = [{str(i): value for i in range(9)} for value in ("a", "b")]
    assert differences(facts)[5] == "and on 4 more keys"


def _check(rank, world, config_of_1, torch_of_1):
    config, version = (config_of_1, torch_of_1) if rank == 1 else (CONFIG, None)
    try:
        with patch.object(torch, "__version__", version or torch.__version__):
            check_agreement(config)
    except ConfigError as error:
        return error.problems
    return []


def test_equal_ranks_pass(ranks):
    assert ranks(2)(_check, CONFIG, None) == [[], []]


def test_every_rank_hears_of_another_config(ranks):
    other = {**CONFIG, "optimizer": {"lr": 0.2}}
    for problems in ranks(2)(_check, other, None):
        assert problems[0] == ("the ranks disagree on optimizer.lr: 0.1 on rank 0, 0.2 on rank 1")


def test_every_rank_hears_of_another_version(ranks):
    for problems in ranks(2)(_check, CONFIG, "2.0.0"):
        assert problems[0].startswith("the ranks disagree on the version of torch: ")
        assert problems[0].endswith(', "2.0.0" on rank 1') or problems[0].endswith(
            "2.0.0 on rank 1"
        )


def test_another_checkout_is_another_code(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr("vissl_lite.__file__", str(tmp_path / "__init__.py"))
    before = agreement.code_digest()
    assert agreement.code_digest() == before
    (tmp_path / "__init__.py").write_text("a = 2\n")
    assert agreement.code_digest() != before


# ---------------------------------------------------------------- the run folder


def _look(rank, world, folders):
    agreement.SEEN_S = 0.5
    try:
        check_folder(Path(folders[rank]))
    except ConfigError as error:
        return str(error)
    return None


def test_ranks_that_see_one_folder_leave_nothing_in_it(tmp_path, ranks):
    assert ranks(2)(_look, [str(tmp_path / "run")] * 2) == [None, None]
    assert list((tmp_path / "run").iterdir()) == []


def test_a_file_that_is_seen_late_is_seen(tmp_path, monkeypatch):
    known = iter([[], ["a file"]])
    monkeypatch.setattr(agreement.os, "listdir", lambda folder: next(known))
    assert agreement._appears(tmp_path, "a file")


def test_ranks_that_do_not_see_the_folder_of_rank_0_are_named(tmp_path, ranks):
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    for said in ranks(2)(_look, [str(here), str(there)]):
        assert said == (
            f"run_dir: rank 1 does not see {here} of rank 0; give run_dir=FOLDER on a file system"
            " that all machines share"
        )


def test_a_folder_that_rank_0_cannot_write_to(tmp_path, ranks):
    (tmp_path / "file").touch()
    for said in ranks(2)(_look, [str(tmp_path / "file" / "run")] * 2):
        assert said.endswith("cannot be written to (Not a directory); give another run_dir=FOLDER")


def _train(rank, world, folder):
    agreement.SEEN_S = 0.5
    run_dir = Path(folder, str(rank), "run")
    try:
        cli.train(plain(composed(*SMALL)), run_dir, Launch())
    except ConfigError as error:
        return str(error)
    return None


def test_a_training_in_several_folders_does_not_begin(tmp_path, ranks):
    """Each machine with a working directory of its own, and a relative run_dir."""
    for said in ranks(2)(_train, str(tmp_path)):
        assert said.startswith(f"run_dir: rank 1 does not see {tmp_path}/0/run of rank 0; give")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "run"]
