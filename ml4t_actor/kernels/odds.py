"""The odds of a trade between barriers where the price is a random walk without drift."""

import math

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray

# A barrier this many volatilities away is out of reach of every float (the normal tail there is below 1e-350), and
# bounds the number of terms whatever a configuration says.
FAR = 40.0

_PT, _LEVEL, _WEIGHTS = 0, 1, 2


@kernel
def barrier_series(pt: float, sl: float) -> FloatArray:
    """Return what `random_walk_odds` needs of two barriers, so that a call costs only what the volatility changes.

    A Brownian motion of unit variance over the horizon starts at 0 between the barriers ``-sl`` and ``pt``. By the
    eigenfunction expansion (Karatzas & Shreve 1991, section 2.8), with ``w = pt + sl``, the probability that it is
    absorbed at ``pt``, or ends between a threshold ``c`` and ``pt``, is ``sl / w + sum a_n cos(n pi (c + sl) / w)``
    with ``a_n = 2 / (n pi) sin(n pi sl / w) exp(-(n pi / w)^2 / 2)``: the terms that each of the two alone would have
    at ``pt`` cancel.

    Parameters
    ----------
    pt, sl : float
        Distances of the barriers in volatilities, positive.

    Returns
    -------
    float64 (2 + n_terms,)
        ``pt``, ``sl / w`` and the ``a_n``, as many as reach machine precision.
    """
    upper, lower = min(pt, FAR), min(sl, FAR)
    width = upper + lower
    n_terms = 2 + math.ceil(3.0 * width)
    series = np.empty(_WEIGHTS + n_terms)
    series[_PT] = pt
    series[_LEVEL] = lower / width
    for n in range(1, n_terms + 1):
        angle = n * math.pi
        decay = math.exp(-0.5 * (angle / width) * (angle / width))
        series[_WEIGHTS + n - 1] = 2.0 / angle * math.sin(angle * lower / width) * decay
    return series


@kernel
def random_walk_odds(volatility: float, cost: float, series: FloatArray) -> float:
    """Return the probability that a trade makes more than its cost if the price is a random walk without drift.

    Parameters
    ----------
    volatility : float
        As a log return scaled to the horizon.
    cost : float
        Round-trip cost as a log return, not negative.
    series : float64 (2 + n_terms,)
        `barrier_series` of the trade's barriers.

    Returns
    -------
    float
        In [0, 1]; 0 where the cost reaches the profit barrier, NaN where the volatility is not positive and finite.
    """
    if not 0.0 < volatility < math.inf:
        return math.nan
    threshold = cost / volatility
    if not threshold < series[_PT]:
        return 0.0
    level = series[_LEVEL]
    # The share of the width below the start is `level`, and the part above it ends at min(pt, FAR).
    upper = min(series[_PT], FAR)
    cosine = math.cos(math.pi * (level + min(threshold, upper) * (1.0 - level) / upper))
    odds = level
    before, now = (
        1.0,
        cosine,
    )  # cos((n - 1) x) and cos(n x): Chebyshev's recurrence in place of a cosine a term
    for i in range(_WEIGHTS, series.shape[0]):
        odds += series[i] * now
        before, now = now, 2.0 * cosine * now - before
    return float(min(max(odds, 0.0), 1.0))  # far in a tail the sum rounds to either side of 0


@kernel
def random_walk_odds_rows(
    volatility: FloatArray, pt: FloatArray, sl: FloatArray, cost: FloatArray
) -> FloatArray:
    """Return `random_walk_odds` of every row, bitwise; all float64 (n,)."""
    out = np.empty(volatility.shape[0])
    series = np.empty(0)
    for i in range(volatility.shape[0]):
        if i == 0 or pt[i] != pt[i - 1] or sl[i] != sl[i - 1]:
            series = barrier_series(pt[i], sl[i])
        out[i] = random_walk_odds(volatility[i], cost[i], series)
    return out
