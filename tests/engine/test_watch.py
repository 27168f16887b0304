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
    before = signal.getsignal(signal.SIGINT)  # a job in the background of a shell ignores it
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.stops(at_log_step=False)
        assert stop.reason == "stopped by SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_every_signal_that_asks_to_stop_is_noted(name):
    before = signal.getsignal(signal.Signals[name])
    if before == signal.SIG_IGN:  # the tests themselves run under nohup
        pytest.skip(f"{name} is ignored here")
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.Signals[name])
        assert stop.stops(at_log_step=False)
        assert stop.reason == f"stopped by {name}"
        stop.received = None  # SIGUSR1 and 2 would be passed on
    assert signal.getsignal(signal.Signals[name]) is before


def test_sigusr2_goes_on_to_submitit_when_training_has_ended():
    told = []
    signal.signal(signal.SIGUSR2, lambda number, frame: told.append(number))
    try:
        with StopSignal():
            os.kill(os.getpid(), signal.SIGUSR2)
            assert told == []
        assert told == [signal.SIGUSR2]
        stop = StopSignal().__enter__()
        stop.received = signal.SIGUSR2
        stop.__exit__(ValueError)  # nothing was saved: the job must not go back as if it were
        assert told == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_nohup_stays_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _votes(rank, world, signals):
    stop = StopSignal()
    stop.received = signals[rank]
    asked = [stop.stops(at_log_step=False), stop.stops(at_log_step=True)]
    return [*asked, stop.stops(at_log_step=False)], stop.received


@pytest.mark.parametrize(
    ("signals", "agreed"),
    [
        ((None, None), None),
        ((None, signal.SIGTERM), signal.SIGTERM),
        ((signal.SIGTERM, signal.SIGUSR2), signal.SIGUSR2),  # rank 0 has to requeue
    ],
)
def test_ranks_agree_at_a_log_step_and_stay_agreed(signals, agreed, ranks):
    stops = agreed is not None
    assert ranks(2)(_votes, signals) == [([False, stops, stops], agreed)] * 2


def test_a_signal_during_the_vote_is_for_the_next_one(monkeypatch):
    """A rank that stopped alone would leave the others waiting in the next step."""
    stop = StopSignal()

    def slow_vote(votes):
        stop._note(signal.SIGTERM, None)
        return votes.clone()

    monkeypatch.setattr("vissl_lite.engine.watch.world_size", lambda: 2)
    monkeypatch.setattr("vissl_lite.engine.watch.all_reduce_sum", slow_vote)
    assert [stop.stops(at_log_step=True), stop.stops(at_log_step=True)] == [False, True]


def test_speed(monkeypatch):
    now = iter([0.0, 4.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    speed = Speed(images_per_step=10)
    read = speed.read(step=8, last_step=20, waited_s=1.0)
    assert read == {"images_per_s": 20.0, "data_wait": 0.25, "eta_s": 6.0}
