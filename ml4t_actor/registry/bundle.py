"""The one frozen object that serving swaps in: model, regimes, feature names, thresholds, provenance."""

import functools
import operator
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.odds import TradeOdds, checked_break_even_shift, checked_exit_times
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.registry.json_values import plain_mapping
from ml4t_actor.registry.provenance import Provenance
from ml4t_actor.settings import TrainingSettings

Reason = Literal["altered", "truncated", "foreign", "incompatible", "missing", "unreadable"]


class BundleError(ValueError):
    """A stored bundle was refused.

    Attributes
    ----------
    version : str
        The version requested, as given.
    reason : {'altered', 'truncated', 'foreign', 'incompatible', 'missing', 'unreadable'}
        *altered*: bytes differ from what was saved. *truncated*: bytes or a file are gone. *foreign*: not
        something that `ModelStore` wrote. *incompatible*: intact, but this installation cannot use it.
        *missing*: no such version, or it has no such part. *unreadable*: the system refused to read it.
    detail : str
        What exactly is wrong.
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
    feature_low, feature_high : float64 (n_features,)
        Range of each input seen in training; an input outside is novel. Infinite ends are unbounded.
    exit_times : float64 (n,), optional
        Equally likely shares of the horizon at which trades end that touch no barrier, of the signals in training:
        the odds that the model was fitted with know of them. By default all last until the horizon.
    break_even_shift : float64 (n,), optional
        What the training rows' returns add to the break-even of a random walk, see `TradeOdds`; by default nothing.
    return_slope : float, default 1.0
        What the learned part of expected returns is multiplied with, in [0, 1]: see `shrunk_slope`.
    metrics : dict
        Scores with their baselines. Reduced to plain JSON values here, so that a loaded bundle equals the saved one:
        numpy scalars and arrays become numbers and lists, and **numbers that are not finite become None**, since JSON
        has none.
    provenance : Provenance or mapping
        Data range, instruments, rows and so on; a mapping, reduced likewise, becomes a `Provenance`.
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
    feature_low: FloatArray
    feature_high: FloatArray
    exit_times: FloatArray = field(default_factory=lambda: np.ones(1))
    break_even_shift: FloatArray = field(default_factory=lambda: np.zeros(1))
    return_slope: float = 1.0
    metrics: dict[str, object] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    estimator: object | None = None
    history: LabelledRows | None = None
    version: str = ""

    def __post_init__(self) -> None:
        _set(self, "feature_names", tuple(self.feature_names))
        _set(self, "bar_interval_ns", operator.index(self.bar_interval_ns))
        _set(self, "feature_low", _frozen_row(self.feature_low))
        _set(self, "feature_high", _frozen_row(self.feature_high))
        _set(self, "exit_times", checked_exit_times(self.exit_times))
        _set(self, "break_even_shift", checked_break_even_shift(self.break_even_shift))
        _set(self, "return_slope", float(self.return_slope))
        _set(self, "metrics", plain_mapping(self.metrics, "metrics"))
        _set(self, "provenance", Provenance.from_dict(self.provenance))
        self._check_names()
        self._check_ranges()
        if self.bar_interval_ns <= 0:
            raise ValueError(f"`bar_interval_ns` must be positive, was {self.bar_interval_ns}")
        if not 0.0 <= self.return_slope <= 1.0:
            raise ValueError(f"`return_slope` was {self.return_slope}, must be in [0, 1]")

    def __reduce__(self) -> tuple["functools.partial[Self]", tuple[()]]:
        # Pickled arrays come back writable: rebuild through the constructor.
        return functools.partial(type(self), **{f.name: getattr(self, f.name) for f in fields(self)}), ()

    def trade_odds(self) -> TradeOdds:
        """Return what gives the odds and the break-even of trades with these labels."""
        return TradeOdds(self.settings.labels, self.exit_times, self.break_even_shift)

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


def _frozen_row(values: ArrayLike) -> FloatArray:
    row = np.array(values, dtype=np.float64)
    row.flags.writeable = False
    return row
