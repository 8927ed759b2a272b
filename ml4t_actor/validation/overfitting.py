"""How much of a best result is the search for it: deflated Sharpe ratio, backtest overfitting, purged paths."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import FloatArray
from ml4t_actor.validation.long_run import long_run_variance
from ml4t_actor.validation.splits import Split

BEYOND_CHANCE = 0.95


class DeflatedSharpe(NamedTuple):
    """A Sharpe ratio beside the best one that as many trials without skill expect.

    Attributes
    ----------
    sharpe : float
        Of the returns, per period.
    expected_best : float
        Expected maximum of as many ratios of zero mean and the trials' variance, per period.
    probability : float
        That the true ratio exceeds that maximum; NaN where it is undefined.
    n_trials : int
        Configurations tried.
    """

    sharpe: float
    expected_best: float
    probability: float
    n_trials: int

    @property
    def beyond_chance(self) -> bool:
        """Whether the best of so many trials is more than luck, at 95 %."""
        return self.probability > BEYOND_CHANCE


def deflated_sharpe(
    returns: ArrayLike, trial_sharpes: ArrayLike, n_trials: int | None = None
) -> DeflatedSharpe:
    """Return the deflated Sharpe ratio of the best of several configurations (Bailey & López de Prado 2014).

    Through `purgedcv.deflated_sharpe_ratio_full`. The variance of the trials is at least what noise alone gives the
    ratio of independent returns: configurations that hardly differ would otherwise deflate nothing. Returns that depend
    on each other count for as many as their long-run variance says.

    Parameters
    ----------
    returns : (n,)
        Of the configuration that was chosen, per period, in order of time.
    trial_sharpes : (m,)
        Sharpe ratio per period of each configuration that is known, the chosen one included.
    n_trials : int, optional
        Configurations tried in all, at least m; by default m.

    Returns
    -------
    DeflatedSharpe
        Its probability NaN where no ratio is defined: fewer than ten or constant returns, or extreme moments.

    Raises
    ------
    ValueError
        If a value is not finite, there is no trial, or `n_trials` is less than those known.
    """
    values, sharpes = (
        _finite_column(column, name)
        for column, name in ((returns, "returns"), (trial_sharpes, "trial_sharpes"))
    )
    if not len(sharpes):
        raise ValueError("`trial_sharpes` is empty: the configuration that was chosen is one of them")
    tried = len(sharpes) if n_trials is None else int(n_trials)
    if tried < len(sharpes):
        raise ValueError(f"`n_trials` was {tried}, but the ratios of {len(sharpes)} trials are given")
    if len(values) < 10 or values.min() == values.max():
        return DeflatedSharpe(math.nan, math.nan, math.nan, tried)
    from purgedcv import deflated_sharpe_ratio_full

    dependence = max(1.0, long_run_variance(values).variance / float(values.var()))
    spread = float(sharpes.var(ddof=1)) if len(sharpes) > 1 else 0.0
    variance = max(spread, dependence / (len(values) - 1))
    try:
        found = deflated_sharpe_ratio_full(values, tried, variance)
    except ValueError:  # moments beyond the formula
        return DeflatedSharpe(math.nan, math.nan, math.nan, tried)
    probability = found.dsr
    if dependence > 1.0 and 0.0 < probability < 1.0:
        from scipy.stats import norm

        probability = float(norm.cdf(norm.ppf(probability) / math.sqrt(dependence)))
    return DeflatedSharpe(float(found.observed_sr), float(found.sr_star), float(probability), tried)


class Overfitting(NamedTuple):
    """How often the best configuration of one half of the time is below the median in the other.

    Attributes
    ----------
    probability : float
        Of backtest overfitting, in [0, 1]: 0.5 where the choice is no better than chance.
    slope : float
        Of the performance out of sample on that in sample, of the best in sample; NaN if it is undefined.
    n_configurations, n_combinations : int
        Compared, and halves.
    """

    probability: float
    slope: float
    n_configurations: int
    n_combinations: int


def backtest_overfitting(returns: ArrayLike, n_blocks: int = 10) -> Overfitting:
    """Return the probability of backtest overfitting by symmetric halves (Bailey, Borwein, López de Prado & Zhu 2017).

    Through `purgedcv.probability_of_backtest_overfitting`: performance is the Sharpe ratio.

    Parameters
    ----------
    returns : (n_configurations, n_periods)
        Per period, over the same periods, at least two configurations.
    n_blocks : int
        Even number of blocks of time of which halves are made: 252 halves of 10 blocks.

    Raises
    ------
    ValueError
        If there are fewer than two configurations or periods than blocks, or a value is not finite.
    """
    from purgedcv import probability_of_backtest_overfitting

    found = probability_of_backtest_overfitting(np.asarray(returns, np.float64), n_blocks)
    return Overfitting(float(found.pbo), float(found.slope), len(np.asarray(returns)), int(found.n_combos))


def combinatorial_purged_splits(
    label_start: ArrayLike,
    label_end: ArrayLike,
    *,
    n_groups: int = 6,
    n_test_groups: int = 2,
    embargo: int = 0,
) -> list[Split]:
    """Return every choice of test groups with the training rows whose labels keep clear of them.

    Rows are cut into `n_groups` consecutive groups; training rows are purged where their labels come closer than
    `embargo` to those of test rows, before and after (López de Prado 2018, section 12.4), by
    `purgedcv.CombinatorialPurgedCV`.

    Parameters
    ----------
    label_start, label_end : int64 (n,)
        Event time and end of label, UNIX nanoseconds, in order of `label_start`.
    n_groups, n_test_groups : int
        Groups, and how many of them test at once.
    embargo : int
        Nanoseconds.

    Raises
    ------
    ValueError
        If there are fewer rows than groups, or numbers do not fit.
    """
    from purgedcv import CombinatorialPurgedCV

    # Its intervals exclude their end, ours include it.
    start, end = np.asarray(label_start, np.int64), np.asarray(label_end, np.int64) + 1
    splitter = CombinatorialPurgedCV(
        n_groups,
        n_test_groups,
        prediction_times=start.view("M8[ns]"),
        evaluation_times=end.view("M8[ns]"),
        purge_horizon=np.timedelta64(embargo, "ns"),
    )
    rows = np.empty((len(start), 1))
    return [
        Split(np.asarray(train, np.int64), np.asarray(test, np.int64)) for train, test in splitter.split(rows)
    ]


def purged_paths(
    predictions: Sequence[FloatArray], n: int, n_groups: int = 6, n_test_groups: int = 2
) -> FloatArray:
    """Return out-of-sample predictions of all rows along several paths, each group of a path by another model.

    Parameters
    ----------
    predictions : sequence of float64 (n_test,)
        Of the test rows of each of the `combinatorial_purged_splits`, in their order.
    n : int
        Rows in all.
    n_groups, n_test_groups : int
        As there.

    Returns
    -------
    float64 (n_paths, n)
        (n_groups - 1) choose (n_test_groups - 1) paths: 5 of 15 fits by default.

    Raises
    ------
    ValueError
        If there are more or fewer predictions than splits, or than test rows of one.
    """
    from purgedcv import reconstruct_paths

    groups = np.array_split(np.arange(n), n_groups)
    tested = [np.concatenate(chosen) for chosen in combinations(groups, n_test_groups)]
    return np.asarray(reconstruct_paths(predictions, tested, n_groups, n_test_groups, n), np.float64)


def _finite_column(values: ArrayLike, name: str) -> FloatArray:
    column = np.asarray(values, np.float64)
    if column.ndim != 1:
        raise ValueError(f"`{name}` must be one column, its shape was {column.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(f"`{name}` must be finite: row {bad[0]} is {column[bad[0]]}")
    return column
