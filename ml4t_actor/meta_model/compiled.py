"""A fitted, calibrated classifier as flat arrays, served without scikit-learn."""

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels import serving as kernels
from ml4t_actor.market_data import AnyArray, FloatArray, IntArray

FORMAT = 1
_CALIBRATIONS = {"none": kernels.UNCALIBRATED, "sigmoid": kernels.SIGMOID, "isotonic": kernels.ISOTONIC}
_FLOAT64 = np.dtype(np.float64)

# name -> (dtype, number of dimensions)
_COMMON = {
    "format": (np.int64, 0),
    "n_features": (np.int64, 0),
    "intercept": (np.float64, 0),
    "calibration_slope": (np.float64, 0),
    "calibration_intercept": (np.float64, 0),
    "calibration_score": (np.float64, 1),
    "calibration_probability": (np.float64, 1),
}
_LOGISTIC = {
    "mean": (np.float64, 1),
    "scale": (np.float64, 1),
    "coefficient": (np.float64, 1),
}
_OPTIONAL = {"limit": (np.float64, 0)}  # of a logistic regression: bound of its standardised features
_TREES = {
    "root": (np.int32, 1),
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "left": (np.int32, 1),
    "right": (np.int32, 1),
    "default_left": (np.bool_, 1),
    "value": (np.float64, 1),
}


class CompiledModel:
    """A fitted, calibrated binary classifier, compiled: immutable, and safe to share among threads.

    Built by `from_arrays` alone, so that whatever it holds has been checked: arrays from an untrusted file
    can make it wrong, but not crash or hang.

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

    __slots__ = ("_arguments", "_arrays", "_row", "_rows", "_shape")

    _arrays: dict[str, AnyArray]
    _arguments: tuple[object, ...]
    _row: Callable[..., float]
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

    def predict(self, x: FloatArray) -> float:
        """Return the calibrated P(y = 1 | x) of one row.

        Parameters
        ----------
        x : float64 (n_features,)
            Fastest when contiguous and writable; anything else is copied first.

        Raises
        ------
        ValueError
            If the shape is another.
        """
        if type(x) is not np.ndarray:
            x = np.asarray(x)
        if x.shape != self._shape:
            raise ValueError(f"a row must have shape {self._shape}, got {x.shape}")
        if x.dtype is not _FLOAT64 or not x.flags.carray:
            # Another layout would compile the kernel anew, on the event thread.
            x = np.array(x, dtype=np.float64, order="C")
        return self._row(x, *self._arguments)

    def predict_rows(self, X: FloatArray) -> FloatArray:
        """Return the calibrated P(y = 1 | x) of every row, bitwise equal to `predict`.

        Parameters
        ----------
        X : float64 (n, n_features)

        Returns
        -------
        float64 (n,)

        Raises
        ------
        ValueError
            If the shape is another.
        """
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self._shape[0]:
            raise ValueError(f"rows must have shape (n, {self._shape[0]}), got {X.shape}")
        if not X.flags.carray:
            X = np.array(X, order="C")
        return self._rows(X, *self._arguments)

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
            out of order, or a tree points outside itself or backwards.
        """
        checked = _check_arrays(arrays)
        n_features = int(checked["n_features"])
        affine = np.array([checked[n] for n in ("intercept", "calibration_slope", "calibration_intercept")])
        knots = np.stack([checked["calibration_score"], checked["calibration_probability"]])
        calibration = _CALIBRATIONS[str(checked["calibration"])]
        row: Callable[..., float]
        rows: Callable[..., FloatArray]
        packed: tuple[object, ...]
        if str(checked["kind"]) == "logistic":
            row, rows = kernels.logistic_row, kernels.logistic_rows
            linear = np.stack([checked[n] for n in ("mean", "scale", "coefficient")])
            packed = (linear, float(checked.get("limit", np.inf)), affine, calibration, knots)
        else:
            row, rows = kernels.trees_row, kernels.trees_rows
            nodes = np.empty(len(checked["feature"]), dtype=kernels.NODE)
            for name in kernels.NODE.names or ():
                nodes[name] = checked[name]
            packed = (nodes, checked["root"], affine, calibration, knots)
        for array in packed:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

        self = cls.__new__(cls)
        state = {
            "_arrays": checked,
            "_arguments": packed,
            "_row": row,
            "_rows": rows,
            "_shape": (n_features,),
        }
        for name, value in state.items():
            object.__setattr__(self, name, value)
        self.predict(np.zeros(n_features))  # compiles now and not at the first signal
        return self


def _check_arrays(arrays: Mapping[str, ArrayLike]) -> dict[str, AnyArray]:
    """Return read-only copies of `arrays`, each proven to be what the kernels rely on."""
    kind = _check_word(arrays, "kind", ("logistic", "trees"))
    calibration = _check_word(arrays, "calibration", tuple(_CALIBRATIONS))
    schema = _COMMON | (_LOGISTIC if kind == "logistic" else _TREES)
    if kind == "logistic":
        schema |= {name: form for name, form in _OPTIONAL.items() if name in arrays}
    if missing := sorted(schema.keys() - arrays.keys()):
        raise ValueError(f"serving arrays lack {missing}")
    if unknown := sorted({str(n) for n in arrays} - schema.keys() - {"kind", "calibration"}):
        raise ValueError(f"serving arrays of kind {kind!r} have unknown names {unknown}")
    checked: dict[str, AnyArray] = {"kind": np.array(kind), "calibration": np.array(calibration)}
    for name, (dtype, ndim) in schema.items():
        checked[name] = _check_array(name, arrays[name], np.dtype(dtype), ndim)

    if int(checked["format"]) != FORMAT:
        raise ValueError(
            f"serving arrays have format {checked['format']}, this version reads {FORMAT}: train again"
        )
    n_features = int(checked["n_features"])
    if not 0 < n_features < 2**31:
        raise ValueError(f"serving array `n_features` must be positive and below 2**31, is {n_features}")
    if kind == "logistic":
        _check_lengths(checked, ("mean", "scale", "coefficient"), n_features)
        for name in ("scale", "limit"):
            if name in checked and not (_numbers(checked, name) > 0.0).all():
                raise ValueError(f"serving array `{name}` must be positive")
    else:
        _check_trees(checked, n_features)
    _check_calibration(checked, calibration)
    for array in checked.values():
        array.flags.writeable = False
    return checked


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


ServingModel = CompiledModel  # its name in the estimators that 0.1.0 stored
