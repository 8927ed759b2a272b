"""Regime models that no market was fitted for."""

import numpy as np

from ml4t_actor.indicators.regime import RegimeModel


def random_model(rng: np.random.Generator, k: int, d: int) -> RegimeModel:
    """Return a model of `k` regimes in `d` features."""
    means = rng.normal(0.0, 1.5, (k, d))
    return RegimeModel(
        location=rng.normal(0.0, 1.0, d),
        scale=rng.uniform(0.5, 2.0, d),
        initial=rng.dirichlet(np.ones(k)),
        transition=rng.dirichlet(np.ones(k), k),
        means=means[np.argsort(means[:, 0])],
        variances=rng.uniform(0.2, 2.0, (k, d)),
        weights=rng.uniform(0.0, 1.0, k),
        log_likelihood=np.empty(0),
    )
