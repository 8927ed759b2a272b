"""What choosing signals by confidence earns, beside a filter by volatility and a random choice of as many."""

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import FloatArray
from ml4t_actor.validation.bootstrap import mean_interval
from ml4t_actor.validation.scores import Interval, checked

TOP_SHARE = 0.2


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The same signals, chosen in different ways. Net returns are those given; NaN is what is undefined.

    Attributes
    ----------
    n : int
        Signals.
    share : float
        Part of them that is chosen, of each fold.
    net_all, net_confidence, net_volatility : float
        Mean net return of all signals, which is what a random choice of any number expects; of the top share by
        confidence; and of as many by volatility.
    over_volatility, over_volatility_interval : float, Interval
        How much more a signal of the top share by confidence earned than one of the top share by volatility.
    over_random, over_random_interval : float, Interval
        Likewise than one chosen at random.
    above_break_even : int
        Signals of a confidence above break-even.
    precision, recall : float
        Share of those that paid, and share of all that paid among them.
    profit_factor, profit_factor_all : float
        Sum of gains over sum of losses of those above break-even, and of all signals; infinite without a loss.
    """

    n: int
    share: float
    net_all: float
    net_confidence: float
    net_volatility: float
    over_volatility: float
    over_volatility_interval: Interval
    over_random: float
    over_random_interval: Interval
    above_break_even: int
    precision: float
    recall: float
    profit_factor: float
    profit_factor_all: float


def select(
    y: ArrayLike,
    confidence: ArrayLike,
    volatility: ArrayLike,
    net: ArrayLike,
    break_even: ArrayLike,
    *,
    fold: ArrayLike | None = None,
    share: float = TOP_SHARE,
    block: int,
    samples: int = 500,
    seed: int = 0,
) -> Selection:
    """Compare what the most confident signals earned with the most volatile ones, and with any.

    Where costs are fixed, signals of high volatility pay more often and further: a filter by volatility needs no model.
    Differences rest on the widened block bootstrap of each signal's influence on them (`mean_interval`).

    Parameters
    ----------
    y : (n,)
        1 if the signal paid, else 0, in order of time.
    confidence : (n,)
        Predicted probabilities of that, out of sample.
    volatility, net : (n,)
        Known when the signal was given; return after costs in its direction. Of any units.
    break_even : float or (n,)
        Probability at which a signal earns nothing.
    fold : int (n,), optional
        The top share is chosen in each fold: levels of different models do not compare.
    share : float
        In (0, 1).
    block, samples, seed : int
        As for `mean_interval`.

    Raises
    ------
    ValueError
        If there is no row, a value is not finite or out of range, or lengths differ.
    """
    labels, p, _ = checked(y, confidence, None, name="confidence")
    n = len(labels)
    if not n:
        raise ValueError("nothing to select from: there is no row")
    if not 0.0 < share < 1.0:
        raise ValueError(f"`share` was {share}, must be between 0 and 1")
    sigma, returns = _finite(volatility, "volatility", n), _finite(net, "net", n)
    needed = np.broadcast_to(np.asarray(break_even, np.float64), (n,))
    folds = np.zeros(n, np.int64) if fold is None else np.asarray(fold)
    if folds.shape != (n,):
        raise ValueError(f"`fold` needs one value per row: shape {folds.shape} for {n} rows")
    most_confident, most_volatile = top_share(p, folds, share), top_share(sigma, folds, share)
    over_all = returns - returns.mean()
    by_confidence, by_volatility = (
        _mean_of_chosen(chosen, returns) for chosen in (most_confident, most_volatile)
    )

    def interval(difference: float, influence: FloatArray) -> Interval:
        return mean_interval(difference + influence, block=block, samples=samples, seed=seed)

    over_volatility = by_confidence[0] - by_volatility[0]
    over_random = by_confidence[0] - float(returns.mean())
    precision, recall = precision_recall(labels, p, needed)
    above = p > needed
    return Selection(
        n=n,
        share=share,
        net_all=float(returns.mean()),
        net_confidence=by_confidence[0],
        net_volatility=by_volatility[0],
        over_volatility=over_volatility,
        over_volatility_interval=interval(over_volatility, by_confidence[1] - by_volatility[1]),
        over_random=over_random,
        over_random_interval=interval(over_random, by_confidence[1] - over_all),
        above_break_even=int(above.sum()),
        precision=precision,
        recall=recall,
        profit_factor=profit_factor(returns[above]),
        profit_factor_all=profit_factor(returns),
    )


def top_share(values: FloatArray, fold: ArrayLike, share: float) -> FloatArray:
    """Return how much of each row belongs to the top `share` of its fold: 1, 0, or where tied at the cut a part.

    Tied rows divide what is left among them, as a random choice among them would on average.
    """
    chosen = np.zeros(len(values))
    folds = np.asarray(fold)
    for name in np.unique(folds):
        rows = np.flatnonzero(folds == name)
        own = values[rows]
        wanted = share * len(rows)
        cut = np.sort(own)[::-1][min(len(rows) - 1, max(0, math.ceil(wanted) - 1))]
        above, tied = own > cut, own == cut
        chosen[rows[above]] = 1.0
        chosen[rows[tied]] = (wanted - above.sum()) / tied.sum()
    return chosen


def _mean_of_chosen(chosen: FloatArray, returns: FloatArray) -> tuple[float, FloatArray]:
    """Return the mean return of what is chosen, and the influence of each row on it."""
    share = float(chosen.mean())
    mean = float(chosen @ returns) / (share * len(returns))
    return mean, chosen * (returns - mean) / share


def precision_recall(y: ArrayLike, p: ArrayLike, threshold: ArrayLike) -> tuple[float, float]:
    """Return precision and recall of acting where `p` is above `threshold`, NaN where they divide by nothing.

    Precision is the share of those acted on that paid, recall the share of all that paid that were acted on.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    labels, probabilities, _ = checked(y, p, None)
    acted = probabilities > np.asarray(threshold, np.float64)
    hits, paid = float(labels[acted].sum()), float(labels.sum())
    return (hits / int(acted.sum()) if acted.any() else math.nan, hits / paid if paid else math.nan)


def profit_factor(net: ArrayLike) -> float:
    """Return the sum of gains over the sum of losses: infinite without a loss, NaN with neither."""
    values = np.asarray(net, np.float64)
    gains, losses = float(values[values > 0.0].sum()), -float(values[values < 0.0].sum())
    if losses > 0.0:
        return gains / losses
    return math.inf if gains > 0.0 else math.nan


def _finite(values: ArrayLike, name: str, n: int) -> FloatArray:
    column = np.asarray(values, np.float64)
    if column.shape != (n,):
        raise ValueError(f"`{name}` must have one value per row: its shape is {column.shape}, y has {n} rows")
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(f"`{name}` must be finite: row {bad[0]} is {column[bad[0]]}")
    return column
