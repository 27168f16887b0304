"""Starting from weights: a run, a checkpoint, or a `.safetensors` file. Never partially silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from vissl_lite.engine.checkpoint import Checkpointer
from vissl_lite.engine.state import differences, read_model
from vissl_lite.errors import ConfigError
from vissl_lite.model import SSLModel


def run_config(path: Path) -> Path:
    """The saved config of the run that a path belongs to.

    Raises:
        ConfigError: the path is not (in) a run of ours.
    """
    for folder in (path, *path.parents[:2]):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise ConfigError(
        f"init: {path} does not belong to a run (no config.yaml beside it); set trunk and labelled"
        " yourself"
    )


def load_into(model: SSLModel, path: Path) -> list[str]:
    """Loads trunk weights, and head weights where all of them fit.

    Args:
        path: folder of a run (its newest checkpoint), a checkpoint, or a .safetensors file of a
            trunk.

    Returns:
        Sentences on what was loaded and what was not.

    Raises:
        ConfigError: nothing there, or the trunk's tensors do not match one by one.
    """
    state = read_weights(path)
    trunk = {k.removeprefix("trunk."): v for k, v in state.items() if k.startswith("trunk.")}
    trunk = trunk or state
    if wrong := differences(trunk, model.trunk.state_dict()):
        raise ConfigError(
            f"init: {path} holds another trunk than the config: {wrong};"
            f" set the trunk that the weights were trained with{_trunk_of(path)}"
        )
    model.trunk.load_state_dict(trunk)
    notes = [f"init: {len(trunk)} trunk tensors from {path}"]
    heads = {k.removeprefix("heads."): v for k, v in state.items() if k.startswith("heads.")}
    if heads and not differences(heads, model.heads.state_dict()):
        model.heads.load_state_dict(heads)
        notes.append(f"init: {len(heads)} head tensors")
    elif len(model.heads):
        notes.append("init: heads start from scratch, the file has none that fit")
    return notes


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's model, or of a .safetensors file."""
    if path.is_file() and path.suffix == ".safetensors":
        return load_file(path)
    if (path / "meta.json").is_file():
        return read_model(path)
    newest = Checkpointer(path / "checkpoints").latest()
    if newest is None:
        raise ConfigError(
            f"init: {path} is neither a run with checkpoints, nor a checkpoint, nor a .safetensors"
            " file"
        )
    return read_model(newest)


def _trunk_of(path: Path) -> str:
    """The trunk's config, if the weights come from a run of ours."""
    import yaml

    try:
        saved: dict[str, Any] = yaml.safe_load(run_config(path).read_text())
    except ConfigError:
        return ""
    return f": {saved['trunk']}"
