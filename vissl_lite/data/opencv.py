"""OpenCV, an optional part of the extra `fast`; all who use it ask here."""

from functools import cache
from typing import Any


@cache
def opencv() -> Any:
    """The module `cv2`, or None where it is not installed.

    It is held to one thread: the workers of the loader are as many as there are cores.
    """
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(0)
    return cv2
