"""What goes to SLURM: the presets of the launcher, and the batch script of docs/launch.md."""

import re
import shutil

import hydra
import pytest
import yaml
from command import command

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
