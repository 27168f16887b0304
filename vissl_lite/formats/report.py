"""What became of each tensor of a file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from vissl_lite.formats.format import Tensors


@dataclass
class Report:
    """Printable; every tensor of the file is in `loaded`, `wrong_shape`, `unknown` or `ignored`.

    Attributes:
        origin: the file or folder.
        format: whose format and names they are.
        loaded, missing, wrong_shape: names in the trunk.
        renamed: name in the file -> name in the trunk, where they differ.
        ignored: reason -> names in the file.
        unknown: names that the trunk does not have.
        started: counters of batches that the file lacks and that are 0 now.
    """

    origin: str
    format: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, given: Tensors, wanted: Tensors) -> None:
        """Sorts the tensors `given` by whether the trunk's state dict `wanted` takes them."""
        self.unknown = [name for name in given if name not in wanted]
        self.missing = [name for name in wanted if name not in given]
        shared = [name for name in wanted if name in given]
        self.loaded = [name for name in shared if given[name].shape == wanted[name].shape]
        self.wrong_shape = [name for name in shared if given[name].shape != wanted[name].shape]

    def ignored_in_words(self) -> str:
        """`ignored: 9 head, 320 momentum encoder`, or ""."""
        parts = [f"{len(names)} {reason}" for reason, names in self.ignored.items()]
        return f"ignored: {', '.join(parts)}" if parts else ""

    def __str__(self) -> str:
        renamed = [f"{name} -> {ours}" for name, ours in self.renamed.items()]
        rows = {
            "loaded": self.loaded,
            "renamed": renamed,
            **{f"ignored, {reason}": names for reason, names in self.ignored.items()},
            "counters set to 0": self.started,
            "missing": self.missing,
            "wrong shape": self.wrong_shape,
            "unknown": self.unknown,
        }
        lines = [_row(title, names) for title, names in rows.items()]
        return "\n".join([f"{self.origin}: {self.format}", *lines])


def _row(title: str, names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:2]) + (", ..." if len(names) > 2 else "")
    return f"  {title:<28} {len(names):>5}  {shown}".rstrip()
