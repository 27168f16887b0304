"""Signals, unreadable images, speed."""

import os
import signal

import pytest
from training import records, small, trained

from vissl_lite.engine.watch import BrokenImages, Speed, StopSignal
from vissl_lite.errors import ConfigError


def test_broken_images_are_named_once_and_stop_the_run_when_too_many(tmp_path):
    broken = BrokenImages(share=0.01, file=tmp_path / "broken.txt")
    assert broken.add(["a.jpg: truncated"], 64) == ["a.jpg: truncated"]
    assert broken.add(["a.jpg: truncated", "b.jpg: no image"], 64) == ["b.jpg: no image"]
    assert (tmp_path / "broken.txt").read_text() == "a.jpg: truncated\nb.jpg: no image\n"
    with pytest.raises(ConfigError, match=r"(?s)11 of 192 images.*broken\.txt.*b\.jpg"):
        broken.add(["b.jpg: no image"] * 8, 64)  # more than 1 % of the first thousand


def test_the_share_is_of_all_images_seen(tmp_path):
    broken = BrokenImages(share=0.01, file=tmp_path / "broken.txt")
    for _ in range(100):
        broken.add(["a.jpg: truncated"], 100)  # exactly 1 %
    with pytest.raises(ConfigError):
        broken.add(["a.jpg: truncated"] * 2, 100)


def test_counts_survive_a_resume(tmp_path):
    one = BrokenImages(share=0.5, file=tmp_path / "broken.txt")
    one.add(["a.jpg: truncated"], 10)
    two = BrokenImages(share=0.5, file=tmp_path / "broken.txt")
    two.load_state_dict(one.state_dict())
    assert two.add(["a.jpg: truncated"], 10) == []
    assert (two.count, two.seen) == (2, 20)


def test_a_run_names_its_broken_images_and_goes_on(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos" / "dog"
    folder.mkdir(parents=True)
    for i in range(40):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"{i:02}.png")
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:40])  # cut short
    source = ["data/source=image_folder", f"++data.source.path={tmp_path / 'photos'}"]
    trainer = trained(small(*source, "++train.max_steps=2"), tmp_path / "run")
    assert trainer.step == 2
    notes = [r["text"] for r in records(tmp_path / "run", "note")]
    named = [text for text in notes if "07.png" in text]
    assert len(named) == 1
    assert "07.png" in (tmp_path / "run" / "broken_images.txt").read_text()


def test_the_second_ctrl_c_kills():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.stops(at_log_step=False)
        assert stop.reason == "stopped by SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_speed(monkeypatch):
    now = iter([0.0, 4.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    speed = Speed(images_per_step=10)
    read = speed.read(step=8, last_step=20, waited_s=1.0)
    assert read == {"images_per_s": 20.0, "data_wait": 0.25, "eta_s": 6.0}
