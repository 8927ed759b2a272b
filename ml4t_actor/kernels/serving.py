"""One row through a fitted, calibrated classifier: score, then probability.

Two forms: the score alone (``logistic_row``, ``trees_row``), and the odds of a random walk plus evidence
(``logistic_answer``, ``trees_answer``), which also tell what the odds alone would say, an interval, and what the
features add to the expected return.
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

# Slots of the terms, which begin the parameters of an answer.
INTERCEPT, SLOPE, SHIFT = 0, 1, 2  # the score's, and the calibrator's: as `affine` has them
LIMIT, USES_ODDS, BASE_INTERCEPT = 3, 4, 5
CENTER, SCALE, COEFFICIENT, BASE_COEFFICIENT = 6, 8, 10, 12  # two of each: log odds, log volatility
TREES_INTERCEPT, SCORE_MEAN, SCORE_SCALE, SCORE_COEFFICIENT = 14, 15, 16, 17
KNOWS_RETURN = 18
N_TERMS = 19
N_FIXED = 3  # directions that every answer has: the constant, the log odds, the log volatility

type Answer = tuple[float, float, float, float, float]

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
def _log_odds(odds: float, volatility: float, parameters: FloatArray, direction: FloatArray) -> float:
    """Fill the fixed part of `direction`; return the log odds, NaN where odds or volatility are not known."""
    direction[0], direction[1], direction[2] = 1.0, 0.0, 0.0
    if parameters[USES_ODDS] == 0.0:
        return 0.0
    if not (0.0 < odds < 1.0 and 0.0 < volatility < math.inf):
        return math.nan
    log_odds = math.log(odds) - math.log1p(-odds)
    limit = parameters[LIMIT]
    direction[1] = _bounded(log_odds, parameters[CENTER], parameters[SCALE], limit)
    direction[2] = _bounded(math.log(volatility), parameters[CENTER + 1], parameters[SCALE + 1], limit)
    return log_odds


@kernel
def _cannot_pay(odds: float, volatility: float, parameters: FloatArray) -> bool:
    return parameters[USES_ODDS] != 0.0 and odds == 0.0 and 0.0 < volatility < math.inf


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
def _after_return(n: int, parameters: FloatArray) -> int:
    return N_TERMS if parameters[KNOWS_RETURN] == 0.0 else N_TERMS + 3 * n


@kernel
def _learned_return(x: FloatArray, parameters: FloatArray) -> float:
    """Return what the features add to the return over volatility, NaN where the model knows of none or `x` is not."""
    if parameters[KNOWS_RETURN] == 0.0:
        return math.nan
    n = x.shape[0]
    linear = parameters[N_TERMS : N_TERMS + 3 * n].reshape(3, n)
    learned = 0.0
    for j in range(n):
        if not math.isfinite(x[j]):
            return math.nan
        learned += _bounded(x[j], linear[0, j], linear[1, j], parameters[LIMIT]) * linear[2, j]
    return learned


@kernel
def _answer(
    log_odds: float,
    evidence: float,
    direction: FloatArray,
    parameters: FloatArray,
    at: int,
    calibration: int,
    learned: float,
) -> Answer:
    n = direction.shape[0]
    factor = parameters[at : at + n * n].reshape(n, n)
    knots = parameters[at + n * n :].reshape(2, (parameters.shape[0] - at - n * n) // 2)
    base = log_odds + parameters[BASE_INTERCEPT]
    score = log_odds + parameters[INTERCEPT]
    for k in range(2):
        base += parameters[BASE_COEFFICIENT + k] * direction[1 + k]
        score += parameters[COEFFICIENT + k] * direction[1 + k]
    score += evidence
    base_odds = _expit(base) if math.isfinite(base) else math.nan
    half = Z90 * _spread(direction, factor)
    return (
        _calibrate(score, calibration, parameters, knots),
        base_odds,
        _calibrate(score - half, calibration, parameters, knots),
        _calibrate(score + half, calibration, parameters, knots),
        learned,
    )


@kernel
def logistic_answer(
    x: FloatArray, odds: float, volatility: float, parameters: FloatArray, calibration: int
) -> Answer:
    """Return P(y = 1 | x, odds, volatility), what the odds alone say, the ends of a 90 % interval, and what `x` adds.

    The first four are 0 where the odds are 0: such a trade cannot pay. The last is what the features add to the
    expected gross return, in volatilities. Where odds or volatility are not known, or `x` is not finite, what depends
    on it is NaN.

    Parameters
    ----------
    x : float64 (n_features,)
    odds : float
        Of a random walk without drift, in [0, 1).
    volatility : float
        As a log return scaled to the horizon.
    parameters : float64 (n_parameters,)
        One array, since each costs a tenth of the call: first the terms (see the slots above), then in C order the
        rows mean, scale and coefficient of the return (3, n_features; empty unless `KNOWS_RETURN`), those of the
        probability (3, n_features), the lower Cholesky factor of the covariance of the
        coefficients (3 + n_features, 3 + n_features) in the order constant, log odds, log volatility, features, and
        the rows score and probability of the knots (2, n_knots).
    calibration : int
    """
    learned = _learned_return(x, parameters)
    if _cannot_pay(odds, volatility, parameters):
        return 0.0, 0.0, 0.0, 0.0, learned
    n = x.shape[0]
    at = _after_return(n, parameters)
    linear = parameters[at : at + 3 * n].reshape(3, n)
    direction = np.empty(N_FIXED + n)
    log_odds = _log_odds(odds, volatility, parameters, direction)
    evidence = 0.0
    for j in range(n):
        # A bound would turn an infinity into a number.
        z = _bounded(x[j], linear[0, j], linear[1, j], parameters[LIMIT]) if math.isfinite(x[j]) else math.nan
        direction[N_FIXED + j] = z
        evidence += z * linear[2, j]
    return _answer(log_odds, evidence, direction, parameters, at + 3 * n, calibration, learned)


@kernel
def logistic_answers(
    X: FloatArray, odds: FloatArray, volatility: FloatArray, parameters: FloatArray, calibration: int
) -> FloatArray:
    """Return `logistic_answer` of every row, float64 (5, n)."""
    out = np.empty((5, X.shape[0]))
    for i in range(X.shape[0]):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = logistic_answer(
            X[i], odds[i], volatility[i], parameters, calibration
        )
    return out


@kernel
def trees_answer(
    x: FloatArray,
    odds: float,
    volatility: float,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    parameters: FloatArray,
    calibration: int,
) -> Answer:
    """Return what `logistic_answer` does, with the standardised score of boosted trees for the one feature.

    The `parameters` lack the rows mean, scale and coefficient of the probability: what stands for them is among the
    terms.
    """
    learned = _learned_return(x, parameters)
    if _cannot_pay(odds, volatility, parameters):
        return 0.0, 0.0, 0.0, 0.0, learned
    direction = np.empty(N_FIXED + 1)
    log_odds = _log_odds(odds, volatility, parameters, direction)
    score = _boosted(x, nodes, roots, parameters[TREES_INTERCEPT])
    z = (
        _bounded(score, parameters[SCORE_MEAN], parameters[SCORE_SCALE], parameters[LIMIT])
        if math.isfinite(score)
        else math.nan
    )
    direction[N_FIXED] = z
    evidence, at = z * parameters[SCORE_COEFFICIENT], _after_return(x.shape[0], parameters)
    return _answer(log_odds, evidence, direction, parameters, at, calibration, learned)


@kernel
def trees_answers(
    X: FloatArray,
    odds: FloatArray,
    volatility: FloatArray,
    nodes: NDArray[np.void],
    roots: NDArray[np.int32],
    parameters: FloatArray,
    calibration: int,
) -> FloatArray:
    """Return `trees_answer` of every row, float64 (5, n)."""
    out = np.empty((5, X.shape[0]))
    for i in range(X.shape[0]):
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = trees_answer(
            X[i], odds[i], volatility[i], nodes, roots, parameters, calibration
        )
    return out
