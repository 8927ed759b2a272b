"""One row through a fitted, calibrated classifier: score, then probability.

Two forms: the score alone (``logistic_row``, ``trees_row``), and the odds of a random walk plus evidence
(``logistic_answer``, ``trees_answer``), which also tell what the odds alone would say, and an interval.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray

UNCALIBRATED, SIGMOID, ISOTONIC = 0, 1, 2
LEAF = -1

Z90 = 1.6448536269514722
"""Standard normal quantile of 0.95: bounds of a 90 % interval."""

# Slots of `terms`.
INTERCEPT, SLOPE, SHIFT = 0, 1, 2  # the score's, and the calibrator's: as `affine` has them
LIMIT, USES_ODDS, BASE_INTERCEPT = 3, 4, 5
CENTER, SCALE, COEFFICIENT, BASE_COEFFICIENT = 6, 8, 10, 12  # two of each: log odds, log volatility
TREES_INTERCEPT, SCORE_MEAN, SCORE_SCALE, SCORE_COEFFICIENT = 14, 15, 16, 17
N_TERMS = 18
N_FIXED = 3  # directions that every answer has: the constant, the log odds, the log volatility

type Answer = tuple[float, float, float, float]

# 32 bytes a node, so that one step down a tree touches one cache line.
NODE = np.dtype(
    [
        ("threshold", np.float64),
        ("value", np.float64),
        ("feature", np.int32),
        ("left", np.int32),
        ("right", np.int32),
        ("default_left", np.int32),
    ],
    align=True,
)


@kernel
def _expit(score: float) -> float:
    # The exponent is never positive: no overflow.
    if score >= 0.0:
        return 1.0 / (1.0 + math.exp(-score))
    odds = math.exp(score)
    return odds / (1.0 + odds)


@kernel
def _calibrate(score: float, calibration: int, affine: FloatArray, knots: FloatArray) -> float:
    if not math.isfinite(score):
        return math.nan
    if calibration == UNCALIBRATED:
        return _expit(score)
    if calibration == SIGMOID:
        return _expit(affine[1] * score + affine[2])
    last = knots.shape[1] - 1
    if score <= knots[0, 0]:
        return float(knots[1, 0])
    if score >= knots[0, last]:
        return float(knots[1, last])
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if knots[0, middle] <= score:
            low = middle
        else:
            high = middle
    slope = (knots[1, high] - knots[1, low]) / (knots[0, high] - knots[0, low])
    return float(slope * (score - knots[0, low]) + knots[1, low])


@kernel
def _bounded(value: float, center: float, scale: float, limit: float) -> float:
    return min(max((value - center) / scale, -limit), limit)


@kernel
def logistic_row(
    x: FloatArray, linear: FloatArray, limit: float, affine: FloatArray, calibration: int, knots: FloatArray
) -> float:
    """Return P(y = 1 | x) of a logistic regression on standardised features; NaN if `x` is not finite.

    `linear` holds the rows mean, scale and coefficient, and `limit` bounds the standardised features;
    `affine` holds the intercept, then the calibrator's slope and intercept; `knots` the rows score and
    probability.
    """
    score = 0.0
    for j in range(x.shape[0]):
        if not math.isfinite(x[j]):
            return math.nan
        score += _bounded(x[j], linear[0, j], linear[1, j], limit) * linear[2, j]
    return _calibrate(score + affine[0], calibration, affine, knots)


@kernel
def logistic_rows(
    X: FloatArray, linear: FloatArray, limit: float, affine: FloatArray, calibration: int, knots: FloatArray
) -> FloatArray:
    """Return `logistic_row` of every row."""
    out = np.empty(X.shape[0])
    for i in range(X.shape[0]):
        out[i] = logistic_row(X[i], linear, limit, affine, calibration, knots)
    return out


@kernel
def _boosted(x: FloatArray, nodes: NDArray[np.void], roots: NDArray[np.int32], baseline: float) -> float:
    score = baseline
    for t in range(roots.shape[0]):
        i = roots[t]
        while nodes[i].feature >= 0:
            feature = x[nodes[i].feature]
            left = nodes[i].default_left != 0 if math.isnan(feature) else feature <= nodes[i].threshold
            i = nodes[i].left if left else nodes[i].right
        score += nodes[i].value
    return score


@kernel
def trees_row(
    x: FloatArray,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    affine: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> float:
    """Return P(y = 1 | x) of boosted trees; a NaN feature takes each split's default direction.

    Every child stands behind its parent (`CompiledModel` proves it), so each walk ends. `affine` holds the
    baseline, then the calibrator's slope and intercept; `knots` the rows score and probability.
    """
    return _calibrate(_boosted(x, nodes, roots, affine[0]), calibration, affine, knots)


@kernel
def trees_rows(
    X: FloatArray,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    affine: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> FloatArray:
    """Return `trees_row` of every row."""
    out = np.empty(X.shape[0])
    for i in range(X.shape[0]):
        out[i] = trees_row(X[i], nodes, roots, affine, calibration, knots)
    return out


@kernel
def _log_odds(odds: float, volatility: float, terms: FloatArray, direction: FloatArray) -> float:
    """Fill the fixed part of `direction`; return the log odds, NaN where odds or volatility are not known."""
    direction[0], direction[1], direction[2] = 1.0, 0.0, 0.0
    if terms[USES_ODDS] == 0.0:
        return 0.0
    if not (0.0 < odds < 1.0 and 0.0 < volatility < math.inf):
        return math.nan
    log_odds = math.log(odds) - math.log1p(-odds)
    limit = terms[LIMIT]
    direction[1] = _bounded(log_odds, terms[CENTER], terms[SCALE], limit)
    direction[2] = _bounded(math.log(volatility), terms[CENTER + 1], terms[SCALE + 1], limit)
    return log_odds


@kernel
def _cannot_pay(odds: float, volatility: float, terms: FloatArray) -> bool:
    return terms[USES_ODDS] != 0.0 and odds == 0.0 and 0.0 < volatility < math.inf


@kernel
def _spread(direction: FloatArray, factor: FloatArray) -> float:
    """Return the standard deviation ``|L' g|`` of the score in the direction ``g``, ``L`` lower triangular."""
    projected = np.zeros(direction.shape[0])
    for i in range(direction.shape[0]):
        for j in range(i + 1):
            projected[j] += factor[i, j] * direction[i]
    variance = 0.0
    for j in range(direction.shape[0]):
        variance += projected[j] * projected[j]
    return math.sqrt(variance)


@kernel
def _answer(
    log_odds: float,
    evidence: float,
    direction: FloatArray,
    terms: FloatArray,
    factor: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> Answer:
    base = log_odds + terms[BASE_INTERCEPT]
    score = log_odds + terms[INTERCEPT]
    for k in range(2):
        base += terms[BASE_COEFFICIENT + k] * direction[1 + k]
        score += terms[COEFFICIENT + k] * direction[1 + k]
    score += evidence
    base_odds = _expit(base) if math.isfinite(base) else math.nan
    half = Z90 * _spread(direction, factor)
    return (
        _calibrate(score, calibration, terms, knots),
        base_odds,
        _calibrate(score - half, calibration, terms, knots),
        _calibrate(score + half, calibration, terms, knots),
    )


@kernel
def logistic_answer(
    x: FloatArray,
    odds: float,
    volatility: float,
    linear: FloatArray,
    terms: FloatArray,
    factor: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> Answer:
    """Return P(y = 1 | x, odds, volatility), what the odds alone say, and the ends of a 90 % interval.

    All are 0 where the odds are 0: such a trade cannot pay. Where odds or volatility are not known, or `x` is not
    finite, what depends on it is NaN.

    Parameters
    ----------
    x : float64 (n_features,)
    odds : float
        Of a random walk without drift, in [0, 1).
    volatility : float
        As a log return scaled to the horizon.
    linear : float64 (3, n_features)
        Rows mean, scale and coefficient.
    terms : float64 (N_TERMS,)
        See the slots above.
    factor : float64 (3 + n_features, 3 + n_features)
        Lower Cholesky factor of the covariance of the coefficients, in the order constant, log odds, log volatility,
        features.
    calibration : int
    knots : float64 (2, n_knots)
        Rows score and probability.
    """
    if _cannot_pay(odds, volatility, terms):
        return 0.0, 0.0, 0.0, 0.0
    direction = np.empty(N_FIXED + x.shape[0])
    log_odds = _log_odds(odds, volatility, terms, direction)
    evidence = 0.0
    for j in range(x.shape[0]):
        # A bound would turn an infinity into a number.
        z = _bounded(x[j], linear[0, j], linear[1, j], terms[LIMIT]) if math.isfinite(x[j]) else math.nan
        direction[N_FIXED + j] = z
        evidence += z * linear[2, j]
    return _answer(log_odds, evidence, direction, terms, factor, calibration, knots)


@kernel
def logistic_answers(
    X: FloatArray,
    odds: FloatArray,
    volatility: FloatArray,
    linear: FloatArray,
    terms: FloatArray,
    factor: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> FloatArray:
    """Return `logistic_answer` of every row, float64 (4, n)."""
    out = np.empty((4, X.shape[0]))
    for i in range(X.shape[0]):
        out[0, i], out[1, i], out[2, i], out[3, i] = logistic_answer(
            X[i], odds[i], volatility[i], linear, terms, factor, calibration, knots
        )
    return out


@kernel
def trees_answer(
    x: FloatArray,
    odds: float,
    volatility: float,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    terms: FloatArray,
    factor: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> Answer:
    """Return what `logistic_answer` does, with the standardised score of boosted trees for the one feature."""
    if _cannot_pay(odds, volatility, terms):
        return 0.0, 0.0, 0.0, 0.0
    direction = np.empty(N_FIXED + 1)
    log_odds = _log_odds(odds, volatility, terms, direction)
    score = _boosted(x, nodes, roots, terms[TREES_INTERCEPT])
    z = (
        _bounded(score, terms[SCORE_MEAN], terms[SCORE_SCALE], terms[LIMIT])
        if math.isfinite(score)
        else math.nan
    )
    direction[N_FIXED] = z
    return _answer(log_odds, z * terms[SCORE_COEFFICIENT], direction, terms, factor, calibration, knots)


@kernel
def trees_answers(
    X: FloatArray,
    odds: FloatArray,
    volatility: FloatArray,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    terms: FloatArray,
    factor: FloatArray,
    calibration: int,
    knots: FloatArray,
) -> FloatArray:
    """Return `trees_answer` of every row, float64 (4, n)."""
    out = np.empty((4, X.shape[0]))
    for i in range(X.shape[0]):
        out[0, i], out[1, i], out[2, i], out[3, i] = trees_answer(
            X[i], odds[i], volatility[i], nodes, roots, terms, factor, calibration, knots
        )
    return out
