"""Market regimes: a Gaussian hidden Markov model, fitted in training, filtered forward one bar at a time."""

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml4t_actor.kernels.regime import (
    expected_weight,
    likeliest_and_weight,
    regime_expectations,
    regime_filter,
    regime_step,
)
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.settings import RegimeSettings

UNKNOWN_REGIME = -1
QUIET, ORDINARY, TURBULENT = 0, 1, 2

_log = logging.getLogger(__name__)
_DEFAULTS = RegimeSettings()

_MIN_ROWS_PER_REGIME = 30
_MIN_SHARE = 0.01
_VARIANCE_FLOOR = 1e-3  # of a standardised feature, whose variance is one
_MIN_GAIN_PER_ROW = 1e-6  # of log likelihood: less ends Baum-Welch
_EARLY_STOP_ITERATIONS = 2
_CLUSTERED_ROWS = 20_000
_SUM_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RegimeModel:
    """Hidden Markov model with `k` regimes and independent Gaussian features in each (Rabiner 1989).

    Regimes are in order of the mean of the first feature: with volatility there, regime 0 is the quietest.
    All arrays are float64, read-only, and checked whenever a model is made.

    Attributes
    ----------
    location, scale : (d,)
        What features are standardised with: ``(x - location) / scale``.
    initial : (k,)
        Probability of each regime one bar before the first; after a fit, its expected share of training bars.
    transition : (k, k)
        Row i: probability of each next regime when the current one is i.
    means, variances : (k, d)
        Of the standardised features in each regime.
    weights : (k,)
        How well signals fared in each regime, in [0, 1]. Zeros until `with_weights`: a model that has seen no
        signal vouches for none.
    log_likelihood : (iterations,)
        Log likelihood of the training features before each step of the fit, and after the last.

    Raises
    ------
    ValueError
        If an array is not finite, disagrees in shape or breaks a rule above; the message names it.
    """

    location: FloatArray
    scale: FloatArray
    initial: FloatArray
    transition: FloatArray
    means: FloatArray
    variances: FloatArray
    weights: FloatArray
    log_likelihood: FloatArray

    def __post_init__(self) -> None:
        for field in fields(self):
            name = field.name
            try:
                values = np.array(getattr(self, name), dtype=np.float64, order="C")
            except (TypeError, ValueError) as e:
                raise ValueError(f"`{name}` of a regime model must hold numbers: {e}") from None
            if not np.isfinite(values).all():
                raise ValueError(f"`{name}` of a regime model must be finite, was {values.tolist()}")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.means.ndim != 2 or self.means.shape[0] < 2 or self.means.shape[1] < 1:
            raise ValueError(
                "`means` of a regime model must have the shape (regimes >= 2, features >= 1), "
                f"was {self.means.shape}"
            )
        k, d = self.means.shape
        shapes = {
            "location": (d,),
            "scale": (d,),
            "initial": (k,),
            "transition": (k, k),
            "variances": (k, d),
            "weights": (k,),
            "log_likelihood": (self.log_likelihood.size,),
        }
        for name, shape in shapes.items():
            if (actual := getattr(self, name).shape) != shape:
                raise ValueError(f"`{name}` of a regime model must have the shape {shape}, was {actual}")
        for name in ("scale", "variances"):
            if (smallest := getattr(self, name).min()) <= 0.0:
                raise ValueError(f"`{name}` of a regime model must be positive, was {smallest}")
        for name in ("initial", "transition"):
            values = getattr(self, name)
            if values.min() < 0.0 or np.abs(values.sum(axis=-1) - 1.0).max() > _SUM_TOLERANCE:
                raise ValueError(
                    f"`{name}` of a regime model must be probabilities with sum one, was {values.tolist()}"
                )
        if self.weights.min() < 0.0 or self.weights.max() > 1.0:
            raise ValueError(f"`weights` of a regime model must be in [0, 1], was {self.weights.tolist()}")
        if (np.diff(self.means[:, 0]) < 0.0).any():
            raise ValueError(
                "regimes must be in order of the first feature's mean, the column was "
                f"{self.means[:, 0].tolist()}"
            )

    @classmethod
    def fit(cls, features: ArrayLike, settings: RegimeSettings = _DEFAULTS) -> Self:
        """Fit by Baum-Welch from a k-means start; the same input gives the same model.

        Rows with a NaN or an infinite value are dropped and the rest joined. So are rows with a feature
        farther outside its 1 % and 99 % quantiles than these lie apart (for a normal one, 7 standard
        deviations from the mean): so few and so far out, they would stretch the scale and claim a regime.

        A fit counts as collapsed when a regime holds less than 1 % of the filtered bars or never lasts a
        second bar. Then other starts are tried, in this order: a second k-means, equal shares by the first
        feature, and the latter again with only a few steps. If all collapse, these data do not hold so many
        regimes: one fewer is fitted, down to two, and the fallback logged as a warning. `n_regimes` tells
        what came out.

        Parameters
        ----------
        features : array_like (n, d)
            One row a bar, in order of time; the first column orders the regimes.
        settings : RegimeSettings
            Number of regimes, most steps, seed.

        Raises
        ------
        ValueError
            If `features` has another shape, fewer than 30 complete rows a regime, or not even two regimes.

        References
        ----------
        Rabiner, L. R. (1989). A tutorial on hidden Markov models and selected applications in speech
        recognition. Proceedings of the IEEE 77(2).
        """
        rows = _as_rows(features)
        n_given = len(rows)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows) < (needed := _MIN_ROWS_PER_REGIME * settings.n_regimes):
            raise ValueError(
                f"{settings.n_regimes} regimes need at least {needed} complete rows of features, got "
                f"{len(rows)} of {n_given}; give more bars or ask for fewer regimes"
            )
        low, high = np.quantile(rows, [_MIN_SHARE, 1.0 - _MIN_SHARE], axis=0)
        rows = rows[((rows >= low - (high - low)) & (rows <= high + (high - low))).all(axis=1)]
        location = rows.mean(axis=0)
        scale = rows.std(axis=0)
        # A constant feature says nothing about regimes; left unscaled it harms nothing.
        scale[scale <= np.maximum(1e-12 * np.abs(location), np.finfo(np.float64).tiny)] = 1.0
        for k in range(settings.n_regimes, 1, -1):
            for labels, iterations in _starts((rows - location) / scale, k, settings):
                model = cls._baum_welch(rows, location, scale, labels, k, iterations)
                share, run_bars = occupancy(model.filter(rows).argmax(axis=1), k)
                if share.min() >= _MIN_SHARE and run_bars.min() > 1.0:
                    if k < settings.n_regimes:
                        _log.warning("Fitted %d regimes, could not tell %d apart", k, settings.n_regimes)
                    return model
        raise ValueError(
            f"could not tell two regimes apart in {len(rows)} rows of features with means "
            f"{location.tolist()} and standard deviations {rows.std(axis=0).tolist()}; give longer or "
            "livelier data, or go by `rule_weight`"
        )

    @classmethod
    def _baum_welch(
        cls,
        rows: FloatArray,
        location: FloatArray,
        scale: FloatArray,
        labels: IntArray,
        k: int,
        iterations: int,
    ) -> Self:
        d = rows.shape[1]
        means, variances = np.empty((k, d)), np.empty((k, d))
        for j in range(k):
            members = (rows[labels == j] - location) / scale
            means[j] = members.mean(axis=0)
            variances[j] = np.maximum(members.var(axis=0), _VARIANCE_FLOOR)
        transition = np.ones((k, k))  # one of each: Baum-Welch never leaves a zero
        np.add.at(transition, (labels[:-1], labels[1:]), 1.0)
        transition /= transition.sum(axis=1, keepdims=True)
        initial = np.bincount(labels, minlength=k) / len(labels)

        filtered, before_first = np.empty((len(rows), k)), np.empty(k)
        transitions, bars = np.empty((k, k)), np.empty(k)
        deviations, squares = np.empty((k, d)), np.empty((k, d))
        path: list[float] = []
        while True:
            path.append(
                regime_expectations(
                    rows, initial, location, scale, transition, means, variances,
                    filtered, before_first, transitions, bars, deviations, squares,
                )
            )  # fmt: skip
            if len(path) > iterations or (
                len(path) > 1 and path[-1] - path[-2] < _MIN_GAIN_PER_ROW * len(rows)
            ):
                break
            initial = before_first / before_first.sum()
            leaving = transitions.sum(axis=1, keepdims=True)
            transition = np.where(
                leaving > 0.0, transitions / np.where(leaving > 0.0, leaving, 1.0), transition
            )
            weight = np.maximum(bars, np.finfo(np.float64).tiny)[:, None]
            shift = deviations / weight
            means = means + shift
            variances = np.maximum(squares / weight - shift * shift, _VARIANCE_FLOOR)
        order = np.argsort(means[:, 0], kind="stable")
        return cls(
            location=location,
            scale=scale,
            initial=(bars / bars.sum())[order],
            transition=transition[np.ix_(order, order)],
            means=means[order],
            variances=variances[order],
            weights=np.zeros(k),
            log_likelihood=np.array(path),
        )

    @property
    def digest(self) -> str:
        """Sixteen hex digits that tell whether two models filter alike; the weights do not count."""
        digest = hashlib.sha256()
        for name in ("location", "scale", "initial", "transition", "means", "variances"):
            digest.update(getattr(self, name).tobytes())
        return digest.hexdigest()[:16]

    @property
    def n_regimes(self) -> int:
        """Number of regimes, k: what the fit found, at most what it was asked for."""
        return len(self.initial)

    @property
    def n_features(self) -> int:
        """Number of features a bar, d."""
        return len(self.location)

    def with_weights(
        self,
        probabilities: ArrayLike,
        labels: ArrayLike,
        sample_weight: ArrayLike | None = None,
        shrinkage: float = _DEFAULTS.shrinkage,
    ) -> Self:
        """Return this model with the success rate of signals in each regime as its weights.

        ``weight_k = (sum p_k w y + m r) / (sum p_k w + m)``, where r is the overall rate ``sum w y / sum w``:
        the posterior mean under a beta prior worth m signals at the overall rate.

        Parameters
        ----------
        probabilities : array_like (n, k)
            Filtered probabilities at each labelled signal, p.
        labels : array_like (n,)
            1 where the signal paid, else 0, y.
        sample_weight : array_like (n,), optional
            Weight of each signal, w; ones if not given.
        shrinkage : float
            m, in units of `sample_weight`.

        Raises
        ------
        ValueError
            If there is no signal, lengths differ, or a value is out of range.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        y = np.asarray(labels, dtype=np.float64)
        w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if p.shape != (len(y), self.n_regimes) or y.ndim != 1 or w.shape != y.shape:
            raise ValueError(
                f"weights need probabilities (n, {self.n_regimes}), labels (n,) and sample weights (n,), got "
                f"the shapes {p.shape}, {y.shape} and {w.shape}"
            )
        if not (np.isfinite(p).all() and p.min(initial=0.0) >= 0.0 and p.max(initial=0.0) <= 1.0):
            raise ValueError("probabilities of regimes must be in [0, 1]; take them from `filter`")
        if not ((y >= 0.0) & (y <= 1.0)).all():
            raise ValueError(f"labels must be in [0, 1], got {np.unique(y)[:5].tolist()}")
        if not (np.isfinite(w).all() and (w >= 0.0).all() and w.sum() > 0.0):
            raise ValueError(
                f"sample weights must be finite, not negative, not all zero: got {len(w)} with sum {w.sum()}"
            )
        if not 0.0 <= shrinkage < math.inf:
            raise ValueError(f"`shrinkage` must be finite and not negative, was {shrinkage}")
        overall = (w * y).sum() / w.sum()
        mass = (p * w[:, None]).sum(axis=0) + shrinkage
        paid = (p * (w * y)[:, None]).sum(axis=0) + shrinkage * overall
        rate = np.where(mass > 0.0, paid / np.where(mass > 0.0, mass, 1.0), overall)
        return replace(self, weights=np.clip(rate, 0.0, 1.0))

    def filter(self, features: ArrayLike) -> FloatArray:
        """Return the probability of each regime (n, k) at each row of `features` (n, d), given rows up to it.

        Loops over the kernel behind `step`, from `initial_state`: bit for bit what the live path gives. A row
        with a NaN or an infinite value counts as not observed: its probabilities are the transition's
        prediction, the next good row goes on from there, and no trace of the bad one stays.
        """
        rows = _as_rows(features)
        if rows.shape[1] != self.n_features:
            raise ValueError(
                f"the regime model knows {self.n_features} features, got rows of {rows.shape[1]}"
            )
        out = np.empty((len(rows), self.n_regimes))
        regime_filter(
            rows, self.initial, self.location, self.scale, self.transition, self.means, self.variances, out
        )
        return out

    def initial_state(self) -> FloatArray:
        """Return the probabilities (k,) to give `step` with the first bar."""
        return self.initial.copy()

    def step(self, probabilities: FloatArray, x: ArrayLike) -> FloatArray:
        """Return the probabilities (k,) after a bar with features `x` (d,); bad values as in `filter`."""
        # Fresh arrays are contiguous and writable: for others numba would compile anew, on the event thread.
        before = np.array(probabilities, dtype=np.float64)
        row = np.array(x, dtype=np.float64)
        if before.shape != self.initial.shape or row.shape != self.location.shape:
            raise ValueError(
                f"a step needs {self.n_regimes} probabilities and {self.n_features} features, got the shapes "
                f"{before.shape} and {row.shape}"
            )
        out = np.empty(self.n_regimes)
        regime_step(before, row, self.location, self.scale, self.transition, self.means, self.variances, out)
        return out

    def weight(self, probabilities: ArrayLike) -> float:
        """Return the regime weight: the mean of `weights` under `probabilities` (k,); 0.0 for NaN."""
        return float(expected_weight(np.array(probabilities, dtype=np.float64), self.weights))

    def regime(self, probabilities: ArrayLike) -> int:
        """Return the likeliest regime under `probabilities` (k,), the quieter one of two equals."""
        return int(np.asarray(probabilities).argmax())

    def regime_and_weight(self, probabilities: FloatArray) -> tuple[int, float]:
        """Return what `regime` and `weight` do, of finite `probabilities` (k,), in less than half of their time."""
        likeliest, weight = likeliest_and_weight(
            probabilities.copy(), self.weights
        )  # contiguous and writable
        return likeliest, weight

    def to_arrays(self) -> dict[str, FloatArray]:
        """Return all arrays by name, for `numpy.savez`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model that `to_arrays` described.

        Raises
        ------
        ValueError
            If an array is missing, unknown, or breaks a rule of the class.
        """
        names = {field.name for field in fields(cls)}
        if missing := sorted(names - set(arrays)):
            raise ValueError(f"the arrays of a regime model lack {missing}")
        if unknown := sorted(set(arrays) - names):
            raise ValueError(f"a regime model has no arrays {unknown}; it has {sorted(names)}")
        return cls(**{name: np.asarray(arrays[name]) for name in names})


def _as_rows(features: ArrayLike) -> FloatArray:
    # A copy, for the same reason as in `step`.
    rows = np.array(features, dtype=np.float64, order="C")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"features must have the shape (bars, features), was {rows.shape}")
    return rows


def _starts(standardised: FloatArray, k: int, settings: RegimeSettings) -> Iterator[tuple[IntArray, int]]:
    """Yield labels of a first guess, every regime with members, and the most steps to take from it."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    sample = standardised[:: math.ceil(len(standardised) / _CLUSTERED_ROWS)]
    if len(np.unique(sample, axis=0)) >= k:
        for seed in (settings.seed, settings.seed + 1):
            # Threads add up partial sums in order of arrival: only one gives the same clusters every time.
            with threadpool_limits(1):
                clusters = KMeans(n_clusters=k, n_init=3, random_state=seed).fit(sample)
                labels = clusters.predict(standardised).astype(np.int64)
            if len(np.unique(labels)) == k:
                yield labels, settings.max_iterations
    first = standardised[:, 0]
    labels = np.searchsorted(np.quantile(first, np.arange(1, k) / k), first)
    if len(np.unique(labels)) == k:
        yield labels, settings.max_iterations
        yield labels, min(_EARLY_STOP_ITERATIONS, settings.max_iterations)


class Occupancy(NamedTuple):
    """How bars are spread over regimes: each one's `share` (k,) and mean run length `run_bars` (k,)."""

    share: FloatArray
    run_bars: FloatArray


def occupancy(regimes: ArrayLike, n_regimes: int) -> Occupancy:
    """Return each regime's share of bars and mean run length in bars (0.0 where it never occurs).

    >>> occupancy([0, 0, 1, 0], 2)
    Occupancy(share=array([0.75, 0.25]), run_bars=array([1.5, 1. ]))
    """
    path = np.asarray(regimes, dtype=np.int64)
    bars = np.bincount(path, minlength=n_regimes)
    starts = np.flatnonzero(np.diff(path, prepend=UNKNOWN_REGIME))
    runs = np.bincount(path[starts], minlength=n_regimes)
    return Occupancy(bars / max(len(path), 1), bars / np.maximum(runs, 1))


def rule_regime(volatility_percentile: float, trend_strength: float) -> int:
    """Return the regime without a fitted model: 0 quiet, 1 ordinary, 2 turbulent, -1 unknown.

    Quiet is the lowest third of volatility, turbulent the highest; a turbulent market that moves one way
    (`trend_strength` of at least 0.5) is ordinary.

    Parameters
    ----------
    volatility_percentile : float
        Of the current volatility in its own trailing history, in [0, 1].
    trend_strength : float
        Net over gross movement, in [0, 1].
    """
    if not (math.isfinite(volatility_percentile) and math.isfinite(trend_strength)):
        return UNKNOWN_REGIME
    if volatility_percentile < 1.0 / 3.0:
        return QUIET
    return TURBULENT if volatility_percentile > 2.0 / 3.0 and trend_strength < 0.5 else ORDINARY


def rule_weight(volatility_percentile: float, trend_strength: float) -> float:
    """Return the regime weight without a fitted model, in [0, 1]; 0.0 if an input is NaN or infinite.

    1 up to the median volatility, from there linearly down to 0.2 at the highest; a trend takes back up to
    half of the cut, in proportion to its strength (0.6 at the highest volatility when all movement is one
    way). A prior, not fitted to anything: turbulent bars without direction hit stops on both sides. Inputs as
    in `rule_regime`, clipped to [0, 1].
    """
    if not (math.isfinite(volatility_percentile) and math.isfinite(trend_strength)):
        return 0.0
    turbulence = min(max(2.0 * volatility_percentile - 1.0, 0.0), 1.0)
    trend = min(max(trend_strength, 0.0), 1.0)
    return 1.0 - 0.8 * turbulence * (1.0 - 0.5 * trend)
