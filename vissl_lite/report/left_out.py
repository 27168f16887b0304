"""What cannot be shown is listed with its reason; the rest of a page is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from vissl_lite.errors import ConfigError

T = TypeVar("T")


def or_why(name: str, make: Callable[[], T], missing: list[str]) -> T | None:
    """What `make` makes; None if it cannot, and `missing` gets the sentence that says why."""
    try:
        return make()
    except ConfigError as error:
        missing.append(f"{name}: {error.problems[0]}.")
        return None
