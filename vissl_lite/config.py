"""The tree of settings: what a recipe may say, with types, defaults and one line on each.

Parts (`trunk`, `loss`, ...) are configs of registry entries and are checked by their registries.
Ranges (`at_least(1)`) are told with all other mistakes at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vissl_lite import (
    EVALUATIONS,
    HEADS,
    HOOKS,
    LOGGERS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    SOURCES,
    TRANSFORMS,
    TRUNKS,
)
from vissl_lite.errors import ConfigError
from vissl_lite.schema import (
    above,
    at_least,
    between,
    conform_mapping,
    defaults_of,
    parameters_of,
    plain,
)

# what a command line takes besides the keys of `Config`
WORDS = ("config", "dataset", "sweep", "run_dir")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Count = Annotated[int, at_least(1)]
CountOrNull = Annotated[int | None, at_least(1)]
Share = Annotated[float, between(0, 1)]


@dataclass
class ViewGroup:
    """Crops of one size: `count` draws from the same list of transforms."""

    size: Count
    transforms: Annotated[list, TRANSFORMS]
    count: Count = 1


@dataclass
class Sampler:
    """How often an image comes in an epoch: r = max(smallest, max over tags h of phi(t / f(h))).

    f(h) is the share of images with tag h, or with label h; phi is the square root or the identity.
    """

    balance: Literal["none", "sqrt", "uniform"] = "none"  # none: every image once
    threshold: Annotated[float, above(0)] = 1e-3  # t; rarer tags come more often (1e-3: LVIS)
    # below 1, images of frequent tags only are left out at times (SWAG)
    smallest: Annotated[float, above(0, at_most=1)] = 1.0


@dataclass
class Data:
    """What the model is trained on."""

    source: Annotated[Any, SOURCES]
    views: list[ViewGroup] = field(default_factory=list)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: Annotated[tuple[float, float, float], above(0)] = IMAGENET_STD
    # processes per rank; auto: 0 on CPU, else by cores
    workers: Annotated[int | Literal["auto"], at_least(0)] = "auto"
    max_broken: Share = 0.01  # share of unreadable images that stops the run
    backend: Literal["fast", "reference"] = "fast"  # reference: Pillow from end to end
    augment_on: Literal["auto", "worker", "device"] = "auto"  # where flips and colours are made
    in_memory: bool | Literal["auto"] = "auto"  # all images as one tensor on the device
    sampler: Sampler = field(default_factory=Sampler)
    resize: Literal["antialias", "linear"] = "antialias"  # linear: faster, aliased, another image


@dataclass
class Labelled:
    """Labelled images that evaluations look at; same mean and std as `data`."""

    train: Annotated[Any, SOURCES] = None
    test: Annotated[Any, SOURCES] = None
    size: Count = 224
    transforms: Annotated[list, TRANSFORMS] = field(
        default_factory=lambda: [{"name": "resize"}, {"name": "center_crop"}]
    )
    batch_size: Count = 256  # images per process


@dataclass
class LrScaling:
    """Peak learning rate = optimizer.lr x (global batch / reference_batch), or its square root."""

    rule: Literal["none", "linear", "sqrt"] = "none"
    reference_batch: Count = 256


@dataclass
class ParamGroups:
    """Which parameters are treated differently by the optimizer."""

    exclude_from_decay: Literal["none", "norm_and_bias"] = "none"
    exclude_from_lars: Literal["none", "norm_and_bias"] = "none"
    layer_decay: Annotated[float, above(0)] = 1.0
    overrides: dict = field(default_factory=dict)  # name pattern -> {lr_scale, weight_decay}


@dataclass
class Train:
    """Length and size of the training."""

    epochs: Annotated[float, at_least(0)] = 100
    batch_size: Count = 256  # images of all processes and micro-batches together
    accumulate: Count = 1  # micro-batches per step
    max_steps: CountOrNull = None  # stop earlier; schedules still see the full length
    clip_grad_norm: Annotated[float | None, above(0)] = None
    log_every: Count = 10
    freeze_trunk: bool = False
    grad_cache: CountOrNull = None  # images per chunk of a loss that needs all embeddings at once


@dataclass
class Memory:
    """What is kept in memory, and how it lies there."""

    activation_checkpointing: Literal["auto", "none", "selective", "block"] = "auto"
    # sharded convolutions of more parameters are gathered alone
    split_above: Annotated[int | None, at_least(0)] = None
    cpu_offload: bool = False  # sharded weights and optimizer state live in host memory
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"


@dataclass
class Parallel:
    """How a model is spread over processes, and what they share besides gradients."""

    strategy: Literal["auto", "reference_ddp", "ddp", "zero2", "zero3", "hsdp"] = "auto"
    shard_size: CountOrNull = None  # of hsdp: processes that share one copy; null: one machine's
    # BatchNorm over all ranks, or groups of so many
    sync_bn: Annotated[int | Literal["off", "all"], at_least(1)] = "off"


@dataclass
class Config:
    """The root."""

    trunk: Annotated[Any, TRUNKS]
    loss: Annotated[Any, LOSSES]
    optimizer: Annotated[Any, OPTIMIZERS]
    data: Data
    heads: Annotated[list, HEADS] = field(default_factory=list)
    pool: Literal["avg", "none"] = "avg"
    layer: str | None = None  # trunk layer that feeds the heads; null: the last
    schedules: Annotated[dict, SCHEDULES] = field(default_factory=dict)
    lr_scaling: LrScaling = field(default_factory=LrScaling)
    param_groups: ParamGroups = field(default_factory=ParamGroups)
    teacher_momentum: Share = 0.996  # of the EMA teacher, where the loss sets `needs_teacher`
    labelled: Labelled = field(default_factory=Labelled)
    train: Train = field(default_factory=Train)
    memory: Memory = field(default_factory=Memory)
    parallel: Parallel = field(default_factory=Parallel)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, between(0, 2**63 - 1)] = 0
    hooks: Annotated[dict, HOOKS] = field(default_factory=dict)
    loggers: Annotated[dict, LOGGERS] = field(default_factory=dict)
    evaluations: Annotated[dict, EVALUATIONS] = field(default_factory=dict)
    init: str | None = None  # start from a run, a checkpoint, a file or name of docs/weights.md
    resume: bool = False  # set by `resume=DIR`: continue in this run's own folder
    dry_run: bool = False  # build everything, take one step of a few images, print the sizes, stop
    objective: str = "loss"  # the result that a sweep optimises
    recipe: str | None = None  # the name that the run folder gets


def root_node() -> dict[str, Any]:
    """The defaults as Hydra sees them."""
    return defaults_of(parameters_of(Config))


def check(config: Any, settings: Sequence[str] = ()) -> Config:
    """Returns the typed tree.

    Args:
        settings: of the command that takes the config, for messages: "world_size".

    Raises:
        ConfigError: with every problem in it, those of all registry entries included.
    """
    tree = plain(config)
    if not isinstance(tree, Mapping):
        raise ConfigError(f"the config is {tree!r}, not a mapping")
    words = (*WORDS, *settings)
    full, problems = conform_mapping(tree, parameters_of(Config), "", "the config", words)
    if problems:
        raise ConfigError(*problems)
    return Config(**full)
