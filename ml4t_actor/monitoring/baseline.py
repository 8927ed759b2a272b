"""What a model is held to once it serves."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.monitoring.drift import quantile_edges, window_stability
from ml4t_actor.validation.scores import checked, log_losses

# How far the largest of a year's windows of an unchanged feature goes above their mean index, and more so the
# fewer windows the mean is known from (see `benchmarks.monitor`).
_WINDOW_EXTREME = 16.0
_WINDOW_UNCERTAINTY = 10.0
_MIN_WINDOWS = 10
_MIN_WINDOW = 100


class MonitorBaseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is held to: how it did out of fold, and what it was trained on.

    Attributes
    ----------
    accuracy : float
        Share of signals predicted right, 1 where the probability is above 1/2.
    log_loss, log_loss_sd : float
        Mean log loss in nats, and standard deviation of the log loss of one signal.
    residual_sd : float, default 0.5
        Root mean square of ``sqrt(p * (1 - p))``: how far one outcome is from its probability.
    window : int, default 1000
        Rows of the windows that `psi_limits` hold for.
    feature_names : tuple of str
        Features that are watched; may be empty.
    edges : tuple of tuple of float
        Per feature, inner edges of up to ten bins of about equally many training rows.
    shares : tuple of tuple of float
        Per feature, share of the training rows in each bin.
    psi_limits : tuple of float
        Per feature, a population stability index that `window` rows like those trained on stay below for years.

    Raises
    ------
    ValueError
        If a value is out of range or lengths differ.
    """

    accuracy: float
    log_loss: float
    log_loss_sd: float
    residual_sd: float = 0.5
    window: int = 1000
    feature_names: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()
    psi_limits: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _in_range("accuracy", self.accuracy, 0.0, 1.0)
        for name in ("log_loss", "log_loss_sd", "residual_sd"):
            _in_range(name, getattr(self, name), 0.0, math.inf)
        if self.window < 1:
            raise ValueError(f"`window` was {self.window}, must be at least 1")
        lengths = [len(column) for column in (self.feature_names, self.edges, self.shares, self.psi_limits)]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"`feature_names`, `edges`, `shares` and `psi_limits` differ in length: {lengths}"
            )
        for name, edges, shares, limit in zip(
            self.feature_names, self.edges, self.shares, self.psi_limits, strict=True
        ):
            if list(edges) != sorted(set(edges)) or not all(map(math.isfinite, edges)):
                raise ValueError(f"`edges` of {name} must be finite and ascending, were {edges}")
            if len(shares) != len(edges) + 1 or min(shares) <= 0.0 or abs(sum(shares) - 1.0) > 1e-6:
                raise ValueError(
                    f"`shares` of {name} must be one more than edges, positive, with a sum of 1: {shares}"
                )
            _in_range(f"psi_limits of {name}", limit, 0.0, math.inf)

    @classmethod
    def measure(
        cls,
        y: ArrayLike,
        p: ArrayLike,
        weight: ArrayLike | None,
        X: ArrayLike,
        feature_names: Sequence[str],
        window: int = 1000,
    ) -> Self:
        """Measure a baseline from out-of-fold predictions and training rows.

        A feature's limit is a multiple of the mean population stability index of consecutive windows, half
        overlapping, against all rows: what wanders for as long as a window is expected to, and has a limit that
        little else reaches. At least ten windows fit into the rows: with few rows they are shorter, and with fewer
        than 1,000 rows no feature is watched.

        Parameters
        ----------
        y, p : (n,)
            Outcomes 0 or 1, and out-of-fold probabilities of 1.
        weight : (n,), optional
            Average uniqueness of each label.
        X : (n_rows, n_features)
            Training rows in order of time, finite; not only those with an out-of-fold prediction.
        feature_names : sequence of str
            Of the columns of X.
        window : int, default 1000
            Most rows of a window, as `MonitorSettings.window`; below 100 rows the limits are those of 100 (see
            `psi_limits_at`).

        Raises
        ------
        ValueError
            If there is no weight, a value is out of range, or shapes do not fit.
        """
        labels, probabilities, weights = checked(y, p, weight)
        if not weights.sum() > 0.0:
            raise ValueError(f"nothing to measure: {len(labels)} rows with a total weight of {weights.sum()}")
        rows = np.asarray(X, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(feature_names) or not np.isfinite(rows).all():
            raise ValueError(
                f"`X` must be finite, with one column for each of {len(feature_names)} features; its shape was "
                f"{rows.shape}"
            )
        if window < 1:
            raise ValueError(f"`window` was {window}, must be at least 1")
        losses = log_losses(labels, probabilities)
        loss = float(np.average(losses, weights=weights))
        correct = (probabilities > 0.5) == (labels > 0.5)
        scores = cls(
            accuracy=float(np.average(correct, weights=weights)),
            log_loss=loss,
            log_loss_sd=math.sqrt(float(np.average((losses - loss) ** 2, weights=weights))),
            residual_sd=math.sqrt(float(np.average(probabilities * (1.0 - probabilities), weights=weights))),
        )
        window = min(max(window, _MIN_WINDOW), len(rows) // _MIN_WINDOWS)
        if window < _MIN_WINDOW:
            return scores
        edges = [quantile_edges(column) for column in rows.T]
        shares = [
            np.bincount(np.searchsorted(inner, column, side="left")) / len(rows)
            for inner, column in zip(edges, rows.T, strict=True)
        ]
        typical = window_stability(rows, edges, shares, window).mean(axis=0)
        limits = _WINDOW_EXTREME * (1.0 + _WINDOW_UNCERTAINTY * window / len(rows)) * typical
        return msgspec.structs.replace(
            scores,
            window=window,
            feature_names=tuple(feature_names),
            edges=tuple(tuple(inner.tolist()) for inner in edges),
            shares=tuple(tuple(share.tolist()) for share in shares),
            psi_limits=tuple(limits.tolist()),
        )

    def psi_limits_at(self, window: int) -> tuple[float, ...]:
        """Return limits for windows of another length, at most `self.window` rows.

        A window of fewer rows is further from the whole: the index is about a variance of the shares, and that of a
        mean over 1/r of the rows is at most r times as large where neighbouring rows are alike. So each limit is r
        times its own, which a feature that wanders slowly stays far below. Training with the same
        `MonitorSettings.window` measures it instead.
        """
        if not 1 <= window <= self.window:
            raise ValueError(
                f"`window` was {window}, must be 1 to {self.window}, the rows that limits are known for"
            )
        return tuple(limit * (self.window / window) for limit in self.psi_limits)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, as a bundle keeps them in ``metrics["monitor"]``."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Return the baseline that `to_dict` gave; raise `ValueError` naming the field that does not fit."""
        try:
            return msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as e:
            raise ValueError(f"not a monitor baseline: {e}; train the model again to measure one") from None

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, object]) -> Self | None:
        """Return the baseline in a bundle's metrics, or None if they say too little.

        Metrics without a ``"monitor"`` still have an accuracy and a log loss in ``"out_of_fold"``. Then no feature is
        watched, and the spread of the log loss is taken to be that of the outcome, which is wider: the loss has to
        rise further before it counts.
        """
        try:
            stored = msgspec.convert(dict(metrics), _Metrics)
        except msgspec.ValidationError as e:
            raise ValueError(f"not a monitor baseline: {e}; train the model again to measure one") from None
        if stored.monitor is not None:
            return cls.from_dict(stored.monitor)
        scores = stored.out_of_fold
        if scores is None or scores.accuracy is None or scores.log_loss is None:
            return None
        sd = math.sqrt(scores.accuracy * (1.0 - scores.accuracy))
        return cls(accuracy=scores.accuracy, log_loss=scores.log_loss, log_loss_sd=sd, residual_sd=sd)


class _Scores(msgspec.Struct):
    accuracy: float | None = None
    log_loss: float | None = None


class _Metrics(msgspec.Struct):
    """What is read of a bundle's metrics, which may hold more."""

    monitor: dict[str, object] | None = None
    out_of_fold: _Scores | None = None


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"`{name}` was {value}, must be finite and in [{low:g}, {high:g}]")
