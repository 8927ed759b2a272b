"""Columns of bars, trades and signals, their array types, and the units of time that all rooms count in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self, SupportsFloat, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[np.generic]

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000 * MILLISECOND_NS
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 24 * 60 * MINUTE_NS

BUYER, SELLER, NO_AGGRESSOR = 1, -1, 0


@runtime_checkable
class Table(Protocol):
    """What columns are read from by name: a DataFrame, an Arrow table, a structured array, a mapping."""

    def __getitem__(self, name: str, /) -> object:
        """Return a column."""
        ...


def _column[T: np.generic](source: Table, name: str, dtype: type[T]) -> NDArray[T]:
    column = source[name]
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if values.ndim != 1:
        raise ValueError(f"`{name}` must be one column, its shape was {values.shape}")
    if dtype is np.int64:
        values = _nanoseconds(name, values)
    try:
        return np.ascontiguousarray(values, dtype=dtype)
    except (TypeError, ValueError) as e:
        raise ValueError(f"`{name}` must hold numbers: {e}") from None


def _nanoseconds(name: str, values: AnyArray) -> AnyArray:
    if values.dtype.kind == "M":  # of whatever unit: pandas 3 has microseconds
        return values.astype("M8[ns]").view(np.int64)
    if values.dtype.kind in "iu" or len(values) == 0:
        return values
    if values.dtype.kind != "f":
        raise ValueError(
            f"`{name}` must be UNIX nanoseconds or numpy datetimes in UTC, its type was {values.dtype}"
        )
    if len(bad := np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))):
        raise ValueError(f"`{name}` must be whole UNIX nanoseconds: row {bad[0]} is {values[bad[0]]}")
    return values


def _is_sequence_of_objects(source: object) -> TypeGuard[Sequence[object]]:
    return isinstance(source, Sequence) and not isinstance(source, str | bytes)


def _attributes(objects: Sequence[object], names: Sequence[str], what: str) -> dict[str, list[SupportsFloat]]:
    for i, item in enumerate(objects):
        if missing := [name for name in names if not hasattr(item, name)]:
            raise TypeError(
                f"{what} in a sequence must be Nautilus objects: row {i} is {type(item).__name__}, without {missing}"
            )
    return {name: [getattr(item, name) for item in objects] for name in names}


def _column_names(source: object) -> set[str] | None:
    if isinstance(source, np.ndarray):
        return set(source.dtype.names or ())
    if isinstance(source, Mapping):
        return set(source)
    names = getattr(source, "column_names", None)  # pyarrow
    if names is None:
        names = getattr(source, "columns", None)
    return None if names is None else set(names)


def _table(source: object, required: Sequence[str], what: str) -> tuple[Table, set[str]]:
    """Return `source`, and the names of its columns, those that are required among them."""
    names = _column_names(source)
    if names is None or not isinstance(source, Table):
        raise TypeError(
            f"{what} must be a DataFrame, an Arrow table, a mapping of columns or a sequence of Nautilus "
            f"objects, was {type(source).__name__}"
        )
    if missing := [name for name in required if name not in names]:
        raise ValueError(f"{what} lack the columns {missing}; they have {sorted(names)}")
    return source, names


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    ts_event: IntArray

    def __len__(self) -> int:
        return len(self.ts_event)

    def __getitem__(self, rows: slice | IntArray | NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    def _check_lengths(self, what: str) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {what} differ in length: {lengths}")

    def _check_sorted(self, what: str, *, strictly: bool) -> None:
        steps = np.diff(self.ts_event)
        bad = np.flatnonzero(steps <= 0 if strictly else steps < 0)
        if len(bad):
            i = int(bad[0])
            rule = "strictly increasing" if strictly else "in order of time"
            raise ValueError(
                f"{what} must be {rule}: row {i + 1} has ts_event {self.ts_event[i + 1]} after "
                f"{self.ts_event[i]}; sort them and drop duplicates"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Bars(_Columns):
    """Bars of one instrument, in columns.

    Attributes
    ----------
    ts_event : int64 (n,)
        Close of each bar, UNIX nanoseconds, strictly increasing.
    open, high, low, close : float64 (n,)
        Prices.
    volume : float64 (n,)
        Base units.
    buy_volume : float64 (n,)
        Part of `volume` in which the taker bought; NaN where it is not known.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    buy_volume: FloatArray

    @classmethod
    def coerce(cls, source: object) -> "Bars":
        """Read bars from columns (DataFrame, Arrow table, mapping) or a sequence of Nautilus `Bar`.

        Columns are `ts_event` (close time), `open`, `high`, `low`, `close`, `volume`, and optionally
        `taker_buy_volume` or `buy_volume`.

        Raises
        ------
        TypeError
            If `source` is of another kind.
        ValueError
            If columns are missing, differ in length, hold prices that are not positive and finite, or time does
            not strictly increase.
        """
        if isinstance(source, Bars):
            source._check()
            return source
        if _is_sequence_of_objects(source):
            source = _columns_of_bars(source)
        table, names = _table(source, ("ts_event", "open", "high", "low", "close", "volume"), "bars")
        buy = next((name for name in ("taker_buy_volume", "buy_volume") if name in names), None)
        ts_event = _column(table, "ts_event", np.int64)
        open_, high, low, close, volume = (
            _column(table, name, np.float64) for name in ("open", "high", "low", "close", "volume")
        )
        buy_volume = np.full(len(ts_event), np.nan) if buy is None else _column(table, buy, np.float64)
        bars = cls(ts_event, open_, high, low, close, volume, buy_volume)
        bars._check()
        return bars

    def _check(self) -> None:
        self._check_lengths("bars")
        self._check_sorted("bars", strictly=True)
        for name in ("open", "high", "low", "close"):
            column = getattr(self, name)
            if len(bad := np.flatnonzero(~(np.isfinite(column) & (column > 0.0)))):
                raise ValueError(
                    f"bars must have positive, finite prices: `{name}` of row {bad[0]} is {column[bad[0]]}"
                )

    def tuples(self) -> Iterator[tuple[int, float, float, float, float, float, float]]:
        """Iterate over rows as tuples of Python numbers, in the order of the fields."""
        return zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True)

    def interval_ns(self) -> int:
        """Return the bar length in nanoseconds: the most common step from bar to bar."""
        if len(self) < 2:
            raise ValueError(f"the bar length shows only from two bars on, got {len(self)}")
        steps, counts = np.unique(np.diff(self.ts_event), return_counts=True)
        return int(steps[np.argmax(counts)])


def _columns_of_bars(bars: Sequence[object]) -> Mapping[str, Sequence[SupportsFloat]]:
    columns = _attributes(bars, ("ts_event", "open", "high", "low", "close", "volume"), "bars")
    return {
        name: values if name == "ts_event" else [float(value) for value in values]
        for name, values in columns.items()
    } | {"buy_volume": [bar_buy_volume(bar) for bar in bars]}


def bar_buy_volume(bar: object) -> float:
    """Return the volume that takers bought in a Nautilus bar: `BinanceBar` carries it, others give NaN."""
    buy = getattr(bar, "taker_buy_base_volume", None)
    return float("nan") if buy is None else float(buy)


@dataclass(frozen=True, slots=True, eq=False)
class Trades(_Columns):
    """Trades of one instrument, in columns.

    Attributes
    ----------
    ts_event : int64 (n,)
        Time of each trade, UNIX nanoseconds, never decreasing.
    price, size : float64 (n,)
        Price, and size in base units.
    side : int8 (n,)
        The taker's side: 1 buyer, -1 seller, 0 not known.
    """

    price: FloatArray
    size: FloatArray
    side: NDArray[np.int8]

    @classmethod
    def coerce(cls, source: object) -> "Trades":
        """Read trades from columns or a sequence of Nautilus `TradeTick`.

        Columns are `ts_event`, `price`, `size`, and `side` (±1, 0) or `aggressor_side` (names).

        Raises
        ------
        TypeError
            If `source` is of another kind.
        ValueError
            If columns are missing or differ in length, a side is unknown, or time decreases.
        """
        if isinstance(source, Trades):
            source._check()
            return source
        if _is_sequence_of_objects(source):
            ticks = _attributes(source, ("ts_event", "price", "size", "aggressor_side"), "trades")
            source = {
                "ts_event": ticks["ts_event"],
                "price": [float(price) for price in ticks["price"]],
                "size": [float(size) for size in ticks["size"]],
                "aggressor_side": [getattr(side, "name", side) for side in ticks["aggressor_side"]],
            }
        table, names = _table(source, ("ts_event", "price", "size"), "trades")
        trades = cls(
            _column(table, "ts_event", np.int64),
            _column(table, "price", np.float64),
            _column(table, "size", np.float64),
            _sides(table, names),
        )
        trades._check()
        return trades

    def tuples(self) -> Iterator[tuple[int, float, float, int]]:
        """Iterate over rows as tuples of Python numbers, in the order of the fields."""
        return zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True)

    def _check(self) -> None:
        self._check_lengths("trades")
        self._check_sorted("trades", strictly=False)


def _sides(table: Table, names: set[str]) -> NDArray[np.int8]:
    if "aggressor_side" in names and "side" not in names:
        return _sides_of(np.asarray(table["aggressor_side"]).astype(str))
    if "side" not in names:
        raise ValueError(f"trades lack a `side` or `aggressor_side` column; they have {sorted(names)}")
    side = _column(table, "side", np.float64)
    if len(bad := np.flatnonzero(~np.isin(side, (BUYER, SELLER, NO_AGGRESSOR)))):
        raise ValueError(f"the side of trades must be 1, -1 or 0: row {bad[0]} is {side[bad[0]]}")
    return side.astype(np.int8)


def _sides_of(words: NDArray[np.str_]) -> NDArray[np.int8]:
    bought, sold = words == "BUYER", words == "SELLER"
    if len(bad := np.flatnonzero(~(bought | sold | (words == "NO_AGGRESSOR")))):
        raise ValueError(
            f"`aggressor_side` must be BUYER, SELLER or NO_AGGRESSOR: row {bad[0]} is {str(words[bad[0]])!r}"
        )
    return np.where(bought, BUYER, np.where(sold, SELLER, NO_AGGRESSOR)).astype(np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class Signals(_Columns):
    """Signals of one primary strategy on one instrument, in columns.

    Attributes
    ----------
    ts_event : int64 (n,)
        Time of each signal, UNIX nanoseconds, never decreasing.
    signal : int8 (n,)
        -1, 0 or 1.
    strength : float64 (n,)
        In [0, 1].
    """

    signal: NDArray[np.int8]
    strength: FloatArray

    @classmethod
    def coerce(cls, source: object) -> "Signals":
        """Read signals from columns (`ts_event`, `signal`, optional `strength`) or a sequence of `SignalData`."""
        if isinstance(source, Signals):
            source._check()
            return source
        if _is_sequence_of_objects(source):
            source = _attributes(source, ("ts_event", "signal", "strength"), "signals")
        table, names = _table(source, ("ts_event", "signal"), "signals")
        ts_event = _column(table, "ts_event", np.int64)
        side = _column(table, "signal", np.float64)
        strength = _column(table, "strength", np.float64) if "strength" in names else np.ones(len(ts_event))
        if len(bad := np.flatnonzero(~np.isin(side, (-1.0, 0.0, 1.0)))):
            raise ValueError(f"signals must be -1, 0 or 1: row {bad[0]} is {side[bad[0]]}")
        signals = cls(ts_event, side.astype(np.int8), strength)
        signals._check()
        return signals

    def tuples(self) -> Iterator[tuple[int, int, float]]:
        """Iterate over rows as tuples of Python numbers, in the order of the fields."""
        return zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True)

    def _check(self) -> None:
        self._check_lengths("signals")
        self._check_sorted("signals", strictly=False)
        if len(bad := np.flatnonzero(np.abs(self.signal) > 1)):
            raise ValueError(f"signals must be -1, 0 or 1: row {bad[0]} is {self.signal[bad[0]]}")
        if len(bad := np.flatnonzero(~((self.strength >= 0.0) & (self.strength <= 1.0)))):
            raise ValueError(f"signal strength must be in [0, 1]: row {bad[0]} is {self.strength[bad[0]]}")
