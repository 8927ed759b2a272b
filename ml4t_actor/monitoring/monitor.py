"""Is the serving model still what validation said it is?"""

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import DAY_NS, FloatArray
from ml4t_actor.monitoring.baseline import MonitorBaseline
from ml4t_actor.monitoring.drift import Cusum, PopulationStability, cusum_threshold
from ml4t_actor.settings import MonitorSettings
from ml4t_actor.validation.scores import LOG_LOSS_CLIP, log_losses

__all__ = ["MonitorBaseline", "RetrainMonitor", "RetrainTrigger"]

Kind = Literal["accuracy", "calibration", "loss", "feature_drift", "age", "expired", "manual", "first_model"]

# Years of 1-minute bars, with an independent outcome on each, from one false alarm to the next. Accuracy has to
# find ten points within 1,000 outcomes, which is not to be had for more years than this.
YEARS_BETWEEN_ALARMS: dict[str, float] = {"accuracy": 2.0, "calibration": 20.0, "loss": 20.0}
OUTCOMES_PER_YEAR = 365 * 24 * 60

_ACCURACY_RANGE = (0.1, 0.9)
_MIN_RESIDUAL_SD = 0.1
_MIN_LOG_LOSS_SD = 0.1
_MAX_LOSS_SDS = 10.0
_MAX_REASON = 299
_KNOWN_DRIFT_FACTOR = 1.5


class RetrainTrigger(msgspec.Struct, frozen=True, kw_only=True):
    """Why a model should be retrained now.

    Attributes
    ----------
    kind : str
        ``accuracy``, ``calibration``, ``loss``, ``feature_drift``, ``age``, ``expired``, ``manual`` or
        ``first_model``.
    reason : str
        One sentence with numbers, under 300 characters.
    ts : int
        When it was detected, UNIX nanoseconds; 0 if the check was given no time.
    detail : dict of str to float
        The numbers.
    """

    kind: Kind
    reason: str
    ts: int
    detail: dict[str, float]


class RetrainMonitor:
    """Watches what became of signals, and says when the model behind them should be retrained.

    One-sided CUSUMs look for a drop of accuracy, for confidence above or below the success rate, and for a rise
    of the log loss, each tuned to a shift of the size that the settings name. A rolling mean would find a drop of
    exactly the threshold only half of the time. At the defaults a stationary stream with an independent outcome each
    minute has fewer than one false alarm a year, and a drop of accuracy by ten points is found within 1,000
    outcomes in at least 95 of 100 cases: see `benchmarks.monitor`. Labels that overlap carry less, so it takes as
    many more of them as their weights say on average; each counts alike, since a label's own weight depends on how the
    trade ended.

    Parameters
    ----------
    baseline : MonitorBaseline, optional
        Of the serving model. None if none serves, or nothing is known of how it did: then all that is triggered,
        besides what is requested by hand, is a first model.
    settings : MonitorSettings
        Sizes of shifts, window, cooldown.
    accuracy_drop_threshold : float, default 0.10
        Drop of accuracy to detect.
    interval_bars : int, optional
        Retrain when so many bars have passed since the last time.
    bar_interval_ns : int
        Length of a bar, by which `interval_bars` and the cooldown are counted.
    min_samples : int, default 1000
        Outcomes that a first model needs.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> baseline = MonitorBaseline(accuracy=0.6, log_loss=0.673, log_loss_sd=0.2)
    >>> monitor = RetrainMonitor(baseline, MonitorSettings(), bar_interval_ns=60 * 10**9)
    >>> for i in range(1_000):
    ...     monitor.record_outcome(prediction=0.6, actual=i % 2)  # right half of the time
    >>> monitor.check_retrain_trigger().kind
    'accuracy'
    """

    def __init__(
        self,
        baseline: MonitorBaseline | None,
        settings: MonitorSettings,
        *,
        accuracy_drop_threshold: float = 0.10,
        interval_bars: int | None = None,
        bar_interval_ns: int,
        min_samples: int = 1000,
    ) -> None:
        if not 0.0 < accuracy_drop_threshold <= 1.0:
            raise ValueError(
                f"`accuracy_drop_threshold` was {accuracy_drop_threshold}, must be above 0 and at most 1"
            )
        for name, value in (
            ("interval_bars", interval_bars),
            ("bar_interval_ns", bar_interval_ns),
            ("min_samples", min_samples),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` was {value}, must be at least 1")
        self.settings = settings
        self.accuracy_drop_threshold = accuracy_drop_threshold
        self.interval_bars = interval_bars
        self.bar_interval_ns = bar_interval_ns
        self.min_samples = min_samples
        self._request: str | None = None
        self._cooldown_from_ns: int | None = None
        self._age_from_ns: int | None = None
        self._trained_until_ns: int | None = None
        self._psi_limits: FloatArray = np.empty(0)
        self._begin(baseline)

    def record_outcome(self, prediction: float, actual: int, weight: float = 1.0) -> None:
        """Record the outcome of a signal.

        Parameters
        ----------
        prediction : float
            Confidence that the serving model gave, in [0, 1].
        actual : int
            1 if the signal paid, else 0.
        weight : float, default 1.0
            Average uniqueness of the label, in [0, 1]: outcomes are worth the mean of these as independent ones.

        Raises
        ------
        ValueError
            If a value is NaN or out of range; nothing is recorded then.
        """
        if not 0.0 <= prediction <= 1.0:
            raise ValueError(f"`prediction` was {prediction}, must be a probability in [0, 1]")
        if actual not in (0, 1):
            raise ValueError(f"`actual` was {actual}, must be 0 or 1; leave unresolved signals out")
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"`weight` was {weight}, must be the uniqueness of a label, in [0, 1]")
        self._outcomes[self.n_outcomes % self.settings.window] = prediction, actual
        self.n_outcomes += 1
        self.outcome_weight += weight
        worth = self.outcome_weight / self.n_outcomes
        baseline = self.baseline
        if baseline is None:
            return
        correct = (prediction > 0.5) == (actual == 1)
        self._accuracy.update((baseline.accuracy - correct) / self._accuracy_sd, worth)
        # Confidences nearer to 1/2 than validation had are noisier; more certain ones must not weigh without bound.
        sd = max(self._residual_sd, math.sqrt(prediction * (1.0 - prediction)))
        residual = (actual - prediction) / sd
        self._overconfidence.update(-residual, worth)
        self._underconfidence.update(residual, worth)
        # Bounded (Lucas & Crosier 1982): one certainty that failed is no evidence of many.
        loss = -math.log(max(prediction if actual else 1.0 - prediction, LOG_LOSS_CLIP))
        self._loss.update(min((loss - baseline.log_loss) / self._log_loss_sd, _MAX_LOSS_SDS), worth)

    def record_features(self, row: FloatArray) -> None:
        """Record the features that a signal was served with, in order; a row that is not finite is only counted.

        Parameters
        ----------
        row : float64 (n_features,)
            Raises `ValueError` if it has another shape than the baseline's features.
        """
        if self._features is not None:
            self._features.update(row)

    def check_retrain_trigger(self, now_ns: int | None = None) -> RetrainTrigger | None:
        """Return why to retrain now, or None.

        At most one reason, the most specific first: by hand, no model yet, accuracy, calibration, loss, features,
        expiry, age. It is given again at each check until `retrained` or `model_changed` is called, but for the
        cooldown; a request by hand is given once and does not wait for the cooldown.

        Parameters
        ----------
        now_ns : int, optional
            UNIX nanoseconds. Without it there is no cooldown and nothing ages.
        """
        if now_ns is not None and self._age_from_ns is None:
            self._age_from_ns = now_ns
        cause: tuple[Kind, str, dict[str, float]] | None
        if self._request is not None:
            detail = {"n_outcomes": float(self.n_outcomes)}
            cause = "manual", f"requested after {self.n_outcomes:,} outcomes: {self._request}", detail
            self._request = None
        elif self._in_cooldown(now_ns):
            return None
        else:
            cause = (
                self._first_model()
                or self._outcome_drift()
                or self._feature_drift()
                or (None if now_ns is None else self._expired(now_ns) or self._aged(now_ns))
            )
        if cause is None:
            return None
        if now_ns is not None:
            self._cooldown_from_ns = now_ns
        kind, reason, detail = cause
        return RetrainTrigger(kind=kind, reason=reason[:_MAX_REASON], ts=now_ns or 0, detail=detail)

    def request(self, reason: str) -> None:
        """Ask for a retraining: the next check returns it."""
        self._request = reason

    def model_changed(
        self,
        baseline: MonitorBaseline | None,
        trained_until_ns: int | None = None,
        now_ns: int | None = None,
    ) -> None:
        """Begin anew for another serving model.

        Parameters
        ----------
        baseline : MonitorBaseline, optional
            Of the model that serves from now on.
        trained_until_ns : int, optional
            End of its newest training label, by which it expires.
        now_ns : int, optional
            UNIX nanoseconds; the model's age is counted from here.
        """
        self._trained_until_ns = trained_until_ns
        if now_ns is not None:
            self._age_from_ns = now_ns
        self._begin(baseline)

    def retrained(self, now_ns: int) -> None:
        """Begin the cooldown: a retraining has ended, whether its model serves or not.

        Evidence is gathered anew; rolling figures stay. A feature that had drifted has to drift half as far again: that
        it is elsewhere is known by now, and was no reason for another model.
        """
        self._cooldown_from_ns = self._age_from_ns = now_ns
        if self._features is not None and self._features.full:
            values = self._psi()
            self._psi_limits = np.where(
                values > self._psi_limits, _KNOWN_DRIFT_FACTOR * values, self._psi_limits
            )
        for cusum in self.detectors.values():
            cusum.reset()

    @property
    def accuracy(self) -> float:
        """Accuracy of the outcomes in the window; NaN without any."""
        p, y = self._window()
        return _mean((p > 0.5) == (y > 0.5))

    @property
    def calibration_gap(self) -> float:
        """Mean confidence less success rate in the window; NaN without outcomes."""
        p, y = self._window()
        return _mean(p - y)

    @property
    def log_loss(self) -> float:
        """Mean log loss in the window in nats; NaN without outcomes."""
        p, y = self._window()
        return _mean(log_losses(y, p))

    def summary(self) -> dict[str, float | None]:
        """Return the state in numbers for logs and plots, None for what is undefined.

        ``accuracy_alarm`` and the like are the evidence as a share of what triggers; ``feature_drift`` is that of the
        feature nearest to its limit.
        """
        baseline = self.baseline
        values: dict[str, float | None] = {
            "n_outcomes": float(self.n_outcomes),
            "outcome_weight": self.outcome_weight,
            "accuracy": self.accuracy,
            "accuracy_baseline": None if baseline is None else baseline.accuracy,
            "calibration_gap": self.calibration_gap,
            "log_loss": self.log_loss,
            "log_loss_baseline": None if baseline is None else baseline.log_loss,
        }
        cusums = self.detectors
        for name in ("accuracy", "overconfidence", "underconfidence", "loss"):
            cusum = cusums.get(name)
            values[f"{name}_alarm"] = None if cusum is None else cusum.value / cusum.threshold
        watched = self._features is not None and self._features.full
        values["feature_drift"] = float((self._psi() / self._psi_limits).max()) if watched else None
        return {k: None if v is None or math.isnan(v) else v for k, v in values.items()}

    def _begin(self, baseline: MonitorBaseline | None) -> None:
        self.baseline = baseline
        self.n_outcomes = 0
        self.outcome_weight = 0.0
        self._outcomes = np.zeros((self.settings.window, 2))
        self._features: PopulationStability | None = None
        if baseline is None:
            return
        drop = self.accuracy_drop_threshold
        sd = self._accuracy_sd = _accuracy_sd(baseline.accuracy)
        error_skewness = (
            2.0 * min(max(baseline.accuracy, _ACCURACY_RANGE[0]), _ACCURACY_RANGE[1]) - 1.0
        ) / sd
        self._accuracy = _detector("accuracy", drop / sd, error_skewness)
        self._residual_sd = max(baseline.residual_sd, _MIN_RESIDUAL_SD)
        gap = self.settings.calibration_drift / self._residual_sd
        self._overconfidence = _detector("calibration", gap)
        self._underconfidence = _detector("calibration", gap)
        self._log_loss_sd = max(baseline.log_loss_sd, _MIN_LOG_LOSS_SD)
        self._loss = _detector("loss", self.settings.loss_drift)
        if baseline.feature_names:
            window = min(self.settings.window, baseline.window)
            self._features = PopulationStability(baseline.edges, baseline.shares, window)
            self._psi_limits = np.maximum(baseline.psi_limits_at(window), self.settings.feature_drift)

    @property
    def detectors(self) -> dict[str, Cusum]:
        """The CUSUMs by name, in the order that their alarms are reported in; none without a baseline."""
        if self.baseline is None:
            return {}
        return {
            "accuracy": self._accuracy,
            "overconfidence": self._overconfidence,
            "underconfidence": self._underconfidence,
            "loss": self._loss,
        }

    def _window(self) -> tuple[FloatArray, FloatArray]:
        p, y = self._outcomes[: min(self.n_outcomes, self.settings.window)].T
        return p, y

    def _psi(self) -> FloatArray:
        assert self._features is not None
        return self._features.values()

    def _in_cooldown(self, now_ns: int | None) -> bool:
        if now_ns is None or self._cooldown_from_ns is None:
            return False
        return now_ns - self._cooldown_from_ns < self.settings.cooldown_bars * self.bar_interval_ns

    def _first_model(self) -> tuple[Kind, str, dict[str, float]] | None:
        if self.baseline is not None or self.n_outcomes < self.min_samples:
            return None
        detail = {"n_outcomes": float(self.n_outcomes), "min_samples": float(self.min_samples)}
        reason = f"no model with a known score serves, and {self.n_outcomes:,} outcomes are enough for one"
        return "first_model", f"{reason} (at least {self.min_samples:,})", detail

    def _outcome_drift(self) -> tuple[Kind, str, dict[str, float]] | None:
        baseline = self.baseline
        if baseline is None or self.n_outcomes < self.settings.min_outcomes:
            return None
        n = min(self.n_outcomes, self.settings.window)
        if self._accuracy.alarm:
            figures = f"accuracy of the last {n:,} outcomes {self.accuracy:.3f}, {baseline.accuracy:.3f} in validation"
            return self._drifted("accuracy", figures, self._accuracy, self.accuracy, baseline.accuracy)
        for cusum, word in ((self._overconfidence, "above"), (self._underconfidence, "below")):
            if cusum.alarm:
                gap = self.calibration_gap
                figures = (
                    f"mean confidence {abs(gap):.3f} {'above' if gap > 0.0 else 'below'} the success rate"
                )
                what = f"confidence too far {word} success: {figures} over the last {n:,} outcomes"
                return self._drifted("calibration", what, cusum, gap, 0.0)
        if self._loss.alarm:
            figures = f"log loss of the last {n:,} outcomes {self.log_loss:.4f}, {baseline.log_loss:.4f} in validation"
            return self._drifted("loss", figures, self._loss, self.log_loss, baseline.log_loss)
        return None

    def _drifted(
        self, kind: Kind, figures: str, cusum: Cusum, value: float, expected: float
    ) -> tuple[Kind, str, dict[str, float]]:
        detail = {
            "value": value,
            "baseline": expected,
            "cusum": cusum.value,
            "threshold": cusum.threshold,
            "n_outcomes": float(self.n_outcomes),
            "outcome_weight": self.outcome_weight,
        }
        return kind, f"{figures} (CUSUM {cusum.value:.1f}, limit {cusum.threshold:.1f})", detail

    def _feature_drift(self) -> tuple[Kind, str, dict[str, float]] | None:
        baseline, features = self.baseline, self._features
        if baseline is None or features is None or not features.full:
            return None
        psi = features.values()
        ratio = psi / self._psi_limits
        worst = int(ratio.argmax())
        if ratio[worst] <= 1.0:
            return None
        detail = {
            "psi": float(psi[worst]),
            "limit": float(self._psi_limits[worst]),
            "n_features": float((ratio > 1.0).sum()),
            "feature": float(worst),
        }
        reason = (
            f"feature {baseline.feature_names[worst]!r} has drifted: population stability index {psi[worst]:.3f} over "
            f"the last {features.window:,} rows, limit {self._psi_limits[worst]:.3f} "
            f"({int(detail['n_features'])} of {len(psi)} features above theirs)"
        )
        return "feature_drift", reason, detail

    def _expired(self, now_ns: int) -> tuple[Kind, str, dict[str, float]] | None:
        limit = self.settings.max_age_days
        if limit is None or self._trained_until_ns is None:
            return None
        days = (now_ns - self._trained_until_ns) / DAY_NS
        if days <= limit:
            return None
        reason = f"the newest training label is {days:.2f} days old, at most {limit:g} are allowed"
        return "expired", reason, {"age_days": days, "max_age_days": limit}

    def _aged(self, now_ns: int) -> tuple[Kind, str, dict[str, float]] | None:
        serves = self.baseline is not None or self._trained_until_ns is not None
        if self.interval_bars is None or self._age_from_ns is None or not serves:
            return None
        bars = (now_ns - self._age_from_ns) // self.bar_interval_ns
        if bars < self.interval_bars:
            return None
        reason = f"{bars:,} bars since the last retraining, due every {self.interval_bars:,}"
        return "age", reason, {"bars": float(bars), "interval_bars": float(self.interval_bars)}


def _detector(name: str, shift: float, skewness: float = 0.0) -> Cusum:
    """Return a CUSUM tuned to a rise of `shift` standard deviations."""
    arl = YEARS_BETWEEN_ALARMS[name] * OUTCOMES_PER_YEAR
    return Cusum(0.5 * shift, cusum_threshold(0.5 * shift, arl, skewness))


def _accuracy_sd(accuracy: float) -> float:
    """Return the standard deviation of being right, as if no model were almost always right or wrong."""
    a = min(max(accuracy, _ACCURACY_RANGE[0]), _ACCURACY_RANGE[1])
    return math.sqrt(a * (1.0 - a))


def _mean(values: ArrayLike) -> float:
    column = np.asarray(values, np.float64)
    return float(column.mean()) if len(column) else math.nan
