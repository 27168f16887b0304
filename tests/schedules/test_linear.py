import numpy as np

from vissl_lite import SCHEDULES


def test_equals_linspace():
    schedule = SCHEDULES.build({"name": "linear", "start": 0.2, "end": 3.0})
    got = [schedule(t / 50) for t in range(51)]
    np.testing.assert_allclose(got, np.linspace(0.2, 3.0, 51), atol=1e-12)
