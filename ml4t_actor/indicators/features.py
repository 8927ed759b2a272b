"""Streaming features: what is known about a market when a signal arrives."""

import importlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels import features as kernels
from ml4t_actor.kernels.features import BUILTIN_NAMES, DIRECTIONAL_NAMES
from ml4t_actor.market_data import Bars, FloatArray, IntArray, Trades

DEFAULT_FEATURE_NAMES = ("volatility", "momentum", "regime", "trend_strength")
# What a meta-model does best with on recorded markets: what moves the odds against costs, and what the signal meets.
# The calendar is left out, since a few months cannot teach it.
META_FEATURE_NAMES = (
    "log_volatility",
    "regime",
    "trend_strength",
    "momentum_fast",
    "momentum_slow",
    "flow_fast",
    "flow",
    "vpin",
    "toxicity",
    "volatility_ratio",
    "volume_trend",
    "strength",
    "signal_record",
    "signal_age",
)
DEFAULT_HALFLIFE_BARS = 60


@runtime_checkable
class Feature(Protocol):
    """What a user's own feature looks like.

    Attributes
    ----------
    directional : bool
        Whether the value changes sign with the market: the model then sees it times the signal's side.

    Examples
    --------
    >>> class Drawdown:
    ...     directional = False
    ...     def __init__(self):
    ...         self.peak = 0.0
    ...         self.value = 0.0
    ...     def update(self, ts_event, open, high, low, close, volume, buy_volume):
    ...         self.peak = max(self.peak, close)
    ...         self.value = close / self.peak - 1.0
    >>> engine = FeatureEngine(["drawdown"], interval_ns=60_000_000_000, custom={"drawdown": Drawdown})
    >>> _ = engine.update_bar(60_000_000_000, 10.0, 10.0, 10.0, 10.0, 1.0)
    >>> _ = engine.update_bar(120_000_000_000, 9.0, 9.0, 9.0, 9.0, 1.0)
    >>> engine.row(side=1)
    array([-0.1])
    """

    directional: bool
    value: float

    def update(
        self,
        ts_event: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        buy_volume: float,
    ) -> None:
        """Take one closed bar; `value` is then read."""
        ...


FeatureFactory = type[Feature]


def load_feature_classes(paths: Mapping[str, str]) -> dict[str, FeatureFactory]:
    """Import custom features given as ``{name: "package.module:Class"}``.

    Raises
    ------
    ValueError
        If a path cannot be imported, is no `Feature`, or takes a built-in's name.
    """
    classes: dict[str, FeatureFactory] = {}
    for name, path in paths.items():
        if name in BUILTIN_NAMES:
            raise ValueError(f"custom feature {name!r} takes the name of a built-in one; choose another")
        module, _, attribute = path.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as e:
            raise ValueError(
                f"custom feature {name!r}: cannot import {path!r} ({e}); use 'package.module:Class'"
            ) from e
        if not (isinstance(cls, type) and hasattr(cls, "update") and hasattr(cls, "directional")):
            raise ValueError(
                f"custom feature {name!r}: {path!r} needs `directional`, `value` and `update(...)`"
            )
        classes[name] = cls
    return classes


def check_feature_names(
    names: Sequence[str], custom: Mapping[str, FeatureFactory] | None = None
) -> tuple[str, ...]:
    """Return `names` as a tuple if each is known and none comes twice.

    Raises
    ------
    ValueError
        Naming the unknown or repeated ones, and listing those that are known.
    """
    known = (*BUILTIN_NAMES, *(custom or {}))
    if not names:
        raise ValueError("`feature_names` is empty; name at least one of " + ", ".join(known))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown feature(s) {unknown}; known are {', '.join(known)}")
    if repeated := sorted({name for name in names if list(names).count(name) > 1}):
        raise ValueError(f"feature(s) {repeated} named more than once")
    return tuple(names)


class FeatureEngine:
    """The named features of one instrument, stepped bar by bar in O(1).

    Each feature is defined once, in a compiled kernel; `feature_matrix` loops the same kernel over a history, so
    that training and live values agree bit for bit. A directional feature (momentum, order flow, ...) enters a
    row multiplied by the signal's side: a model sees "with" and "against", and treats a falling market's short
    as it treats a rising market's long.

    A bar that is older than the last one, repeats it, or holds a NaN, a price that is not positive or a close
    outside its range is left out and counted; a missing bar is counted, and the return across it scaled.

    Parameters
    ----------
    feature_names : sequence of str
        Which features a row holds, in order.
    interval_ns : int
        Bar length in nanoseconds.
    halflife_bars : int, default 60
        Half-life of the medium averages, volatility's among them; the fast ones take a sixth of it, the slow ones
        four times as long, volatility's own history 24 times.
    custom : mapping of str to type, optional
        Users' own features, by name (see `Feature`).
    """

    def __init__(
        self,
        feature_names: Sequence[str] = DEFAULT_FEATURE_NAMES,
        *,
        interval_ns: int,
        halflife_bars: int = DEFAULT_HALFLIFE_BARS,
        custom: Mapping[str, FeatureFactory] | None = None,
    ) -> None:
        if interval_ns <= 0:
            raise ValueError(f"`interval_ns` must be positive, was {interval_ns}")
        if halflife_bars <= 0:
            raise ValueError(f"`halflife_bars` must be positive, was {halflife_bars}")
        self._custom_classes = dict(custom or {})
        self.feature_names = check_feature_names(feature_names, self._custom_classes)
        self.interval_ns = interval_ns
        self.halflife_bars = halflife_bars
        self.reset()

    def reset(self) -> None:
        """Return to the state before the first bar."""
        self._state = kernels.new_feature_state(self.interval_ns, self.halflife_bars)
        self._flow = np.zeros(kernels.N_FLOW_STATE)
        self._row = np.empty(len(BUILTIN_NAMES))
        self._regime = np.empty(2)
        self._custom = {name: cls() for name, cls in self._custom_classes.items()}

    @property
    def warmup_bars(self) -> int:
        """Bars until the averages that matter have seen enough (four medium half-lives)."""
        return 4 * self.halflife_bars

    @property
    def initialized(self) -> bool:
        """Whether `warmup_bars` have been seen."""
        return self.bars >= self.warmup_bars

    @property
    def bars(self) -> int:
        """Number of bars accepted."""
        return kernels.bar_count(self._state)

    @property
    def counts(self) -> dict[str, int]:
        """Bars accepted, and counts of `gaps`, `duplicates`, `out_of_order` and `bad_values`."""
        return kernels.feature_counts(self._state)

    @property
    def last_ts(self) -> int:
        """Close of the last accepted bar, UNIX nanoseconds; 0 before the first."""
        return kernels.last_bar_ts(self._state)

    @property
    def volatility(self) -> float:
        """Exponentially weighted standard deviation of log returns per bar (RiskMetrics: mean taken as zero)."""
        return float(kernels.volatility(self._state))

    @property
    def volatility_percentile(self) -> float:
        """Where volatility stands in its own long history, in [0, 1]."""
        return float(kernels.volatility_percentile(self._state))

    @property
    def trend_strength(self) -> float:
        """|Mean return| over mean |return|, in [0, 1]."""
        return float(kernels.trend_strength(self._state))

    def regime_inputs(self) -> FloatArray:
        """Return (log volatility, trend strength), the inputs of `RegimeModel`, shape (2,), NaN before a return."""
        kernels.regime_inputs(self._state, self._regime)
        return self._regime.copy()

    def update_bar(
        self,
        ts_event: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        buy_volume: float = float("nan"),
    ) -> bool:
        """Take one closed bar; return whether it was accepted.

        Parameters
        ----------
        ts_event : int
            Close of the bar, UNIX nanoseconds.
        open, high, low, close, volume : float
            Prices, and base units.
        buy_volume : float, default NaN
            What takers bought of `volume`; from the trades seen if they were fed, else estimated by bulk volume
            classification.
        """
        buy_volume = kernels.flow_buy_volume(self._flow, ts_event, volume, buy_volume)
        accepted = (
            kernels.feature_bar_step(self._state, ts_event, high, low, close, volume, buy_volume)
            == kernels.ACCEPTED
        )
        if accepted:
            for feature in self._custom.values():
                feature.update(ts_event, open, high, low, close, volume, buy_volume)
        return accepted

    def update_trade(self, ts_event: int, size: float, side: int) -> None:
        """Count one trade towards the taker flow of its bar (`side`: 1 buyer, -1 seller, 0 not known)."""
        kernels.flow_trade_step(self._flow, self.interval_ns, ts_event, size, side)

    def row(
        self, side: int, strength: float = 1.0, vpin: float = float("nan"), toxicity: float = float("nan")
    ) -> FloatArray:
        """Return the features that a signal of `side` is scored by, shape (n_features,), in the order of the names."""
        return self.select(self.full_row(side, strength, vpin, toxicity), self.feature_names, side)

    def full_row(self, side: int, strength: float, vpin: float, toxicity: float) -> FloatArray:
        """Return all built-in features for a signal, shape (n_builtin,); a buffer that the next call overwrites."""
        kernels.feature_row(self._state, float(side), strength, vpin, toxicity, self._row)
        return self._row

    def select(self, full_row: FloatArray, names: Sequence[str], side: int) -> FloatArray:
        """Return the named columns of `full_row`, joined with custom features, shape (len(names),)."""
        return np.array(
            [
                full_row[_COLUMN[name]] if name in _COLUMN else _custom_value(self._custom[name], side)
                for name in names
            ]
        )

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names of what `served_row` holds: every built-in feature, then the custom ones."""
        return (*BUILTIN_NAMES, *self._custom)

    def served_row(self, side: int) -> FloatArray:
        """Return a copy of what the last `full_row` gave, custom features appended, shape (len(served_names),)."""
        if not self._custom:
            return self._row.copy()
        return np.append(self._row, [_custom_value(feature, side) for feature in self._custom.values()])

    def record_signal(self, side: int) -> None:
        """Record that a signal was given, for `signal_record` and `signal_age`; call it after `row`."""
        kernels.feature_signal_step(self._state, float(side))

    @property
    def has_custom(self) -> bool:
        """Whether there are users' own features, whose state only they know."""
        return bool(self._custom)

    @property
    def state(self) -> tuple[FloatArray, FloatArray]:
        """A copy of the built-in features' whole state, for `restore`."""
        return self._state.copy(), self._flow.copy()

    def restore(self, state: tuple[FloatArray, FloatArray]) -> None:
        """Continue from a `state` of an engine with the same settings."""
        bars, flow = state
        if bars.shape != self._state.shape or flow.shape != self._flow.shape:
            raise ValueError(
                f"a feature state has shapes {self._state.shape} and {self._flow.shape}, got {bars.shape}"
            )
        self._state = bars.copy()
        self._flow = flow.copy()


_COLUMN = {name: i for i, name in enumerate(BUILTIN_NAMES)}


def _custom_value(feature: Feature, side: int) -> float:
    value = float(feature.value)
    return side * value if feature.directional else value


class FeatureMatrix(NamedTuple):
    """Features of a history.

    Attributes
    ----------
    rows : float64 (n_events, n_features)
        What each signal is scored by.
    volatility : float64 (n_bars,)
        Volatility per bar, known at each bar's close.
    regime_inputs : float64 (n_bars, 2)
        Log volatility and trend strength after each bar.
    """

    rows: FloatArray
    volatility: FloatArray
    regime_inputs: FloatArray


def feature_matrix(
    bars: Bars,
    events: IntArray,
    side: NDArray[np.int8],
    strength: FloatArray,
    vpin: FloatArray,
    toxicity: FloatArray,
    *,
    feature_names: Sequence[str] = DEFAULT_FEATURE_NAMES,
    interval_ns: int | None = None,
    halflife_bars: int = DEFAULT_HALFLIFE_BARS,
    custom: Mapping[str, FeatureFactory] | None = None,
) -> FeatureMatrix:
    """Return what `FeatureEngine` gives bar by bar, for a whole history at once and with the same kernels.

    Parameters
    ----------
    bars : Bars
        The history, n_bars rows. Bars that the engine would leave out leave its state as it was.
    events : int64 (n_events,)
        Index of the last bar known to each signal, ascending.
    side : int8 (n_events,)
        -1, 0 or 1.
    strength, vpin, toxicity : float64 (n_events,)
        As known to each signal.
    feature_names, interval_ns, halflife_bars, custom
        As for `FeatureEngine`; the bar length defaults to the most common step.

    Raises
    ------
    ValueError
        If `events` descends, points outside the bars, or differs in length from its companions.
    """
    custom = dict(custom or {})
    names = check_feature_names(feature_names, custom)
    events = np.ascontiguousarray(events, dtype=np.int64)
    if len({len(events), len(side), len(strength), len(vpin), len(toxicity)}) > 1:
        raise ValueError(
            f"`events`, `side`, `strength`, `vpin` and `toxicity` must be of one length, were {len(events)}, "
            f"{len(side)}, {len(strength)}, {len(vpin)} and {len(toxicity)}"
        )
    if len(events) and (np.any(np.diff(events) < 0) or events[0] < 0 or events[-1] >= len(bars)):
        raise ValueError(f"`events` must ascend within the {len(bars)} bars")
    state = kernels.new_feature_state(
        bars.interval_ns() if interval_ns is None else interval_ns, halflife_bars
    )
    rows = np.full((len(events), len(BUILTIN_NAMES)), np.nan)
    volatility = np.empty(len(bars))
    regime = np.empty((len(bars), 2))
    kernels.feature_rows_batch(
        state,
        *(bars.ts_event, bars.high, bars.low, bars.close, bars.volume, bars.buy_volume),
        *(events, np.asarray(side, dtype=np.float64), strength, vpin, toxicity),
        *(rows, volatility, regime),
    )
    columns = [
        rows[:, _COLUMN[name]] if name in _COLUMN else _custom_column(custom[name], bars, events, side)
        for name in names
    ]
    return FeatureMatrix(
        np.column_stack(columns) if len(events) else np.empty((0, len(names))), volatility, regime
    )


def _custom_column(cls: FeatureFactory, bars: Bars, events: IntArray, side: NDArray[np.int8]) -> FloatArray:
    feature = cls()
    values = np.full(len(bars), np.nan)
    for i, bar in enumerate(bars.tuples()):
        feature.update(*bar)
        values[i] = feature.value
    column: FloatArray = values[events]
    return column * side if feature.directional else column


def bars_with_trade_flow(bars: Bars, trades: Trades, interval_ns: int | None = None) -> Bars:
    """Return `bars` with `buy_volume` taken from `trades`, as `FeatureEngine.update_trade` does live."""
    buy_volume = np.empty(len(bars))
    kernels.flow_bars_batch(
        bars.interval_ns() if interval_ns is None else interval_ns,
        trades.ts_event,
        trades.size,
        trades.side.astype(np.float64),
        bars.ts_event,
        bars.volume,
        bars.buy_volume,
        buy_volume,
    )
    return Bars(bars.ts_event, bars.open, bars.high, bars.low, bars.close, bars.volume, buy_volume)


__all__ = [
    "BUILTIN_NAMES",
    "DEFAULT_FEATURE_NAMES",
    "DIRECTIONAL_NAMES",
    "META_FEATURE_NAMES",
    "Feature",
    "FeatureEngine",
    "FeatureMatrix",
    "bars_with_trade_flow",
    "check_feature_names",
    "feature_matrix",
    "load_feature_classes",
]
