import math

import pytest
import torch
from engine.some_digits import FP32, SomeDigits, small_model
from evaluations.pixels import PixelBench, digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from vissl_lite import EVALUATIONS, ConfigError
from vissl_lite.config import Labelled
from vissl_lite.engine.bench import Bench
from vissl_lite.evaluations._accuracy import NOWHERE, place
from vissl_lite.evaluations._probes import SGD, Linears, Probes, hits, standardiser
from vissl_lite.evaluations._split import split
from vissl_lite.evaluations.linear import LinearProbe
from vissl_lite.sources.digits import Digits

CPU = torch.device("cpu")


def random_data(images=50, dim=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, dim, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (images,), generator=generator)


def test_gradients_equal_autograd():
    x, label = random_data()
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    got = Linears(weight, bias).gradients(x, label)
    for p in range(3):
        w, b = weight[:, p].clone().requires_grad_(), bias[p].clone().requires_grad_()
        F.cross_entropy(x @ w + b, label).backward()
        torch.testing.assert_close(got.weight_DPC[:, p], w.grad, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(got.bias_PC[p], b.grad, rtol=1e-12, atol=1e-14)


def alone(epochs, label, rows, classes, lr, weight_decay, sgd):
    """One probe, by nn.Linear and torch.optim.SGD, on the features of each epoch."""
    linear = nn.Linear(epochs[0].shape[1], classes, dtype=torch.float64)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    groups = [
        {"params": [linear.weight], "weight_decay": weight_decay},
        {"params": [linear.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=sgd.momentum)
    steps = sgd.epochs * math.ceil(len(rows) / sgd.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(sgd.seed)
    for x in epochs:
        order = rows[torch.randperm(len(rows), generator=generator)]
        for start in range(0, len(rows), sgd.batch_size):
            batch = order[start : start + sgd.batch_size]
            optimizer.zero_grad()
            F.cross_entropy(linear(x[batch]), label[batch]).backward()
            optimizer.step()
            schedule.step()
    return linear


def train_probes(data, rows, classes, lr, weight_decay, sgd):
    """On the same features in every epoch."""
    dim = data[0].shape[1]
    probes = Probes(rows, lambda x: x, dim, classes, lr, weight_decay, sgd)
    for _ in range(sgd.epochs):
        probes.epoch(*data)
    return probes.linears


def test_probes_together_equal_each_alone():
    x, label = random_data()
    rows, sgd = torch.arange(5, 50), SGD(epochs=3, batch_size=16, momentum=0.9, seed=3)
    lr = torch.tensor([0.1, 0.5, 0.02], dtype=torch.float64)
    decay = torch.tensor([0.0, 1e-2, 0.3], dtype=torch.float64)
    together = train_probes((x, label), rows, 4, lr, decay, sgd)
    for p in range(3):
        linear = alone([x] * 3, label, rows, 4, lr[p].item(), decay[p].item(), sgd)
        torch.testing.assert_close(
            together.weight_DPC[:, p], linear.weight.detach().T, rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(together.bias_PC[p], linear.bias.detach(), rtol=1e-9, atol=1e-12)


def test_a_probe_that_diverges_disturbs_no_other():
    x, label = random_data()
    sgd, rows = SGD(epochs=5, batch_size=16, momentum=0.9, seed=0), torch.arange(50)
    decay = torch.full((2,), 1e3, dtype=torch.float64)
    lr = torch.tensor([1e-4, 1e300], dtype=torch.float64)
    both = train_probes((x, label), rows, 4, lr, decay, sgd)
    first = train_probes((x, label), rows, 4, lr[:1], decay[:1], sgd)
    torch.testing.assert_close(both.weight_DPC[:, 0], first.weight_DPC[:, 0], rtol=1e-12, atol=0)
    assert both.weight_DPC[:, 1].isnan().any()
    right = hits(both, (x, label), rows, lambda rows: rows)
    assert right[1].tolist() == [0, 0]  # and is not taken for the best
    assert right[0, 0] > 0


def test_place_breaks_ties_by_class_and_never_counts_nan():
    nan = float("nan")
    score = torch.tensor([[3.0, 1.0, 3.0], [3.0, 1.0, 3.0], [nan, 1.0, 0.0], [nan, 2.0, 1.0]])
    assert place(score, torch.tensor([0, 2, 0, 1])).tolist() == [0, 1, NOWHERE, 0]


def test_hits_equal_a_count_by_hand():
    x, label = random_data(classes=7)
    generator = torch.Generator().manual_seed(1)
    probes = Linears(
        torch.randn(6, 2, 7, generator=generator, dtype=torch.float64),
        torch.randn(2, 7, generator=generator, dtype=torch.float64),
    )
    rows = torch.arange(3, 47)
    got = hits(probes, (x, label), rows, lambda rows: rows)
    for p in range(2):
        logits = x[rows] @ probes.weight_DPC[:, p] + probes.bias_PC[p]
        for i, k in enumerate((1, 5)):
            top = logits.topk(k).indices
            assert got[p, i] == sum(t in row for t, row in zip(label[rows], top))


def test_split_is_a_partition_by_seed():
    fit, held_out = split(101, 0.1, 0, "here")
    assert sorted(fit.tolist() + held_out.tolist()) == list(range(101))
    assert len(held_out) == 10
    assert held_out.tolist() == split(101, 0.1, 0, "here")[1].tolist()
    assert held_out.tolist() != split(101, 0.1, 1, "here")[1].tolist()


@pytest.mark.parametrize("held_out", [0.0, 1.0, 1e-4])
def test_a_side_without_images_is_refused(held_out):
    with pytest.raises(ConfigError, match=r"evaluations\.linear\.held_out: .* both sides need"):
        LinearProbe(held_out=held_out).evaluate(PixelBench())


def test_standardiser_equals_sklearn():
    x, _ = digits("train")
    scaled = standardiser(x, torch.arange(500), CPU)(x[500:])
    scaler = StandardScaler().fit(x[:500].double())
    varies = torch.from_numpy(scaler.var_) > 0.01
    expected = torch.from_numpy(scaler.transform(x[500:].double())).float()
    torch.testing.assert_close(scaled[:, varies], expected[:, varies], rtol=1e-3, atol=1e-4)
    assert scaled.isfinite().all()  # some pixels are always 0


def test_accuracy_of_logistic_regression_on_real_digits():
    metrics = LinearProbe().evaluate(PixelBench())
    (x, label), (test, truth) = digits("train"), digits("test")
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(max_iter=1000).fit(scaler.transform(x), label)
    expected = reference.score(scaler.transform(test), truth)
    assert expected > 0.95
    assert abs(metrics["top1"] - expected) < 0.01
    assert metrics["top5"] > 0.99


def test_the_best_probe_is_chosen_among_layers_and_rates():
    bench = PixelBench()
    probe = LinearProbe(("noise", "pixels"), (1e-6, 0.03), (0.0,), epochs=30)
    metrics = probe.evaluate(bench)
    names = [f"top1_{x}_lr{lr}_wd0" for x in ("noise", "pixels") for lr in ("1e-06", "0.03")]
    assert list(metrics) == ["top1", "top5", *names]
    assert metrics["top1"] == metrics["top1_pixels_lr0.03_wd0"] > 0.92
    assert metrics["top1_noise_lr0.03_wd0"] < 0.3
    assert bench.notes[0].startswith(
        "linear: pixels_lr0.03_wd0 is best on the held-out images: 0.9"
    )


def evaluate_on_rank(rank, world, rates):
    return LinearProbe(learning_rates=rates, epochs=3).evaluate(PixelBench())


@pytest.mark.parametrize("rates", [(0.01, 0.03, 0.1), (0.03,)])
def test_the_same_on_several_processes(rates, ranks):
    alone = evaluate_on_rank(0, 1, rates)
    for metrics in ranks(3)(evaluate_on_rank, rates):
        assert metrics == pytest.approx(alone, abs=0.004)  # one image: sums in another order


FLIPS = [{"name": "random_affine", "degrees": 15}, "random_horizontal_flip"]


def small_bench(train_images=60):
    """A network on digits: layers res4 and res5, and images that can be augmented."""
    labelled = Labelled(size=8, transforms=[], batch_size=16)
    sources = {"train": SomeDigits(train_images, unlabelled=(3,)), "test": Digits("test")}
    bench = Bench(small_model(), labelled, sources, device=CPU, numerics=FP32)
    bench.asked = []
    seen = bench.seen
    bench.seen = lambda *args, **kw: (
        bench.asked.append((args[0], kw.get("epoch"))) or seen(*args, **kw)
    )
    return bench


def test_every_epoch_sees_the_train_images_augmented_anew():
    """As if each epoch's features were given to torch.optim.SGD, one layer after the other."""
    layers, sgd = ["res4", "res5"], SGD(epochs=3, batch_size=16, momentum=0.9, seed=0)
    bench, rates = small_bench(), {"learning_rates": (0.1, 0.02), "weight_decays": (1e-3,)}
    metrics = LinearProbe(tuple(layers), **rates, epochs=3, batch_size=16, augment=FLIPS).evaluate(
        bench
    )
    passes = [("train", None), ("test", None), ("train", 0), ("train", 1), ("train", 2)]
    assert bench.asked == passes  # one per epoch, for both layers
    clean, test = bench.features("train", layers), bench.features("test", layers)
    changed = Labelled(size=8, transforms=FLIPS, batch_size=16)
    epochs = [bench.seen("train", changed, layers, epoch=e) for e in range(3)]
    fit, _ = split(59, 0.1, 0, "here")
    for layer in layers:
        scale = standardiser(clean.features[layer], fit, CPU)
        x_of = [scale(e.features[layer]).double() for e in epochs]
        for lr in rates["learning_rates"]:
            linear = alone(x_of, clean.label_N, fit, 10, lr, 1e-3, sgd)
            found = linear(scale(test.features[layer]).double()).argmax(1)
            expected = (found == test.label_N).double().mean().item()
            assert metrics[f"top1_{layer}_lr{lr}_wd0.001"] == pytest.approx(expected, abs=0.003)


def augmented_on_rank(rank, world):
    layers, rates = ("res4", "res5"), (0.1, 0.02, 0.01)
    return LinearProbe(layers, rates, epochs=2, augment=FLIPS).evaluate(small_bench())


def test_augmented_on_several_processes(ranks):
    alone = augmented_on_rank(0, 1)
    for metrics in ranks(3)(augmented_on_rank):
        assert metrics == pytest.approx(alone, abs=0.004)  # one image


def test_a_mistake_in_the_augmentation():
    with pytest.raises(ConfigError, match=r"linear\.augment\[0\]: unknown transform 'flip'"):
        EVALUATIONS.build({"augment": ["flip"]}, "evaluations.linear")


def test_deterministic_by_seed():
    probes = [LinearProbe(seed=seed, epochs=2) for seed in (0, 0, 1)]
    first, again, other = (probe.evaluate(PixelBench()) for probe in probes)
    assert first == again != other


def test_builds_from_a_config():
    built = EVALUATIONS.build({"layers": ["res4"], "learning_rates": [1]}, "evaluations.linear")
    assert built.layers == ("res4",)
    assert built.grid == [(1.0, 1e-6), (1.0, 5e-4)]


def test_no_epochs_are_an_error():
    with pytest.raises(ConfigError, match=r"linear: epochs and batch_size need to be 1 or more"):
        LinearProbe(epochs=0)


@pytest.mark.parametrize("wrong", [{"learning_rates": (0.1, 0)}, {"weight_decays": (-1e-4,)}])
def test_rates_and_decays_out_of_range(wrong):
    with pytest.raises(ConfigError, match=r"learning_rates need to be above 0, weight_decays 0 or"):
        LinearProbe(**wrong)


@pytest.mark.parametrize("empty", ["learning_rates", "weight_decays"])
def test_nothing_to_choose_from_is_an_error(empty):
    with pytest.raises(ConfigError, match=r"learning_rates and weight_decays need a value each"):
        LinearProbe(**{empty: ()})
