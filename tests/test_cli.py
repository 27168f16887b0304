"""The command line as a user meets it: exit codes, what it prints and leaves.

Real processes where signals, launchers or the start of Python matter; `command` elsewhere.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
import yaml
from command import command

from vissl_lite import cli
from vissl_lite.overrides import only_chosen
from vissl_lite.plugins import load_entries, recipes

load_entries()

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
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def vissl_lite(*words, cwd):
    """Runs tools/run.py in `cwd`; returns the finished process."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=ENV,
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


def overrides(run_dir):
    """The words in the .hydra of a run: those that began it."""
    return yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text())


def losses(run_dir):
    return [r["loss"] for r in records(run_dir) if r["kind"] == "train"]


def test_a_run_leaves_everything_in_its_folder(run):
    _, run_dir = run
    assert len(losses(run_dir)) == 2
    assert (run_dir / "checkpoints" / "step-00000002" / "meta.json").is_file()
    assert (run_dir / "weights.safetensors").is_file()


def test_the_saved_config_runs_again_unchanged(run):
    cwd, run_dir = run
    done = command(f"config={run_dir / 'config.yaml'}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    again = max((cwd / "runs" / "quickstart").iterdir())
    assert again != run_dir
    assert losses(again) == losses(run_dir)
    first, second = (yaml.safe_load((d / "config.yaml").read_text()) for d in (run_dir, again))
    assert first == second


def test_resume_goes_on_in_the_same_folder(run):
    cwd, run_dir = run
    done = command(f"resume={run_dir}", "train.max_steps=3", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in records(run_dir) if r["kind"] == "train"] == [1, 2, 3]


def test_init_starts_a_new_run_from_weights(run):
    cwd, run_dir = run
    done = command(*TINY, f"init={run_dir}", "loggers=[console]", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert re.search(r"init: \d+ trunk tensors from", done.stdout + done.stderr)


def test_a_folder_takes_one_run(run):
    cwd, run_dir = run
    done = command(*TINY, f"hydra.run.dir={run_dir}", cwd=cwd)
    assert done.returncode == 2
    assert f"holds a run already; go on with resume={run_dir}" in done.stderr


def test_a_grid_sweep_runs_every_point(tmp_path):
    done = command("-m", *TINY, "optimizer.lr=0.1,0.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = sorted((tmp_path / "runs" / "sweep").glob("*/*/config.yaml"))
    assert [yaml.safe_load(f.read_text())["optimizer"]["lr"] for f in saved] == [0.1, 0.2]


def test_glob_finds_recipes_at_any_depth(tmp_path):
    small = ["dataset=synthetic", "data.source.size=32", "train.batch_size=4", *TINY[4:6]]
    glob = "config=glob(pretrain/s*/*cifar10_200ep)"
    done = command("-m", glob, *small, "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pretrain/swav/resnet18_cifar10_200ep" in done.stdout
    assert "pretrain/simclr/resnet18_cifar10_200ep" in done.stdout


def test_joblib_runs_a_sweep_in_processes(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=joblib", "optimizer.lr=0.1,0.2"]
    done = vissl_lite("-m", *TINY, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "sweep").glob("*/*/metrics.jsonl"))) == 2


def test_optuna_searches(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    trials = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "objective=loss"]
    words = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.1,0.2)", *trials]
    done = command("-m", *TINY, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "sweep").glob("*/*/metrics.jsonl"))) == 2


def test_help_shows_every_recipe_and_part(tmp_path):
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in (
        "pretrain/swav/resnet50_in1k_800ep",
        "quickstart",
        "hashtag_softmax",
        "image_folder",
    ):
        assert word in done.stdout


@pytest.mark.parametrize("width", [80, 30])
def test_help_shows_names_whole(width, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = command("--help", cwd=tmp_path).stdout.split("\n")
    assert {*recipes()} <= {line.split()[0] for line in lines if line}
    longest = max(len(f"  {recipe}") for recipe in recipes())
    listed = [line for line in lines if line[2:].split(" ")[0] in recipes()]
    assert len(listed) == len(recipes())
    assert all(len(line) <= max(width, longest + 2) for line in listed)


def test_tab_completes_recipes_and_keys(tmp_path, monkeypatch):
    def complete(line):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        done = command("-sc", "query=bash", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert "config=pretrain/swav/resnet50_in1k_100ep" in complete(
        "run.py config=pretrain/swav/resnet50"
    )
    assert complete("run.py loss=swav loss.tempera") == ["loss.temperature="]


def test_list(tmp_path):
    overview = command("list", cwd=tmp_path)
    assert overview.returncode == 0, overview.stderr
    assert "hashtag_softmax" in overview.stdout
    entry = command("list", "loss", "swav", cwd=tmp_path)
    assert "sinkhorn_iterations" in entry.stdout
    assert "2006.09882" in entry.stdout
    wrong = command("list", "los", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean 'loss'?" in wrong.stderr


def test_a_dry_run_prints_the_sizes_and_writes_nothing(tmp_path):
    done = command("config=quickstart", "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout
    assert "learning rate" in done.stdout
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reprot", "runs/x"], "'reprot' is no command; did you mean 'report'? there are: list,"),
        (["bench"], "'bench' is no command; did you mean 'bench step'?"),
        (["quickstart"], "'quickstart' is no command; a recipe is run by config=quickstart"),
        (["config=quickstart", "=3"], "'=3' sets nothing: a key is missing before ="),
        (["confg=quickstart"], "unknown key 'confg' for the config; did you mean 'config'?"),
        (["config="], "config: names no recipe; vissl-lite list shows them"),
        (
            ["config=quickstart", "data.views[7].size=3"],
            "data.views[7]: the list has no such item;",
        ),
        (
            ["config=quickstart", "data.views.size=3"],
            "'size' names nothing in a list; its items are",
        ),
        (["config=quickstart", "~loss.warmup"], "~loss.warmup leaves out what is not there;"),
        (["config=quickstart", "~data.views[7]"], "~data.views.7 leaves out what is not there;"),
    ],
)
def test_words_that_mean_nothing(words, message, tmp_path):
    done = command(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_secrets_of_the_environment_are_never_written(tmp_path, monkeypatch):
    """VISSL printed the whole environment to its log."""
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    done = command(*TINY, "loggers=[console,jsonl]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert b"s3cr3t-value" not in written + done.stdout.encode() + done.stderr.encode()


# ---------------------------------------------------------------- several processes

LONG = [*TINY, "train.max_steps=10000"]


def train_records(folder):
    """Of the only run below `folder`, while it is written."""
    files = list(folder.rglob("metrics.jsonl"))
    lines = files[0].read_text().splitlines() if files else []
    return [r for r in map(json.loads, lines) if r["kind"] == "train"]


def wait_until(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def started(*words, cwd, launcher=()):
    """A command that runs meanwhile; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / "tools/run.py"), *words],
        cwd=cwd,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_plain_command_trains_on_several_processes_which_stop_together(tmp_path):
    with started(*LONG, "launch.processes=2", cwd=tmp_path) as process:
        wait_until(lambda: train_records(tmp_path), process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    (run_dir,) = (tmp_path / "runs" / "quickstart").iterdir()
    steps = [r["step"] for r in train_records(tmp_path)]
    saved = run_dir / "checkpoints" / f"step-{steps[-1]:08d}"
    assert json.loads((saved / "meta.json").read_text())["world_size"] == 2
    assert "launch" not in yaml.safe_load((run_dir / "config.yaml").read_text())


def test_the_same_command_goes_on_in_its_run_dir(tmp_path):
    words = [*TINY, "hooks.checkpoint.every_steps=1", "run_dir=here"]
    first = command(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = command(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [r["step"] for r in train_records(tmp_path)] == [1, 2]
    other = command(*words, "optimizer.lr=0.3", cwd=tmp_path)
    assert other.returncode == 2
    assert (
        "run_dir: here holds a run with another config: optimizer.lr is 0.005 there and 0.3 here"
        in other.stderr.replace(f"{tmp_path}/", "")
    )
    assert not any("lr=0.3" in word for word in overrides(tmp_path / "here"))


def test_a_folder_that_is_named_as_those_of_sweeps_is_resumed(tmp_path):
    folder = "lr=0.1,seed=[0]"
    for words in ([*TINY, f"run_dir={folder}"], [f"resume={folder}", "train.max_steps=3"]):
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("step") for line in lines if '"train"' in line] == [1, 2, 3]
    assert overrides(tmp_path / folder)[0] == "config=quickstart"


def test_a_launcher_runs_and_goes_on_in_the_folder_of_the_run(tmp_path):
    """Hydra's hydra.run.dir is not the folder of what a launcher runs."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder, launcher = "lr=0.1,seed=0", "hydra/launcher=submitit_local"
    for words in ([*TINY, f"run_dir={folder}"], [f"resume={folder}", "train.max_steps=3"]):
        done = command(*words, launcher, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    began = tmp_path / folder
    assert [r["resumed_step"] for r in records(began) if r["kind"] == "start"] == [0, 2]
    assert [r["step"] for r in records(began) if r["kind"] == "train"] == [1, 2, 3]
    assert overrides(began)[0] == "config=quickstart"
    assert not (tmp_path / "runs").exists()


def test_run_dir_is_the_folder_of_a_sweep(tmp_path):
    done = command("-m", *TINY, "seed=0,1", "run_dir=here", "train.max_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(f.parent.name for f in (tmp_path / "here").glob("*/config.yaml")) == ["0", "1"]


@pytest.mark.parametrize(
    "words", [["-m", "seed=0,1"], ["hydra/launcher=basic", "seed=range(3)"], ["sweep=optuna_lr"]]
)
def test_several_jobs_cannot_go_on_in_one_folder(words, run, tmp_path):
    done = command(f"resume={run[1]}", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert f"resume: {words[-1]} makes several jobs, and only one can go on" in done.stderr


def test_no_run_begins_where_one_should_go_on(tmp_path):
    done = command(*TINY, "run_dir=here", "++resume=true", cwd=tmp_path)
    assert done.returncode == 2
    assert "here holds no run, it has no config.yaml; go on with" in done.stderr


def test_a_mistake_that_shows_late_leaves_the_run_dir_free(tmp_path):
    words = [*TINY, "run_dir=here"]
    for mistake in ("init=absent.pth", "hooks.checkpoint.best=knn.absent"):
        mistaken = command(*words, mistake, cwd=tmp_path)
        assert mistaken.returncode == 2, mistake
        assert (tmp_path / "here" / "config.yaml").is_file()
    mended = command(*words, cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr


def test_torchrun_shares_one_run_folder_and_restarts_go_on_in_it(run, tmp_path):
    """Two processes, one folder, one log, and the loss of one process (BatchNorm over both)."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*TINY, "train.max_steps=8", "hooks.checkpoint.every_steps=1", "parallel.sync_bn=all"]
    with started(*words, cwd=tmp_path, launcher=[*torchrun, "--max-restarts=2"]) as process:
        wait_until(lambda: len(train_records(tmp_path)) >= 3, process)
        os.kill(child(process.pid, "RANK=1"), signal.SIGKILL)
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    (run_dir,) = (tmp_path / "runs" / "quickstart").iterdir()
    starts = [r for r in records(run_dir) if r["kind"] == "start"]
    assert len(starts) == 2
    assert starts[1]["resumed_step"] >= 2
    assert len(list((run_dir / "checkpoints" / "step-00000008").glob("rank-*.pt"))) == 2
    assert losses(run_dir)[:2] == pytest.approx(losses(run[1])[:2], rel=1e-3)
    assert [r["step"] for r in train_records(tmp_path)] == list(range(1, 9))


def child(pid, variable):
    """The child process with this in its environment."""
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((proc / "stat").read_text().rpartition(")")[2].split()[1])
            environ = (proc / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == pid and variable.encode() in environ:
            return int(proc.name)
    raise LookupError(variable)


def test_a_preempted_submitit_job_saves_requeues_and_goes_on(tmp_path):
    """Two tasks of submitit's local executor, which treats SIGUSR2 as SLURM's does."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [*TINY, "train.max_steps=40", "hydra/launcher=submitit_local"]
    with started(*words, "hydra.launcher.tasks_per_node=2", cwd=tmp_path) as process:
        wait_until(lambda: len(train_records(tmp_path)) >= 2, process)
        controller = child(process.pid, "SUBMITIT_LOCAL_NTASKS=2")
        os.kill(child(controller, "SUBMITIT_LOCAL_GLOBALID=1"), signal.SIGUSR2)  # one is enough
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    (run_dir,) = (tmp_path / "runs" / "sweep").glob("*/0")
    starts = [r for r in records(run_dir) if r["kind"] == "start"]
    ends = [r for r in records(run_dir) if r["kind"] == "end"]
    assert [r["world_size"] for r in starts] == [2, 2]
    assert ends[0]["reason"].startswith("stopped by SIGUSR2")
    assert starts[1]["resumed_step"] == ends[0]["step"] < 40
    assert [r["step"] for r in train_records(tmp_path)] == list(range(1, 41))


# ---------------------------------------------------------------- signals, choices


def test_sigterm_in_a_long_evaluation_saves_and_stops(tmp_path):
    """1,797 images one by one through this trunk would take a minute."""
    words = [*TINY[:-3], "hooks=[evaluate,checkpoint]", "loggers=[jsonl]", "labelled.batch_size=1"]
    words += ["hooks.evaluate.at_start=false", "trunk.width_multiplier=1"]
    with started(*words, cwd=tmp_path) as process:
        wait_until(lambda: len(train_records(tmp_path)) == 2, process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        output, _ = process.communicate(timeout=100)
    assert time.monotonic() - sent < 20
    assert process.returncode == 128 + signal.SIGTERM, output
    (run_dir,) = (tmp_path / "runs" / "quickstart").iterdir()
    notes = [r["text"] for r in records(run_dir) if r["kind"] == "note"]
    assert "evaluation of step 2 given up: stopped by SIGTERM" in notes
    assert (run_dir / "checkpoints" / "step-00000002" / "meta.json").is_file()


def test_a_choice_leaves_out_what_the_recipe_sets_by_key(run):
    """quickstart sets hooks.evaluate and evaluations.knn by key, which brought them back."""
    _, run_dir = run
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert list(saved["hooks"]) == ["checkpoint"]
    assert saved["evaluations"] == {}
    assert list(saved["loggers"]) == ["jsonl"]


def test_an_entry_with_a_key_of_its_own_stays():
    tree = {"hooks": {"checkpoint": {}, "evaluate": {}, "probe": {}}, "evaluations": {"knn": {}}}
    words = ["hooks=[checkpoint]", "++hooks.probe.lr=0.1", "++train.epochs=3"]
    assert only_chosen(tree, words) == {
        "hooks": {"checkpoint": {}, "probe": {}},
        "evaluations": {"knn": {}},
    }
    assert only_chosen(tree, ["evaluations=[]"]) == {**tree, "evaluations": {}}
    assert only_chosen(tree, ["hooks=[somebodys_preset]"]) == tree


def test_choices_of_a_saved_config(run):
    cwd, run_dir = run
    words = [f"config={run_dir / 'config.yaml'}", "loggers=[]", "hooks=[]", "train.max_steps=1"]
    done = command(*words, "run_dir=silent", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert not (cwd / "silent" / "metrics.jsonl").exists()
    assert not (cwd / "silent" / "checkpoints").exists()
    done = command(f"resume={run_dir}", "hooks=[prob]", cwd=cwd)
    assert done.returncode == 2
    assert "hooks: unknown 'prob'; did you mean 'probe'?" in done.stderr
    assert only_chosen({"hooks": {"a": {}}}, ["hooks=[probe]"]) == {"hooks": {"probe": {}}}


def test_ctrl_c_is_no_success(tmp_path):
    """VISSL swallowed Ctrl-C and ended with "All Done!"."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/run.py"), *TINY, "train.max_steps=10000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env=ENV,
    )
    while process.poll() is None and not list(tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert list(tmp_path.rglob("step-*/meta.json"))


def test_a_reader_that_has_gone_is_no_error(monkeypatch):
    """`vissl-lite hashtags | head -1`: nothing on the screen, the exit code of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["vissl-lite", "hashtags"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it; it is put back with the rest
    with open(writer, "w") as gone, redirect_stdout(gone), pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 128 + signal.SIGPIPE
