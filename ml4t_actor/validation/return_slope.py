"""Are expected returns true? The slope of realised on expected returns, with an error that dependence is part of."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.validation.long_run import long_run_variance, student_quantile
from ml4t_actor.validation.scores import Interval

_MIN_ROWS = 20
# Of a slope around 1, the prior's: markets change, and what was learned of them then claims too much.
_PRIOR_SD = 0.25
_Z975 = NormalDist().inv_cdf(0.975)


class ReturnSlope(NamedTuple):
    """What `return_slope` finds; NaN in all but `n` where there is nothing to estimate it from.

    Attributes
    ----------
    n : int
        Rows of which both are known.
    slope : float
        1 where what was expected is true on average, 0 where it says nothing.
    standard_error : float
        Long-run.
    interval : Interval
        At 95 %.
    """

    n: int
    slope: float
    standard_error: float
    interval: Interval


def return_slope(expected: ArrayLike, realised: ArrayLike, *, block: int) -> ReturnSlope:
    """Regress realised on expected returns by least squares, with an intercept.

    The error is that of the mean of the rows' influences on the slope, by their long-run variance: labels overlap, and
    features change slowly.

    Parameters
    ----------
    expected, realised : (n,)
        In order of time, both in volatilities: the learned part of the expected return, say, and the gross return.
        Rows of which either is NaN are left out.
    block : int
        Rows that are known to be dependent: see `block_length`.

    Raises
    ------
    ValueError
        If lengths differ.

    References
    ----------
    J. Mincer, V. Zarnowitz, "The evaluation of economic forecasts", in *Economic Forecasts and Expectations*, NBER,
    1969: a forecast is unbiased where the slope of what happened on it is one.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> expected = 0.1 * rng.normal(size=20_000)
    >>> found = return_slope(expected, 0.5 * expected + rng.normal(size=20_000), block=1)
    >>> round(found.slope, 1), found.interval.low < 0.5 < found.interval.high
    (0.5, True)
    """
    x, y = np.asarray(expected, np.float64), np.asarray(realised, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"`expected` and `realised` must have one value per row each, have {x.shape} and {y.shape}"
        )
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    deviation = x - x.mean() if n else x
    spread = float(deviation @ deviation)
    # What rounding leaves of a constant is no spread.
    if n < _MIN_ROWS or not spread > n * (1e-12 * max(float(np.abs(x).max()), 1e-300)) ** 2:
        return ReturnSlope(n, math.nan, math.nan, Interval(math.nan, math.nan))
    slope = float(deviation @ y) / spread
    residual = y - y.mean() - slope * deviation
    long_run = long_run_variance(n * deviation * residual / spread, block)
    error = math.sqrt(long_run.variance / n)
    half = student_quantile(_Z975, long_run.df) * error
    return ReturnSlope(n, slope, error, Interval(slope - half, slope + half))


def shrunk_slope(slope: float, standard_error: float) -> float:
    """Return what to multiply the learned part of expected returns with, by the slope that it had out of fold.

    The mean of a normal posterior, with a prior around 1 of standard deviation 0.25, at least 0 and at most 1. In a
    market that stays what it is a ridge's slope is 1; in one that changes, less of what was learned comes true, and out
    of fold some of that shows. It is never raised: that would be a bet on chance.

    Parameters
    ----------
    slope, standard_error : float
        Of `return_slope`; NaN where there are none, which gives 1.

    Examples
    --------
    >>> shrunk_slope(0.5, 0.25), round(shrunk_slope(-2.0, 2.0), 2), shrunk_slope(1.4, 0.1)
    (0.75, 0.95, 1.0)
    """
    if not (math.isfinite(slope) and standard_error > 0.0):
        return 1.0
    trust = _PRIOR_SD**2 / (_PRIOR_SD**2 + standard_error**2)
    return min(max(1.0 + trust * (slope - 1.0), 0.0), 1.0)
