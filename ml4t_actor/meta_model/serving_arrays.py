"""The arrays of a compiled model, checked: what an untrusted file holds can make it wrong, but not crash or hang."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels import serving as kernels
from ml4t_actor.market_data import AnyArray, FloatArray, IntArray

FORMAT = 1
"""A score and its calibration alone."""

ODDS_FORMAT = 2
"""The odds of a random walk, and evidence beyond them."""

RETURN_FORMAT = 3
"""The same, and the expected return."""

CALIBRATIONS = {"none": kernels.UNCALIBRATED, "sigmoid": kernels.SIGMOID, "isotonic": kernels.ISOTONIC}

type _Schema = dict[str, tuple[type[np.generic], int]]  # name -> (dtype, number of dimensions)

_COMMON: _Schema = {
    "format": (np.int64, 0),
    "n_features": (np.int64, 0),
    "intercept": (np.float64, 0),
    "calibration_slope": (np.float64, 0),
    "calibration_intercept": (np.float64, 0),
    "calibration_score": (np.float64, 1),
    "calibration_probability": (np.float64, 1),
}
_LOGISTIC: _Schema = {
    "mean": (np.float64, 1),
    "scale": (np.float64, 1),
    "coefficient": (np.float64, 1),
}
_OPTIONAL: _Schema = {
    "limit": (np.float64, 0)
}  # of a logistic regression: bound of its standardised features
_TREES: _Schema = {
    "root": (np.int32, 1),
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "left": (np.int32, 1),
    "right": (np.int32, 1),
    "default_left": (np.bool_, 1),
    "value": (np.float64, 1),
}
_ODDS: _Schema = {
    "limit": (np.float64, 0),  # of all that is standardised
    "uses_odds": (np.bool_, 0),
    "odds_center": (np.float64, 1),
    "odds_scale": (np.float64, 1),
    "odds_coefficient": (np.float64, 1),
    "base_intercept": (np.float64, 0),
    "base_coefficient": (np.float64, 1),
    "covariance_factor": (np.float64, 2),
}
_RETURN: _Schema = {
    "return_intercept": (np.float64, 0),
    "return_mean": (np.float64, 1),
    "return_scale": (np.float64, 1),
    "return_coefficient": (np.float64, 1),
}
_STACKED: _Schema = {
    "trees_intercept": (np.float64, 0),
    "score_mean": (np.float64, 0),
    "score_scale": (np.float64, 0),
    "score_coefficient": (np.float64, 0),
}


def check_arrays(arrays: Mapping[str, ArrayLike]) -> dict[str, AnyArray]:
    """Return read-only copies of `arrays`, each proven to be what the kernels rely on."""
    kind = _check_word(arrays, "kind", ("logistic", "trees"))
    calibration = _check_word(arrays, "calibration", tuple(CALIBRATIONS))
    schema = _schema(arrays, kind)
    if missing := sorted(schema.keys() - arrays.keys()):
        raise ValueError(f"serving arrays lack {missing}")
    if unknown := sorted({str(n) for n in arrays} - schema.keys() - {"kind", "calibration"}):
        raise ValueError(f"serving arrays of kind {kind!r} have unknown names {unknown}")
    checked: dict[str, AnyArray] = {"kind": np.array(kind), "calibration": np.array(calibration)}
    for name, (dtype, ndim) in schema.items():
        checked[name] = _check_array(name, arrays[name], np.dtype(dtype), ndim)

    n_features = int(checked["n_features"])
    if not 0 < n_features < 2**31:
        raise ValueError(f"serving array `n_features` must be positive and below 2**31, is {n_features}")
    if kind == "logistic":
        _check_lengths(checked, ("mean", "scale", "coefficient"), n_features)
    else:
        _check_trees(checked, n_features)
    for name in ("scale", "limit", "odds_scale", "score_scale", "return_scale"):
        if name in checked and not (_numbers(checked, name) > 0.0).all():
            raise ValueError(f"serving array `{name}` must be positive")
    if int(checked["format"]) != FORMAT:
        _check_odds(checked, n_features if kind == "logistic" else 1)
    if int(checked["format"]) == RETURN_FORMAT:
        _check_lengths(checked, ("return_mean", "return_scale", "return_coefficient"), n_features)
    _check_calibration(checked, calibration)
    for array in checked.values():
        array.flags.writeable = False
    return checked


def _schema(arrays: Mapping[str, ArrayLike], kind: str) -> _Schema:
    """Return what arrays of this kind and format must be."""
    if "format" not in arrays:
        raise ValueError("serving arrays lack 'format'")
    schema = _COMMON | (_LOGISTIC if kind == "logistic" else _TREES)
    number = int(_check_array("format", arrays["format"], np.dtype(np.int64), 0))
    if number in (ODDS_FORMAT, RETURN_FORMAT):
        schema |= _ODDS | (_STACKED if kind == "trees" else {})
        return schema | (_RETURN if number == RETURN_FORMAT else {})
    if number != FORMAT:
        raise ValueError(
            f"serving arrays have format {number}, this version reads {FORMAT} to {RETURN_FORMAT}: train again"
        )
    if kind == "logistic":
        schema |= {name: form for name, form in _OPTIONAL.items() if name in arrays}
    return schema


def _check_word(arrays: Mapping[str, ArrayLike], name: str, words: tuple[str, ...]) -> str:
    if name not in arrays:
        raise ValueError(f"serving arrays lack {name!r}")
    array = np.asarray(arrays[name])
    if array.dtype.kind != "U" or array.ndim != 0 or str(array) not in words:
        raise ValueError(f"serving array `{name}` must be one of {words}, is {str(arrays[name])[:40]!r}")
    return str(array)


def _check_array(name: str, value: ArrayLike, dtype: np.dtype[np.generic], ndim: int) -> AnyArray:
    array = np.asarray(value)
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(
            f"serving array `{name}` must be {dtype} with {ndim} dimensions, "
            f"is {array.dtype} with {array.ndim}"
        )
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"serving array `{name}` must be finite")
    return np.array(array, dtype=dtype, order="C", copy=True)


def _check_lengths(arrays: Mapping[str, AnyArray], names: tuple[str, ...], length: int) -> None:
    for name in names:
        if len(arrays[name]) != length:
            raise ValueError(f"serving array `{name}` must have {length} elements, has {len(arrays[name])}")


def _numbers(arrays: Mapping[str, AnyArray], name: str) -> FloatArray:
    return np.asarray(arrays[name], np.float64)


def _integers(arrays: Mapping[str, AnyArray], name: str) -> IntArray:
    return np.asarray(arrays[name], np.int64)


def _check_trees(arrays: Mapping[str, AnyArray], n_features: int) -> None:
    feature, root = _integers(arrays, "feature"), _integers(arrays, "root")
    n_nodes = len(feature)
    _check_lengths(arrays, ("threshold", "left", "right", "default_left", "value"), n_nodes)
    if len(root) == 0 or root[0] != 0 or (np.diff(root) <= 0).any() or root[-1] >= n_nodes:
        raise ValueError(
            f"serving array `root` must start at 0 and strictly increase below the {n_nodes} nodes"
        )
    if len(bad := np.flatnonzero((feature < kernels.LEAF) | (feature >= n_features))):
        raise ValueError(
            f"serving array `feature` must be -1 (a leaf) or below {n_features}: "
            f"node {bad[0]} has {feature[bad[0]]}"
        )
    node = np.arange(n_nodes)
    end = np.repeat(np.append(root[1:], n_nodes), np.diff(np.append(root, n_nodes)))
    split = feature >= 0
    for name in ("left", "right"):
        child = _integers(arrays, name)
        # A child behind its parent and inside its tree: no walk leaves the arrays, and every walk ends.
        bad = np.flatnonzero(np.where(split, (child <= node) | (child >= end), child != kernels.LEAF))
        if len(bad):
            raise ValueError(
                f"serving array `{name}` must point forward inside its own tree, and be -1 at a leaf: "
                f"node {bad[0]} has {child[bad[0]]}"
            )


def _check_odds(arrays: Mapping[str, AnyArray], n_evidence: int) -> None:
    _check_lengths(arrays, ("odds_center", "odds_scale", "odds_coefficient", "base_coefficient"), 2)
    factor = _numbers(arrays, "covariance_factor")
    n = kernels.N_FIXED + n_evidence
    if factor.shape != (n, n):
        raise ValueError(f"serving array `covariance_factor` must have shape ({n}, {n}), has {factor.shape}")
    if np.triu(factor, 1).any():
        raise ValueError("serving array `covariance_factor` must be lower triangular")


def _check_calibration(arrays: Mapping[str, AnyArray], calibration: str) -> None:
    score, probability = _numbers(arrays, "calibration_score"), _numbers(arrays, "calibration_probability")
    _check_lengths(arrays, ("calibration_probability",), len(score))
    if _numbers(arrays, "calibration_slope") < 0.0:
        raise ValueError(
            f"serving array `calibration_slope` must not be negative, is {arrays['calibration_slope']}"
        )
    if (len(score) > 0) != (calibration == "isotonic"):
        raise ValueError(f"serving arrays have {len(score)} knots with calibration {calibration!r}")
    if (np.diff(score) <= 0.0).any():
        raise ValueError("serving array `calibration_score` must strictly increase")
    if (np.diff(probability) < 0.0).any() or (probability < 0.0).any() or (probability > 1.0).any():
        raise ValueError("serving array `calibration_probability` must lie in [0, 1] and never decrease")
