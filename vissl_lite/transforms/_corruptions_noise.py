"""Corruptions by noise; no strength depends on the size of the image. H, W, C: of an image."""

import numpy as np


def gaussian_noise(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, sigma: float
) -> np.ndarray:
    """x + N(0, sigma^2)."""
    return x_HWC + sigma * rng.standard_normal(x_HWC.shape)


def shot_noise(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, photons: float
) -> np.ndarray:
    """Poisson(photons x) / photons."""
    return rng.poisson(photons * x_HWC) / photons


def impulse_noise(
    x_HWC: np.ndarray, rng: np.random.Generator, scale: float, amount: float
) -> np.ndarray:
    """A share `amount` of all values becomes 0 or 1, with equal chances."""
    u_HWC = rng.random(x_HWC.shape)
    return np.where(u_HWC < amount, u_HWC < amount / 2, x_HWC)
