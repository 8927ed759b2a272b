"""Intervals that know that neighbouring rows are not independent."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels.bootstrap import resample_scores
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.validation.scores import (
    Interval,
    brier_losses,
    checked,
    checked_side,
    log_losses,
    rank,
    side_groups,
)

MIN_BLOCKS = 10


class BootstrapIntervals(NamedTuple):
    """What `block_bootstrap` finds.

    Attributes
    ----------
    auc_within_side, brier_skill, log_loss_skill, base_rate : Interval
        Percentile intervals.
    base_rate_error : float
        Standard error of the base rate.
    """

    auc_within_side: Interval
    brier_skill: Interval
    log_loss_skill: Interval
    base_rate: Interval
    base_rate_error: float


def block_length(label_start: ArrayLike, label_end: ArrayLike) -> int:
    """Return a block length in rows that suits overlapping labels: twice the most rows in one label window.

    A block as long as the overlap itself leaves out so many correlated pairs that it understates the variance
    of a mean of moving sums by a third; twice as long, by a sixth.

    Parameters
    ----------
    label_start, label_end : int64 (n,)
        Event time and end of label, UNIX nanoseconds, in order of `label_start`.
    """
    start, end = np.asarray(label_start, np.int64), np.asarray(label_end, np.int64)
    if not len(start):
        return 1
    within = np.searchsorted(start, end, side="left") - np.arange(len(start))
    return 2 * max(1, int(within.max()))


def block_starts(n: int, block: int, samples: int, seed: int) -> Iterator[IntArray]:
    """Yield, for each resample, the random first rows of the circular blocks that make it up."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        yield rng.integers(0, n, size=-(-n // block), dtype=np.int64)


def check_resampling(block: int, samples: int, level: float) -> None:
    """Raise `ValueError` unless the settings of a bootstrap make sense."""
    if block < 1:
        raise ValueError(f"`block` was {block} rows, must be at least 1")
    if samples < 1:
        raise ValueError(f"`samples` was {samples}, must be at least 1")
    if not 0.0 < level < 1.0:
        raise ValueError(f"`level` was {level}, must be between 0 and 1")


def percentile_interval(draws: FloatArray, level: float) -> Interval:
    """Return the central interval of `draws`, NaN unless most of them are defined."""
    defined = draws[np.isfinite(draws)]
    if 2 * len(defined) <= len(draws):
        return Interval(np.nan, np.nan)
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))


def block_bootstrap(
    y: ArrayLike,
    p: ArrayLike,
    side: ArrayLike,
    baseline_p: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    block: int,
    samples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> BootstrapIntervals:
    """Return percentile intervals of scores by the circular block bootstrap.

    Blocks of consecutive rows, drawn with replacement and wrapped around the end, keep the dependence between
    neighbours that overlapping labels create (Künsch 1989; Politis & Romano 1992).

    Parameters
    ----------
    y, p, weight : (n,)
        Labels 0 or 1, probabilities and weights, in order of time.
    side : (n,)
        1 or -1.
    baseline_p : (n,)
        The probability that skill is measured against, known at each row's time.
    fold : int (n,), optional
        As for `auc_within_side`.
    block : int
        Rows in a block; `block_length` gives one that suits labels.
    samples, seed : int
        Number of resamples, and what decides them.
    level : float
        Coverage.

    Returns
    -------
    BootstrapIntervals
        All NaN with fewer than ten blocks. Few blocks make intervals too narrow: one of 95 % covered 93 % in
        simulations with fifty blocks, 87 % with ten.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    labels, probabilities, weights = checked(y, p, weight)
    _, baseline, _ = checked(y, baseline_p, None, name="baseline_p")
    sides = checked_side(side, len(labels))
    check_resampling(block, samples, level)
    n = len(labels)
    if n < MIN_BLOCKS * block:
        none = Interval(np.nan, np.nan)
        return BootstrapIntervals(none, none, none, none, np.nan)
    group, bounds = side_groups(sides, fold)
    ranking = rank(labels, probabilities, weights, group)
    losses = np.empty((n, 6))
    losses[:, 0] = 1.0
    losses[:, 1] = labels
    losses[:, 2] = brier_losses(labels, probabilities)
    losses[:, 3] = brier_losses(labels, baseline)
    losses[:, 4] = log_losses(labels, probabilities)
    losses[:, 5] = log_losses(labels, baseline)
    losses *= weights[:, None]
    multiplicity = np.empty(n, np.int64)
    draws = np.empty((samples, 4))
    for row, starts in zip(draws, block_starts(n, block, samples, seed), strict=True):
        resample_scores(starts, block, *ranking, bounds, losses, multiplicity, row)
    rates = draws[np.isfinite(draws[:, 3]), 3]
    return BootstrapIntervals(
        auc_within_side=percentile_interval(draws[:, 0], level),
        brier_skill=percentile_interval(draws[:, 1], level),
        log_loss_skill=percentile_interval(draws[:, 2], level),
        base_rate=percentile_interval(draws[:, 3], level),
        base_rate_error=float(rates.std(ddof=1)) if len(rates) > 1 else np.nan,
    )
