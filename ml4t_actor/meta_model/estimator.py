"""Is this signal worth following? The odds of a random walk plus what the features add, compiled."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels.serving import Z90
from ml4t_actor.market_data import BoolArray, FloatArray
from ml4t_actor.meta_model.calibration import Calibration, expit, fit_isotonic, fit_sigmoid
from ml4t_actor.meta_model.compiled import CompiledModel, Predictions
from ml4t_actor.meta_model.export import compile_model, importances
from ml4t_actor.meta_model.fitting import (
    FittedOdds,
    Rows,
    calibration_scores,
    fit_odds,
    fit_returns,
    walk_forward_scores,
)
from ml4t_actor.meta_model.inputs import (
    KnownOdds,
    check_part,
    check_payable,
    check_rows,
    check_windows,
    known_odds,
)
from ml4t_actor.settings import ModelSettings

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

    from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge

TOLERANCE = 1e-12


class MetaModel:
    """Probability that acting on a signal makes money after costs.

    What a driftless random walk would give the trade is known without any data: its odds, an offset of the log odds.
    What the features add to them, and how the odds themselves are off, is learned and shrunk as far as the evidence
    asks for (`EvidenceLogisticRegression`). A trade whose odds are 0 cannot pay, and has the probability 0 by rule.

    Where gross returns are given, what trades are expected to make is learned beside it (`EvidenceRidge`).

    Parameters
    ----------
    settings : ModelSettings, default ModelSettings()
        Estimator, calibration, and their parameters. *logistic* takes the features themselves;
        *hist_gradient_boosting* the score of few, shallow, heavily regularised trees (stacking).

    Attributes
    ----------
    estimator_ : EvidenceLogisticRegression or HistGradientBoostingClassifier
        What was fitted to the features.
    evidence_ : EvidenceLogisticRegression
        The same, or with trees what was fitted to their score.
    returns_ : EvidenceRidge or None
        Expected gross return over volatility; None where too few returns or volatilities were given.
    calibration_ : Calibration
        From its log odds to probabilities.
    serving_ : CompiledModel
        All of it, compiled.
    uses_odds_ : bool
        Whether it was given odds, and needs them.
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
        odds: ArrayLike | None = None,
        volatility: ArrayLike | None = None,
        trend: ArrayLike | None = None,
        ret: ArrayLike | None = None,
    ) -> Self:
        """Fit on all rows that can pay, calibrate on scores of later rows than were seen, and compile both.

        Calibration, where the settings ask for one, takes the latest `calibration_fraction` of the rows in
        consecutive blocks. Each block is scored by an estimator fitted on the rows before it, and the calibrator learns
        from those scores. So no row is calibrated by a model that saw it or anything later, and none is wasted.

        Parameters
        ----------
        X : (n, n_features)
            In order of time, finite, at least 50 rows.
        y : (n,)
            0 or 1.
        sample_weight : (n,), optional
            Not negative, and used as given. Shrinkage takes their sum for the number of independent labels: where
            labels overlap, give every row the mean uniqueness. (Weights that differ with the outcome bias the
            probabilities; a label's own uniqueness does, since trades that lose are closed at other times.)
        label_start, label_end : int (n,), optional
            When each label's window starts (never decreasing) and ends, in any one unit. With them, rows
            whose label ends at or after a block's first start are purged from the estimator that scores the
            block.
        odds : (n,), optional
            Probabilities in [0, 1) known without the labels: `random_walk_odds`. Rows of 0 are left out. Without them
            the base rate takes their place.
        volatility : (n,), optional
            As a log return scaled to the horizon; NaN where it is not known.
        trend : bool (n_features,), optional
            Which features tell of trend and flow: they may need another shrinkage than the others.
        ret : (n,), optional
            Gross log return in the signal's direction; NaN where it is not known. Together with a volatility it teaches
            the expected return, also where the odds are 0.

        Raises
        ------
        ValueError
            If the input is not as described, a part has one class only, or `settings.parameters` has a name
            that the estimator does not know.
        RuntimeError
            If the compiled model and the fitted one differ by more than 1e-12 on these rows.
        """
        from threadpoolctl import threadpool_limits

        self._discard_fit()
        features, labels, weight = check_rows(X, y, sample_weight)
        windows = check_windows(label_start, label_end, len(features))
        known = known_odds(odds, volatility, len(features))
        groups = _checked_trend(trend, features.shape[1])
        earned, spread = (
            _column(name, values, len(features))
            for name, values in (("ret", ret), ("volatility", volatility))
        )
        rows = Rows(features, labels, weight, known)
        if known is not None:
            rows = rows.at(known.payable)
            windows = None if windows is None else (windows[0][known.payable], windows[1][known.payable])
            check_payable(len(rows.labels), len(features))
        check_part("training", rows.labels, rows.weight, 0)
        calibration, n_calibrated = Calibration("none"), 0
        # One thread: sums come out the same whatever the number of cores, and a live engine keeps the others.
        with threadpool_limits(limits=1):
            later = None
            if self.settings.calibration != "none" or self.settings.estimator != "logistic":
                later = walk_forward_scores(rows, windows, groups, self.settings)
            fitted = fit_odds(rows, groups, self.settings, later)
            if later is not None and self.settings.calibration != "none":
                score, scored = calibration_scores(rows, windows, self.settings, later)
                fit = fit_sigmoid if self.settings.calibration == "sigmoid" else fit_isotonic
                calibration = fit(score, rows.labels[scored], rows.weight[scored])
                n_calibrated = len(scored)
            returns = fit_returns(features, earned, spread, weight, groups, fitted.evidence.limit)
            compiled = compile_model(fitted, calibration, returns, uses_odds=known is not None)
            _verify(compiled, fitted, calibration, returns, features, known)
        self.evidence_ = fitted.evidence
        self.estimator_ = fitted.evidence if fitted.trees is None else fitted.trees
        self.returns_ = returns
        self.calibration_ = calibration
        self.uses_odds_ = known is not None
        self.serving_ = compiled
        self.importances_ = importances(fitted)
        self.n_features_in_ = features.shape[1]
        self.n_calibration_rows_ = n_calibrated
        return self

    @property
    def is_fitted(self) -> bool:
        """Return whether `fit` has succeeded."""
        return "serving_" in self.__dict__

    @property
    def serving(self) -> CompiledModel:
        """Return the compiled model, verified against the fitted one when it was fitted."""
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

    def predict_proba(
        self, X: ArrayLike, odds: ArrayLike | None = None, volatility: ArrayLike | None = None
    ) -> FloatArray:
        """Return the calibrated P(y = 1) of every row through scikit-learn itself.

        Parameters
        ----------
        X : (n, n_features)
        odds, volatility : (n,), optional
            As in `fit`: needed where that was given odds, else ignored. A volatility that is not known counts as the
            mean one.

        Returns
        -------
        float64 (n,)
            0 where the odds are 0. NaN where the logistic regression meets a feature that is not finite.

        Raises
        ------
        ValueError
            If shapes differ, or odds are needed and not given.
        """
        self._require_fitted()
        features = np.asarray(X, dtype=np.float64)
        if "evidence_" not in self.__dict__:  # stored by 0.1.0, which knew no odds
            return _predict_pipeline(self.estimator_, self.calibration_, features)
        fitted = self._fitted()
        known = self._known(odds, volatility, len(features))
        return _answers(fitted, self.calibration_, None, features, known).confidence

    def predict_odds(self, odds: ArrayLike, volatility: ArrayLike | None = None) -> FloatArray:
        """Return what the model says without any feature, float64 (n,): the odds, recalibrated.

        Parameters
        ----------
        odds, volatility : (n,)
            As in `fit`. Where that was given no odds, every row has the base rate.
        """
        self._require_fitted()
        n = len(np.asarray(odds))
        if "evidence_" not in self.__dict__:
            return np.asarray(odds, np.float64)
        return expit(self._fitted().base_log_odds(n, self._known(odds, volatility, n)))

    def get_confidence(self, x: FloatArray, odds: float = np.nan, volatility: float = np.nan) -> float:
        """Return the calibrated P(y = 1) of one row, float64 (n_features,), through the compiled kernel."""
        self._require_fitted()
        return self.serving_.predict(x, odds, volatility)

    def verify_serving(
        self, X: ArrayLike, odds: ArrayLike | None = None, volatility: ArrayLike | None = None
    ) -> float:
        """Return the largest difference between the compiled model and the fitted one on `X` (n, n_features).

        Raises
        ------
        RuntimeError
            If it is more than 1e-12, or one of them is NaN where the other is not.
        """
        self._require_fitted()
        features = np.asarray(X, dtype=np.float64)
        if "evidence_" not in self.__dict__:
            expected = _predict_pipeline(self.estimator_, self.calibration_, features)
            return _compared({"confidence": (self.serving_.predict_rows(features), expected)})
        known = self._known(odds, volatility, len(features))
        returns = self.__dict__.get("returns_")  # not in what was stored before there was any
        return _verify(self.serving_, self._fitted(), self.calibration_, returns, features, known)

    def _fitted(self) -> FittedOdds:
        return FittedOdds(self.evidence_, None if self.estimator_ is self.evidence_ else self.estimator_)

    def _known(self, odds: ArrayLike | None, volatility: ArrayLike | None, n: int) -> KnownOdds | None:
        if not self.uses_odds_:
            return None
        if odds is None:
            raise ValueError(
                "this model was fitted with odds: give `odds`, and `volatility` where it is known"
            )
        return known_odds(odds, volatility, n)

    def _require_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError("this MetaModel is not fitted yet: call `fit(X, y)` first")

    def _discard_fit(self) -> None:
        # A refit that fails must not leave the parts of an older fit.
        for name in [name for name in self.__dict__ if name.endswith("_")]:
            delattr(self, name)


def _checked_trend(trend: ArrayLike | None, n_features: int) -> BoolArray | None:
    if trend is None:
        return None
    groups = np.asarray(trend)
    if groups.shape != (n_features,) or groups.dtype != np.bool_:
        raise ValueError(
            f"`trend` must be bool with shape ({n_features},), one per feature, is {groups.dtype} {groups.shape}"
        )
    return groups


def _column(name: str, values: ArrayLike | None, n: int) -> FloatArray:
    column = np.full(n, np.nan) if values is None else np.asarray(values, np.float64)
    if column.shape != (n,):
        raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {column.shape}")
    return column


def _answers(
    fitted: FittedOdds,
    calibration: Calibration,
    returns: "EvidenceRidge | None",
    X: FloatArray,
    known: KnownOdds | None,
) -> Predictions:
    """Return what the compiled model answers, through scikit-learn and numpy alone."""
    n_features = fitted.evidence.n_features_in_ if fitted.trees is None else fitted.trees.n_features_in_
    if X.ndim != 2 or X.shape[1] != n_features:
        raise ValueError(f"rows must have shape (n, {n_features}), got {X.shape}")
    answers = Predictions(*np.full((5, len(X)), np.nan))
    usable = np.isfinite(X).all(axis=1) if fitted.trees is None else np.ones(len(X), dtype=bool)
    pays = np.ones(len(X), dtype=bool) if known is None else known.payable
    if (usable & pays).any():
        rows = usable & pays
        score, sd = fitted.log_odds(X[rows], None if known is None else known.at(rows))
        answers.confidence[rows] = calibration(score)
        answers.low[rows] = calibration(score - Z90 * sd)
        answers.high[rows] = calibration(score + Z90 * sd)
    answers.base_odds[:] = expit(fitted.base_log_odds(len(X), known))
    for column in answers[:-1]:
        column[~pays] = 0.0
    if returns is not None and (finite := np.isfinite(X).all(axis=1)).any():
        answers.learned[finite] = returns.learned(X[finite])
    return answers


def _predict_pipeline(estimator: "ClassifierMixin", calibration: Calibration, X: FloatArray) -> FloatArray:
    """Return probabilities of an estimator as 0.1.0 fitted it."""
    if X.ndim != 2 or X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"rows must have shape (n, {estimator.n_features_in_}), got {X.shape}")
    usable = np.isfinite(X).all(axis=1) | (not hasattr(estimator, "named_steps"))
    out = np.full(len(X), np.nan)
    if usable.any():
        out[usable] = calibration(estimator.decision_function(X[usable]))
    return out


def _verify(
    serving: CompiledModel,
    fitted: FittedOdds,
    calibration: Calibration,
    returns: "EvidenceRidge | None",
    X: FloatArray,
    known: KnownOdds | None,
) -> float:
    odds, volatility = None, None
    if known is not None:
        rows = np.isfinite(known.terms[:, 1])  # without a volatility the compiled model has no answer
        X, known = X[rows], known.at(rows)
        odds, volatility = expit(known.offset), np.exp(known.terms[:, 1])
    expected = _answers(fitted, calibration, returns, X, known)
    served = serving.answer_rows(X, odds, volatility)
    return _compared(
        {
            name: (ours, theirs)
            for name, ours, theirs in zip(Predictions._fields, served, expected, strict=True)
        }
    )


def _compared(columns: Mapping[str, tuple[FloatArray, FloatArray]]) -> float:
    """Return the largest difference of what is served from what is expected, in any column."""
    largest = 0.0
    for name, (served, expected) in columns.items():
        differences = np.where(np.isnan(expected) & np.isnan(served), 0.0, np.abs(expected - served))
        worst = float(differences.max(initial=0.0))
        if not worst <= TOLERANCE:
            i = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
            raise RuntimeError(
                f"the compiled model differs from scikit-learn: `{name}` of row {i} is {served[i]} against "
                f"{expected[i]}, more than {TOLERANCE}; do not serve it, and report the scikit-learn and treelite "
                "versions"
            )
        largest = max(largest, worst)
    return largest
