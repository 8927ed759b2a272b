"""What AUC would be if only the odds were true: labels drawn from them, with the luck that windows share."""

from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels.bootstrap import concordance
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.validation.scores import Interval, checked, checked_side, rank, side_groups

MOST_DRAWS = 200


class AUCNull(NamedTuple):
    """Mean of AUC within side where only the odds are true, and the central 95 % of it; NaN if it is undefined."""

    mean: float
    interval: Interval


def auc_null(
    p: ArrayLike,
    base_odds: ArrayLike,
    side: ArrayLike,
    *,
    fold: ArrayLike | None = None,
    label_start: ArrayLike,
    label_end: ArrayLike,
    samples: int = MOST_DRAWS,
    seed: int = 0,
) -> AUCNull:
    """Simulate AUC within side of given predictions over labels of which only the odds are known.

    In each draw one Gaussian random walk runs through all windows. A row's luck is the walk's standardised change over
    its own window, turned by its side, and it pays where its luck is in the best `base_odds` of a normal distribution:
    each label has its odds, those of overlapping windows go together, and those of opposite sides against each other.
    The mean is 0.5 only where predictions do not follow the odds.

    Parameters
    ----------
    p, base_odds : (n,)
        Predictions and odds, in [0, 1].
    side : (n,)
        1 or -1.
    fold : int (n,), optional
        As for `auc_within_side`.
    label_start, label_end : (n,)
        Window of each label, in any unit.
    samples, seed : int
        Draws, at most `MOST_DRAWS` of them, and what decides them.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    n = len(np.asarray(p))
    _, predictions, weights = checked(np.zeros(n), p, None)
    _, odds, _ = checked(np.zeros(n), base_odds, None, name="base_odds")
    sides = checked_side(side, n)
    luck = _SharedLuck(np.asarray(label_start, np.float64), np.asarray(label_end, np.float64), sides)
    normal = NormalDist()
    # Beyond float's reach on either side a label is certain.
    least_luck = np.array(
        [np.inf if q < 1e-15 else -np.inf if q > 1.0 - 1e-15 else -normal.inv_cdf(q) for q in odds]
    )
    group, bounds = side_groups(sides, fold)
    order, tie_end, _, weight = rank(np.zeros(n), predictions, weights, group)
    once = np.ones(n, np.int64)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(min(samples, MOST_DRAWS)):
        positive = (luck.draw(rng) > least_luck)[order]
        won = total = 0.0
        for first, last in pairwise(bounds.tolist()):
            concordant, pairs = concordance(once, order, tie_end, positive, weight, first, last)
            won += concordant
            total += pairs
        if total > 0.0:
            values.append(won / total)
    if not values:
        return AUCNull(np.nan, Interval(np.nan, np.nan))
    low, high = np.quantile(values, [0.025, 0.975])
    return AUCNull(float(np.mean(values)), Interval(float(low), float(high)))


class _SharedLuck:
    """Standardised changes of a random walk over windows, in the direction of each side."""

    def __init__(self, start: FloatArray, end: FloatArray, side: "np.ndarray") -> None:
        if not start.shape == end.shape == side.shape:
            raise ValueError(
                f"each row needs one window: {start.shape} starts and {end.shape} ends for {side.shape} sides"
            )
        if len(bad := np.flatnonzero(~(end > start))):
            raise ValueError(
                f"a label's window must end after it starts: row {bad[0]} runs from {start[bad[0]]} to {end[bad[0]]}"
            )
        times, at = np.unique(np.concatenate((start, end)), return_inverse=True)
        self._start: IntArray = at[: len(start)]
        self._end: IntArray = at[len(start) :]
        self._step = np.sqrt(np.diff(times, prepend=times[0] if len(times) else 0.0))
        self._direction = side / np.sqrt(end - start)

    def draw(self, rng: np.random.Generator) -> FloatArray:
        walk = np.cumsum(self._step * rng.standard_normal(len(self._step)))
        return (walk[self._end] - walk[self._start]) * self._direction
