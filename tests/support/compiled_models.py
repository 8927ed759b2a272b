"""Compiled models with random numbers in them, and what they say, written out in numpy."""

import math
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

N_FEATURES = 5
LIMIT = 3.0


def random_tree(rng: np.random.Generator, depth: int, n_features: int = N_FEATURES) -> Any:
    """Return a tree as nested tuples: a leaf's value, or (feature, threshold, default_left, left, right)."""
    if depth == 0 or rng.random() < 0.1:
        return float(rng.normal(scale=0.3))
    left, right = random_tree(rng, depth - 1, n_features), random_tree(rng, depth - 1, n_features)
    return int(rng.integers(n_features)), float(rng.normal()), bool(rng.random() < 0.5), left, right


def flat_trees(trees: list[Any]) -> dict[str, Any]:
    """Return the arrays of trees, each node before its children."""
    names = ("feature", "threshold", "left", "right", "default_left", "value")
    columns: dict[str, list[Any]] = {name: [] for name in names}

    def add(tree: Any) -> int:
        here = len(columns["feature"])
        leaf = isinstance(tree, float)
        row = (-1, 0.0, -1, -1, False, tree) if leaf else (tree[0], tree[1], 0, 0, tree[2], 0.0)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
        if not leaf:
            columns["left"][here] = add(tree[3])
            columns["right"][here] = add(tree[4])
        return here

    roots = [add(tree) for tree in trees]
    dtypes = {"feature": np.int32, "left": np.int32, "right": np.int32, "default_left": np.bool_}
    arrays = {name: np.array(c, dtype=dtypes.get(name, np.float64)) for name, c in columns.items()}
    return arrays | {"root": np.array(roots, dtype=np.int32)}


def walk(tree: Any, x: np.ndarray) -> float:
    while not isinstance(tree, float):
        feature, threshold, default_left, left, right = tree
        goes_left = default_left if np.isnan(x[feature]) else x[feature] <= threshold
        tree = left if goes_left else right
    return tree


def random_arrays(
    seed: int, kind: str, calibration: str, uses_odds: bool = True, n_features: int = N_FEATURES
) -> tuple[dict[str, Any], list[Any]]:
    """Return the arrays of a model, and its trees."""
    rng = np.random.default_rng(seed)
    n = 3 + (n_features if kind == "logistic" else 1)
    trees = [random_tree(rng, 3, n_features) for _ in range(6)]
    arrays = {
        "format": np.int64(3),
        "kind": np.str_(kind),
        "n_features": np.int64(n_features),
        "limit": np.float64(LIMIT),
        "uses_odds": np.bool_(uses_odds),
        "odds_center": rng.normal([-0.5, -6.0]),
        "odds_scale": rng.uniform(0.1, 1.0, 2),
        "odds_coefficient": rng.normal(scale=0.1, size=2),
        "intercept": np.float64(rng.normal(scale=0.2)),
        "base_intercept": np.float64(rng.normal(scale=0.2)),
        "base_coefficient": rng.normal(scale=0.1, size=2),
        "covariance_factor": np.tril(rng.normal(scale=0.1, size=(n, n))),
        "calibration": np.str_(calibration),
        "calibration_slope": np.float64(rng.uniform(0.2, 2.0)),
        "calibration_intercept": np.float64(rng.normal(scale=0.3)),
        "calibration_score": np.empty(0),
        "calibration_probability": np.empty(0),
    }
    if calibration == "isotonic":
        arrays["calibration_score"] = np.cumsum(rng.uniform(0.05, 0.4, 8)) - 1.5
        arrays["calibration_probability"] = np.sort(rng.uniform(size=8))
    if kind == "logistic":
        arrays["mean"] = rng.normal(size=n_features)
        arrays["scale"] = rng.uniform(0.5, 2.0, n_features)
        arrays["coefficient"] = rng.normal(scale=0.3, size=n_features)
    else:
        arrays |= flat_trees(trees)
        arrays["trees_intercept"] = np.float64(rng.normal(scale=0.1))
        arrays["score_mean"] = np.float64(rng.normal(scale=0.1))
        arrays["score_scale"] = np.float64(rng.uniform(0.2, 0.6))
        arrays["score_coefficient"] = np.float64(rng.normal())
    arrays["return_intercept"] = np.float64(rng.normal(scale=0.05))
    arrays["return_mean"] = rng.normal(size=n_features)
    arrays["return_scale"] = rng.uniform(0.5, 2.0, n_features)
    arrays["return_coefficient"] = rng.normal(scale=0.1, size=n_features)
    return arrays, trees


def calibrated(arrays: dict[str, Any], score: float) -> float:
    """Return the probability that the model's calibration makes of a score."""
    calibration = str(arrays["calibration"])
    if calibration == "none":
        return float(expit(score))
    if calibration == "sigmoid":
        return float(expit(arrays["calibration_slope"] * score + arrays["calibration_intercept"]))
    knots = arrays["calibration_score"], arrays["calibration_probability"]
    return math.nan if math.isnan(score) else float(np.interp(score, *knots))


def restated(
    arrays: dict[str, Any], trees: list[Any], x: np.ndarray, odds: float, volatility: float
) -> np.ndarray:
    """Return the five numbers by the formula of the docstring, for one row."""
    limit = arrays["limit"]
    kind = str(arrays["kind"])
    learned = math.nan
    if np.isfinite(x).all():
        z = np.clip((x - arrays["return_mean"]) / arrays["return_scale"], -limit, limit)
        learned = float(arrays["return_coefficient"] @ z)
    if arrays["uses_odds"]:
        if not (np.isfinite(volatility) and volatility > 0.0 and 0.0 <= odds < 1.0):
            return np.array([np.nan, np.nan, np.nan, np.nan, learned])
        if odds == 0.0:
            return np.array([0.0, 0.0, 0.0, 0.0, learned])
        lo = logit(odds)
        zo = np.clip(
            (np.array([lo, np.log(volatility)]) - arrays["odds_center"]) / arrays["odds_scale"], -limit, limit
        )
    else:
        lo, zo = 0.0, np.zeros(2)
    base = lo + arrays["base_intercept"] + arrays["base_coefficient"] @ zo
    if kind == "logistic":
        with np.errstate(invalid="ignore"):
            u = np.clip((x - arrays["mean"]) / arrays["scale"], -limit, limit)
        u[~np.isfinite(x)] = np.nan
        beta = arrays["coefficient"]
    else:
        score = arrays["trees_intercept"] + sum(walk(tree, x) for tree in trees)
        u = np.clip((score - arrays["score_mean"]) / arrays["score_scale"], -limit, limit).reshape(1)
        beta = arrays["score_coefficient"].reshape(1)
    eta = lo + arrays["intercept"] + arrays["odds_coefficient"] @ zo + beta @ u
    g = np.concatenate([[1.0], zo, u])
    covariance = arrays["covariance_factor"] @ arrays["covariance_factor"].T
    half = norm.ppf(0.95) * np.sqrt(g @ covariance @ g)

    return np.array(
        [
            calibrated(arrays, eta),
            expit(base),
            calibrated(arrays, eta - half),
            calibrated(arrays, eta + half),
            learned,
        ]
    )


def without_return(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a model in format 2: without the expected return."""
    kept = {name: array for name, array in arrays.items() if not name.startswith("return_")}
    return kept | {"format": np.int64(2)}


def plain_arrays(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of a model in format 1: its score and calibration alone."""
    added = {
        "uses_odds",
        "odds_center",
        "odds_scale",
        "odds_coefficient",
        "base_intercept",
        "base_coefficient",
    }
    added |= {"covariance_factor", "trees_intercept", "score_mean", "score_scale", "score_coefficient"}
    if str(arrays["kind"]) == "trees":
        added.add("limit")
    kept = {name: array for name, array in without_return(arrays).items() if name not in added}
    return kept | {"format": np.int64(1)}


def restated_plain(arrays: dict[str, Any], trees: list[Any], x: np.ndarray) -> float:
    """Return what a model of format 1 says of one row."""
    if str(arrays["kind"]) == "trees":
        score = arrays["intercept"] + sum(walk(tree, x) for tree in trees)
    elif not np.isfinite(x).all():
        return math.nan
    else:
        u = np.clip((x - arrays["mean"]) / arrays["scale"], -arrays["limit"], arrays["limit"])
        score = arrays["intercept"] + arrays["coefficient"] @ u
    return calibrated(arrays, float(score))
