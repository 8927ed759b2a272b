"""Labelled rows in which what features do to returns is planted."""

import numpy as np

from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import MINUTE_NS, FloatArray


def rows_with_effects(effect: FloatArray, n_features: int, seed: int = 0) -> LabelledRows:
    """Return rows a minute apart whose gross returns over volatility follow the first feature, each by its effect."""
    rng, n = np.random.default_rng(seed), len(effect)
    X = rng.normal(size=(n, n_features))
    volatility = np.exp(rng.normal(-5.0, 0.3, n))
    ret = volatility * (effect * np.clip(X[:, 0], -3.0, 3.0) + 0.8 * rng.normal(size=n))
    start = np.arange(n, dtype=np.int64) * MINUTE_NS
    return LabelledRows(
        X=X,
        y=ret > 0.0,
        side=rng.choice([-1, 1], n),
        ret=ret,
        weight=np.full(n, 0.7),
        odds=np.full(n, 0.45),
        volatility=volatility,
        exit_time=np.ones(n),
        label_start=start,
        label_end=start + 5 * MINUTE_NS,
        regime=np.empty((n, 0)),
    )
