"""Building: the same bytes whatever happens; kills, full disks, other sources, broken images."""

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shards.noise import Deadly, Noise

from vissl_lite import ConfigError
from vissl_lite.shards import finish, pool
from vissl_lite.shards import journal as journals
from vissl_lite.shards.build import build
from vissl_lite.shards.convert import Settings
from vissl_lite.shards.stopped import BuildStopped
from vissl_lite.sources._packed import JOURNAL, MANIFEST
from vissl_lite.sources.packed import Packed

SMALL = Settings(shard_size=30_000)
IDENTITY = {"name": "noise", "path": "nowhere"}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(pool, "CHUNK", 8)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power failure here; it takes most time


def start(out, source=None, settings=SMALL, identity=IDENTITY, workers=1, max_broken=0):
    return build(source or Noise(), identity, settings, out, workers, max_broken)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Shards built in one go."""
    out = tmp_path_factory.mktemp("expected") / "shards"
    start(out)
    return out


def same_tree(one, other):
    found = filecmp.dircmp(one, other)
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    assert not found.funny_files
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_every_image_and_all_about_it_comes_back(expected):
    source, noise = Packed(str(expected)), Noise()
    assert (len(source), source.num_classes, source.classes) == (61, 4, noise.classes)
    for i in (60, 0, 5, 31):
        ours, theirs = source[i], noise[i]
        assert (ours.label, ours.tags, ours.name) == (theirs.label, theirs.tags, theirs.name)
    assert source.all_labels().tolist() == [i % 4 if i % 5 else -1 for i in range(61)]
    sizes = [size for size, _ in source.manifest.data]
    assert len(sizes) > 3
    assert max(sizes) <= SMALL.shard_size
    assert not (expected / JOURNAL).exists()


def test_the_number_of_workers_changes_no_byte(expected, tmp_path):
    start(tmp_path / "two", workers=2)
    assert same_tree(expected, tmp_path / "two")


def test_a_finished_build_is_left_alone(expected):
    before = (expected / MANIFEST).stat().st_mtime_ns
    source = Noise()
    assert start(expected, source).images == 61
    assert len(source.read) == 61  # the probe, of a source so small
    assert (expected / MANIFEST).stat().st_mtime_ns == before


# ---------------------------------------------------------------- kills


def in_child(act):
    """Runs `act` in a forked process; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(monkeypatch, out, moment):
    """Builds in a process that is killed in the middle of its `moment`-th write, or at a sync."""
    count = 0
    write, sync = journals.write_all, finish.sync

    def strike():
        nonlocal count
        count += 1
        return count == moment

    def half_a_write(file, content):
        if strike():
            write(file, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, content)

    def no_sync(path):
        if strike():
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    with monkeypatch.context() as patch:
        for module in (journals, finish):
            patch.setattr(module, "write_all", half_a_write)
        patch.setattr(finish, "sync", no_sync)
        return in_child(lambda: start(out))


def test_killed_at_any_write_it_goes_on(expected, tmp_path, monkeypatch):
    kills = 0
    while killed_at(monkeypatch, tmp_path / "one", kills + 1) == -signal.SIGKILL:
        kills += 1
        done = (tmp_path / "one" / MANIFEST).exists()  # killed after its very end
        assert done or (tmp_path / "one" / JOURNAL).exists()
        start(tmp_path / "one")
        assert same_tree(expected, tmp_path / "one"), kills
        shutil.rmtree(tmp_path / "one")
    assert kills > 25


def test_killed_again_and_again_it_ends(expected, tmp_path, monkeypatch):
    """Each time a few writes later: what was finished stays finished."""
    for _ in range(5):
        if killed_at(monkeypatch, tmp_path / "one", 12) == 0:
            break
    assert same_tree(expected, tmp_path / "one")


def stopped_early(tmp_path, monkeypatch):
    """A folder with two of eight chunks."""
    assert killed_at(monkeypatch, tmp_path / "one", 8) == -signal.SIGKILL
    return tmp_path / "one"


def test_finished_parts_are_not_done_again(expected, tmp_path, monkeypatch):
    out, source = stopped_early(tmp_path, monkeypatch), Noise()
    start(out, source)
    assert source.read[61:] == list(range(16, 61))  # after the probe
    assert same_tree(expected, out)


@pytest.mark.parametrize("damage", ["flipped", "lost", "gone", "zeros in the journal"])
def test_what_is_damaged_is_done_again(damage, expected, tmp_path, monkeypatch):
    """As after a power failure, when the last writes may be missing in any file."""
    out, source = stopped_early(tmp_path, monkeypatch), Noise()
    first = out / "data-00000.bin"
    content = first.read_bytes()
    journal = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    if damage == "flipped":
        first.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "lost":
        first.write_bytes(content[:-1])
    elif damage == "gone":
        first.unlink()
    else:
        (out / JOURNAL).write_bytes(b"".join(journal[:2]) + bytes(50) + b"\n")
    start(out, source)
    assert source.read[61] in (0, 8)
    assert same_tree(expected, out)


RUNNER = """
import sys
sys.path[:0] = [{tests!r}]
import importlib.util
spec = importlib.util.spec_from_file_location("test_build", {file!r})
module = sys.modules["test_build"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.pool.CHUNK = 8
module.start(module.Path({out!r}), module.Noise(slow=0.03), workers=2)
"""


def test_kill_9_of_the_command_leaves_no_process_behind(expected, tmp_path):
    out = tmp_path / "one"
    text = RUNNER.format(tests=str(Path(__file__).parents[1]), file=__file__, out=str(out))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}",
    }
    process = subprocess.Popen([sys.executable, "-c", text], env=environment)
    first = out / "data-00000.bin"
    wait(lambda: first.exists() and first.stat().st_size, 60)
    family = descendants(process.pid)
    process.kill()
    process.wait()
    assert not (out / MANIFEST).exists()
    assert len(family) >= 3  # among them the fork server and a worker
    wait(lambda: not any(map(is_alive, family)), 10)
    with pytest.raises(ConfigError, match=r"is not finished; run: vissl-lite shards build"):
        Packed(str(out))
    start(out)
    assert same_tree(expected, out)


def wait(until, seconds):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children] + [d for c in children for d in descendants(int(c))]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_is_told(tmp_path):
    with pytest.raises(BuildStopped, match=r"a worker process was killed.*fewer --workers"):
        start(tmp_path / "one", Deadly(), workers=2)


# ---------------------------------------------------------------- disks


def test_a_full_disk_is_told_and_nothing_is_lost(small_disk, expected):
    folder = small_disk("48k")
    for _ in range(2):
        with pytest.raises(BuildStopped, match=r"the disk is full; what is there stays: make room"):
            start(folder / "one")
    subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
    source = Noise()
    start(folder / "one", source)
    assert source.read[61] >= 8
    assert same_tree(expected, folder / "one")


@pytest.mark.parametrize("moment", range(1, 30, 4))
def test_full_at_any_write(moment, expected, tmp_path, monkeypatch):
    count, write = 0, journals.write_all

    def fails(file, content):
        nonlocal count
        count += 1
        if count >= moment:
            write(file, content[: len(content) // 3])
            raise OSError(28, "No space left on device")
        write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(journals, "write_all", fails)
        patch.setattr(finish, "write_all", fails)
        if moment < 18:
            with pytest.raises(BuildStopped, match=r"the disk is full"):
                start(tmp_path / "one")
    start(tmp_path / "one")
    assert same_tree(expected, tmp_path / "one")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildStopped, match=r"file/one: Not a directory; .* mend that and start"):
        start(tmp_path / "file" / "one")


# ---------------------------------------------------------------- refusals


def test_another_build_in_the_same_folder_is_refused(expected, tmp_path, monkeypatch):
    unfinished = stopped_early(tmp_path, monkeypatch)
    for out in (expected, unfinished):
        with pytest.raises(ConfigError, match=r'source.path is "nowhere" there and "here" here'):
            start(out, identity={**IDENTITY, "path": "here"})
        with pytest.raises(ConfigError, match=r"settings.quality is 90 there and 80 here"):
            start(out, settings=Settings(quality=80, shard_size=30_000))
        with pytest.raises(ConfigError, match=r"source_images is 61 there and 60 here"):
            start(out, Noise(60))
        with pytest.raises(ConfigError, match=r"source_probe is"):
            start(out, Renamed())


class Renamed(Noise):
    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample.name += "x"
        return sample


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"holds other files; give a new or an empty folder"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_builders_at_once(tmp_path, monkeypatch):
    out = stopped_early(tmp_path, monkeypatch)
    header = json.loads((out / JOURNAL).read_bytes().splitlines()[0])
    other = journals.Journal(out, header, 30_000)
    with pytest.raises(ConfigError, match=r"is being built by another process"):
        start(out)
    other.close()
    start(out)


def test_a_builder_that_comes_too_late_changes_nothing(expected, tmp_path, monkeypatch):
    """Another one finishes after the first look and before the lock."""
    out, module = tmp_path / "one", sys.modules[build.__module__]
    prepare, looks = module._prepare, []

    def too_early(*arguments):
        looks.append(arguments)
        return None if len(looks) == 1 else prepare(*arguments)

    shutil.copytree(expected, out)
    monkeypatch.setattr(module, "_prepare", too_early)
    assert start(out).images == 61
    assert len(looks) == 2
    assert same_tree(expected, out)


# ---------------------------------------------------------------- broken images


def test_broken_images_are_left_out_and_listed(tmp_path):
    out = tmp_path / "one"
    assert start(out, Noise(broken=(0, 9, 60)), max_broken=3).broken == 3
    source = Packed(str(out))
    assert len(source) == 58
    assert [source[i].name for i in (0, 7, 8, 57)] == [f"noise/{i}" for i in (1, 8, 10, 59)]
    lines = (out / "broken.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["noise/0", "noise/9", "noise/60"]


def test_too_many_broken_images_stop_and_may_be_allowed(tmp_path):
    out, source = tmp_path / "one", Noise(broken=(3, 20, 21))
    with pytest.raises(
        ConfigError, match=r"3 images cannot be read, more than --max-broken 1, .*noise/21: Pillow"
    ):
        start(out, source, max_broken=1)
    assert len((out / "broken.txt").read_text().splitlines()) == 3
    before = len(source.read)
    assert start(out, source, max_broken=3).images == 58
    assert source.read[before + 61] == 24


def test_nothing_but_broken_images(tmp_path):
    with pytest.raises(ConfigError, match=r"none of the 61 images can be read"):
        start(tmp_path / "one", Noise(broken=range(61)), max_broken=100)
