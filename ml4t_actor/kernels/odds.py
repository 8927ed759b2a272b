"""The odds of a trade between barriers, and its break-even, where the price is a random walk without drift."""

import math

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray

# A barrier this many volatilities away is out of reach of every float (the normal tail there is below 1e-350), and
# bounds the number of terms whatever a configuration says.
FAR = 40.0

_PT, _LEVEL, _WIDTH, _WEIGHTS = 0, 1, 2, 3


@kernel
def barrier_series(pt: float, sl: float, exit_times: FloatArray) -> FloatArray:
    """Return what `random_walk_excess` needs of two barriers, so that a call costs only what the volatility changes.

    A Brownian motion B of unit variance over the horizon starts at 0 between the barriers ``-sl`` and ``pt``, and ends
    at a time t that does not depend on it. By the eigenfunction expansion (Karatzas & Shreve 1991, section 2.8), with
    ``w = pt + sl`` and ``k = n pi / w``, the probability that it is absorbed at ``pt``, or ends between a threshold
    ``c`` and ``pt``, is ``sl / w + sum a_n cos(k (c + sl))`` with ``a_n = 2 / (n pi) sin(k sl) exp(-k^2 t / 2)``: the
    terms that each of the two alone would have at ``pt`` cancel. In the same way, its mean excess over the threshold,
    ``E[(B - c)+]``, is ``(pt - c) sl / w - sum a_n / k sin(k (c + sl))``. Both are linear in ``exp(-k^2 t / 2)``, whose
    mean over t therefore stands for all times of the end.

    Parameters
    ----------
    pt, sl : float
        Distances of the barriers in volatilities, positive.
    exit_times : float64 (n,)
        Equally likely shares of the horizon after which a later signal or the horizon itself ends a trade that touched
        no barrier, each in (0, 1].

    Returns
    -------
    float64 (3 + n_terms,)
        ``pt``, ``sl / w``, ``w`` and the ``a_n``, as many as reach machine precision.
    """
    upper, lower = min(pt, FAR), min(sl, FAR)
    width = upper + lower
    n_times = exit_times.shape[0]
    first = exit_times[0]
    for t in exit_times:
        first = min(first, t)
    n_terms = 2 + math.ceil(3.0 * width / math.sqrt(first))
    series = np.empty(_WEIGHTS + n_terms)
    series[_PT] = pt
    series[_LEVEL] = lower / width
    series[_WIDTH] = width
    for n in range(1, n_terms + 1):
        angle = n * math.pi
        decay = 0.0
        for t in exit_times:
            decay += math.exp(-0.5 * (angle / width) * (angle / width) * t)
        series[_WEIGHTS + n - 1] = 2.0 / angle * math.sin(angle * lower / width) * (decay / n_times)
    return series


@kernel
def random_walk_excess(volatility: float, cost: float, series: FloatArray) -> tuple[float, float]:
    """Return the probability that a trade makes more than its cost, and how much more it makes on average.

    Without drift the mean gross return is zero, whatever the barriers and the time of the end (optional stopping). So
    with odds p and excess e, in volatilities, and the cost c in volatilities: the mean net win is ``e / p``, and the
    mean net loss ``(e + c) / (1 - p)``.

    Parameters
    ----------
    volatility : float
        As a log return scaled to the horizon.
    cost : float
        Round-trip cost as a log return, not negative.
    series : float64 (3 + n_terms,)
        `barrier_series` of the trade's barriers.

    Returns
    -------
    odds : float
        In [0, 1]; 0 where the cost reaches the profit barrier, NaN where the volatility is not positive and finite.
    excess : float
        ``E[(gross return - cost)+]`` in volatilities, not negative; likewise.
    """
    if not 0.0 < volatility < math.inf:
        return math.nan, math.nan
    threshold = cost / volatility
    if not threshold < series[_PT]:
        return 0.0, 0.0
    level = series[_LEVEL]
    # The share of the width below the start is `level`, and the part above it ends at min(pt, FAR).
    upper = min(series[_PT], FAR)
    threshold = min(threshold, upper)
    angle = math.pi * (level + threshold * (1.0 - level) / upper)
    cosine = math.cos(angle)
    # cos(n x) and sin(n x): Chebyshev's recurrence in place of two functions a term
    cos_before, cos_now = 1.0, cosine
    sin_before, sin_now = 0.0, math.sin(angle)
    odds, waves = level, 0.0
    for n in range(1, series.shape[0] - _WEIGHTS + 1):
        weight = series[_WEIGHTS + n - 1]
        odds += weight * cos_now
        waves += weight * sin_now / n
        cos_before, cos_now = cos_now, 2.0 * cosine * cos_now - cos_before
        sin_before, sin_now = sin_now, 2.0 * cosine * sin_now - sin_before
    # Far in a tail the sums round to either side of 0. No win is larger than what is left up to the barrier.
    odds = min(max(odds, 0.0), 1.0)
    excess = (upper - threshold) * level - waves * series[_WIDTH] / math.pi
    return odds, min(max(excess, 0.0), odds * (upper - threshold))


@kernel
def random_walk_odds_rows(
    volatility: FloatArray, pt: FloatArray, sl: FloatArray, cost: FloatArray, exit_times: FloatArray
) -> FloatArray:
    """Return the odds of every row, bitwise the first of `random_walk_excess`.

    All are float64 (n,) but the `exit_times`, which the rows share.
    """
    out = np.empty(volatility.shape[0])
    series = np.empty(0)
    for i in range(volatility.shape[0]):
        if i == 0 or pt[i] != pt[i - 1] or sl[i] != sl[i - 1]:
            series = barrier_series(pt[i], sl[i], exit_times)
        out[i], _ = random_walk_excess(volatility[i], cost[i], series)
    return out


@kernel
def trade_odds(volatility: float, cost: float, series: FloatArray, shift: FloatArray) -> tuple[float, float]:
    """Return the odds of a trade, and the probability of success at which it makes nothing after its costs.

    With mean net win W and loss L that is ``L / (W + L)``. Its log odds, ``log(L / W)``, are in a random walk
    ``log(p / (1 - p)) + log(1 + c / e)`` with odds p, excess e and cost c; what the walk does not know of W and L is
    added to them.

    Parameters
    ----------
    volatility, cost, series
        See `random_walk_excess`.
    shift : float64 (n,)
        What is added to the log odds of the break-even where the cost is ``k / n`` of the profit barrier, for k from 0
        to n - 1; linear between, constant beyond the last.

    Returns
    -------
    odds, break_even : float
        In [0, 1], both NaN where the volatility is not positive and finite. Break-even is 1 where no trade pays.
    """
    odds, excess = random_walk_excess(volatility, cost, series)
    if math.isnan(odds):
        return odds, odds
    if not (0.0 < odds < 1.0 and excess > 0.0):
        return odds, 1.0
    threshold = cost / volatility
    n = shift.shape[0]
    at = threshold / series[_PT] * n
    k = min(int(at), n - 1)
    after = min(k + 1, n - 1)
    learned = shift[k] + (at - k) * (shift[after] - shift[k])
    score = math.log(odds) - math.log1p(-odds) + math.log1p(threshold / excess) + learned
    if score >= 0.0:
        return odds, 1.0 / (1.0 + math.exp(-score))
    return odds, math.exp(score) / (1.0 + math.exp(score))


@kernel
def trade_odds_rows(
    volatility: FloatArray, cost: float, series: FloatArray, shift: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return `trade_odds` of every row, bitwise; the first and both results float64 (n,)."""
    odds = np.empty(volatility.shape[0])
    break_even = np.empty(volatility.shape[0])
    for i in range(volatility.shape[0]):
        odds[i], break_even[i] = trade_odds(volatility[i], cost, series, shift)
    return odds, break_even
