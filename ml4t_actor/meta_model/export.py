"""From fitted odds and evidence to the flat arrays that serve them."""

from typing import TYPE_CHECKING

import numpy as np

from ml4t_actor.market_data import AnyArray, FloatArray
from ml4t_actor.meta_model.calibration import Calibration
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.meta_model.fitting import FittedOdds
from ml4t_actor.meta_model.serving_arrays import ODDS_FORMAT, RETURN_FORMAT

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

    from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression
    from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge

_N_TERMS = 2  # log odds, log volatility


def compile_model(
    fitted: FittedOdds, calibration: Calibration, returns: "EvidenceRidge | None" = None, *, uses_odds: bool
) -> CompiledModel:
    """Return the serving form of fitted odds plus evidence, its calibrator, and the expected returns.

    Parameters
    ----------
    fitted : FittedOdds
        Of numerical features.
    calibration : Calibration
        Of its log odds.
    returns : EvidenceRidge, optional
        Of the features themselves; the model then tells expected returns.
    uses_odds : bool
        Whether it was fitted with odds and their two terms.
    """
    evidence = fitted.evidence
    n_features = evidence.n_features_in_
    if fitted.trees is None:
        arrays: dict[str, AnyArray | np.generic] = {
            "kind": np.str_("logistic"),
            "mean": evidence.mean_,
            "scale": evidence.scale_,
            "coefficient": evidence.coef_[0],
        }
    else:
        n_features = fitted.trees.n_features_in_
        arrays = _trees_arrays(fitted.trees) | {
            "score_mean": np.float64(evidence.mean_[0]),
            "score_scale": np.float64(evidence.scale_[0]),
            "score_coefficient": np.float64(evidence.coef_[0, 0]),
        }
    return CompiledModel.from_arrays(
        {
            "format": np.int64(ODDS_FORMAT if returns is None else RETURN_FORMAT),
            "n_features": np.int64(n_features),
            "calibration": np.str_(calibration.kind),
            "calibration_slope": np.float64(calibration.slope),
            "calibration_intercept": np.float64(calibration.intercept),
            "calibration_score": calibration.score,
            "calibration_probability": calibration.probability,
            **arrays,
            **_odds_arrays(evidence, uses_odds),
            **({} if returns is None else _return_arrays(returns)),
        }
    )


def _return_arrays(returns: "EvidenceRidge") -> dict[str, AnyArray | np.generic]:
    return {
        "return_intercept": np.float64(returns.intercept_),
        "return_mean": returns.mean_,
        "return_scale": returns.scale_,
        "return_coefficient": returns.coef_,
    }


def _odds_arrays(evidence: "EvidenceLogisticRegression", uses_odds: bool) -> dict[str, AnyArray | np.generic]:
    nothing = np.zeros(_N_TERMS)
    return {
        "uses_odds": np.bool_(uses_odds),
        "limit": np.float64(evidence.limit),
        "intercept": np.float64(evidence.intercept_[0]),
        "base_intercept": np.float64(evidence.base_intercept_),
        "odds_center": evidence.term_mean_ if uses_odds else nothing,
        "odds_scale": evidence.term_scale_ if uses_odds else np.ones(_N_TERMS),
        "odds_coefficient": evidence.term_coef_ if uses_odds else nothing,
        "base_coefficient": evidence.base_term_coef_ if uses_odds else nothing,
        "covariance_factor": _covariance_factor(evidence.covariance_, uses_odds),
    }


def _covariance_factor(covariance: FloatArray, uses_odds: bool) -> FloatArray:
    """Return L, lower triangular, with L L' the covariance; without odds the rows of their terms are empty.

    From eigenvalues, since Cholesky's algorithm fails where a coefficient hardly varies.
    """
    if not uses_odds:
        n = len(covariance) + _N_TERMS
        used = np.delete(np.arange(n), slice(1, 1 + _N_TERMS))
        padded = np.zeros((n, n))
        padded[np.ix_(used, used)] = covariance
        covariance = padded
    values, vectors = np.linalg.eigh(covariance)
    upper = np.linalg.qr(np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T, mode="r")
    return np.ascontiguousarray(np.tril(upper.T))


def _trees_arrays(estimator: "HistGradientBoostingClassifier") -> dict[str, AnyArray | np.generic]:
    import treelite

    model = treelite.sklearn.import_model(estimator)
    columns: dict[str, list[AnyArray]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "default_left", "value")
    }
    roots, n_nodes = [], 0
    for t in range(model.num_tree):
        tree = model.get_tree_accessor(t)
        left, right = tree.get_field("cleft"), tree.get_field("cright")
        split = left >= 0
        columns["feature"].append(np.where(split, tree.get_field("split_index"), -1))
        columns["threshold"].append(np.where(split, tree.get_field("threshold"), 0.0))
        columns["left"].append(np.where(split, left + n_nodes, -1))
        columns["right"].append(np.where(split, right + n_nodes, -1))
        columns["default_left"].append(split & (tree.get_field("default_left") != 0))
        columns["value"].append(np.where(split, 0.0, tree.get_field("leaf_value")))
        roots.append(n_nodes)
        n_nodes += len(left)
    dtypes = {"feature": np.int32, "left": np.int32, "right": np.int32, "default_left": np.bool_}
    return {
        "kind": np.str_("trees"),
        "trees_intercept": np.float64(0.0),  # `scores_of` leaves the baseline out
        "root": np.array(roots, dtype=np.int32),
        **{name: np.concatenate(c).astype(dtypes.get(name, np.float64)) for name, c in columns.items()},
    }


def importances(fitted: FittedOdds) -> FloatArray:
    """Return each feature's share, float64 (n_features,): see `MetaModel.feature_importances`."""
    if fitted.trees is None:
        total = np.abs(fitted.evidence.coef_[0])
    else:
        import treelite

        total = np.zeros(fitted.trees.n_features_in_)
        model = treelite.sklearn.import_model(fitted.trees)
        for t in range(model.num_tree):
            tree = model.get_tree_accessor(t)
            split = tree.get_field("cleft") >= 0
            if split.any():  # a tree of one leaf has no gains
                gain = np.maximum(tree.get_field("gain")[split], 0.0)
                np.add.at(total, tree.get_field("split_index")[split], gain)
    summed = total.sum()
    return total / summed if summed > 0.0 else np.full(len(total), 1.0 / len(total))
