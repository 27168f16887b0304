"""The most probable tags of a small run: against its logits, in files, on pages, and mistakes."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import command
from training import SMALL, composed, small, trained

from vissl_lite import ConfigError
from vissl_lite.engine.journal import save_config
from vissl_lite.hashtags.command import main
from vissl_lite.hashtags.predict import Tagger, TrueTags, top_k
from vissl_lite.hashtags.predict_page import Counts, gallery
from vissl_lite.report.runs import Run
from vissl_lite.report.tags import tags
from vissl_lite.schema import plain
from vissl_lite.sources.digits_tags import DigitsTags
from vissl_lite.sources.table import Table

SIZE = "++labelled={size: 16, transforms: [{name: resize, short_side: 16}]}"
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as own:
        own.setenv("VISSL_LITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Sixty captioned images, twenty to test on, and their vocabulary."""
    folder = tmp_path_factory.mktemp("example") / "example"
    main(["example", str(folder), "--images", "60", "--test", "20"])
    lists = ["--aliases", str(folder / "aliases.tsv"), "--block", str(folder / "block.txt")]
    captions, vocab = str(folder / "captions.parquet"), str(folder / "vocab")
    main(["build", captions, *lists, "--out", vocab, "--processes", "1"])
    out = ["--vocabulary", vocab, "--out", f"{vocab}/test", "--processes", "1"]
    main(["build", str(folder / "test.parquet"), *out])
    return folder


def run_in(folder, *words):
    given = (SIZE, "hooks=[checkpoint]", "++train.max_steps=2", *words)
    tree = plain(composed(*SMALL, *given))
    save_config({key: value for key, value in tree.items() if key != "hydra"}, folder)
    return folder, trained(small(*given), folder).model.eval()


def source_of(example):
    path = f"++data.source.path={example}/vocab/images.parquet"
    return "data/source=table", path, "++data.source.tags=classes"


@pytest.fixture(scope="module")
def run(example, tmp_path_factory):
    """A run of two steps on the images of the example."""
    words = (*source_of(example), "loss=hashtag_softmax", "++heads=[linear]", "++optimizer.lr=0.1")
    return run_in(tmp_path_factory.mktemp("runs") / "run", *words)


def words_of(run, example, *more):
    return ["predict", str(run[0]), f"{example}/vocab/test/images.parquet", "tags=classes", *more]


def logits_of(model, source, tagger):
    size = tagger.subject.views.sizes[0]
    images = np.zeros((1, len(source), size, size, 3), np.uint8)
    draws = tagger.subject.views.draw(0, 0, np.arange(len(source)))
    for i in range(len(source)):
        tagger.subject.views.write(source[i].image, "", draws, i, [images])
    with torch.no_grad():
        return model.layer_features(torch.from_numpy(images[0]), ["logits"])["logits"].double()


def test_top_k_is_the_sorted_softmax():
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)) * 4
    p = (z.double().exp() / z.double().exp().sum(1, keepdim=True)).numpy()
    found, classes = top_k(z, 3)
    np.testing.assert_array_equal(classes, np.argsort(-p, 1)[:, :3])
    np.testing.assert_allclose(found, -np.sort(-p, 1)[:, :3], rtol=1e-6)
    each, _ = top_k(z, 3, each=True)
    np.testing.assert_allclose(
        each, -np.sort(-1 / (1 + np.exp(-z.double().numpy())), 1)[:, :3], rtol=1e-6
    )


def test_predictions_are_those_of_the_model(run, example):
    source = Table(str(example / "vocab" / "test" / "images.parquet"), tags="classes")
    tagger = Tagger.load(str(run[0]))
    rows = list(tagger(source, 4, CPU, batch_size=7))
    p = logits_of(run[1], source, tagger).softmax(1).numpy()
    names = Table(str(example / "vocab" / "images.parquet"), tags="classes").classes
    assert [row.index for row in rows] == list(range(20))
    for row, p_V in zip(rows, p):
        best = np.argsort(-p_V)[:4]
        assert row.tags == [names[v] for v in best]
        np.testing.assert_allclose(row.probabilities, p_V[best], rtol=1e-4)


def test_a_sigmoid_per_class_where_it_was_trained_so(example, tmp_path):
    loss = ["loss=binary_cross_entropy", "++loss.target=tags", "++heads=[linear]"]
    folder, model = run_in(tmp_path / "run", *source_of(example), *loss)
    source = Table(str(example / "vocab" / "test" / "images.parquet"))
    tagger = Tagger.load(str(folder))
    p = logits_of(model, source, tagger).sigmoid().max(1).values
    first = [row.probabilities[0] for row in tagger(source, 1, CPU)]
    np.testing.assert_allclose(first, p, rtol=1e-4)


def test_three_kinds_of_files_hold_the_same(run, example, tmp_path, capsys):
    for ending in ("tsv", "jsonl", "parquet"):
        out = str(tmp_path / f"tags.{ending}")
        assert main(words_of(run, example, "--out", out, "-k", "3", "--device=cpu")) == 0
    shown = capsys.readouterr().out
    assert "images   20, 3 tags each" in shown
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    with open(tmp_path / "tags.tsv") as file:
        lines = list(csv.reader(file, delimiter="\t"))
    assert lines[0][:4] == ["index", "image", "tag_1", "probability_1"]
    for i, (a, b, c) in enumerate(zip(rows, table, lines[1:], strict=True)):
        assert a["index"] == b["index"] == int(c[0]) == i
        assert a["image"] == b["image"] == c[1]
        assert c[1].endswith(f"{i:05}.png")
        assert a["tags"] == b["tags"] == c[2::2]
        assert a["probabilities"] == [float(p) for p in c[3::2]]
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "tags.jsonl",
        "tags.parquet",
        "tags.tsv",
    ]


def test_broken_and_missing_images_are_counted(run, example, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(example / "images" / "test", copy)
    (copy / "00004.png").write_bytes(b"no image")
    (copy / "00009.png").write_bytes((copy / "00009.png").read_bytes()[:40])
    (tmp_path / "list.csv").write_text(
        "image\n" + "".join(f"copy/{i:05}.png\n" for i in [*range(20), 77])
    )
    out = tmp_path / "tags.jsonl"
    words = [str(tmp_path / "list.csv"), "--out", str(out), "--page", str(tmp_path / "page.html")]
    assert main(["predict", str(run[0]), *words]) == 0
    shown = capsys.readouterr().out
    assert "images   18, 5 tags each" in shown
    assert "left out 3 that cannot be read:" in shown
    assert "image 4," in shown
    assert "image 20," in shown
    rows = [json.loads(line)["index"] for line in out.read_text().splitlines()]
    assert rows == [i for i in range(20) if i not in (4, 9)]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 18
    assert "true:" not in page
    shutil.rmtree(copy)
    with pytest.raises(ConfigError, match="no image can be read; image 0, "):
        main(["predict", str(run[0]), *words])
    assert [json.loads(line)["index"] for line in out.read_text().splitlines()] == rows


def test_the_page_says_which_are_right(run, example, tmp_path, capsys):
    page, out = tmp_path / "page.html", tmp_path / "tags.jsonl"
    main(words_of(run, example, "--out", str(out), "--page", str(page)))
    source = Table(str(example / "vocab" / "test" / "images.parquet"), tags="classes")
    names = source.classes
    rows = [json.loads(line)["tags"] for line in out.read_text().splitlines()]
    true = [[names[v] for v in source[i].tags] for i in range(20)]
    hits = sum(len(set(row) & set(known)) for row, known in zip(rows, true))
    total, tagged = sum(map(len, true)), sum(map(bool, true))
    first = sum(row[0] in known for row, known in zip(rows, true))
    text = page.read_text()
    assert text.count("<strong>✓\xa0#") == hits > 0
    said = f"of {tagged} images with known tags {first / tagged:.1%} have the most probable one"
    assert said in text
    assert f"{hits / total:.1%} of their {total} tags are among the predicted" in text
    assert said in capsys.readouterr().out


class Named:
    """Two images; their class ids count the other way round, and a name is markup."""

    classes = ("<b>a</b>", "oneone")
    num_classes = 2

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return 2

    def __getitem__(self, index):
        sample = self.source[index]
        sample.tags = [index]
        return sample

    def all_tags(self):
        return np.array([0, 1]), np.array([0, 1, 2])


def test_tags_are_compared_by_name_and_escaped(run):
    source = Named(DigitsTags(2))
    true = TrueTags(source)
    assert (true.of(0), true.of(1)) == (["<b>a</b>"], ["oneone"])
    rows = list(Tagger.load(str(run[0]))(source, 2, CPU))
    rows[0].tags[0], rows[1].tags[:] = "<b>a</b>", ["oneone", "twotwo"]
    found = gallery(rows, source)
    assert found.count("<strong>✓") == 2
    assert "<b>a" not in found
    counts = Counts().plus(true.of(0), rows[0].tags).plus(true.of(1), ["x", "y"]).plus([], ["x"])
    assert counts == Counts(tagged=2, tags=2, first=1, found=1)


def test_other_tags_than_the_runs_are_noted(run, tmp_path, capsys):
    out = str(tmp_path / "tags.tsv")
    main(["predict", str(run[0]), "digits_tags", "n=5", "--out", out])
    assert "note: none of the source's 55 tags is one of the run's" in capsys.readouterr().out


def test_a_run_keeps_the_names_of_its_classes(run, example):
    kept = (run[0] / "classes.txt").read_text().splitlines()
    table = Table(str(example / "vocab" / "images.parquet"), tags="classes")
    assert Tagger.load(str(run[0])).names == kept == table.classes
    (run[0] / "classes.txt").write_text("\n".join(reversed(kept)) + "\n")
    assert Tagger.load(str(run[0])).names == kept[::-1]  # not those of the table, perhaps made anew
    (run[0] / "classes.txt").write_text("\n".join(kept) + "\n")


def test_names_from_elsewhere(run, example, tmp_path):
    names = Tagger.load(str(run[0])).names
    assert Tagger.load(str(run[0]), f"{example}/vocab/classes.tsv").names == names
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(f"n{i}" for i in range(len(names))))
    assert Tagger.load(str(run[0]), str(listed)).names[3] == "n3"
    listed.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match=rf"scores {len(names)} classes, .*names.txt has 2"):
        Tagger.load(str(run[0]), str(listed))


def test_images_of_another_vocabulary(run, example, tmp_path):
    test = shutil.copytree(example / "vocab" / "test", tmp_path / "test")
    lines = (test / "classes.tsv").read_text().replace("threefive", "another")
    (test / "classes.tsv").write_text(lines)
    words = [f"{test}/images.parquet", "tags=classes", "--out", "a.tsv"]
    with pytest.raises(ConfigError, match=r"was made with the vocabulary .*classes.tsv is "):
        main(["predict", str(run[0]), *words])


def test_all_classes_where_there_are_fewer_than_five(example, tmp_path, capsys):
    """Nobody asked for five; the ending of the file may be in capitals."""
    rows = [
        f"{example}/images/train/{i:05}.png,{tags}" for i, tags in enumerate(["#a #b", "#c"] * 3)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *rows]))
    out = ["--out", str(tmp_path / "vocab"), "--processes", "1"]
    main(["build", str(tmp_path / "t.csv"), *out])
    words = ["loss=hashtag_softmax", "++heads=[linear]", "++train.batch_size=2"]
    folder, _ = run_in(tmp_path / "run", *source_of(tmp_path), *words)
    out = tmp_path / "P.TSV"
    assert main(["predict", str(folder), str(tmp_path / "t.csv"), "--out", str(out)]) == 0
    assert "images   6, 3 tags each" in capsys.readouterr().out
    header, *lines = [line.split("\t") for line in out.read_text().splitlines()]
    assert header[-1] == "probability_3"
    assert [sorted(line[2::2]) for line in lines] == [["a", "b", "c"]] * 6


def test_what_cannot_be_asked(run, example, tmp_path):
    out = str(tmp_path / "tags.tsv")
    with pytest.raises(ConfigError, match=r"-k: 99; the run has \d\d classes"):
        main(words_of(run, example, "--out", out, "-k", "99"))
    with pytest.raises(ConfigError, match=r"'tags.txt' ends in none of .tsv, .jsonl, .parquet"):
        main(words_of(run, example, "--out", str(tmp_path / "tags.txt")))
    with pytest.raises(ConfigError, match="there is no folder"):
        main(words_of(run, example, "--out", str(tmp_path / "none" / "tags.tsv")))
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_tell(run, example, tmp_path):
    out = ["--out", str(tmp_path / "tags.tsv")]
    bare, _ = run_in(tmp_path / "bare", "dataset=digits")
    with pytest.raises(ConfigError, match="has no classifier"):
        main(["predict", str(bare), "digits", *out])
    taken = shutil.copytree(run[0], tmp_path / "taken")
    text = (taken / "config.yaml").read_text().replace(f"{example}/vocab", "/away")
    (taken / "config.yaml").write_text(text)
    (taken / "classes.txt").unlink()  # as of a run before there was such a file
    with pytest.raises(ConfigError, match=r"name its classes, but .*/away.* --classes"):
        main(["predict", str(taken), "digits", *out])
    classes = f"--classes={example}/vocab/classes.tsv"
    assert main(["predict", str(taken), "digits", "split=test", classes, *out]) == 0


def test_report_of_a_run_with_tags(run, tmp_path):
    text = tags(Run.read(run[0]), CPU)
    assert text is not None
    assert "24 of the 60 images of data.source, evenly spread" in text
    assert text.count("<img") == 24
    assert text.count("true: ") == 24
    assert tags(Run.read(run_in(tmp_path / "labels", "loss=cross_entropy", "++heads=[linear]")[0]),
                CPU) is None  # fmt: skip


# ------------------------------------------------------------------ the command line


def test_from_captions_that_are_odd(tmp_path, monkeypatch):
    """No tags, no UTF-8, no image: counted by build, and the rest is trained on and predicted."""
    rows = [b"image,caption", b"a.png,#sun", b"b.png,nothing", b"c.png,#m\xfcller #sun", b",#sun"]
    (tmp_path / "captions.csv").write_bytes(b"\n".join(rows) + b"\n")
    build = command("hashtags", "build", "captions.csv", "--out", "vocab", cwd=tmp_path)
    assert build.returncode == 0, build.stderr
    assert "rows skipped, without an image" in build.stdout
    assert "texts mended, not UTF-8" in build.stdout
    (tmp_path / "none.csv").write_bytes(b"image,caption\na.png,nothing\n")
    words = ("hashtags", "build", "none.csv", "--out", "vocab2")
    none = command(*words, cwd=tmp_path)
    assert none.returncode == 2
    assert "no caption has a hashtag" in none.stderr
    training = ["config=pretrain/hashtag/example", "train.batch_size=2", "evaluations=[]"]
    monkeypatch.setenv("HASHTAGS", str(tmp_path / "vocab"))
    missing = command(*training, cwd=tmp_path)
    assert missing.returncode == 2, missing.stderr
    assert "100 images in a row cannot be read, the last one: " in missing.stderr
