"""Every evaluation that CIFAR-10's labels allow, on several networks, by one `benchmark_suite`.

Then kNN, linear probes, logistic regression and low-shot SVMs once more by scikit-learn, on the
same features. Linear probes are compared with the optimum of what SGD minimises, so these are
trained until they are there (LINEAR), which those of the table, with 100 epochs, are not.

    CIFAR10=... python benchmarks/suite_cifar10.py OUT untrained=untrained:RUN simclr=RUN ... \\
        [--train 1000] [--test 200] [key=value ...]

--train, --test: images per class; without them all. Fails if a number differs by over 0.1 point.

Shape suffixes: M test images, N train images, D features, R draws, K values of C.
"""

import argparse
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _cifar import cifar_folder
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from vissl_lite import EVALUATIONS
from vissl_lite.engine.bench import Bench
from vissl_lite.engine.evaluate import load_model
from vissl_lite.evaluations._probes import EPS
from vissl_lite.evaluations._split import split
from vissl_lite.evaluations.low_shot import first_of_each_class, shuffled
from vissl_lite.plugins import load_entries
from vissl_lite.suite.command import main as benchmark_suite
from vissl_lite.suite.results import Store
from vissl_lite.suite.run import Job
from vissl_lite.suite.subjects import Named, is_weights, subjects_of

warnings.simplefilter("ignore", ConvergenceWarning)  # the evaluations have said so
POINT = 0.01
LINEAR = {  # brings 9,000 images of 512 features within 1e-5 of the smallest objective
    "epochs": 1000,
    "batch_size": 1024,
    "learning_rates": [0.3],
    "weight_decays": [0.05],
}
BRINGS_NO_LABELS = ("detection", "segmentation")  # need boxes and masks, of images of their own


def main() -> None:
    options = parsed()
    load_entries()
    images = {
        part: subset(cifar_folder() / part, options.out / "images" / part, per_class)
        for part, per_class in (("train", options.train), ("test", options.test))
    }
    names = [name for name in EVALUATIONS.names() if name not in BRINGS_NO_LABELS]
    words = [
        f"evaluations=[{','.join(names)}]",
        *(f"labelled.{part}={{name: image_folder, path: {path}}}" for part, path in images.items()),
        *options.settings,
    ]
    code = benchmark_suite([*options.weights, *words, "--out", str(options.out)])
    sys.exit(code or max(compare(weights, words, options.out) for weights in options.weights))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("words", nargs="+")
    parser.add_argument("--train", type=int)
    parser.add_argument("--test", type=int)
    options = parser.parse_intermixed_args()
    options.out = options.out.absolute()
    options.weights = [word for word in options.words if is_weights(word)]
    options.settings = [word for word in options.words if not is_weights(word)]
    return options


def subset(source: Path, target: Path, per_class: int | None) -> Path:
    """A folder of links to the first images of each class; the folder itself without a number."""
    if per_class is None:
        return source
    shutil.rmtree(target, ignore_errors=True)
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:per_class]:
            (target / folder.name / file.name).symlink_to(file.resolve())
    return target


def compare(weights: str, words: Sequence[str], out: Path) -> int:
    """Prints our numbers beside scikit-learn's; 1 if they differ too much."""
    subject = subjects_of(Named.parse(weights))[-1]
    job = Job.of(subject, words, Store(out))
    evaluations = Job(subject, job.config, job.settings, {}).evaluations(out)
    assert evaluations is not None
    model, numerics, _ = load_model(job.config, 10, evaluations.device)
    bench = evaluations.bench(model, numerics, lambda text: None)
    metrics = {name: result.metrics for name, result in job.found.items()}
    entries = {**evaluations.entries, "linear": EVALUATIONS.build(LINEAR, "evaluations.linear")}
    metrics["linear"] = entries["linear"].evaluate(bench)
    worst = 0.0
    checks = {"knn": knn, "linear": linear, "logistic": logistic, "low_shot": low_shot}
    for name, theirs in checks.items():
        for metric, value in theirs(entries[name], bench).items():
            difference = (metrics[name][metric] - value) / POINT
            worst = max(worst, abs(difference))
            print(
                f"{subject}  {name} {metric}: ours {metrics[name][metric]:.4f}, scikit-learn"
                f" {value:.4f}, {difference:+.3f} points"
            )
    return int(round(worst, 6) > 0.1)


def features(bench: Bench) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_ND, label_N, x_MD, label_M in float64."""
    train, test = bench.features("train"), bench.features("test")
    layer = bench.model.layer
    return (
        train.features[layer].double().numpy(),
        train.label_N.numpy(),
        test.features[layer].double().numpy(),
        test.label_N.numpy(),
    )


def knn(entry, bench: Bench) -> dict[str, float]:
    """Votes exp(cosine / T) of the k nearest."""
    x_ND, label_N, x_MD, label_M = features(bench)

    def weigh(temperature: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda distance_Mk: np.exp((1 - distance_Mk) / temperature)

    return {
        f"top1_k{k}_T{t:g}": KNeighborsClassifier(k, weights=weigh(t), metric="cosine")
        .fit(x_ND, label_N)
        .score(x_MD, label_M)
        for k in entry.k
        for t in entry.temperatures
    }


def linear(entry, bench: Bench) -> dict[str, float]:
    """The optimum for each weight decay, whatever the learning rate; on the images trained on.

    mean loss + decay / 2 |W|^2  =  decay (1/2 |W|^2 + C sum of losses),  C = 1 / (decay N)
    """
    x_ND, label_N, x_MD, label_M = features(bench)
    fit, _ = split(len(label_N), entry.held_out, entry.seed, "held_out")
    x_ND, label_N = x_ND[fit.numpy()], label_N[fit.numpy()]
    mean_D, scale_D = x_ND.mean(0), np.sqrt(x_ND.var(0) + EPS)
    x_ND, x_MD, found = (x_ND - mean_D) / scale_D, (x_MD - mean_D) / scale_D, {}
    for decay in dict.fromkeys(decay for _, decay in entry.grid):
        best = LogisticRegression(C=1 / (decay * len(fit)), tol=1e-6, max_iter=10_000)
        top1 = best.fit(x_ND, label_N).score(x_MD, label_M)
        names = [f"lr{lr:g}_wd{wd:g}" for lr, wd in entry.grid if wd == decay]
        found |= {f"top1_{bench.model.layer}_{name}": float(top1) for name in names}
    return found


def logistic(entry, bench: Bench) -> dict[str, float]:
    """C chosen by scikit-learn's own search on the same held-out images."""
    x_ND, label_N, x_MD, label_M = features(bench)
    _, held = split(len(label_N), entry.held_out, entry.seed, "held_out")
    fold_N = np.full(len(label_N), -1)
    fold_N[held.numpy()] = 0
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=entry.max_iter))
    grid = {"logisticregression__C": list(entry.C)}
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold_N)).fit(x_ND, label_N)
    return {"top1": float(search.score(x_MD, label_M))}


def low_shot(entry, bench: Bench) -> dict[str, float]:
    """The SVMs of the fewest and the most shots, on the same draws."""
    x_ND, label_N, x_MD, label_M = features(bench)
    labels = bench.features("train").label_N
    free, held = split(len(labels), entry.held_out, entry.seed, "held_out")
    orders = [shuffled(free, entry.seed, r) for r in range(entry.draws)]
    found = {}
    for k in (min(entry.shots), max(entry.shots)):
        score_RK2 = np.zeros((entry.draws, len(entry.C), 2))
        for r, order in enumerate(orders):
            rows = first_of_each_class(labels, order, k).numpy()
            for c, C in enumerate(entry.C):
                svm = LinearSVC(C=C, class_weight=dict.fromkeys(range(10), 2), dual=True)
                svm.set_params(max_iter=entry.max_iter, random_state=entry.seed)
                model = make_pipeline(Normalizer(), svm).fit(x_ND[rows], label_N[rows])
                chosen = model.score(x_ND[held.numpy()], label_N[held.numpy()])
                score_RK2[r, c] = chosen, model.score(x_MD, label_M)
        best = score_RK2[..., 0].mean(0).argmax()
        found[f"top1_svm_k{k}"] = float(score_RK2[:, best, 1].mean())
    return found


if __name__ == "__main__":
    main()
