"""io: local paths, HTTP through a real server, unknown schemes."""

import http.server
import threading

import pytest

from vissl_lite import ConfigError, io


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The address of a server whose files lie in `tmp_path/site`."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "site"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_local(tmp_path):
    for uri in (tmp_path / "a.txt", str(tmp_path / "a.txt"), f"file://{tmp_path}/a.txt"):
        assert io.local_path(uri) == tmp_path / "a.txt"


def test_http_is_fetched_once_and_by_address(site, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "site" / folder).mkdir()
        (tmp_path / "site" / folder / "model.pt").write_text(folder)
    paths = [io.local_path(f"{site}/{folder}/model.pt") for folder in ("a", "b")]
    assert [path.read_text() for path in paths] == ["a", "b"]
    assert all(path.is_relative_to(tmp_path / "cache") for path in paths)
    (tmp_path / "site" / "a" / "model.pt").unlink()
    assert io.local_path(f"{site}/a/model.pt").read_text() == "a"


def test_http_mistakes(site, tmp_path):
    with pytest.raises(ConfigError, match=r"gone.pt: cannot be fetched \(HTTP Error 404"):
        io.local_path(f"{site}/gone.pt")
    with pytest.raises(ConfigError, match=r"'\.\.' in an address"):
        io.local_path(f"{site}/../../../../outside.pt")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("uri", ["ftp://host/a.pt", "gs://bucket/a.pt", "htp://host/a.pt"])
def test_unknown_schemes(uri):
    with pytest.raises(ConfigError, match=r"://: unknown scheme.*known: file, http, https"):
        io.local_path(uri)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path))
    assert io.cache_folder() == tmp_path
    monkeypatch.delenv("VISSL_LITE_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(io.cache_folder()) == "/home/someone/.cache/vissl_lite"
