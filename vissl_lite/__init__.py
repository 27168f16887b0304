"""Pre-training of large vision models without labels or with weak ones.

The ten registries are here; `vissl_lite.plugins.load_entries()` fills them.
"""

from vissl_lite.errors import ConfigError
from vissl_lite.registry import REGISTRIES, Registry

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
]
