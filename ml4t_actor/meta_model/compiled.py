"""A fitted, calibrated classifier as flat arrays, served without scikit-learn."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels import serving as kernels
from ml4t_actor.market_data import AnyArray, FloatArray
from ml4t_actor.meta_model.serving_arrays import CALIBRATIONS, FORMAT, RETURN_FORMAT, check_arrays

_FLOAT64 = np.dtype(np.float64)
# Where the numbers of formats 2 and 3 stand in what the kernels are given.
_TERMS = {
    "intercept": kernels.INTERCEPT,
    "calibration_slope": kernels.SLOPE,
    "calibration_intercept": kernels.SHIFT,
    "limit": kernels.LIMIT,
    "uses_odds": kernels.USES_ODDS,
    "base_intercept": kernels.BASE_INTERCEPT,
    "odds_center": kernels.CENTER,
    "odds_scale": kernels.SCALE,
    "odds_coefficient": kernels.COEFFICIENT,
    "base_coefficient": kernels.BASE_COEFFICIENT,
    "trees_intercept": kernels.TREES_INTERCEPT,
    "score_mean": kernels.SCORE_MEAN,
    "score_scale": kernels.SCORE_SCALE,
    "score_coefficient": kernels.SCORE_COEFFICIENT,
}


class Prediction(NamedTuple):
    """What a compiled model says of one row.

    Attributes
    ----------
    confidence : float
        Calibrated P(y = 1).
    base_odds : float
        What is known without the features: the odds of a random walk, recalibrated.
    low, high : float
        Ends of a 90 % interval of the confidence, for the uncertainty of the estimate.
    learned : float
        What the features add to the expected gross return, in volatilities: see `CompiledModel.expected_return`.
    """

    confidence: float
    base_odds: float
    low: float
    high: float
    learned: float


# A third of the time of `Prediction(*values)`.
_prediction: Callable[[tuple[float, ...]], Prediction] = partial(tuple.__new__, Prediction)


class Predictions(NamedTuple):
    """What a compiled model says of rows: the fields of `Prediction`, each float64 (n,)."""

    confidence: FloatArray
    base_odds: FloatArray
    low: FloatArray
    high: FloatArray
    learned: FloatArray


class CompiledModel:
    """A fitted, calibrated binary classifier, compiled: immutable, and safe to share among threads.

    Built by `from_arrays` alone, so that whatever it holds has been checked: arrays from an untrusted file
    can make it wrong, but not crash or hang.

    There are three formats. In format 1 a score alone is calibrated. In format 2 the score starts from the log odds
    ``lo`` of a random walk between the trade's barriers, and evidence is added to them:
    ``lo + a + r . z(lo, log volatility) + beta . z(x)``, each ``z`` standardised and bounded at `limit`. Trees give one
    such ``x``, their score. `answer` also tells what the odds alone say, recalibrated (``lo + a0 + r0 . z(lo, log
    volatility)``), and an interval of 90 % from the covariance of all coefficients. A trade with odds of 0 cannot
    pay: it is answered with 0. Format 3 tells the expected return, too: its gross part is ``b0 + b . z(x)``
    volatilities, with a mean and scale of its own in ``z``.

    A logistic regression that meets a NaN or an infinity gives NaN. In trees a NaN takes each split's default
    direction, as in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> model = CompiledModel.from_arrays({
    ...     "format": np.int64(1), "kind": np.str_("logistic"), "n_features": np.int64(2),
    ...     "mean": np.zeros(2), "scale": np.ones(2), "limit": np.float64(3.0),
    ...     "coefficient": np.array([1.0, -1.0]), "intercept": np.float64(0.0),
    ...     "calibration": np.str_("none"),
    ...     "calibration_slope": np.float64(1.0), "calibration_intercept": np.float64(0.0),
    ...     "calibration_score": np.empty(0), "calibration_probability": np.empty(0),
    ... })
    >>> model.predict(np.array([3.0, 3.0]))
    0.5
    """

    __slots__ = ("_arguments", "_arrays", "_has_odds", "_return_intercept", "_row", "_rows", "_shape")

    _arrays: dict[str, AnyArray]
    _arguments: tuple[object, ...]
    _has_odds: bool
    _return_intercept: float
    _row: Callable[..., Any]
    _rows: Callable[..., FloatArray]
    _shape: tuple[int]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a CompiledModel is immutable, `{name}` cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a CompiledModel is immutable, `{name}` cannot be deleted")

    def __reduce__(self) -> tuple[Callable[..., "CompiledModel"], tuple[dict[str, AnyArray]]]:
        return CompiledModel.from_arrays, (self.to_arrays(),)

    def __repr__(self) -> str:
        kind, calibration = self.kind, self.calibration
        return f"CompiledModel({kind=}, n_features={self.n_features}, {calibration=})"

    @property
    def kind(self) -> str:
        """Return 'logistic' or 'trees'."""
        return str(self._arrays["kind"])

    @property
    def calibration(self) -> str:
        """Return 'none', 'sigmoid' or 'isotonic'."""
        return str(self._arrays["calibration"])

    @property
    def n_features(self) -> int:
        """Return the number of features of a row."""
        return self._shape[0]

    @property
    def uses_odds(self) -> bool:
        """Return whether the odds of a random walk are what the model starts from, and have to be given."""
        return self._has_odds and bool(self._arrays["uses_odds"])

    @property
    def knows_return(self) -> bool:
        """Return whether the model tells of expected returns."""
        return self._return_intercept == self._return_intercept

    def expected_return[T: (float, FloatArray)](
        self, learned: T, volatility: T, cost: float, slope: float = 1.0
    ) -> T:
        """Return what trades are expected to make after their costs, in basis points; NaN where it is not known.

        Parameters
        ----------
        learned : float, or float64 (n,)
            Of their answers, in volatilities.
        volatility : float, or float64 (n,)
            As a log return scaled to the horizon.
        cost : float
            Of the round trip, as a log return.
        slope : float, default 1.0
            What the learned part is to be multiplied with.
        """
        return 1e4 * (volatility * (self._return_intercept + slope * learned) - cost)

    def predict(self, x: FloatArray, odds: float = math.nan, volatility: float = math.nan) -> float:
        """Return the calibrated P(y = 1) of one row.

        Parameters
        ----------
        x : float64 (n_features,)
            Fastest when contiguous and writable; anything else is copied first.
        odds, volatility : float, optional
            See `answer`.

        Raises
        ------
        ValueError
            If the shape is another.
        """
        return self.answer(x, odds, volatility).confidence

    def answer(self, x: FloatArray, odds: float = math.nan, volatility: float = math.nan) -> Prediction:
        """Return the calibrated P(y = 1) of one row, with what the odds alone say, and an interval.

        Parameters
        ----------
        x : float64 (n_features,)
            Fastest when contiguous and writable; anything else is copied first.
        odds : float, optional
            Of a random walk without drift (`random_walk_odds`), in [0, 1): needed where `uses_odds`. Where they are
            0, so is all of the answer.
        volatility : float, optional
            As a log return scaled to the horizon: needed where `uses_odds`.

        Returns
        -------
        Prediction
            NaN in what cannot be known. A model of format 1 knows neither odds nor interval: its `base_odds` are the
            given ones (0 if there are none), from 0 to 1. Before format 3 `learned` is NaN.

        Raises
        ------
        ValueError
            If the shape is another.
        """
        if (
            type(x) is not np.ndarray
            or x.shape != self._shape
            or x.dtype is not _FLOAT64
            or not x.flags.carray
        ):
            x = self._checked_row(x)
        if self._has_odds:
            return _prediction(self._row(x, float(odds), float(volatility), *self._arguments))
        confidence = float(self._row(x, *self._arguments))
        return _prediction((confidence, odds if odds == odds else 0.0, 0.0, 1.0, math.nan))

    def predict_rows(
        self, X: FloatArray, odds: ArrayLike | None = None, volatility: ArrayLike | None = None
    ) -> FloatArray:
        """Return the calibrated P(y = 1) of every row, bitwise equal to `predict`.

        Parameters
        ----------
        X : float64 (n, n_features)
        odds, volatility : float (n,), optional
            See `answer`.

        Returns
        -------
        float64 (n,)

        Raises
        ------
        ValueError
            If a shape is another.
        """
        if not self._has_odds:
            return self._rows(self._checked_rows(X), *self._arguments)
        return self.answer_rows(X, odds, volatility).confidence

    def answer_rows(
        self, X: FloatArray, odds: ArrayLike | None = None, volatility: ArrayLike | None = None
    ) -> Predictions:
        """Return the answer to every row, bitwise equal to `answer`.

        Parameters
        ----------
        X : float64 (n, n_features)
        odds, volatility : float (n,), optional
            See `answer`.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        X = self._checked_rows(X)
        given = _column("odds", odds, len(X))
        if not self._has_odds:
            confidence = self._rows(X, *self._arguments)
            base_odds = np.where(np.isnan(given), 0.0, given)
            nothing = np.full(len(X), np.nan)
            return Predictions(confidence, base_odds, np.zeros(len(X)), np.ones(len(X)), nothing)
        return Predictions(*self._rows(X, given, _column("volatility", volatility, len(X)), *self._arguments))

    def _checked_row(self, x: FloatArray) -> FloatArray:
        x = np.asarray(x)
        if x.shape != self._shape:
            raise ValueError(f"a row must have shape {self._shape}, got {x.shape}")
        # Another layout would compile the kernel anew, on the event thread.
        return np.array(x, dtype=np.float64, order="C")

    def _checked_rows(self, X: FloatArray) -> FloatArray:
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self._shape[0]:
            raise ValueError(f"rows must have shape (n, {self._shape[0]}), got {X.shape}")
        return X if X.flags.carray else np.array(X, order="C")

    def to_arrays(self) -> dict[str, AnyArray]:
        """Return everything the model is, as read-only arrays that `numpy.savez` writes without pickle."""
        return dict(self._arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Self:
        """Build the model from what `to_arrays` gave, trusting none of it.

        Raises
        ------
        ValueError
            If a name is missing or unknown, a dtype or shape is another, a number is not finite, a knot is
            out of order, a tree points outside itself or backwards, or the covariance's factor is not triangular.
        """
        checked = check_arrays(arrays)
        row, rows, packed = _odds_kernels(checked) if _has_odds(checked) else _plain_kernels(checked)
        for array in packed:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

        self = cls.__new__(cls)
        state = {
            "_arrays": checked,
            "_arguments": packed,
            "_has_odds": _has_odds(checked),
            "_return_intercept": float(checked.get("return_intercept", math.nan)),
            "_row": row,
            "_rows": rows,
            "_shape": (int(checked["n_features"]),),
        }
        for name, value in state.items():
            object.__setattr__(self, name, value)
        self.answer(np.zeros(self._shape), 0.5, 1.0)  # compiles now and not at the first signal
        return self


type _Kernels = tuple[Callable[..., Any], Callable[..., FloatArray], tuple[object, ...]]


def _has_odds(arrays: Mapping[str, AnyArray]) -> bool:
    return int(arrays["format"]) != FORMAT


def _plain_kernels(arrays: Mapping[str, AnyArray]) -> _Kernels:
    """Return the kernels of format 1, and what they are called with after the row."""
    affine = np.array([arrays[n] for n in ("intercept", "calibration_slope", "calibration_intercept")])
    calibration, knots = _calibration(arrays)
    if str(arrays["kind"]) == "logistic":
        limit = float(arrays.get("limit", np.inf))
        return (
            kernels.logistic_row,
            kernels.logistic_rows,
            (_linear(arrays), limit, affine, calibration, knots),
        )
    return kernels.trees_row, kernels.trees_rows, (*_trees(arrays), affine, calibration, knots)


def _odds_kernels(arrays: Mapping[str, AnyArray]) -> _Kernels:
    """Return the kernels of formats 2 and 3, and what they are called with after row, odds and volatility."""
    terms = np.zeros(kernels.N_TERMS)
    for name, slot in _TERMS.items():
        if name in arrays:
            values = np.atleast_1d(arrays[name])
            terms[slot : slot + len(values)] = values
    calibration, knots = _calibration(arrays)
    logistic = str(arrays["kind"]) == "logistic"
    linear = []
    if int(arrays["format"]) == RETURN_FORMAT:
        terms[kernels.KNOWS_RETURN] = 1.0
        linear.append(_linear(arrays, "return_"))
    if logistic:
        linear.append(_linear(arrays))
    parts = [terms, *linear, arrays["covariance_factor"], knots]
    packed = (np.concatenate([np.ravel(part) for part in parts]), calibration)
    if logistic:
        return kernels.logistic_answer, kernels.logistic_answers, packed
    return kernels.trees_answer, kernels.trees_answers, (*_trees(arrays), *packed)


def _calibration(arrays: Mapping[str, AnyArray]) -> tuple[int, FloatArray]:
    knots = np.array([arrays["calibration_score"], arrays["calibration_probability"]], dtype=np.float64)
    return CALIBRATIONS[str(arrays["calibration"])], knots


def _linear(arrays: Mapping[str, AnyArray], of: str = "") -> FloatArray:
    return np.array([arrays[of + n] for n in ("mean", "scale", "coefficient")], dtype=np.float64)


def _trees(arrays: Mapping[str, AnyArray]) -> tuple[AnyArray, AnyArray]:
    nodes = np.empty(len(arrays["feature"]), dtype=kernels.NODE)
    for name in kernels.NODE.names or ():
        nodes[name] = arrays[name]
    return nodes, arrays["root"]


def _column(name: str, values: ArrayLike | None, n: int) -> FloatArray:
    """Return one number per row, NaN where none is given."""
    if values is None:
        return np.full(n, np.nan)
    column = np.array(values, dtype=np.float64, order="C")
    if column.shape != (n,):
        raise ValueError(f"`{name}` must have shape ({n},), one per row, has {column.shape}")
    return column


ServingModel = CompiledModel  # its name in the estimators that 0.1.0 stored
