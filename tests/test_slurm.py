"""What goes to SLURM: the presets of the launcher, and the batch script of docs/launch.md."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import hydra
import pytest
import yaml
from command import command
from omegaconf import OmegaConf

from vissl_lite.plugins import config_dir, load_entries

load_entries()


def test_slurm_presets(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    show = ["--cfg", "hydra", "-p", "hydra.launcher"]
    done = command("config=quickstart", "hydra/launcher=slurm_8nodes", *show, cwd=tmp_path)
    launcher = yaml.safe_load(done.stdout)
    assert (launcher["nodes"], launcher["tasks_per_node"], launcher["gpus_per_node"]) == (8, 8, 8)
    assert launcher["_target_"].endswith("SlurmLauncher")
    assert launcher["signal_delay_s"] >= 60


def test_every_slurm_preset_has_the_nodes_of_its_name():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    presets = sorted(path.stem for path in (config_dir() / "hydra/launcher").glob("slurm_*.yaml"))
    assert len(presets) == 7
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        for preset in presets:
            words = [f"hydra/launcher={preset}"]
            made = hydra.compose("defaults", words, return_hydra_config=True).hydra.launcher
            nodes = int(re.findall(r"\d+", preset)[0])
            assert (made.nodes, made.tasks_per_node, made.gpus_per_node) == (nodes, 8, 8), preset


@pytest.mark.skipif(shutil.which("srun") is not None, reason="would submit a job")
def test_slurm_without_slurm_is_one_sentence(tmp_path):
    done = command("config=quickstart", "hydra/launcher=slurm_8nodes", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no srun on this machine" in done.stderr


def executable(file, text):
    """A program that stands for one of SLURM's."""
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_what_a_preset_submits(tmp_path, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    executable(tmp_path / "srun", "")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        words = ["hydra/launcher=slurm_8nodes", "hydra.launcher.submitit_folder=logs"]
        made = hydra.compose("defaults", words, return_hydra_config=True).hydra.launcher
    settings = OmegaConf.to_container(made, resolve=True)
    timeouts = settings.pop("max_num_timeout")
    folder = tmp_path / settings.pop("submitit_folder")
    del settings["_target_"]
    general = set(BaseQueueConf.__dataclass_fields__)
    settings = {k if k in general else f"slurm_{k}": v for k, v in settings.items()}  # its launcher
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=timeouts)
    executor.update_parameters(**settings)
    lines = executor._executor._make_submission_file_text("RUN", "id").splitlines()
    for flag in ("nodes=8", "ntasks-per-node=8", "cpus-per-task=12", "requeue", "signal=USR2@300"):
        assert f"#SBATCH --{flag}" in lines
    setup = lines.index("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK")
    (command,) = (i for i, line in enumerate(lines) if line.startswith("srun "))
    assert setup < command
    assert "kill-on-bad-exit" not in lines[command]  # ends rank 0 before it has requeued the job


def script_of_the_docs():
    text = (Path(__file__).resolve().parents[1] / "docs" / "launch.md").read_text()
    (script,) = re.findall(r"(?:^    .*\n)+", text[text.index("    #!/bin/bash") :], re.M)[:1]
    return script.replace("\n    ", "\n").strip() + "\n"


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(0, "", 0), (2, "", 0), (143, "", 0), (140, "", 1), (1, "3", 1), (75, "49", 1), (76, "50", 0)],
)
def test_the_script_of_the_docs_tries_again(code, restarts, again, tmp_path):
    executable(tmp_path / "srun", f"exit {code}")
    executable(tmp_path / "scontrol", f"echo $* > {tmp_path}/asked")
    known = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    known |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}  # unset at the first start
    subprocess.run(["bash", "-c", script_of_the_docs()], env=known, timeout=30)
    asked = (tmp_path / "asked").read_text().split() if (tmp_path / "asked").exists() else None
    assert asked == (["requeue", "12"] if again else None)
