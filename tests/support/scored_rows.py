"""Made-up labels and predictions, of known dependence."""

import numpy as np
from scipy import stats


def moving_sums(rng, n, overlap):
    """Standard normals of which neighbours share all but one of `overlap` terms, as labels do."""
    return np.convolve(rng.normal(size=n + overlap - 1), np.ones(overlap) / np.sqrt(overlap), "valid")


def overlapping_noise(seed, n=2000, overlap=20):
    """Labels and predictions that have nothing to do with each other, both persistent."""
    rng = np.random.default_rng(seed)
    y = (moving_sums(rng, n, overlap) > 0).astype(float)
    p = 1 / (1 + np.exp(-0.3 * moving_sums(rng, n, overlap)))
    return y, p, rng.choice([-1, 1], n)


def informed(seed, n=4000, strength=1.0):
    """Independent labels drawn with exactly the predicted probabilities."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-strength * rng.normal(size=n)))
    return (rng.random(n) < p).astype(float), p, rng.choice([-1, 1], n)


def bounds_of(estimate, draws, level, factor):
    """Return the interval of a statistic: half quantiles of its draws, half normal ones, times `factor`."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    normal = stats.norm.ppf((1 + level) / 2) * np.std(draws)
    return estimate - factor * (estimate - low + normal) / 2, estimate + factor * (
        high - estimate + normal
    ) / 2
