"""Scores of predicted probabilities, each with the baseline it has to beat."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml4t_actor.kernels.bootstrap import concordance
from ml4t_actor.market_data import AnyArray, FloatArray, IntArray

SCORING_FLOOR = 1e-4  # of a probability that was served as zero: one that pays all the same costs 9.2 nats
LOG_LOSS_CLIP = float(np.finfo(np.float64).eps)


class Interval(NamedTuple):
    """Both ends of a confidence interval, NaN where none could be computed."""

    low: float
    high: float


class SideAUC(NamedTuple):
    """AUC among longs, among shorts, and over all pairs of the same side; NaN where there is no pair."""

    within: float
    long: float
    short: float


class Ranking(NamedTuple):
    """Rows ranked by score within groups, as the concordance kernel reads them."""

    order: IntArray
    tie_end: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    weight: FloatArray


def rank(y: FloatArray, p: FloatArray, weight: FloatArray, group: IntArray | None = None) -> Ranking:
    """Rank rows by `group`, then ascending `p`."""
    order = np.argsort(p, kind="stable") if group is None else np.lexsort((p, group))
    ranked = p[order]
    tie_end = np.ones(len(p), np.bool_)
    tie_end[:-1] = ranked[1:] != ranked[:-1]
    if group is not None:
        tie_end[:-1] |= group[order][1:] != group[order][:-1]
    return Ranking(order, tie_end, y[order] > 0.5, weight[order])


def checked(
    y: ArrayLike, p: ArrayLike, weight: ArrayLike | None, *, probabilities: bool = True, name: str = "p"
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return labels, predictions and weights (ones by default) as float64, or raise `ValueError`.

    `name` is what the predictions are called in errors; any finite score will do unless `probabilities`.
    """
    labels = np.asarray(y, np.float64)
    predictions = np.asarray(p, np.float64)
    weights = np.ones(labels.shape) if weight is None else np.asarray(weight, np.float64)
    for what, column in (("y", labels), (name, predictions), ("weight", weights)):
        if column.ndim != 1 or column.shape != labels.shape:
            raise ValueError(
                f"`{what}` must have one value per row: its shape is {column.shape}, y's {labels.shape}"
            )
    _refuse("y", labels, ~((labels == 0.0) | (labels == 1.0)), "must be 0 or 1")
    if probabilities:
        _refuse(name, predictions, ~((predictions >= 0.0) & (predictions <= 1.0)), "must be in [0, 1]")
    else:
        _refuse(name, predictions, ~np.isfinite(predictions), "must be finite")
    _refuse("weight", weights, ~((weights >= 0.0) & np.isfinite(weights)), "must be finite and not negative")
    return labels, predictions, weights


def checked_side(side: ArrayLike, n: int) -> NDArray[np.int8]:
    """Return sides as int8, or raise `ValueError` unless each of the `n` is 1 or -1."""
    sides = np.asarray(side)
    if sides.shape != (n,):
        raise ValueError(f"`side` must have one value per row: its shape is {sides.shape}, y has {n} rows")
    _refuse("side", sides, ~((sides == 1) | (sides == -1)), "must be 1 or -1: leave rows without a trade out")
    return sides.astype(np.int8)


def _refuse(name: str, column: AnyArray, bad: NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"`{name}` {rule}: row {row} is {column[row]}")


def _mean(values: FloatArray, weight: FloatArray) -> float:
    total = float(weight.sum())
    return float(weight @ values) / total if total > 0.0 else math.nan


def auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the probability that a positive row scores above a negative one, ties counting half.

    The Mann-Whitney statistic with midranks (Hanley & McNeil 1982); a pair weighs the product of its weights.

    Parameters
    ----------
    y : (n,)
        Labels, 0 or 1.
    p : (n,)
        Scores, finite; their order alone matters.
    weight : (n,), optional
        Weight of each row.

    Returns
    -------
    float
        NaN if either class is absent.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    labels, scores, weights = checked(y, p, weight, probabilities=False)
    ranking = rank(labels, scores, weights)
    concordant, pairs = concordance(np.ones(len(labels), np.int64), *ranking, 0, len(labels))
    return concordant / pairs if pairs > 0.0 else math.nan


def side_groups(side: NDArray[np.int8], fold: ArrayLike | None) -> tuple[IntArray, IntArray]:
    """Group rows by side and fold: the group of each row, and bounds of the groups once rows are ranked.

    Of 2k groups for k folds, the first k are shorts and the last k longs.
    """
    folds, k = np.zeros(len(side), np.int64), 1
    if fold is not None:
        names, folds = np.unique(np.asarray(fold), return_inverse=True)
        k = max(1, len(names))
        if folds.shape != side.shape:
            raise ValueError(f"`fold` needs one value per row: shape {folds.shape} for {len(side)} rows")
    group = np.where(side == 1, k, 0) + folds
    return group, np.concatenate([[0], np.cumsum(np.bincount(group, minlength=2 * k))])


def auc_within_side(
    y: ArrayLike,
    p: ArrayLike,
    side: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    fold: ArrayLike | None = None,
) -> SideAUC:
    """Return AUC over pairs of the same side, and for either side.

    A pooled AUC also rewards knowing that longs and shorts have different base rates. Comparing longs with
    longs and shorts with shorts does not; `within` is the mean of both, weighted by their (positive,
    negative) pairs.

    Parameters
    ----------
    y, p, weight : (n,)
        As for `auc`.
    side : (n,)
        1 for longs, -1 for shorts; rows without a trade do not belong here.
    fold : int (n,), optional
        Compare only rows of the same fold. Each fold's model knows another base rate, and rates that revert make
        its level look wrong across folds: constant forecasts then score below 0.5.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    labels, scores, weights = checked(y, p, weight, probabilities=False)
    sides = checked_side(side, len(labels))
    group, bounds = side_groups(sides, fold)
    ranking = rank(labels, scores, weights, group)
    once = np.ones(len(labels), np.int64)
    by_group = np.array(
        [concordance(once, *ranking, first, last) for first, last in pairwise(bounds.tolist())]
    )
    short, long = by_group[: len(by_group) // 2].sum(axis=0), by_group[len(by_group) // 2 :].sum(axis=0)
    return SideAUC(_share(short + long), _share(long), _share(short))


def _share(concordant_of_pairs: FloatArray) -> float:
    concordant, pairs = concordant_of_pairs
    return float(concordant / pairs) if pairs > 0.0 else math.nan


def brier_losses(y: FloatArray, p: FloatArray) -> FloatArray:
    """Return the squared error of each row."""
    return (p - y) ** 2


def log_losses(y: FloatArray, p: FloatArray) -> FloatArray:
    """Return the negative log-likelihood of each row in nats, `p` clipped as `log_loss` says."""
    clipped = np.clip(p, LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    return -np.log(np.where(y > 0.5, clipped, 1.0 - clipped))


def brier(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the mean squared error of probabilities (Brier 1950), NaN without weight."""
    labels, probabilities, weights = checked(y, p, weight)
    return _mean(brier_losses(labels, probabilities), weights)


def log_loss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the mean negative log-likelihood in nats, NaN without weight.

    As in scikit-learn `p` is clipped to [eps, 1 - eps] with eps = 2.2e-16: a certainty that fails costs 36.
    """
    labels, probabilities, weights = checked(y, p, weight)
    return _mean(log_losses(labels, probabilities), weights)


def skill(loss: float, baseline_loss: float) -> float:
    """Return the share of the baseline's loss that was avoided: 1 perfect, 0 no better; NaN if that was 0."""
    return 1.0 - loss / baseline_loss if baseline_loss > 0.0 else math.nan


def base_rate(y: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the weighted share of positive rows."""
    labels, _, weights = checked(y, y, weight)
    return _mean(labels, weights)


def accuracy(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the weighted share of rows predicted right: 1 where `p` is above 1/2, as in scikit-learn."""
    labels, probabilities, weights = checked(y, p, weight)
    return _mean(((probabilities > 0.5) == (labels > 0.5)).astype(np.float64), weights)


def majority_accuracy(y: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Return the accuracy of always predicting the class more frequent in `y`, which only hindsight knows."""
    rate = base_rate(y, weight)
    return max(rate, 1.0 - rate)


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions of similar probability, and how often they came true.

    Attributes
    ----------
    p_low, p_high : float
        Bounds: the bin holds p in (p_low, p_high], the first one p_low as well.
    n : int
        Rows.
    share : float
        Part of all weight.
    mean_p, rate : float
        Mean prediction and observed rate of positives, weighted.
    rate_low, rate_high : float
        Wilson interval of `rate` at 95 %.
    """

    p_low: float
    p_high: float
    n: int
    share: float
    mean_p: float
    rate: float
    rate_low: float
    rate_high: float


def wilson_interval(rate: float, n: float, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927) of `n` (effective) observations."""
    if not n > 0.0:
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    centre = (rate + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * math.sqrt(rate * (1.0 - rate) / n + z * z / (4.0 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def reliability_table(
    y: ArrayLike,
    p: ArrayLike,
    weight: ArrayLike | None = None,
    n_bins: int = 10,
    *,
    n_effective: float | None = None,
) -> list[ReliabilityBin]:
    """Compare predicted with observed rates in bins of about equally many rows.

    Bins are cut at quantiles of `p`; equal predictions share a bin, so ties give fewer bins than `n_bins`.
    Rows without weight are left out.

    Parameters
    ----------
    y, p, weight : (n,)
        Labels 0 or 1, probabilities, weights.
    n_bins : int
        Most bins.
    n_effective : float, optional
        Independent observations behind all rows, of which each bin has its share in the Wilson intervals. By
        default as many as the weights say, (sum w)^2 / sum w^2 (Kish 1965): too many where labels overlap.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """
    labels, probabilities, weights = checked(y, p, weight)
    if n_bins < 1:
        raise ValueError(f"`n_bins` was {n_bins}, must be at least 1")
    counted = weights > 0.0
    labels, probabilities, weights = labels[counted], probabilities[counted], weights[counted]
    if not len(labels):
        return []
    total = float(weights.sum())
    if n_effective is None:
        n_effective = total**2 / float(weights @ weights)
    # Observed values as upper bounds: no bin is empty and no tie is cut.
    upper = np.unique(np.quantile(probabilities, np.arange(1, n_bins + 1) / n_bins, method="inverted_cdf"))
    lower = np.concatenate(([probabilities.min()], upper[:-1]))
    bins = np.searchsorted(upper, probabilities, side="left")
    n = np.bincount(bins)
    in_bin = np.bincount(bins, weights)
    mean_p = np.bincount(bins, weights * probabilities) / in_bin
    rate = np.minimum(np.bincount(bins, weights * labels) / in_bin, 1.0)
    table = []
    for k in range(len(upper)):
        share = float(in_bin[k]) / total
        low, high = wilson_interval(float(rate[k]), n_effective * share)
        table.append(
            ReliabilityBin(
                p_low=float(lower[k]),
                p_high=float(upper[k]),
                n=int(n[k]),
                share=share,
                mean_p=float(mean_p[k]),
                rate=float(rate[k]),
                rate_low=low,
                rate_high=high,
            )
        )
    return table


def expected_calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """Return the mean gap between predicted and observed rate over a reliability table (Naeini et al. 2015).

    Chance alone makes it positive, by about 0.8 standard errors of a bin's rate.
    """
    return sum(row.share * abs(row.mean_p - row.rate) for row in table) if table else math.nan
