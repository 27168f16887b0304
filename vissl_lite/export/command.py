"""`vissl-lite export WEIGHTS --to TARGET`: a trunk for other programs, checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vissl_lite.errors import ConfigError, did_you_mean
from vissl_lite.export.huggingface import HuggingFace
from vissl_lite.export.onnx import Onnx
from vissl_lite.export.safetensors import SafeTensors
from vissl_lite.export.subject import Features, Subject, read_subject
from vissl_lite.export.target import Target
from vissl_lite.export.timm import Timm
from vissl_lite.export.torchvision import TorchVision
from vissl_lite.words import Parser, results_folder, whole

TARGETS: dict[str, type[Target]] = {
    "safetensors": SafeTensors,
    "torchvision": TorchVision,
    "timm": Timm,
    "onnx": Onnx,
    "huggingface": HuggingFace,
}
USAGE = """usage: vissl-lite export WEIGHTS --to TARGET [--out FILE] [--size S]

Writes a trunk, without heads, for another program; loads the file there; and prints the largest
difference between its features and ours on two images of noise.

WEIGHTS     a run, a checkpoint, a file, an address or a name: what vissl_lite.load takes
--to        safetensors   our names, for vissl_lite.load and init=
            torchvision   a state dict that torchvision's network takes strictly
            timm          weights that timm.create_model takes strictly
            onnx          a graph: images [N, C, S, S] -> features [N, F]
            huggingface   a folder that transformers opens, with a model card; where only timm has
                          such a network, one that timm opens
--out FILE  or folder; default: a name of its own in this folder; nothing is overwritten
--size S    side of the images; default: what the trunk was made for, or else 224
"""
TOLERANCE = 1e-5  # of the largest feature, or of 1 if all are smaller


def main(words: Sequence[str]) -> int:
    """The command; returns its exit code, 1 where the other program computes something else.

    Raises:
        ConfigError: a mistake in the words, or a trunk that the target cannot express.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    parser = Parser("export")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("--to", required=True)
    parser.add_argument("--out")
    parser.add_argument("--size", type=whole(1, 65_535))
    options = parser.parse_intermixed_args(words)
    if options.to not in TARGETS:
        close = did_you_mean(options.to, TARGETS) or ";"
        raise ConfigError(
            f"export: unknown target {options.to!r}{close} there are: {', '.join(TARGETS)}"
        )
    out = _out(options.weights, TARGETS[options.to].ending, options.out)
    subject = read_subject(options.weights, options.size)
    return export(TARGETS[options.to](subject), subject, out)


def _out(weights: str, ending: str, given: str | None) -> Path:
    out = Path(given or Path(weights).resolve().name.partition(".")[0] + ending).expanduser()
    suffix = Path("any" + ending).suffix
    if suffix and out.suffix != suffix:
        raise ConfigError(f"export: the name of this target ends in {suffix}, --out is {out}")
    if out.exists():
        raise ConfigError(f"export: {out} exists already; name another file with --out")
    results_folder(out.absolute().parent, "export --out")
    return out


@torch.no_grad()
def export(target: Target, subject: Subject, out: Path) -> int:
    """Writes and checks; `out` appears when both are done. Returns the exit code."""
    with TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        file = Path(folder) / out.name
        target.write(file)
        check, same = parity(target, subject, file)
        if not same:
            print(f"export: {check}, more than {TOLERANCE:g}; nothing written", file=sys.stderr)
            return 1
        size = sum(f.stat().st_size for f in (file, *file.rglob("*")) if f.is_file())
        for part in Path(folder).iterdir():  # beyond 2 GiB an ONNX file has a second
            part.rename(out.parent / part.name)
    print(f"{out}: {size / 1e6:,.1f} MB, {check}")
    print(_pixels(subject), target.usage(out), sep="\n")
    return 0


def parity(target: Target, subject: Subject, file: Path) -> tuple[str, bool]:
    """The largest difference of a feature on a probe batch in words, and whether it is small.

    max |theirs - ours| <= 1e-5 max(1, max |ours|): what float32 leaves of sums in another order.
    """
    x_NCHW = subject.probe()
    theirs_NF = target.features(file, x_NCHW)
    if theirs_NF is None:
        return f"not checked, since {target.program} is not installed", True
    ours_NF = Features(subject.trunk)(x_NCHW)
    peak, difference = ours_NF.abs().max().item(), (theirs_NF - ours_NF).abs().max().item()
    words = (
        f"largest difference {difference:.1e} of features up to {peak:.3g}"
        f" ({len(x_NCHW)} images of {subject.side} pixels)"
    )
    return words, difference <= TOLERANCE * max(1.0, peak)


def _pixels(subject: Subject) -> str:
    mean, std = subject.trunk.mean, subject.trunk.std
    if mean is None:
        return "# pixels in [0, 1], normalised as in training: the file does not say how"
    return f"# pixels in [0, 1], normalised by mean {mean} and std {std}"
