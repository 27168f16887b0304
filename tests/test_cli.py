"""The command line as a user meets it: real processes, exit codes, what they print."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "config=quickstart",
    "train.max_steps=2",
    "train.batch_size=16",
    "train.log_every=1",
    "precision=fp32",
    "memory.memory_format=contiguous",
    "hooks=[checkpoint]",
    "evaluations=[]",
    "loggers=[jsonl]",
]


def vissl_lite(*words, cwd):
    """Runs tools/run.py in `cwd`; returns the finished process."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run: (folder that it was started in, run directory)."""
    cwd = tmp_path_factory.mktemp("run")
    done = vissl_lite(*TINY, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (cwd / "runs" / "quickstart").iterdir()
    return cwd, run_dir


def records(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def losses(run_dir):
    return [r["loss"] for r in records(run_dir) if r["kind"] == "train"]


def test_a_run_leaves_everything_in_its_folder(run):
    _, run_dir = run
    assert len(losses(run_dir)) == 2
    assert (run_dir / "checkpoints" / "step-00000002" / "meta.json").is_file()
    assert (run_dir / "weights.safetensors").is_file()


def test_the_saved_config_runs_again_unchanged(run):
    cwd, run_dir = run
    done = vissl_lite(f"config={run_dir / 'config.yaml'}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    again = max((cwd / "runs" / "quickstart").iterdir())
    assert again != run_dir
    assert losses(again) == losses(run_dir)
    first, second = (yaml.safe_load((d / "config.yaml").read_text()) for d in (run_dir, again))
    assert first == second


def test_resume_goes_on_in_the_same_folder(run):
    cwd, run_dir = run
    done = vissl_lite(f"resume={run_dir}", "train.max_steps=3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in records(run_dir) if r["kind"] == "train"] == [1, 2, 3]


def test_init_starts_a_new_run_from_weights(run):
    cwd, run_dir = run
    done = vissl_lite(*TINY, f"init={run_dir}", "loggers=[console]", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert re.search(r"init: \d+ trunk tensors from", done.stdout + done.stderr)


def test_a_folder_takes_one_run(run):
    cwd, run_dir = run
    done = vissl_lite(*TINY, f"hydra.run.dir={run_dir}", cwd=cwd)
    assert done.returncode == 2
    assert f"holds a run already; go on with resume={run_dir}" in done.stderr


def test_a_grid_sweep_runs_every_point(tmp_path):
    done = vissl_lite("-m", *TINY, "optimizer.lr=0.1,0.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = sorted((tmp_path / "runs" / "sweep").glob("*/*/config.yaml"))
    assert [yaml.safe_load(f.read_text())["optimizer"]["lr"] for f in saved] == [0.1, 0.2]


def test_glob_finds_recipes_at_any_depth(tmp_path):
    synthetic = ["dataset=synthetic", "data.source.size=32", "dry_run=true"]
    done = vissl_lite("-m", "config=glob(pretrain/s*/*cifar10_200ep)", *synthetic, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pretrain/swav/resnet18_cifar10_200ep" in done.stdout
    assert "pretrain/simclr/resnet18_cifar10_200ep" in done.stdout


@pytest.mark.parametrize("plugin", ["hydra/launcher=joblib", "hydra/sweeper=optuna"])
def test_sweep_plugins(tmp_path, plugin):
    package = {
        "joblib": "hydra_plugins.hydra_joblib_launcher",
        "optuna": "hydra_plugins.hydra_optuna_sweeper",
    }
    pytest.importorskip(package[plugin.partition("=")[2]])
    extra = ["optimizer.lr=0.1,0.2"]
    if "optuna" in plugin:
        extra = [
            "optimizer.lr=interval(0.1,0.2)",
            "hydra.sweeper.n_trials=2",
            "hydra.sweeper.n_jobs=1",
        ]
    done = vissl_lite("-m", *TINY, plugin, *extra, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "sweep").glob("*/*/metrics.jsonl"))) == 2


def test_help_shows_every_recipe_and_part(tmp_path):
    done = vissl_lite("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in (
        "pretrain/swav/resnet50_in1k_800ep",
        "quickstart",
        "hashtag_softmax",
        "image_folder",
    ):
        assert word in done.stdout


def test_tab_completes_recipes_and_keys(tmp_path):
    def complete(line):
        env = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
        words = [sys.executable, str(ROOT / "tools/run.py"), "-sc", "query=bash"]
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert "config=pretrain/swav/resnet50_in1k_100ep" in complete(
        "run.py config=pretrain/swav/resnet50"
    )
    assert complete("run.py loss=swav loss.tempera") == ["loss.temperature="]


def test_list(tmp_path):
    overview = vissl_lite("list", cwd=tmp_path)
    assert overview.returncode == 0, overview.stderr
    assert "hashtag_softmax" in overview.stdout
    entry = vissl_lite("list", "loss", "swav", cwd=tmp_path)
    assert "sinkhorn_iterations" in entry.stdout
    assert "2006.09882" in entry.stdout
    wrong = vissl_lite("list", "los", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean 'loss'?" in wrong.stderr


def test_a_dry_run_prints_the_sizes_and_writes_nothing(tmp_path):
    done = vissl_lite("config=quickstart", "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    assert "learning rate" in done.stdout
    assert not list(tmp_path.rglob("checkpoints"))


def test_secrets_of_the_environment_are_never_written(run, monkeypatch):
    """VISSL printed the whole environment to its log."""
    cwd, _ = run
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    done = vissl_lite(*TINY, "loggers=[console,jsonl]", cwd=cwd)
    newest = max((cwd / "runs" / "quickstart").iterdir())
    written = b"".join(f.read_bytes() for f in newest.rglob("*") if f.is_file())
    assert b"s3cr3t-value" not in written + done.stdout.encode() + done.stderr.encode()


def test_torchrun_shares_one_run_folder(run, tmp_path):
    """Two processes, one folder, one log, and the loss of one process (no BatchNorm between)."""
    words = [word for word in TINY if not word.startswith("hooks")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--standalone", str(ROOT / "tools" / "run.py"), *words, "hooks=[checkpoint]"),
            "parallel.sync_bn=all",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "runs" / "quickstart").iterdir()
    assert len(list((run_dir / "checkpoints").glob("step-*/rank-*.pt"))) == 2
    one = losses(run[1])[:2]
    assert losses(run_dir) == pytest.approx(one, rel=1e-3)


def test_ctrl_c_is_no_success(tmp_path):
    """VISSL swallowed Ctrl-C and ended with "All Done!"."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/run.py"), *TINY, "train.max_steps=10000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not list(tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert list(tmp_path.rglob("step-*/meta.json"))
