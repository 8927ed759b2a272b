"""The variance of a mean of dependent values, and how far an interval must reach because it is estimated."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ml4t_actor.market_data import FloatArray

LEAST_BANDWIDTH_SHARE = 1.0 / 30.0
_LARGEST_BANDWIDTH_SHARE = 0.25
_SIGNIFICANT = 2.0
_LAGS_IN_A_ROW = 5
_BEYOND_LAST_SIGNIFICANT = 1.5


class LongRunVariance(NamedTuple):
    """What `long_run_variance` finds.

    Attributes
    ----------
    variance : float
        Of the square root of n times the mean, in squared units of the values.
    bandwidth : int
        Autocovariances up to this lag took part.
    df : float
        Degrees of freedom of the chi-squared distribution that the estimate has about.
    """

    variance: float
    bandwidth: int
    df: float


def long_run_variance(
    values: FloatArray, block: int = 1, *, least_share: float = LEAST_BANDWIDTH_SHARE
) -> LongRunVariance:
    """Estimate the long-run variance of values whose memory may outlast the overlap of their labels.

    Autocovariances are summed under a flat-top window, one up to half of the bandwidth and falling to zero at its
    end: it has next to no bias, where Bartlett's, which is the block bootstrap's, leaves out a fifth of the variance
    of an AR(1) of 0.9 in 1,000 values. The bandwidth is the largest of `block`; three times the last significant lag
    of Politis & White, after which five in a row are within ``2 sqrt(log10(n) / n)``; and `least_share` of the values,
    for a weak memory of many lags, none of which is significant.

    With n values and a bandwidth of M the estimate has about 0.75 n / M degrees of freedom (2 / 3 / the integral of the
    squared window), and loses 1.5 M / n of itself to the estimated mean, which is made up for. It is never less than
    Bartlett's, corrected likewise, of blocks of the same length.

    Parameters
    ----------
    values : float64 (n,)
        In order of time.
    block : int
        Values that are known to be dependent, twice over: see `block_length`.
    least_share : float
        The least bandwidth as a share of n, in [0, 1/4].

    References
    ----------
    D. N. Politis and H. White, "Automatic Block-Length Selection for the Dependent Bootstrap", *Econometric Reviews*
    23(1), 2004, with A. Patton's correction of 2009; M. B. Priestley, *Spectral Analysis and Time Series*, 1981,
    section 6.2.3; on bandwidths that are a share of the values, E. Lazarus, D. J. Lewis, J. H. Stock and M. W. Watson,
    "HAR Inference: Recommendations for Practice", *Journal of Business & Economic Statistics* 36(4), 2018.
    """
    n = len(values)
    largest = max(1, int(_LARGEST_BANDWIDTH_SHARE * n))
    autocovariances = _autocovariances(values, largest)
    if not autocovariances[0] > 0.0:
        return LongRunVariance(0.0, 1, math.inf)
    memory = _last_significant_lag(autocovariances / autocovariances[0], n)
    half = max(
        -(-block // 2), math.ceil(_BEYOND_LAST_SIGNIFICANT * memory) + 1, math.ceil(0.5 * least_share * n)
    )
    bandwidth = min(2 * half, largest)
    lags = np.arange(1, bandwidth + 1)
    window = np.clip(2.0 * (1.0 - lags / bandwidth), 0.0, 1.0)
    flat_top = autocovariances[0] + 2.0 * float(window @ autocovariances[1 : bandwidth + 1])
    share = bandwidth / n
    variance = max(
        flat_top / (1.0 - 1.5 * share),
        circular_block_variance(values, bandwidth) / _bartlett_share_left(share),
    )
    return LongRunVariance(variance, bandwidth, 0.75 / share)


def circular_block_variance(values: FloatArray, block: int) -> float:
    """Return the variance of the square root of n times the mean over resamples of circular blocks.

    In closed form: the mean square of all circular block sums of deviations from the mean, over the block length
    (Politis & Romano 1992). Resamples of whole blocks; a last one that is cut makes little difference.
    """
    deviations = values - values.mean()
    sums = np.concatenate(([0.0], np.cumsum(np.concatenate((deviations, deviations[: block - 1])))))
    of_blocks = sums[block:] - sums[: len(values)]
    return float(of_blocks @ of_blocks) / (len(values) * block)


def widening(quantile: float, values: FloatArray, block: int, drawn_block: int) -> float:
    """Return how many times further a bound must lie from the estimate than the bootstrap's own.

    By the standard deviation that resamples leave out, and by Student's quantile over the normal one, since that
    deviation is estimated.

    Parameters
    ----------
    quantile : float
        Of the bound, in (0.5, 1): 0.975 for a two-sided interval of 95 %.
    values : float64 (n,)
        Influence of each row on the statistic, in order of time.
    block : int
        As for `long_run_variance`.
    drawn_block : int
        Rows in a block of the resamples.
    """
    drawn = circular_block_variance(values, drawn_block)
    if not drawn > 0.0:
        return 1.0
    long_run = long_run_variance(values, block)
    z = NormalDist().inv_cdf(quantile)
    return student_quantile(z, long_run.df) / z * math.sqrt(long_run.variance / drawn)


def widening_for_blocks(quantile: float, n_blocks: float, inflation: float = 1.0) -> float:
    """Return how much further than the draws' own a bound must lie, by the number of blocks alone.

    With b blocks the variance of circular block draws is Bartlett's estimator with a bandwidth of 1/b of the rows:
    about chi-squared with 1.5 b degrees of freedom (Priestley 1981, section 6.2.3), too small by
    1 - 1/b + 1/(3 b²). So Student's quantile takes the place of the normal one, which agrees with the fixed-b
    limit of Kiefer & Vogelsang (2005) within 1 %. `inflation` of the variance comes on top.
    """
    z = NormalDist().inv_cdf(quantile)
    return (
        student_quantile(z, 1.5 * n_blocks) / z * math.sqrt(inflation / _bartlett_share_left(1.0 / n_blocks))
    )


def student_quantile(z: float, df: float) -> float:
    """Return Student's quantile where the normal one is `z` (Abramowitz & Stegun 26.7.5)."""
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return z + sum(term / df**power for power, term in enumerate(terms, start=1))


def _bartlett_share_left(share: float) -> float:
    return 1.0 - share + share**2 / 3.0


def _autocovariances(values: FloatArray, largest_lag: int) -> FloatArray:
    """Return those at lags 0 to `largest_lag`, sums divided by n."""
    n = len(values)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(values - values.mean(), size)
    return np.fft.irfft(spectrum * spectrum.conj(), size)[: largest_lag + 1] / n


def _last_significant_lag(correlations: FloatArray, n: int) -> int:
    """Return the lag after which five in a row are insignificant, all of them if there is none."""
    insignificant = np.abs(correlations[1:]) < _SIGNIFICANT * math.sqrt(math.log10(max(n, 2)) / n)
    runs = (
        np.convolve(insignificant, np.ones(_LAGS_IN_A_ROW), "valid")
        if len(insignificant) >= 5
        else np.empty(0)
    )
    found = np.flatnonzero(runs > _LAGS_IN_A_ROW - 0.5)
    return int(found[0]) if len(found) else len(insignificant)
