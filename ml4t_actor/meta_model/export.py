"""From a fitted scikit-learn estimator to the flat arrays that serve it."""

from typing import TYPE_CHECKING

import numpy as np

from ml4t_actor.market_data import AnyArray, FloatArray
from ml4t_actor.meta_model.calibration import Calibration
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.meta_model.serving_arrays import FORMAT

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

type Estimator = Pipeline | HistGradientBoostingClassifier

# Market features have fat tails: without a bound, a few rows of a crash decide the coefficients and every
# score there.
STANDARDISED_LIMIT = 3.0


def is_logistic(estimator: Estimator) -> bool:
    """Return whether `estimator` is the pipeline of scaling and logistic regression."""
    return hasattr(estimator, "named_steps")


def compile_model(estimator: Estimator, calibration: Calibration) -> CompiledModel:
    """Return the serving form of a fitted binary estimator and its calibrator.

    Parameters
    ----------
    estimator : Pipeline or HistGradientBoostingClassifier
        Steps ``scale``, ``bound`` (at `STANDARDISED_LIMIT`) and ``classify``, or trees on numerical features.
    calibration : Calibration
        Of the estimator's scores.
    """
    arrays = _logistic_arrays(estimator) if is_logistic(estimator) else _trees_arrays(estimator)
    return CompiledModel.from_arrays(
        {
            "format": np.int64(FORMAT),
            "n_features": np.int64(estimator.n_features_in_),
            "calibration": np.str_(calibration.kind),
            "calibration_slope": np.float64(calibration.slope),
            "calibration_intercept": np.float64(calibration.intercept),
            "calibration_score": calibration.score,
            "calibration_probability": calibration.probability,
            **arrays,
        }
    )


def _logistic_arrays(estimator: Estimator) -> dict[str, AnyArray | np.generic]:
    scale, classify = estimator.named_steps["scale"], estimator.named_steps["classify"]
    return {
        "kind": np.str_("logistic"),
        "mean": scale.mean_,
        "scale": scale.scale_,
        "limit": np.float64(STANDARDISED_LIMIT),
        "coefficient": classify.coef_[0],
        "intercept": np.float64(classify.intercept_[0]),
    }


def _trees_arrays(estimator: Estimator) -> dict[str, AnyArray | np.generic]:
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
        "intercept": np.float64(model.get_header_accessor().get_field("base_scores")[0]),
        "root": np.array(roots, dtype=np.int32),
        **{name: np.concatenate(c).astype(dtypes.get(name, np.float64)) for name, c in columns.items()},
    }


def importances(estimator: Estimator) -> FloatArray:
    """Return each feature's share, float64 (n_features,): see `MetaModel.feature_importances`."""
    n_features = estimator.n_features_in_
    total = np.zeros(n_features)
    if is_logistic(estimator):
        total += np.abs(estimator.named_steps["classify"].coef_[0])
    else:
        import treelite

        model = treelite.sklearn.import_model(estimator)
        for t in range(model.num_tree):
            tree = model.get_tree_accessor(t)
            split = tree.get_field("cleft") >= 0
            if split.any():  # a tree of one leaf has no gains
                gain = np.maximum(tree.get_field("gain")[split], 0.0)
                np.add.at(total, tree.get_field("split_index")[split], gain)
    summed = total.sum()
    return total / summed if summed > 0.0 else np.full(n_features, 1.0 / n_features)
