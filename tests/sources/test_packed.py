"""packed: any order, checksums, damage and exchange, HTTP with a failing server, S3, the cache."""

import http.server
import io
import os
import pickle
import random
import shutil
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import run_ranks

from vissl_lite import SOURCES, ConfigError
from vissl_lite.data.batch import Sample
from vissl_lite.data.decode import BrokenImage
from vissl_lite.shards.build import build
from vissl_lite.shards.convert import Settings
from vissl_lite.sources import _remote
from vissl_lite.sources._blocks import Blocks
from vissl_lite.sources._packed import MANIFEST, data_name
from vissl_lite.sources.packed import Packed

N = 40


class Noise:
    """Images of 40 to 50 pixels a side, with labels; `shift` makes other ones."""

    num_classes, classes = 4, ["a", "b", "c", "d"]

    def __init__(self, shift=0):
        self.shift = shift

    def __len__(self):
        return N

    def __getitem__(self, index):
        shape = (40 + index % 11, 40, 3)
        image = np.random.default_rng(index + self.shift).integers(0, 256, shape, np.uint8)
        return Sample(image, index % 4, name=f"noise/{index}")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_remote, "FIRST_PAUSE_S", 0.0)


def make(out, shift=0, raw=True):
    shutil.rmtree(out, ignore_errors=True)
    build(Noise(shift), {"shift": shift}, Settings(raw=raw, shard_size=50_000), out, 1, 0)
    return str(out)


@pytest.fixture
def folder(tmp_path):
    return Path(make(tmp_path / "site" / "shards"))


def pixels(index, shift=0):
    return Noise(shift)[index].image


def check(source, indices=range(N)):
    for i in indices:
        sample = source[i]
        assert np.array_equal(sample.image, pixels(i))
        assert (sample.label, sample.name) == (i % 4, f"noise/{i}")


def flip(folder, index):
    """Changes one bit of an image; returns its name."""
    source = Packed(str(folder))
    number, offset = source._places.read(6 * index, 6 * index + 2).tolist()
    path = Path(folder, data_name(number))
    content = bytearray(path.read_bytes())
    content[offset + 7] ^= 16
    path.write_bytes(content)


def test_any_order(folder):
    source = Packed(str(folder))
    check(source, random.Random(0).choices(range(N), k=100))
    assert source.all_labels().tolist() == [i % 4 for i in range(N)]
    assert repr(source) == f"Packed({str(folder)!r}, 40 images, 4 classes)"
    check(Packed(f"file://{folder}/"), [3])
    for index in (-1, N):
        with pytest.raises(IndexError):
            source[index]


def test_encoded_images_are_bytes(tmp_path):
    source = Packed(make(tmp_path / "png", raw=False))
    assert source[0].image.startswith(b"\x89PNG")
    assert source.all_tags() is None


def test_pickles_small_and_reads_in_a_worker(folder):
    source = Packed(str(folder))
    check(source, [0])
    content = pickle.dumps(source)
    assert len(content) < 4000
    check(pickle.loads(content), [39])


# ---------------------------------------------------------------- what may be wrong


def test_a_damaged_image_is_broken_and_the_others_are_not(folder):
    flip(folder, 7)
    source = Packed(str(folder))
    with pytest.raises(
        BrokenImage, match=r"noise/7: cannot be read, its bytes in .*data-0000\d.bin do not fit"
    ):
        source[7]
    check(source, [6, 8])


@pytest.mark.parametrize("opened_files", [False, True])
def test_shards_replaced_while_they_are_read(folder, opened_files):
    source = Packed(str(folder))
    if opened_files:
        check(source)
        make(folder, shift=100)
        check(source)  # open files keep what was in them
        source = pickle.loads(pickle.dumps(source))  # as for a new worker
    else:
        make(folder, shift=100)
    with pytest.raises(ConfigError, match=r"was replaced by other shards while it was being read"):
        source[5]


def test_files_changed_in_place(folder, tmp_path):
    """Data of other shards copied over these: no image of theirs is ever given out."""
    source = Packed(str(folder))
    other = Path(make(tmp_path / "other", shift=100))
    for path in other.glob("data-*.bin"):
        shutil.copyfile(path, folder / path.name)
    with pytest.raises(BrokenImage):
        source[5]
    shutil.copyfile(other / MANIFEST, folder / MANIFEST)
    with pytest.raises(ConfigError, match=r"was replaced"):
        source[5]


def test_removed_while_they_are_read(folder):
    source = Packed(str(folder))
    (folder / data_name(1)).unlink()
    with pytest.raises(ConfigError, match=r"data-00001.bin is gone; bring it back"):
        check(source)
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"shards.json is gone while the shards are being read"):
        Packed.__getitem__(source, N - 1)


def test_mistakes(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"shardz' does not exist; .*did you mean 'shards'"):
        Packed(str(tmp_path / "site" / "shardz"))
    with pytest.raises(ConfigError, match=r"site has no shards.json; run: vissl-lite shards build"):
        Packed(str(tmp_path / "site"))
    with pytest.raises(ConfigError, match=r"block_kib: 0; needs 1 or more"):
        SOURCES.build({"name": "packed", "path": str(folder), "block_kib": 0}, "data.source")
    with pytest.raises(ConfigError, match=r"ftp:// is an unknown scheme.*known: file, http, https"):
        Packed("ftp://host/shards")
    with pytest.raises(ConfigError, match=r"'\.\.' in http://host/../shards"):
        Packed("http://host/../shards")
    file = folder / data_name(1)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"data-00001.bin has [\d,]+ bytes instead of .*copy it"):
        Packed(str(folder))
    file.unlink()
    with pytest.raises(ConfigError, match=r"data-00001.bin is missing; copy it again"):
        Packed(str(folder))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"version": 1', b'"version": 2', "its version is 2, this is 1"),
        (b'"columns-', b'"../../x-', "its folder is"),
        (b'"places.npy"', b'"../x.npy"', "its columns are .*, ../x.npy"),
        (b'"images": 40', b'"images": "x"', "invalid literal"),
        (b"{", b"[", "cannot be read"),
        (b'"format": "vissl_lite', b'"format": "a', "it is of another program"),
    ],
)
def test_a_manifest_from_outside_is_not_trusted(folder, old, new, message):
    text = (folder / MANIFEST).read_bytes()
    assert old in text
    (folder / MANIFEST).write_bytes(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        Packed(str(folder))


# ---------------------------------------------------------------- over HTTP


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder with ranges; fails as told."""

    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        self.requests, self.faults, self.ranges = [], [], True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        self.server.requests.append((os.path.basename(path), wanted))
        fault = self.server.faults.pop(0) if wanted and self.server.faults else None
        if isinstance(fault, int):
            return self.send_error(fault)
        if not (wanted and self.server.ranges):
            return super().do_GET()
        if not os.path.isfile(path):
            return self.send_error(404)
        start, stop = map(int, wanted.removeprefix("bytes=").split("-"))
        content = Path(path).read_bytes()[start : stop + 1]
        if not content:
            return self.send_error(416)
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(folder):
    with Server(folder.parent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_over_http_in_any_order(server):
    source = Packed(f"{server.url}/shards", block_kib=1)
    order = random.Random(0).sample(range(N), N)
    check(source, order)
    check(pickle.loads(pickle.dumps(source)), order[:3])
    assert source.all_labels().tolist() == [i % 4 for i in range(N)]
    data = [request for request in server.requests if request[0].startswith("data")]
    assert all(wanted for _, wanted in data)
    assert len(data) <= N  # one request for an image, however many blocks it lies in


def test_what_was_read_is_read_no_more(server):
    check(Packed(f"{server.url}/shards"))
    before = len(server.requests)
    check(Packed(f"{server.url}/shards"))
    assert server.requests[before:] == [(MANIFEST, None)]


@pytest.mark.parametrize("fault", [503, 429, "cut"])
def test_a_server_that_fails_for_a_while(server, fault):
    source = Packed(f"{server.url}/shards", block_kib=1)
    check(source, [0])
    server.faults = [fault] * 5
    check(source, range(20, 25))
    assert server.faults == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (503, r"HTTP Error 503: Service Unavailable, 6 times"),
        ("cut", r"IncompleteRead\(.*, 6 times"),
        (403, r"HTTP Error 403: Forbidden\)"),
    ],
)
def test_a_server_that_fails_for_good(server, fault, reason):
    source = Packed(f"{server.url}/shards", block_kib=1)
    server.faults = [fault] * 100
    before = len(server.requests)
    with pytest.raises(
        ConfigError,
        match=rf"packed: {server.url}/shards/data-00000.bin cannot be fetched \({reason}.*resume=",
    ):
        source[0]
    data = [name for name, _ in server.requests[before:] if name != MANIFEST]
    assert len(data) == (1 if fault == 403 else 6)
    server.faults = []
    check(source, [0])


def test_a_server_that_is_not_there(server):
    source = Packed(f"{server.url}/shards")
    with pytest.raises(ConfigError, match=r"shardz/shards.json cannot be fetched \(HTTP Error 404"):
        Packed(f"{server.url}/shardz")
    server.shutdown()
    server.server_close()
    with pytest.raises(ConfigError, match=r"Connection refused.*, 6 times\).*resume="):
        source[0]
    with pytest.raises(ConfigError, match=r"Connection refused.*, 6 times\); check path and serv"):
        Packed(f"{server.url}/shards")


def test_a_server_without_ranges(server):
    server.ranges = False
    with pytest.raises(ConfigError, match=r"cannot be read in parts: its server knows no ranges"):
        Packed(f"{server.url}/shards")


def test_remote_damage_and_exchange(server, folder):
    flip(folder, 7)
    source = Packed(f"{server.url}/shards", block_kib=1)
    check(source, [6])
    with pytest.raises(BrokenImage, match=rf"noise/7: .*bytes in {server.url}/shards/data-0000"):
        source[7]
    make(folder, shift=100)
    with pytest.raises(ConfigError, match=r"was replaced by other shards"):
        source[20]
    assert np.array_equal(Packed(f"{server.url}/shards")[20].image, pixels(20, shift=100))


def test_a_damaged_cache_mends_itself(server, tmp_path):
    source = Packed(f"{server.url}/shards", block_kib=1)
    check(source)
    for i, block in enumerate(sorted((tmp_path / "cache" / "blocks").glob("[0-9a-f]*"))):
        block.write_bytes(b"" if i % 2 else bytes(1024))
    check(source)


# ---------------------------------------------------------------- S3


class Bucket:
    """What boto3's client does with `get_object`, on a folder."""

    def __init__(self, root):
        self.root, self.failures = root, []

    def get_object(self, Bucket, Key, Range=None):
        assert Bucket == "photos"
        if self.failures:
            raise ClientError(self.failures.pop(0))
        if not (self.root / Key).is_file():
            raise ClientError(404)
        content = (self.root / Key).read_bytes()
        if Range:
            start, stop = map(int, Range.removeprefix("bytes=").split("-"))
            content = content[start : stop + 1]
        return {"Body": io.BytesIO(content)}


class ClientError(Exception):
    def __init__(self, status):
        super().__init__(f"An error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def test_s3(folder, monkeypatch):
    bucket = Bucket(folder.parent)
    boto3 = SimpleNamespace(client=lambda name: {"s3": bucket}[name])
    monkeypatch.setitem(sys.modules, "boto3", boto3)
    _remote._s3_client.cache_clear()
    source = Packed("s3://photos/shards", block_kib=1)
    bucket.failures = [503, 500]
    check(source)
    with pytest.raises(ConfigError, match=r"s3://photos/shardz/shards.json cannot be .*\(404\)"):
        Packed("s3://photos/shardz")
    bucket.failures = [500] * 20
    with pytest.raises(ConfigError, match=r"s3://photos/.* cannot be fetched \(.*\(500\), 6 times"):
        Packed("s3://photos/shards")
    _remote._s3_client.cache_clear()


def test_s3_without_boto3(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"packed.path: s3 needs boto3: pip install boto3"):
        Packed("s3://photos/shards")


# ---------------------------------------------------------------- the cache of blocks

CONTENT = random.Random(0).randbytes(100_000)


def reader(blocks, asked=None):
    """read(start, stop) through a cache, from CONTENT; notes what is fetched."""

    def fetch(start, stop):
        if asked is not None:
            asked.append((start, stop))
        return CONTENT[start:stop]

    return lambda start, stop: blocks.read("file", start, stop, len(CONTENT), fetch)


def test_every_range_comes_out_right(tmp_path):
    asked, rng = [], random.Random(1)
    read = reader(Blocks(tmp_path, 10**6, 1000), asked)
    for _ in range(500):
        start, stop = sorted(rng.sample(range(len(CONTENT) + 1), 2))
        assert read(start, min(stop, start + 3500)) == CONTENT[start : min(stop, start + 3500)]
    assert read(99_999, 100_000) == CONTENT[-1:]
    assert all(start % 1000 == 0 and stop % 1000 == 0 for start, stop in asked)


def test_the_least_recently_read_goes(tmp_path):
    asked = []
    read = reader(Blocks(tmp_path, 20_000, 1000), asked)
    for block in range(1, 100):
        read(0, 10)
        read(1000 * block, 1000 * block + 10)
        assert used(tmp_path) <= 20_000
    assert asked.count((0, 1000)) == 1
    assert len(asked) == 100


def used(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def read_much(rank, world, folder):
    """Random reads of one process; the most that was in the cache at any time."""
    read, rng, most = reader(Blocks(folder, 20_000, 1000)), random.Random(rank), 0
    for _ in range(600):
        start = rng.randrange(len(CONTENT) - 2000)
        assert read(start, start + 2000) == CONTENT[start : start + 2000]
        with suppress(FileNotFoundError):
            most = max(most, used(folder))
    return most


def test_several_processes_share_it(tmp_path):
    assert max(run_ranks(read_much, 3, tmp_path)) <= 20_000 + 3 * 3000  # what each may be writing
    assert used(tmp_path) <= 20_000


def test_a_process_killed_while_it_writes_leaves_nothing_for_good(tmp_path):
    blocks = Blocks(tmp_path, 20_000, 1000)
    half = tmp_path / ".0123"
    half.write_bytes(bytes(400))
    os.utime(half, (0, 0))
    (tmp_path / ".4567").write_bytes(bytes(400))  # of a process that lives
    reader(blocks)(0, 1000)
    assert {path.name for path in tmp_path.iterdir()} >= {".4567"}
    assert not half.exists()


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the cache .*file/blocks cannot be written \(Not a dir"):
        Blocks(tmp_path / "file" / "blocks", 1000, 100)
