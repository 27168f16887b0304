"""What a target is, and what those have in common that are networks of other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from vissl_lite.engine.state import differences
from vissl_lite.errors import ConfigError
from vissl_lite.export.subject import Subject
from vissl_lite.formats.recognise import recognise


class Target:
    """A kind of file for another program.

    Attributes:
        ending: of the name that a file or folder gets by itself; ".pth" at its end is that of any
            name.
        program: which loads the file; for messages.

    Raises:
        ConfigError: the other program has no such network, or is not installed.
    """

    ending: str
    program: str

    def __init__(self, subject: Subject):
        self.subject = subject

    def write(self, file: Path) -> None:
        raise NotImplementedError

    def features(self, file: Path, x_NCHW: Tensor) -> Tensor | None:
        """[N, F], computed from the file by the other program; None where that is not installed."""
        raise NotImplementedError

    def usage(self, file: Path) -> str:
        """Lines of Python that load the file."""
        raise NotImplementedError


@dataclass(frozen=True)
class Call:
    """A call that can be printed and made: `Call("timm.create_model", ("resnet50",))`."""

    function: str
    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        words = [repr(value) for value in self.positional]
        words += [f"{key}={value!r}" for key, value in self.keywords.items()]
        return f"{self.function}({', '.join(words)})"

    def __call__(self) -> Any:
        module, _, name = self.function.rpartition(".")
        values = [value() if isinstance(value, Call) else value for value in self.positional]
        return getattr(import_module(module), name)(*values, **self.keywords)


def arrange(subject: Subject, call: Call, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trunk's tensors under the names of another library's network.

    Args:
        call: what makes the network, for the message.
        theirs: the network's own state dict.

    Raises:
        ConfigError: the network has other tensors, or tensors of other shapes.
    """
    found = recognise(theirs, "export")
    renamed: dict[str, str] = found.report.renamed if found else {}
    if subject.config["name"] in ("timm", "torchvision"):  # ours only by their attribute `model`
        renamed = {name: f"model.{name}" for name in theirs}
    names = {renamed.get(name, name): name for name in theirs}
    ours: dict[str, Tensor] = subject.trunk.state_dict()
    state = {names.get(name, name): tensor for name, tensor in ours.items()}
    if wrong := differences(state, dict(theirs)):
        raise ConfigError(f"export: {call} is another network than this trunk: {wrong}")
    return state


def refuse(library: str, reason: str) -> ConfigError:
    return ConfigError(
        f"export: {library} has no network like this trunk: {reason};"
        " --to safetensors and --to onnx take any trunk"
    )
