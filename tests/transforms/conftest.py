import numpy as np
import pytest
from PIL import Image

from vissl_lite.plugins import load_entries

load_entries()


@pytest.fixture
def photo() -> Image.Image:
    """120 x 90 pixels with all frequencies and all colours."""
    y, x = np.mgrid[:90, :120]
    waves = [np.sin(x * y / (300 + 200 * c)) * 70 + 100 + 20 * c for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 20, (90, 120, 3))
    return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)
