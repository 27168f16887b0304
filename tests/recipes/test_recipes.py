"""Every recipe composes, says what it is for, and has the numbers of its paper."""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from omegaconf import OmegaConf
from training import composed

from vissl_lite import SCHEDULES
from vissl_lite.cli import hydra_arguments
from vissl_lite.config import Config, check
from vissl_lite.engine.build import peak_lr
from vissl_lite.engine.dry_run import dry_run
from vissl_lite.engine.journal import save_config
from vissl_lite.formats.published import PUBLISHED
from vissl_lite.layers.unit import Checkpointing
from vissl_lite.plugins import config_dir, load_entries, recipes, register_with_hydra

load_entries()
register_with_hydra()
FIELDS = ["paper", "expected", "cost", "needs", "run"]
OF_EVALUATIONS = ["protocol", "cost", "run", "images"]
OURS = [name for name in recipes() if (config_dir() / "config" / f"{name}.yaml").is_file()]
TRAINING = [name for name in OURS if not name.startswith("evaluate/")]
IN1K = 1_281_167
MODES = get_args(Checkpointing)


@functools.cache
def config_of(recipe: str, *overrides: str) -> Config:
    given = ["++init=null"] if recipe.startswith("finetune/") else []
    return check(composed(f"config={recipe}", f"++recipe={recipe}", *given, *overrides))


def card(recipe: str) -> dict[str, str]:
    """The header of a recipe: its title and one entry per field."""
    lines = (config_dir() / "config" / f"{recipe}.yaml").read_text().splitlines()
    header = [line.strip("# ") for line in lines[1:] if line.startswith("# ")]
    found, key = {"title": header[0]}, "title"
    for line in header[1:]:
        field = re.fullmatch(r"([a-z]+): +(.*)", line)
        key, text = field.groups() if field else (key, f"{found[key]} {line}")
        found[key] = text
    return found


def lr_of(recipe: str, images: int) -> tuple[Callable[[int], float], int, int]:
    """(learning rate at a step, steps per epoch, number of steps) with so many images."""
    config = config_of(recipe)
    per_epoch = images // config.train.batch_size
    total = round(config.train.epochs * per_epoch)
    schedule = SCHEDULES.build(
        config.schedules["lr"], "lr", total_steps=total, steps_per_epoch=per_epoch
    )
    peak, _ = peak_lr(config)
    return lambda step: peak * schedule(step / total), per_epoch, total


def prototypes(config: Config) -> int:
    return config.heads[-1]["num_prototypes"]


@pytest.mark.parametrize("recipe", TRAINING)
def test_composes_and_passes_the_check(recipe):
    assert config_of(recipe).recipe == recipe


@pytest.mark.parametrize("recipe", sorted(set(OURS) - set(TRAINING)))
def test_evaluation_takes_the_rest_from_a_run(recipe, tmp_path):
    run = composed("config=quickstart", "++recipe=quickstart")
    save_config(OmegaConf.to_container(run, resolve=True), tmp_path)
    hydra_arguments([f"init={tmp_path}"])  # defines the resolver
    config = config_of(recipe, f"++init={tmp_path}")
    assert config.trunk == run.trunk
    assert config.labelled.size == run.labelled.size
    assert config.train.epochs == 0
    assert config.objective.split(".")[0] in config.evaluations


@pytest.mark.parametrize("recipe", TRAINING)
def test_has_a_card(recipe):
    text = card(recipe)
    assert (
        (config_dir() / "config" / f"{recipe}.yaml").read_text().startswith("# @package _global_")
    )
    assert [field for field in FIELDS if not text.get(field)] == []
    assert f"vissl-lite config={recipe}" in text["run"]
    assert "measured" in text["expected"]
    assert "measured" in text["cost"]


@pytest.mark.parametrize("recipe", [r for r in TRAINING if "--nnodes" in card(r)["run"]])
def test_a_run_of_several_nodes_survives_a_failure(recipe):
    text = card(recipe)
    for words in ("--max-restarts=", "--rdzv-id=", "run_dir=/shared/"):
        assert words in text["run"]
    if recipe.startswith(("pretrain/seer", "pretrain/hashtag")):
        assert f"VISSL_LITE_CACHE=/shared/cache vissl-lite config={recipe} dry_run" in text["first"]
        assert text["run"].startswith("VISSL_LITE_CACHE=/shared/cache ")


@pytest.mark.parametrize("recipe", sorted(set(OURS) - set(TRAINING)))
def test_an_evaluation_has_a_card(recipe):
    text = card(recipe)
    assert [field for field in OF_EVALUATIONS if not text.get(field)] == []
    command = "benchmark_suite" if recipe == "evaluate/suite" else f"config={recipe} init="
    assert f"vissl-lite {command}" in text["run"]


@pytest.mark.parametrize("sweep", ["lr", "optuna_lr"])
def test_a_sweep_has_a_card(sweep):
    text = card(f"../sweep/{sweep}")
    assert [field for field in ("expected", "cost", "needs") if not text.get(field)] == []
    assert text["run"] == f"vissl-lite config=quickstart sweep={sweep}"


@pytest.mark.parametrize("recipe", TRAINING)
def test_needs_what_its_card_says(recipe):
    config, needs = config_of(recipe), card(recipe)["needs"]
    named = set(re.findall(r"\$([A-Z0-9]+)", needs))
    source = config.data.source
    path = str(source.get("source", source).get("path", ""))
    default = {
        "IMAGENET": "imagenet",
        "CIFAR10": "cifar10",
        "IMAGES": "images",
        "HASHTAGS": "hashtags",
    }
    assert [default[name] for name in named] == [path.split("/")[1]] if path else named == set()


def test_shared_parents_are_no_recipes():
    parents = list((config_dir() / "config").rglob("_*.yaml"))
    assert parents
    assert not [name for name in recipes() if name.rpartition("/")[2].startswith("_")]


# ------------------------------------------------------------------ numbers of the papers


@pytest.mark.parametrize("epochs", [100, 200, 400, 800])
def test_swav_on_64_gpus(epochs):
    """arXiv 2006.09882, appendix A.1, and scripts/swav_*ep_pretrain.sh."""
    recipe = f"pretrain/swav/resnet50_in1k_{epochs}ep"
    lr, per_epoch, total = lr_of(recipe, IN1K)
    assert (per_epoch, total) == (312, 312 * epochs)
    assert lr(0) == pytest.approx(0.3)
    assert lr(5 * per_epoch) == pytest.approx((0.3 + 4.8) / 2)
    assert lr(10 * per_epoch) == pytest.approx(4.8)
    assert lr(total) == pytest.approx(0.0048)
    config = config_of(recipe)
    assert config.loss["freeze_prototypes_steps"] == 313
    assert config.loss["queue_length"] == 0
    assert prototypes(config) == 3000
    assert [(g.count, g.size) for g in config.data.views] == [(2, 224), (6, 96)]


@pytest.mark.parametrize("epochs", [200, 400])
def test_swav_on_4_gpus(epochs):
    """The authors' scripts/swav_*ep_bs256_pretrain.sh."""
    recipe = f"pretrain/swav/resnet50_in1k_bs256_{epochs}ep"
    lr, per_epoch, total = lr_of(recipe, IN1K)
    assert (lr(0), lr(total)) == pytest.approx((0.6, 0.0006))
    config = config_of(recipe)
    assert config.loss["freeze_prototypes_steps"] == 5005
    assert (config.loss["queue_length"], config.loss["queue_start_epoch"]) == (3840, 15)
    assert per_epoch == 5004  # without the last, smaller batch


@pytest.mark.parametrize("epochs", [100, 200, 800])
def test_simclr_on_imagenet(epochs):
    """arXiv 2002.05709, section 2.2 and appendix B."""
    lr, per_epoch, total = lr_of(f"pretrain/simclr/resnet50_in1k_{epochs}ep", IN1K)
    assert lr(0) == 0
    assert lr(10 * per_epoch) == pytest.approx(4.8)
    assert lr(total) == pytest.approx(0, abs=1e-12)
    config = config_of(f"pretrain/simclr/resnet50_in1k_{epochs}ep")
    assert config.optimizer["weight_decay"] == 1e-6
    assert config.param_groups.exclude_from_lars == "norm_and_bias"


def test_seer_256gf():
    """arXiv 2103.01988, section 3.3, and VISSL's MODEL_DOCUMENTATION.md."""
    lr, _, total = lr_of("pretrain/seer/regnety_256gf", 10**9)
    assert total == 122_070
    assert (lr(0), lr(8000), lr(total)) == pytest.approx((0.15, 9.6, 0.0096))
    config = config_of("pretrain/seer/regnety_256gf")
    assert (config.loss["epsilon"], config.loss["sinkhorn_iterations"]) == (0.05, 10)
    assert (prototypes(config), config.optimizer["weight_decay"]) == (16000, 1e-5)
    assert [(g.count, g.size) for g in config.data.views] == [(2, 224), (4, 96)]


def test_seer_10b():
    """arXiv 2202.08360 and VISSL's regnet10B.yaml."""
    lr, _, total = lr_of("pretrain/seer/regnety_10b", 10**9)
    assert total == 126_008
    assert (lr(0), lr(5500), lr(total)) == pytest.approx((0.15, 9.3, 0.0093), rel=1e-4)
    config = config_of("pretrain/seer/regnety_10b")
    assert (config.loss["epsilon"], config.loss["sinkhorn_iterations"]) == (0.03, 10)
    assert [(g.count, g.size) for g in config.data.views] == [(2, 160), (4, 96)]


def planned(command: str) -> dict[tuple[str, str], float]:
    """GiB of all parts by strategy and checkpointing: what the planner printed in docs/plan.md."""
    text = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    rows = [line.split() for line in text.split(f"`vissl-lite plan {command}`")[1].splitlines()]
    table = itertools.takewhile(lambda row: row[:1] != ["Fastest"], rows)
    return {(row[0], row[1]): float(row[9]) for row in table if len(row) == 14 and row[1] in MODES}


def test_memory_on_a_card_is_what_the_planner_printed():
    found = planned("config=pretrain/seer/regnety_256gf world_size=512 gpu=v100-32gb")
    cells = [(s, mode) for s in ("reference_ddp", "zero3") for mode in ("none", "block")]
    copy, copy_block, zero3, zero3_block = (round(found[cell]) for cell in cells)
    assert (
        f"{copy} as one copy per GPU (reference_ddp), {copy_block} with checkpointing,"
        f" {zero3} with zero3, {zero3_block} with both"
    ) in card("pretrain/seer/regnety_256gf")["cost"]
    on_8, on_512 = (
        planned(f"config=pretrain/seer/regnety_10b world_size={n} gpu=h100-80gb batch=16")
        for n in (8, 512)
    )
    takes = [round(found["zero3", "block"]) for found in (on_8, on_512)]
    assert (
        f"zero3 with checkpointing takes {takes[0]} GiB in all on 8 GPUs, {takes[1]} on 512"
        in card("pretrain/seer/regnety_10b")["cost"]
    )


@pytest.mark.parametrize("recipe", [f"regnety_{size}" for size in ("32gf", "256gf", "10b")])
def test_seer_tells_its_precision(recipe):
    """Apex O1, and PyTorch's AMP in fp16: VISSL's MODEL_DOCUMENTATION.md; `auto` may be bf16."""
    assert config_of(f"pretrain/seer/{recipe}").precision == "auto"
    assert "theirs was fp16" in card(f"pretrain/seer/{recipe}")["differs"]


@pytest.mark.parametrize("width", [4, 8, 16, 32, 48])
def test_hashtags_on_resnext(width):
    """arXiv 1805.00932, section 2.3."""
    recipe = f"pretrain/hashtag/resnext101_32x{width}d"
    lr, _, total = lr_of(recipe, 940_000_000)
    warm = round(0.05 * total)
    assert (lr(0), lr(warm)) == pytest.approx((0.1, 3.15), rel=1e-4)
    assert lr(total - 1) == pytest.approx(3.15 / 2**10, rel=1e-4)
    config = config_of(recipe)
    assert (config.trunk["depth"], config.trunk["groups"]) == (101, 32)
    assert config.trunk["width_per_group"] == width
    assert (config.data.sampler.balance, config.data.sampler.smallest) == ("sqrt", 1)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_swag(size):
    """arXiv 2201.08371: tags resampled by the square root, images of frequent ones left out."""
    config = config_of(f"pretrain/hashtag/regnety_{size}gf")
    assert config.data.sampler.balance == "sqrt"
    assert config.data.sampler.smallest < 1
    assert config.train.batch_size == 8192


@pytest.mark.parametrize("size", [16, 32, 128])
def test_swag_fine_tuned(size):
    """At the authors' resolution, the trunk of the pre-training."""
    config = config_of(f"finetune/hashtag/regnety_{size}gf_in1k")
    assert config.trunk == config_of(f"pretrain/hashtag/regnety_{size}gf").trunk
    assert (config.labelled.size, config.data.views[0].size) == (384, 384)
    assert config.heads == ["linear"]


@pytest.mark.parametrize(("share", "lr", "classifier"), [("1pct", 0.02, 5), ("10pct", 0.01, 0.2)])
def test_swav_on_a_share_of_the_labels(share, lr, classifier):
    """README.md and eval_semisup.py of the authors."""
    recipe = f"finetune/swav/resnet50_in1k_{share}"
    config = config_of(recipe)
    scale = config.param_groups.overrides["heads.0.*"]["lr_scale"]
    images = round(IN1K * config.data.source["share"])
    rate, per_epoch, total = lr_of(recipe, images)
    assert total == 20 * per_epoch
    assert (rate(0), scale * rate(0)) == pytest.approx((lr, classifier))
    assert rate(12 * per_epoch) == pytest.approx(0.2 * lr)
    assert rate(16 * per_epoch) == pytest.approx(0.04 * lr)
    assert (config.train.batch_size, config.optimizer["weight_decay"]) == (256, 0)
    assert config.data.std == (0.228, 0.224, 0.225)


def test_seer_fine_tuned():
    """arXiv 2103.01988, and VISSL's benchmark/semi_supervised/imagenet1k."""
    rate, per_epoch, total = lr_of("finetune/seer/regnety_256gf_in1k", IN1K)
    assert (total, rate(0), rate(total - 1)) == (35 * per_epoch, 0.0125, pytest.approx(0.00125))
    config = config_of("finetune/seer/regnety_256gf_in1k")
    assert (config.optimizer["weight_decay"], config.labelled.size) == (1e-4, 384)
    rate, per_epoch, total = lr_of("finetune/seer/regnety_256gf_in1k_1pct", IN1K // 100)
    assert (total, rate(0)) == (70 * per_epoch, pytest.approx(0.05 / 2))
    assert rate(30 * per_epoch) == pytest.approx(0.005 / 2)


def test_views_of_seer_fine_tuned():
    """VISSL's fulltune/imagenet1k/transforms/tricks_384_swav.yaml."""
    config = config_of("finetune/seer/regnety_256gf_in1k")
    crop, flip, *colours = config.data.views[0].transforms
    assert (crop["interpolation"], flip["name"]) == ("bicubic", "random_horizontal_flip")
    assert colours == config_of("pretrain/seer/regnety_256gf").data.views[0].transforms[2:]
    resize = config.labelled.transforms[0]
    assert (resize["crop_fraction"], resize["interpolation"]) == (1.0, "bicubic")


@pytest.mark.parametrize(("size", "batch"), [("128gf", 256), ("256gf", 128)])
@pytest.mark.parametrize("share", ["1pct", "10pct"])
def test_seer_on_a_share_of_the_labels(size, batch, share):
    """VISSL's semi_supervised/imagenet1k/models/regnet{128Gf,256Gf}_swav_head.yaml."""
    config = config_of(f"finetune/seer/regnety_{size}_in1k_{share}")
    assert config.heads == [{"name": "hidden_layer", "out_dim": 8192}, "linear"]
    assert (config.train.batch_size, config.parallel.sync_bn) == (batch, 8)
    assert config.optimizer["lr"] == 0.05
    projection = config_of(f"pretrain/seer/regnety_{size}").heads[0]
    assert projection["hidden"][0] == config.heads[0]["out_dim"]


@pytest.mark.parametrize("recipe", [r for r in OURS if r.startswith("finetune/")])
def test_starting_weights(recipe):
    """Published ones, by the names of docs/weights.md; of hashtags there are none untouched."""
    init = OmegaConf.load(config_dir() / "config" / f"{recipe}.yaml").init
    assert init == "RUN" if "hashtag" in recipe else init in PUBLISHED


# ------------------------------------------------------------------ one step of each

LENGTHS = ["100ep", "400ep", "800ep", "1pct", "10pct"]  # the same steps as 200ep, as all labels
SIZES = r"finetune/(seer/regnety_(64|128|256)gf|hashtag/regnety)"  # the same steps as SEER's 32gf
LIKE_OTHERS = [r for r in TRAINING if r.rpartition("_")[2] in LENGTHS or re.match(SIZES, r)]
STEPPED = [r for r in TRAINING if r.startswith("supervised/") or r not in LIKE_OTHERS]


@pytest.mark.parametrize("recipe", STEPPED)
def test_one_step(recipe, capsys, monkeypatch, tmp_path):
    """Builds and steps without its images; on the meta device from 37 million parameters on."""
    monkeypatch.setattr("vissl_lite.engine.dry_run.free_memory", lambda device: 10**9)
    monkeypatch.chdir(tmp_path)  # where the defaults of $IMAGENET and the others do not exist
    numerics = ["++precision=fp32", "++memory.memory_format=contiguous", "++device=cpu"]
    dry_run(config_of(recipe, *numerics))
    printed = capsys.readouterr().out
    assert re.search(r"parameters +[0-9.,]+ M", printed)
    made_up = re.search(r"(?m)^images +synthetic", printed)
    assert bool(made_up) == ("$" in card(recipe)["needs"])
