"""What is known of a trade without its features: its odds in a random walk, and its break-even."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels import odds as kernels
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray
from ml4t_actor.settings import LabelSettings

N_EXIT_TIMES = 16
N_KNOTS = 32
# How many labels of its own the law of all rows, and that of the random walk, count as beside the rows at hand. Rows
# count by how near the logarithms of their costs in volatilities are: by a normal window of this standard deviation.
NEIGHBOURHOOD = 0.25
LABELS_OF_ALL_ROWS = 50.0
LABELS_OF_THE_WALK = 20.0

_UNTIL_HORIZON = np.ones(1)
_NOTHING_LEARNED = np.zeros(1)


class TradeOdds:
    """Odds and break-even of trades with given labels, from their volatility: the same live and in a batch.

    The price is a Brownian motion of one volatility over the horizon, and a trade ends at a barrier or at one
    of the `exit_times`, whichever comes first. What a walk does not know, such as that a trend follower leaves after
    reversals, may be learned: `fit_break_even_shift`.

    Parameters
    ----------
    labels : LabelSettings
        Barriers, horizon and costs.
    exit_times : float (n,), optional
        Equally likely shares of the horizon, in (0, 1], at which trades end that touch no barrier: `exit_times_of` the
        rows that were learned from. By default all last until the horizon.
    break_even_shift : float (n,), optional
        What is added to the log odds of the break-even of a random walk, at costs from nothing to the profit barrier;
        see `kernels.odds.trade_odds`. By default nothing.

    Raises
    ------
    ValueError
        If a time is outside (0, 1], a shift not finite, or there is none.

    Examples
    --------
    >>> odds, break_even = TradeOdds(LabelSettings(cost=0.001)).of(0.005)
    >>> round(odds, 3), round(break_even, 3)
    (0.443, 0.574)
    """

    __slots__ = ("_cost", "_series", "_shift", "_sqrt_horizon")

    def __init__(
        self,
        labels: LabelSettings,
        exit_times: ArrayLike = _UNTIL_HORIZON,
        break_even_shift: ArrayLike = _NOTHING_LEARNED,
    ) -> None:
        times, shift = checked_exit_times(exit_times), checked_break_even_shift(break_even_shift)
        self._cost = labels.cost
        self._series = kernels.barrier_series(labels.profit_barrier, labels.stop_barrier, times)
        self._shift = shift
        self._sqrt_horizon = math.sqrt(labels.horizon_bars)  # rounded as in a dataset

    def scaled(self, bar_volatility: float) -> float:
        """Return the volatility of a bar scaled to the horizon."""
        return bar_volatility * self._sqrt_horizon

    def of(self, volatility: float) -> tuple[float, float]:
        """Return odds and break-even of one trade.

        Parameters
        ----------
        volatility : float
            As a log return scaled to the horizon.

        Returns
        -------
        odds, break_even : float
            In [0, 1]; NaN where the volatility is not positive and finite. Where it cannot pay they are 0 and 1.
        """
        answer: tuple[float, float] = kernels.trade_odds(volatility, self._cost, self._series, self._shift)
        return answer

    def of_rows(self, volatility: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return odds and break-even of many trades, bitwise those of `of`; each float64 (n,)."""
        column = np.array(volatility, dtype=np.float64, ndmin=1)
        answers: tuple[FloatArray, FloatArray] = kernels.trade_odds_rows(
            column, self._cost, self._series, self._shift
        )
        return answers


def random_walk_odds(
    volatility: ArrayLike,
    pt: ArrayLike,
    sl: ArrayLike,
    cost: ArrayLike,
    exit_times: ArrayLike = _UNTIL_HORIZON,
) -> FloatArray:
    """Return the probability that a signal pays if the price is a random walk without drift.

    What is known about a label before any data: with barriers in units of volatility, the odds fall with the cost in
    those units. The price is a Brownian motion of one volatility over the horizon, absorbed at ``pt`` and ``-sl``; the
    label is 1 if it is absorbed above, or ends above the cost. Both follow from the eigenfunction
    expansion on the interval (Karatzas & Shreve 1991, section 2.8). Live, the same kernel gives the same odds.

    Parameters
    ----------
    volatility : float (n,)
        As a log return scaled to the horizon.
    pt, sl : float or float (n,)
        Distances of the barriers in volatilities, positive and finite.
    cost : float or float (n,)
        Round-trip cost as a log return.
    exit_times : float (n_times,), optional
        Equally likely shares of the horizon at which a trade ends that touched no barrier; by default the horizon.

    Returns
    -------
    float64 (n,)
        The shape to which the four broadcast. 0 where the cost reaches the profit barrier; NaN where the volatility is
        not positive and finite.

    Raises
    ------
    ValueError
        If a barrier, a cost or a time is out of range, or the shapes do not broadcast.

    Examples
    --------
    >>> random_walk_odds([0.01], pt=1.0, sl=1.0, cost=0.0).round(6).tolist()
    [0.5]
    >>> random_walk_odds([0.01, 0.001], pt=1.0, sl=1.0, cost=[0.0, 0.002]).round(6).tolist()
    [0.5, 0.0]
    """
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (volatility, pt, sl, cost)))
    for name, values in (("pt", columns[1]), ("sl", columns[2])):
        if (bad := ~((values > 0.0) & np.isfinite(values))).any():
            raise ValueError(f"`{name}` was {values[bad][0]}, must be positive and finite")
    if (bad := ~((columns[3] >= 0.0) & np.isfinite(columns[3]))).any():
        raise ValueError(f"`cost` was {columns[3][bad][0]}, must be a finite log return, not negative")
    times = checked_exit_times(exit_times)
    v, upper, lower, costs = (np.array(column, order="C").ravel() for column in columns)
    odds = kernels.random_walk_odds_rows(v, upper, lower, costs, times)
    return odds.reshape(columns[0].shape)


def checked_exit_times(exit_times: ArrayLike) -> FloatArray:
    """Return a read-only copy of exit times; `ValueError` unless there are some and all are in (0, 1]."""
    return _checked(
        "exit_times", exit_times, lambda t: (t > 0.0) & (t <= 1.0), "shares of the horizon in (0, 1]"
    )


def checked_break_even_shift(shift: ArrayLike) -> FloatArray:
    """Return a read-only copy of a shift; `ValueError` unless it has elements and all are finite."""
    return _checked("break_even_shift", shift, np.isfinite, "finite")


def _checked(name: str, values: ArrayLike, fits: Callable[[FloatArray], np.ndarray], what: str) -> FloatArray:
    column = np.array(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"`{name}` must be a row of at least one number, has the shape {column.shape}")
    if (bad := ~fits(column)).any():
        raise ValueError(f"`{name}` must be {what}, one was {column[bad][0]}")
    column.flags.writeable = False
    return column


def exit_times_of(exit_time: FloatArray) -> FloatArray:
    """Return equally likely times at which trades like these end if they touch no barrier: quantiles of theirs.

    They come from when signals were given alone, not from what became of them.

    Parameters
    ----------
    exit_time : float64 (n,)
        Of the rows that are learned from, see `LabelledRows`.

    Returns
    -------
    float64 (1,) or (16,)
        One, the horizon, where no row is ended by a signal.
    """
    if not (exit_time < 1.0).any():
        return _UNTIL_HORIZON.copy()
    return np.quantile(exit_time, (np.arange(N_EXIT_TIMES) + 0.5) / N_EXIT_TIMES)


def with_odds(rows: LabelledRows, labels: LabelSettings, exit_times: FloatArray) -> LabelledRows:
    """Return the rows with the odds that go with these exit times; where there were none there are none still.

    Rows that came without a volatility keep what they have.
    """
    known = np.isfinite(rows.odds) & (rows.volatility > 0.0)
    odds = rows.odds.copy()
    odds[known] = TradeOdds(labels, exit_times).of_rows(rows.volatility[known])[0]
    return rows.replace(odds=odds)


def fit_break_even_shift(rows: LabelledRows, labels: LabelSettings, exit_times: FloatArray) -> FloatArray:
    """Learn what the break-even of trades like these is beyond that of a random walk.

    In volatilities, gross returns follow one law, whatever the costs are; which, the rows tell: with how many of them
    exceed a cost, by how much, and how much the others fall short of it, mean net win and loss are known, and so is
    ``log(L / W)``. Rows count the more the nearer their own costs in volatilities are, since volatility that is far
    from its mean returns to it. Beside the near rows all rows together count as 50 labels, and beside all rows the
    random walk as 20; a row counts as the mean uniqueness.

    Parameters
    ----------
    rows : LabelledRows
        To learn from; those that cannot pay, and those whose return or volatility is not known, are left out.
    labels, exit_times
        As for `TradeOdds`.

    Returns
    -------
    float64 (1,) or (32,)
        A `break_even_shift`: one zero where no row is left.
    """
    usable = np.isfinite(rows.ret) & (rows.volatility > 0.0)
    usable &= labels.cost < labels.profit_barrier * np.where(usable, rows.volatility, 0.0)
    if not usable.any():
        return _NOTHING_LEARNED.copy()
    gross = rows.ret[usable] / rows.volatility[usable]
    smallest = labels.profit_barrier / (2.0 * N_KNOTS)
    nearness = np.log(np.maximum(labels.cost / rows.volatility[usable], smallest))
    worth = float(rows.weight[usable].mean())
    series = kernels.barrier_series(labels.profit_barrier, labels.stop_barrier, exit_times)
    shift = np.zeros(N_KNOTS)
    for k in range(N_KNOTS):
        cost = labels.profit_barrier * k / N_KNOTS
        odds, excess = kernels.random_walk_excess(1.0, cost, series)
        if not (odds > 1e-9 and excess > 1e-9):  # nothing to compare with
            shift[k] = shift[k - 1]
            continue
        walk = np.array([odds, excess, excess + cost])
        beyond = gross - cost
        law = np.array([beyond > 0.0, np.maximum(beyond, 0.0), np.maximum(-beyond, 0.0)])
        near = worth * np.exp(-0.5 * ((nearness - math.log(max(cost, smallest))) / NEIGHBOURHOOD) ** 2)
        everywhere = (worth * law.sum(axis=1) + LABELS_OF_THE_WALK * walk) / (
            worth * len(gross) + LABELS_OF_THE_WALK
        )
        here = (law @ near + LABELS_OF_ALL_ROWS * everywhere) / (near.sum() + LABELS_OF_ALL_ROWS)
        shift[k] = _log_loss_over_win(here) - _log_loss_over_win(walk)
    return shift


def _log_loss_over_win(law: FloatArray) -> float:
    """Return ``log(L / W)`` of a probability to win, a mean excess and a mean shortfall."""
    won, excess, shortfall = law.tolist()
    return math.log(won * shortfall) - math.log((1.0 - won) * excess)


__all__ = [
    "TradeOdds",
    "checked_break_even_shift",
    "checked_exit_times",
    "exit_times_of",
    "fit_break_even_shift",
    "random_walk_odds",
    "with_odds",
]
