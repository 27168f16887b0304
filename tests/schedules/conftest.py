from vissl_lite.schedules import (  # noqa: F401  (registers them)
    composite,
    constant,
    cosine,
    exponential,
    linear,
    multistep,
    polynomial,
    step,
    warmup,
)
