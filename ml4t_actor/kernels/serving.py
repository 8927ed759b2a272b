"""One row through a fitted, calibrated classifier: score, then probability."""

import math

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray

UNCALIBRATED, SIGMOID, ISOTONIC = 0, 1, 2
LEAF = -1


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
        score += min(max((x[j] - linear[0, j]) / linear[1, j], -limit), limit) * linear[2, j]
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
    score = affine[0]
    for t in range(roots.shape[0]):
        i = roots[t]
        while nodes[i].feature >= 0:
            feature = x[nodes[i].feature]
            left = nodes[i].default_left != 0 if math.isnan(feature) else feature <= nodes[i].threshold
            i = nodes[i].left if left else nodes[i].right
        score += nodes[i].value
    return _calibrate(score, calibration, affine, knots)


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
