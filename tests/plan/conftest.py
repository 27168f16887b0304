"""Plans of tests are not kept between runs."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_LITE_CACHE", str(tmp_path / "cache"))
