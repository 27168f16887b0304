from collections import Counter

import numpy as np
import pytest
from torchvision.transforms import InterpolationMode, autoaugment

from vissl_lite import TRANSFORMS, ConfigError
from vissl_lite.transforms import rand_augment
from vissl_lite.transforms.rand_augment import OPERATIONS, UNSIGNED

# our name -> torchvision's, in the same order
THEIRS = dict(
    zip(
        OPERATIONS,
        autoaugment.RandAugment()._augmentation_space(31, (1, 1)),
    )
)


@pytest.mark.parametrize("mode", [InterpolationMode.NEAREST, InterpolationMode.BILINEAR])
@pytest.mark.parametrize("magnitude", [0, 4, 9, 17, 30])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_torchvisions(name, magnitude, mode, photo):
    space = autoaugment.RandAugment()._augmentation_space(31, (photo.height, photo.width))
    magnitudes, signed = space[THEIRS[name]]
    value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    assert signed == (name not in UNSIGNED)
    for sign in (1, -1) if signed else (1,):
        ours = OPERATIONS[name](photo, sign * magnitude / 30, mode)
        theirs = autoaugment._apply_op(photo, THEIRS[name], sign * value, mode, None)
        difference = np.abs(np.asarray(ours, int) - np.asarray(theirs, int))
        # torchvision holds its magnitudes in float32, so a rounding may fall to the other side
        assert np.mean(difference > 1) < 0.002
        assert difference.mean() < 0.1


def test_operations_and_signs_are_drawn_evenly(photo, rng, monkeypatch):
    calls = Counter()

    def recorded(name):
        return lambda image, m, mode: (calls.update([(name, m)]), image)[1]

    monkeypatch.setattr(rand_augment, "OPERATIONS", {name: recorded(name) for name in OPERATIONS})
    transform = TRANSFORMS.build({"name": "rand_augment", "num_ops": 3, "magnitude": 15})
    for _ in range(1400):
        transform(photo, rng)
    counts = Counter()
    for (name, m), count in calls.items():
        assert abs(m) == 0.5
        counts[name] += count
    assert sum((count - 300) ** 2 / 300 for count in counts.values()) < 38  # 13 d.o.f., 99.97 %
    for name, count in counts.items():
        negative = calls[name, -0.5] / count
        assert negative == 0 if name in UNSIGNED else abs(negative - 0.5) < 2 / np.sqrt(count)


def test_magnitude_beyond_the_last_bin():
    with pytest.raises(ConfigError, match="magnitude: 31 must be from 0 to 30"):
        TRANSFORMS.build({"name": "rand_augment", "magnitude": 31})
