"""Pre-training of large vision models without labels or with weak ones.

The ten registries are here; `vissl_lite.plugins.load_entries()` fills them.
"""

from typing import TYPE_CHECKING, Any

from vissl_lite.errors import ConfigError
from vissl_lite.registry import REGISTRIES, Registry

if TYPE_CHECKING:
    from vissl_lite.engine.weights import load

__version__ = "0.1.0"

SOURCES = Registry("source", group="data/source")
TRANSFORMS = Registry("transform", runtime=("size",))
TRUNKS = Registry("trunk", group="trunk")
HEADS = Registry("head", runtime=("in_dim", "num_classes"))
LOSSES = Registry(
    "loss", group="loss", runtime=("embed_dim", "num_samples", "num_classes", "steps_per_epoch")
)
OPTIMIZERS = Registry("optimizer", group="optimizer", runtime=("params",))
SCHEDULES = Registry("schedule", runtime=("total_steps", "steps_per_epoch"))
HOOKS = Registry("hook", group="hooks", keyed=True)
EVALUATIONS = Registry("evaluation", group="evaluations", keyed=True)
LOGGERS = Registry("logger", group="loggers", keyed=True, runtime=("run_dir",))

__all__ = [
    "EVALUATIONS",
    "HEADS",
    "HOOKS",
    "LOGGERS",
    "LOSSES",
    "OPTIMIZERS",
    "REGISTRIES",
    "SCHEDULES",
    "SOURCES",
    "TRANSFORMS",
    "TRUNKS",
    "ConfigError",
    "Registry",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """`vissl_lite.load`, which needs PyTorch, is imported when it is used."""
    if name == "load":
        from vissl_lite.engine.weights import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
