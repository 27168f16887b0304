"""The numbers of a record, named as plotting tools group them."""

from typing import Any


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a "train" or "eval" record, by tag; nothing of other records."""
    if record["kind"] not in ("train", "eval"):
        return {}
    prefix = "train" if record["kind"] == "train" else f"eval/{record['name']}"
    return {
        f"{prefix}/{key}": value
        for key, value in record.items()
        if isinstance(value, (int, float)) and key not in ("step", "total_steps")
    }
