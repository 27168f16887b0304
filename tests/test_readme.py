"""What the README shows works."""

import re
from pathlib import Path
from types import SimpleNamespace

import torch
from hydra.core.config_store import ConfigStore
from training import small

from vissl_lite import LOSSES, OPTIMIZERS
from vissl_lite.plugins import load_entries, recipes

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_loss_trains():
    """Gradient steps on the embeddings themselves make crops of an image alike."""
    load_entries()
    try:
        exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {"__name__": "readme"})
        loss = LOSSES.build({"name": "my_alignment", "weight": 0.5}, "loss", embed_dim=4)
        assert small("loss=my_alignment").loss["weight"] == 1.0
    finally:
        LOSSES._entries.pop("my_alignment", None)
        ConfigStore.instance().repo["loss"].pop("my_alignment.yaml", None)
    z_VBD = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = OPTIMIZERS.build("adamw", "optimizer", params=[{"params": [z_VBD], "lr": 0.1}])
    values = []
    for _ in range(50):
        values.append(loss(SimpleNamespace(embedding=z_VBD), None))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.05 * values[0]


def test_every_recipe_named_exists():
    named = re.findall(r"\bconfig=([a-z0-9_/]+)", TEXT)
    assert named
    assert set(named) <= set(recipes())


def test_the_table_names_every_recipe():
    table = TEXT.split("## Recipes")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    named = [
        name for cell in first_cells for p in re.findall("`(.+?)`", cell) for name in expanded(p)
    ]
    assert sorted(named) == recipes()


def expanded(pattern):
    """Like the shell's braces."""
    found = re.search(r"\{([^}]*)\}", pattern)
    if not found:
        return [pattern]
    return [w for word in found[1].split(",") for w in expanded(pattern.replace(found[0], word, 1))]
