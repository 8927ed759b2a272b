"""Is this signal worth following? A classifier, calibrated on later data than it saw, and compiled."""

from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.meta_model.calibration import Calibration, expit, fit_isotonic, fit_sigmoid
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.meta_model.export import (
    STANDARDISED_LIMIT,
    Estimator,
    compile_model,
    importances,
    is_logistic,
)
from ml4t_actor.settings import ModelSettings

Windows = tuple[IntArray, IntArray]

MIN_ROWS = 50
MIN_PART_ROWS = 10
CALIBRATION_BLOCKS = 3
PRIOR_CLIP = 0.02
TOLERANCE = 1e-12

# Both regularise in units of independent labels, which is what uniqueness weights count: C is the prior
# variance of a coefficient (log odds per standard deviation), and l2_regularization pulls a leaf to zero as
# four times as many labels of even odds would.
_DEFAULTS: dict[str, dict[str, float | str | bool]] = {
    "logistic": {"C": 0.003, "solver": "newton-cholesky", "tol": 1e-8, "max_iter": 200},
    "hist_gradient_boosting": {
        "max_iter": 100,
        "learning_rate": 0.03,
        "max_depth": 2,
        "max_bins": 32,  # scikit-learn sorts once for each weighted bin edge: with 255 that is most of a fit
        "min_samples_leaf": 200,
        "l2_regularization": 100.0,
        "early_stopping": False,
    },
}


class MetaModel:
    """Probability that acting on a signal makes money after costs.

    Parameters
    ----------
    settings : ModelSettings, default ModelSettings()
        Estimator, calibration, and their parameters. *logistic* standardises, bounds at three standard
        deviations, then fits an L2-regularised `LogisticRegression`; *hist_gradient_boosting* fits few,
        shallow, heavily regularised trees.

    Attributes
    ----------
    estimator_ : Pipeline or HistGradientBoostingClassifier
        The fitted scikit-learn estimator.
    calibration_ : Calibration
        From its scores to probabilities.
    serving_ : CompiledModel
        Both, compiled.
    n_features_in_ : int
        Number of features.
    n_calibration_rows_ : int
        Rows whose scores the calibrator learned from.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2_000, 3))
    >>> y = X[:, 0] + rng.normal(size=2_000) > 0.0
    >>> model = MetaModel().fit(X, y)
    >>> bool(model.get_confidence(np.array([2.0, 0.0, 0.0])) > 0.8)
    True
    """

    def __init__(self, settings: ModelSettings = ModelSettings()) -> None:  # noqa: B008 (immutable)
        self.settings = settings

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        label_start: ArrayLike | None = None,
        label_end: ArrayLike | None = None,
        prior: ArrayLike | None = None,
    ) -> Self:
        """Calibrate on scores of later rows than the estimator saw, fit on all rows, and compile both.

        The latest `calibration_fraction` of the rows is cut into consecutive blocks. Each block is scored by
        an estimator fitted on the rows before it; the calibrator learns from those scores, and the estimator
        that serves is fitted on every row. So no row is calibrated by a model that saw it or anything later,
        and none is wasted.

        Parameters
        ----------
        X : (n, n_features)
            In order of time, finite, at least 50 rows.
        y : (n,)
            0 or 1.
        sample_weight : (n,), optional
            Not negative, and used as given. Regularisation takes their sum for the number of independent
            labels: give average uniqueness where labels overlap.
        label_start, label_end : int (n,), optional
            When each label's window starts (never decreasing) and ends, in any one unit. With them, rows
            whose label ends at or after a block's first start are purged from the estimator that scores the
            block.
        prior : (n,), optional
            Probabilities known without the labels, such as `random_walk_odds`. The estimator then also sees
            each row with labels of both kinds in the proportion of the prior, shifted to the base rate of
            `y`, that weigh `settings.prior_strength` labels in all: a catalytic prior (Huang, Stein, Rubin &
            Kou, PNAS 2020). It tells the few labels that there are what a multitude would, and fades as they
            come.

        Raises
        ------
        ValueError
            If the input is not as described, a part has one class only, or `settings.parameters` has a name
            that the estimator does not know.
        RuntimeError
            If the compiled model and scikit-learn differ by more than 1e-12 on these rows.
        """
        from threadpoolctl import threadpool_limits

        self._discard_fit()
        features, labels, weight = _check_rows(X, y, sample_weight)
        windows = _check_windows(label_start, label_end, len(features))
        odds = _check_prior(prior, len(features))
        everything = np.arange(len(features))
        _check_part("training", labels, weight, 0)
        calibration, n_calibrated = Calibration("none"), 0
        # One thread: sums come out the same whatever the number of cores, and a live engine keeps the others.
        with threadpool_limits(limits=1):
            if self.settings.calibration != "none":
                score, scored = self._walk_forward_scores(features, labels, weight, windows, odds)
                fit = fit_sigmoid if self.settings.calibration == "sigmoid" else fit_isotonic
                calibration, n_calibrated = fit(score, labels[scored], weight[scored]), len(scored)
            estimator = self._fit_estimator(features, labels, weight, odds, everything)
            compiled = compile_model(estimator, calibration)
            _verify(compiled, estimator, calibration, features)
        self.estimator_ = estimator
        self.calibration_ = calibration
        self.serving_ = compiled
        self.importances_ = importances(estimator)
        self.n_features_in_ = features.shape[1]
        self.n_calibration_rows_ = n_calibrated
        return self

    def _walk_forward_scores(
        self,
        features: FloatArray,
        labels: FloatArray,
        weight: FloatArray,
        windows: Windows | None,
        odds: FloatArray | None,
    ) -> tuple[FloatArray, IntArray]:
        """Return log odds of the calibration rows, and which rows those are."""
        n = len(features)
        first = n - max(CALIBRATION_BLOCKS, round(self.settings.calibration_fraction * n))
        edges = np.linspace(first, n, CALIBRATION_BLOCKS + 1).astype(np.int64)
        _check_part("calibration", labels[first:], weight[first:], 0)
        scores = []
        for start, end in pairwise(edges.tolist()):
            before = np.arange(start)
            if windows is not None:
                before = before[windows[1][:start] < windows[0][start]]
            _check_part("estimator", labels[before], weight[before], start - len(before))
            estimator = self._fit_estimator(features, labels, weight, odds, before)
            scores.append(estimator.decision_function(features[start:end]))
        return np.concatenate(scores), np.arange(first, n)

    def _fit_estimator(
        self,
        features: FloatArray,
        labels: FloatArray,
        weight: FloatArray,
        odds: FloatArray | None,
        rows: IntArray,
    ) -> Estimator:
        X, y, w = features[rows], labels[rows].astype(np.int64), weight[rows]
        if odds is not None and self.settings.prior_strength > 0.0:
            p = _shifted_to(odds[rows], float(np.average(y, weights=w)), w)
            each = self.settings.prior_strength / len(rows)
            X = np.concatenate([X, X, X])
            y = np.concatenate([y, np.ones(len(rows), np.int64), np.zeros(len(rows), np.int64)])
            w = np.concatenate([w, each * p, each * (1.0 - p)])
        estimator = _new_estimator(self.settings)
        if self.settings.estimator == "logistic":
            # The weighted variance of a constant column can come out a hair below zero; scikit-learn then scales by 1.
            with np.errstate(invalid="ignore"):
                return estimator.fit(X, y, scale__sample_weight=w, classify__sample_weight=w)
        return estimator.fit(X, y, sample_weight=w)

    @property
    def is_fitted(self) -> bool:
        """Return whether `fit` has succeeded."""
        return "serving_" in self.__dict__

    @property
    def serving(self) -> CompiledModel:
        """Return the compiled model, verified against scikit-learn when it was fitted."""
        self._require_fitted()
        return self.serving_

    @property
    def feature_importances(self) -> FloatArray:
        """Return each feature's share, float64 (n_features,), not negative, summing to one.

        Absolute coefficient of the standardised feature, or total gain of its splits. Equal shares if the
        model uses no feature.
        """
        self._require_fitted()
        return self.importances_.copy()

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the calibrated P(y = 1) of every row through scikit-learn itself.

        Parameters
        ----------
        X : (n, n_features)

        Returns
        -------
        float64 (n,)
            NaN where the logistic regression meets a feature that is not finite.
        """
        self._require_fitted()
        return _predict_proba(self.estimator_, self.calibration_, np.asarray(X, dtype=np.float64))

    def get_confidence(self, x: FloatArray) -> float:
        """Return the calibrated P(y = 1) of one row, float64 (n_features,), through the compiled kernel."""
        self._require_fitted()
        return self.serving_.predict(x)

    def verify_serving(self, X: ArrayLike) -> float:
        """Return the largest difference between the compiled model and scikit-learn on `X` (n, n_features).

        Raises
        ------
        RuntimeError
            If it is more than 1e-12, or one of them is NaN where the other is not.
        """
        self._require_fitted()
        return _verify(self.serving_, self.estimator_, self.calibration_, np.asarray(X, dtype=np.float64))

    def _require_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError("this MetaModel is not fitted yet: call `fit(X, y)` first")

    def _discard_fit(self) -> None:
        # A refit that fails must not leave the parts of an older fit.
        for name in [name for name in self.__dict__ if name.endswith("_")]:
            delattr(self, name)


def _check_rows(
    X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    features = np.ascontiguousarray(X, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"`X` must have shape (n, n_features), has {features.shape}")
    n = len(features)
    labels = np.asarray(y, dtype=np.float64)
    weight = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for name, values in (("y", labels), ("sample_weight", weight)):
        if values.shape != (n,):
            raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {values.shape}")
    if n < MIN_ROWS:
        raise ValueError(f"a meta-model needs at least {MIN_ROWS} rows, got {n}; give more signals")
    if len(not_finite := np.argwhere(~np.isfinite(features))):
        i, j = not_finite[0]
        columns = getattr(X, "columns", None)
        name = f"column {j}" if columns is None else f"column {columns[j]!r}"
        raise ValueError(
            f"`X` must be finite: {name} is {features[i, j]} in row {i} ({len(not_finite):,} such values); "
            "drop those rows"
        )
    if len(bad := np.flatnonzero(~np.isin(labels, (0.0, 1.0)))):
        raise ValueError(f"`y` must be 0 or 1: row {bad[0]} is {labels[bad[0]]}")
    if len(bad := np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))):
        raise ValueError(f"`sample_weight` must be finite and not negative: row {bad[0]} is {weight[bad[0]]}")
    return features, labels, weight


def _check_windows(label_start: ArrayLike | None, label_end: ArrayLike | None, n: int) -> Windows | None:
    if label_start is None and label_end is None:
        return None
    if label_start is None or label_end is None:
        raise ValueError("give both `label_start` and `label_end`, or neither")
    start, end = np.asarray(label_start), np.asarray(label_end)
    for name, values in (("label_start", start), ("label_end", end)):
        if values.shape != (n,):
            raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {values.shape}")
        if values.dtype.kind not in "iu":
            raise ValueError(f"`{name}` must be integers (nanoseconds or bar indices), is {values.dtype}")
    if len(bad := np.flatnonzero(start[1:] < start[:-1])):
        i = bad[0] + 1
        raise ValueError(
            f"rows must be in order of time: row {i} has label_start {start[i]} after {start[i - 1]}"
        )
    if len(bad := np.flatnonzero(end < start)):
        i = bad[0]
        raise ValueError(f"a label must not end before it starts: row {i} is [{start[i]}, {end[i]}]")
    return start.astype(np.int64), end.astype(np.int64)


def _check_part(part: str, labels: FloatArray, weight: FloatArray, n_purged: int) -> None:
    used = labels[weight > 0.0]
    if len(used) < MIN_PART_ROWS:
        raise ValueError(
            f"the {part} part has {len(used)} rows of positive weight, needs at least {MIN_PART_ROWS} "
            f"({n_purged} were purged for overlap with the calibration part); give more signals or change "
            "`calibration_fraction`"
        )
    if (used == used[0]).all():
        raise ValueError(
            f"all {len(used):,} rows of the {part} part have label {int(used[0])}: "
            "there is nothing to tell apart; give a longer history"
        )


def _check_prior(prior: ArrayLike | None, n: int) -> FloatArray | None:
    if prior is None:
        return None
    odds = np.asarray(prior, dtype=np.float64)
    if odds.shape != (n,):
        raise ValueError(f"`prior` must have shape ({n},), one per row of `X`, has {odds.shape}")
    if len(bad := np.flatnonzero(~((odds >= 0.0) & (odds <= 1.0)))):
        raise ValueError(f"`prior` must be probabilities: row {bad[0]} is {odds[bad[0]]}")
    return np.clip(odds, PRIOR_CLIP, 1.0 - PRIOR_CLIP)


def _shifted_to(p: FloatArray, rate: float, weight: FloatArray) -> FloatArray:
    """Return `p` with its log odds shifted by one constant so that the weighted mean is `rate`."""
    score = np.log(p) - np.log1p(-p)
    shift = 0.0
    for _ in range(50):
        q = expit(score + shift)
        step = (rate - float(np.average(q, weights=weight))) / float(
            np.average(q * (1.0 - q), weights=weight)
        )
        shift += min(1.0, max(-1.0, step))
        if abs(step) < 1e-12:
            break
    return expit(score + shift)


def _new_estimator(settings: ModelSettings) -> Estimator:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    logistic = settings.estimator == "logistic"
    constructor = LogisticRegression if logistic else HistGradientBoostingClassifier
    valid = sorted(constructor().get_params())
    if unknown := sorted(settings.parameters.keys() - set(valid)):
        raise ValueError(
            f"`parameters` has {unknown}, which {constructor.__name__} does not know; it takes {valid}"
        )
    arguments = {**_DEFAULTS[settings.estimator], "random_state": settings.seed, **settings.parameters}
    estimator = constructor(**arguments)
    if not logistic:
        return estimator
    limits = {"a_min": -STANDARDISED_LIMIT, "a_max": STANDARDISED_LIMIT}
    bound = FunctionTransformer(np.clip, kw_args=limits)
    return Pipeline([("scale", StandardScaler()), ("bound", bound), ("classify", estimator)])


def _predict_proba(estimator: Estimator, calibration: Calibration, X: FloatArray) -> FloatArray:
    if X.ndim != 2 or X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"rows must have shape (n, {estimator.n_features_in_}), got {X.shape}")
    usable = np.isfinite(X).all(axis=1) if is_logistic(estimator) else np.ones(len(X), dtype=bool)
    out = np.full(len(X), np.nan)
    if usable.any():
        rows = X[usable]
        out[usable] = (
            estimator.predict_proba(rows)[:, 1]
            if calibration.kind == "none"
            else calibration(estimator.decision_function(rows))
        )
    return out


def _verify(serving: CompiledModel, estimator: Estimator, calibration: Calibration, X: FloatArray) -> float:
    expected = _predict_proba(estimator, calibration, X)
    served = serving.predict_rows(X)
    differences = np.where(np.isnan(expected) & np.isnan(served), 0.0, np.abs(expected - served))
    worst = float(differences.max(initial=0.0))
    if not worst <= TOLERANCE:
        i = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
        raise RuntimeError(
            f"the compiled model differs from scikit-learn: row {i} gives {served[i]} against {expected[i]}, "
            f"more than {TOLERANCE}; do not serve it, and report the scikit-learn and treelite versions"
        )
    return worst
