"""Every image once, in order, with its name: naive features, broken images, stops, processes."""

import fcntl
import json
import os
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from data.some_sources import Numbers
from engine.some_digits import SomeDigits
from extract.some_subject import some_subject
from pretended_gpu import CUDA, pretended_gpu

from vissl_lite.errors import ConfigError, WorkerDied
from vissl_lite.extract.extract import Settings, extract
from vissl_lite.extract.stored import open_features

N, BROKEN, UNLABELLED = 45, (3, 17, 44), (5, 17)
LAYERS = ["embedding", "res3"]


def settings(**changes):
    return Settings(**{"layers": LAYERS, "batch_size": 4, **changes})


def some_digits():
    return SomeDigits(N, BROKEN, UNLABELLED)


def extracted(out, source=None, **changes):
    source = some_digits() if source is None else source
    return extract(some_subject(), source, {"name": "some"}, out, settings(**changes))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "out"
    extracted(folder)
    return folder


@torch.no_grad()
def naive():
    """Embedding and averaged res3 of each good image alone, in float64."""
    model, source = some_subject().model.double(), some_digits()
    rows = {layer: [] for layer in LAYERS}
    for i in range(N):
        image = source.digits[i].image
        x_NCHW = torch.from_numpy(np.stack([image] * 3)[None]).double()
        x_NCHW = (x_NCHW / 255 - model.mean / 255) / (model.std / 255)
        maps = model.trunk(x_NCHW, ("res3", "res5"))
        rows["res3"].append(maps["res3"].mean((2, 3))[0].numpy())
        rows["embedding"].append(model.heads[0](maps["res5"].mean((2, 3)))[0].numpy())
    return {layer: np.stack(x_ND) for layer, x_ND in rows.items()}


def test_rows_are_the_naive_ones_in_the_order_of_the_source(undisturbed):
    good = np.setdiff1d(np.arange(N), BROKEN)
    for layer, expected_ND in naive().items():
        x_ND = np.load(undisturbed / f"{layer}.npy", mmap_mode="r")
        assert x_ND.dtype == np.float32
        np.testing.assert_allclose(x_ND[good], expected_ND[good], rtol=1e-4, atol=1e-5)
        assert np.isnan(x_ND[list(BROKEN)]).all()


def test_names_labels_and_broken_images(undisturbed):
    features = open_features(undisturbed)
    assert [features.name(i) for i in range(N)] == [f"n{i}" for i in range(N)]
    expected = [-1 if i in UNLABELLED else some_digits()[i].label for i in range(N)]
    assert np.load(undisturbed / "labels.npy").tolist() == expected
    lines = (undisturbed / "broken.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [[str(i), f"n{i}"] for i in BROKEN]
    assert (features.meta["complete"], features.meta["broken"]) == (True, 3)
    assert not list(undisturbed.glob("done-*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
def test_a_gpu_writes_the_same_files(undisturbed, tmp_path, capsys):
    with pretended_gpu():
        extracted(tmp_path / "out", device=CUDA)
    assert files(tmp_path / "out") == files(undisturbed)
    assert re.search(r"rank 0 waited for images \d+ % of \d+\.\d s", capsys.readouterr().err)


class Stops(SomeDigits):
    """Cannot go on at one image, as if the process had been ended."""

    def __getitem__(self, index):
        if index == 26:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def stopped(out):
    """Features of the blocks 0 to 5, of 12."""
    with pytest.raises(KeyboardInterrupt):
        extracted(out, Stops(N, BROKEN, UNLABELLED))
    return out


def test_goes_on_after_a_stop_although_rows_and_a_line_were_lost(tmp_path, undisturbed):
    out = stopped(tmp_path / "out")
    with pytest.raises(ConfigError, match="not complete; start the same"):
        open_features(out)
    journal = out / "done-1-0.jsonl"
    assert [json.loads(line)["block"] for line in journal.read_text().splitlines()] == list(
        range(6)
    )
    journal.write_bytes(journal.read_bytes()[:-20])
    rows = np.load(out / "res3.npy", mmap_mode="r+")
    rows[6] = 0  # of block 1
    rows.flush()
    read = []

    class Watched(SomeDigits):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    extracted(out, Watched(N, BROKEN, UNLABELLED))
    assert read == [*range(4, 8), *range(20, N)]
    assert files(out) == files(undisturbed)


def test_two_starts_and_a_third_that_has_nothing_to_do(tmp_path, undisturbed):
    out = stopped(tmp_path / "out")
    extracted(out)
    extracted(out, Stops(N, BROKEN, UNLABELLED))
    assert files(out) == files(undisturbed)


def on_ranks(rank, world, out):
    return extracted(out)["broken"]


def test_two_processes_equal_one_and_finish_what_one_began(tmp_path, undisturbed, ranks):
    assert ranks(2)(on_ranks, tmp_path / "two") == [3, 3]
    assert files(tmp_path / "two") == files(undisturbed)
    begun = stopped(tmp_path / "begun")
    ranks(2)(on_ranks, begun)
    assert files(begun) == files(undisturbed)


def test_workers_change_nothing(tmp_path, undisturbed):
    extracted(tmp_path / "out", workers=1)
    assert files(tmp_path / "out") == files(undisturbed)


def test_a_killed_worker_is_named_and_its_blocks_come_next_time(tmp_path):
    with pytest.raises(WorkerDied, match=r"^data worker 0 .* SIGKILL .*, at image 9, number-9$"):
        extracted(tmp_path / "out", Numbers(24, "kill", at=9), workers=1)
    assert extracted(tmp_path / "out", Numbers(24))["complete"]
    extracted(tmp_path / "one", Numbers(24))
    assert files(tmp_path / "out") == files(tmp_path / "one")


def test_parquet_holds_the_same(tmp_path, undisturbed):
    out = tmp_path / "out.parquet"
    meta = extracted(out, dtype="float16")
    table = pq.read_table(out)
    assert table.column_names == ["index", "name", "label", *LAYERS]
    assert table["index"].to_pylist() == list(range(N))
    assert table["name"].to_pylist() == [f"n{i}" for i in range(N)]
    assert [i for i, label in enumerate(table["label"].to_pylist()) if label is None] == [5, 17]
    features = open_features(out)
    for layer in LAYERS:
        expected_ND = np.load(undisturbed / f"{layer}.npy").astype(np.float16)
        found_ND = np.concatenate([x_ND for _, x_ND in features.blocks(layer)])
        np.testing.assert_array_equal(found_ND, expected_ND)
        np.testing.assert_array_equal(features.row(layer, 7), expected_ND[7])
    assert features.meta == meta
    assert features.name(8) == "n8"
    assert os.listdir(tmp_path) == ["out.parquet"]
    (tmp_path / "out.parquet.unfinished").mkdir()  # of a process that was killed at the very end
    assert extracted(out, dtype="float16") == meta
    assert os.listdir(tmp_path) == ["out.parquet"]
    with pytest.raises(ConfigError, match='dtype is "float16" there and "float32" here'):
        extracted(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 8}, "batch_size is 4 there and 8 here; give another --out"),
        ({"layers": ["res3"]}, r"layers.embedding is 6 there and not set here"),
        ({"source": SomeDigits(46)}, "images is 45 there and 46 here"),
        ({"layers": ["rse3"]}, r"no 'rse3'; did you mean 'res3'\?"),
        ({"source": SomeDigits(0)}, "the source has no images"),
    ],
)
def test_refuses_other_settings_in_the_same_folder(undisturbed, changes, message):
    before = files(undisturbed)
    with pytest.raises(ConfigError, match=message):
        extracted(undisturbed, **changes)
    assert files(undisturbed) == before


def test_refuses_a_folder_of_something_else_and_a_second_writer(tmp_path, undisturbed):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds something else than features"):
        extracted(tmp_path)
    held = os.open(undisturbed, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another process writes"):
        extracted(undisturbed)
    os.close(held)


def test_the_scorer_stays_only_where_logits_are_wanted():
    for layers, heads in ((["res3"], 1), (["logits"], 2)):
        subject = some_subject()
        assert subject.check_layers(["logits"]) == {"logits": 3}
        subject.keep_only(layers)
        assert len(subject.model.heads) == heads


def test_what_float16_does_not_hold_is_an_error(tmp_path):
    subject = some_subject()
    with torch.no_grad():
        subject.model.heads[0][-1].bias[2] = 1e5
    with pytest.raises(ConfigError, match=r"embedding of n0 has values up to 1e\+05, float16 ends"):
        extract(subject, some_digits(), {}, tmp_path / "out", settings(dtype="float16"))
