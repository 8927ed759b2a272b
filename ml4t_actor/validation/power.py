"""Whether a mean of dependent values differs from zero, and how many values would tell."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import FloatArray
from ml4t_actor.validation.long_run import (
    LEAST_BANDWIDTH_SHARE,
    long_run_variance,
    student_quantile,
)

LEVEL = 0.95
POWER = 0.8
LEAST_VALUES = 10


class MeanTest(NamedTuple):
    """A mean, its interval, and the sample that would tell it from zero. NaN is what cannot be said.

    Attributes
    ----------
    mean : float
        Of the values.
    low, high : float
        Central interval at `LEVEL`.
    n : int
        Values.
    needed : float
        Values of which `POWER` of all samples would exclude zero, if the truth were the mean and the long-run deviation
        that were observed; infinite where the mean is zero.
    needed_least : float
        The same if the truth were the end of the interval that is further from zero.
    """

    mean: float
    low: float
    high: float
    n: int
    needed: float
    needed_least: float

    @property
    def direction(self) -> int | None:
        """Return 1 or -1 if the interval lies above or below zero, 0 if it holds zero, None without one."""
        if math.isnan(self.low):
            return None
        return 1 if self.low > 0.0 else -1 if self.high < 0.0 else 0


def mean_test(values: ArrayLike, block: int = 1) -> MeanTest:
    """Test the mean of values in order of time against zero.

    The error is that of `long_run_variance`. Student's quantile has its degrees of freedom, but no more than there are
    values that count, ``sum(|x|)^2 / sum(x^2) - 1``: of days most of which brought nothing only those tell that did,
    and three gains in a row are no proof.

    Parameters
    ----------
    values : (n,)
        Finite.
    block : int, default 1
        Values that are known to be dependent.

    Returns
    -------
    MeanTest
        Without an interval, and so without a sample, for fewer than ten values or none that differs.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    column = np.ascontiguousarray(values, np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(f"`values` must be finite: row {bad[0]} is {column[bad[0]]}")
    n = len(column)
    mean = float(column.mean()) if n else math.nan
    unknown = math.nan
    if n < LEAST_VALUES or column.min() == column.max():
        return MeanTest(mean, unknown, unknown, n, unknown, unknown)
    long_run = long_run_variance(column, block)
    df = min(long_run.df, counted_values(column) - 1.0)
    if df < 1.0:
        return MeanTest(mean, unknown, unknown, n, unknown, unknown)
    deviation = math.sqrt(long_run.variance)
    reach = student_quantile(_quantile(), df) * deviation / math.sqrt(n)
    low, high = mean - reach, mean + reach
    needed, needed_least = (sample_needed(effect, deviation) for effect in (abs(mean), abs(mean) + reach))
    return MeanTest(mean, low, high, n, needed, needed_least)


def counted_values(values: FloatArray) -> float:
    """Return how many values of one size would be as concentrated as these: n if all are, 1 if one is all."""
    squares = float(values @ values)
    return float(np.abs(values).sum()) ** 2 / squares if squares > 0.0 else 0.0


def sample_needed(effect: float, deviation: float) -> float:
    """Return the values of which `POWER` of all samples exclude a zero mean at `LEVEL`.

    ``((t(LEVEL) + z(POWER) * sqrt(1 + t(LEVEL)^2 / 2 df)) * deviation / effect)^2``, by the normal approximation of the
    noncentral t distribution (Johnson and Welch 1940, *Biometrika* 31), with the degrees of freedom that
    `long_run_variance` leaves of values with little memory; no fewer than the test asks for, infinite without an
    effect.
    """
    if not effect > 0.0:
        return math.inf
    df = 0.75 / LEAST_BANDWIDTH_SHARE
    t = student_quantile(_quantile(), df)
    distance = t + NormalDist().inv_cdf(POWER) * math.sqrt(1.0 + 0.5 * t * t / df)
    return max((distance * deviation / effect) ** 2, float(LEAST_VALUES))


def _quantile() -> float:
    return NormalDist().inv_cdf(0.5 * (1.0 + LEVEL))
