"""Our names in a file that any program reads, with the trunk's config in its header."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor

import vissl_lite
from vissl_lite.export.subject import Features
from vissl_lite.export.target import Target


class SafeTensors(Target):
    """For `vissl_lite.load` and `init=`, and for programs that know our names."""

    ending = ".safetensors"
    program = "vissl_lite"

    def write(self, file: Path) -> None:
        state = {name: t.contiguous() for name, t in self.subject.trunk.state_dict().items()}
        safetensors.torch.save_file(state, file, self.subject.card())

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor:
        return Features(vissl_lite.load(file))(x_NCHW)

    def usage(self, file: Path) -> str:
        return f"import vissl_lite\ntrunk = vissl_lite.load({str(file)!r})"
