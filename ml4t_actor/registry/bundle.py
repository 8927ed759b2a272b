"""The one frozen object that serving swaps in: model, regimes, feature names, thresholds, provenance."""

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.settings import TrainingSettings

Reason = Literal["altered", "truncated", "foreign", "incompatible", "missing", "unreadable"]


class BundleError(ValueError):
    """A stored bundle was refused.

    Attributes
    ----------
    version : str
        The version asked for, as given.
    reason : {'altered', 'truncated', 'foreign', 'incompatible', 'missing', 'unreadable'}
        *altered*: bytes differ from what was saved. *truncated*: bytes or a file are gone. *foreign*: not
        something that `ModelStore` wrote. *incompatible*: intact, but this installation cannot use it.
        *missing*: no such version, or it has no such part. *unreadable*: the system refused to read it.
    detail : str
        What exactly was found.
    remedy : str
        What to do about it.
    """

    def __init__(self, version: str, reason: Reason, detail: str, remedy: str) -> None:
        super().__init__(version, reason, detail, remedy)
        self.version = version
        self.reason = reason
        self.detail = detail
        self.remedy = remedy

    def __str__(self) -> str:
        return f"bundle {self.version!r} refused ({self.reason}): {self.detail}; {self.remedy}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModelBundle:
    """Everything that serves one model, immutable, under one version.

    Parameters
    ----------
    feature_names : tuple of str
        Names of the model's inputs, in their order.
    bar_interval_ns : int
        Length of the bars that the model was trained on, nanoseconds.
    model : CompiledModel
        The fitted, calibrated meta-model as flat arrays.
    regime : RegimeModel or None
        The fitted regimes; None leaves the regime weight to the rule without a model.
    settings : TrainingSettings
        What the training run was set to.
    break_even : float
        Success probability at which the barriers pay exactly their costs, in (0, 1).
    feature_low, feature_high : float64 (n_features,)
        Range of each input seen in training; an input outside is novel. Infinite ends are unbounded.
    metrics, provenance : dict
        Scores with their baselines; data range, instruments, rows and so on. Reduced to plain JSON values
        here, so that a loaded bundle equals the saved one: numpy scalars and arrays become numbers and lists,
        and **numbers that are not finite become None**, since JSON has none.
    estimator : object, optional
        The fitted scikit-learn object, for inspection; serving never reads it.
    history : LabelledRows, optional
        The rows that the model was trained on, for its successor; serving never reads it.
    version : str
        Set by `ModelStore`; empty until stored.

    Raises
    ------
    TypeError
        If `metrics` or `provenance` hold what JSON cannot.
    ValueError
        If the parts do not fit each other; the message names the value.
    """

    feature_names: tuple[str, ...]
    bar_interval_ns: int
    model: CompiledModel
    regime: RegimeModel | None
    settings: TrainingSettings
    break_even: float
    feature_low: NDArray[np.float64]
    feature_high: NDArray[np.float64]
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    estimator: object | None = None
    history: LabelledRows | None = None
    version: str = ""

    def __post_init__(self) -> None:
        _set(self, "feature_names", tuple(self.feature_names))
        _set(self, "bar_interval_ns", operator.index(self.bar_interval_ns))
        _set(self, "break_even", float(self.break_even))
        _set(self, "feature_low", _frozen_row(self.feature_low))
        _set(self, "feature_high", _frozen_row(self.feature_high))
        _set(self, "metrics", plain_json(self.metrics, "metrics"))
        _set(self, "provenance", plain_json(self.provenance, "provenance"))
        self._check_names()
        self._check_ranges()
        if self.bar_interval_ns <= 0:
            raise ValueError(f"`bar_interval_ns` must be positive, was {self.bar_interval_ns}")
        if not 0.0 < self.break_even < 1.0:
            raise ValueError(f"`break_even` must be a probability inside (0, 1), was {self.break_even}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled arrays come back writable: rebuild through the constructor.
        return functools.partial(type(self), **{f.name: getattr(self, f.name) for f in fields(self)}), ()

    def _check_names(self) -> None:
        names = self.feature_names
        if bad := [name for name in names if not isinstance(name, str) or not name]:
            raise ValueError(f"`feature_names` must be non-empty strings, got {bad[0]!r}")
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`feature_names` repeat {doubled}; each input needs a name of its own")
        if len(names) != self.model.n_features:
            raise ValueError(
                f"the model takes {self.model.n_features} inputs, `feature_names` has {len(names)}: {names}"
            )

    def _check_ranges(self) -> None:
        n = len(self.feature_names)
        for name, ends in (("feature_low", self.feature_low), ("feature_high", self.feature_high)):
            if ends.shape != (n,):
                raise ValueError(f"`{name}` must have shape ({n},), one per feature, had {ends.shape}")
        for name, low, high in zip(self.feature_names, self.feature_low, self.feature_high, strict=True):
            if not low <= high:  # also where either is NaN
                raise ValueError(f"the range of feature {name!r} must have low <= high, was [{low}, {high}]")


def _set(bundle: ModelBundle, name: str, value: object) -> None:
    object.__setattr__(bundle, name, value)


def _frozen_row(values: Any) -> NDArray[np.float64]:
    row = np.array(values, dtype=np.float64)
    row.flags.writeable = False
    return row


def plain_json(value: Any, path: str) -> Any:
    """Return a copy of `value` in plain JSON types; `path` names it in errors.

    Tuples and arrays become lists, numpy scalars Python numbers, and floats that are not finite None.

    Raises
    ------
    TypeError
        If something in it has no JSON counterpart, or a key is not a string.
    ValueError
        If an integer needs more than 64 bits, or a text is not valid Unicode.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"`{path}` must fit 64 bits, was {value}")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the keys of `{path}` must be strings, got {key!r}; convert it with str()")
        return {_plain_text(key, path): plain_json(item, f"{path}.{key}") for key, item in value.items()}
    raise TypeError(f"`{path}` must hold JSON values only, got {type(value).__name__}: {value!r}")


def _plain_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{path}` holds a text that is not valid Unicode: {text!r}") from None
    return str.__str__(text)  # a plain string also where it came as an enumeration's
