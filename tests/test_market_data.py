"""Columns of bars, trades and signals: what is read, and what is refused with its row."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from nautilus_trader.adapters.binance.common.types import BinanceBar
from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import InstrumentId, TradeId
from nautilus_trader.model.objects import Price, Quantity

from ml4t_actor.market_data import Bars, Signals, Trades, bar_buy_volume
from ml4t_actor.messages import SignalData

MINUTE = 60_000_000_000
START = 1_700_000_040_000_000_000  # a whole minute
ID = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
BAR_TYPE = BarType.from_str(f"{ID}-1-MINUTE-LAST-EXTERNAL")
BARS = {
    "ts_event": [START, START + MINUTE, START + 2 * MINUTE],
    "open": [10.0, 10.5, 10.25],
    "high": [11.0, 10.75, 10.5],
    "low": [9.5, 10.0, 10.0],
    "close": [10.5, 10.25, 10.0],
    "volume": [3.0, 0.0, 2.5],
}
TRADES = {"ts_event": [1, 2, 2], "price": [10.0, 10.5, 10.0], "size": [1.0, 2.0, 0.5]}
SIGNALS = {"ts_event": [1, 2, 2, 5], "signal": [1, -1, 0, 1], "strength": [0.5, 1.0, 0.0, 0.25]}


def changed(columns, name, row, value):
    values = list(columns[name])
    values[row] = value
    return columns | {name: values}


def columns_of(frame):
    return {name: getattr(frame, name) for name in type(frame).__dataclass_fields__}


def assert_bars(bars, buy_volume=None):
    assert len(bars) == 3
    for name, values in columns_of(bars).items():
        expected = BARS.get(name, [np.nan] * 3 if buy_volume is None else buy_volume)
        assert values.dtype == (np.int64 if name == "ts_event" else np.float64)
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, expected)


def structured(columns):
    rows = list(zip(*columns.values(), strict=True))
    return np.array(rows, dtype=[(name, "i8" if name == "ts_event" else "f8") for name in columns])


SOURCES = {"mapping": dict, "DataFrame": pd.DataFrame, "Arrow": pa.table, "structured array": structured}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("buy", ["taker_buy_volume", "buy_volume", None])
def test_bars_from_columns(kind, buy):
    taken = [1.0, 0.0, 2.0]
    # The order of columns does not matter, and neither do others beside them.
    columns = dict(reversed(BARS.items())) | {"count": [1, 2, 3]} | ({buy: taken} if buy else {})
    assert_bars(Bars.coerce(SOURCES[kind](columns)), taken if buy else None)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_of_any_unit_become_nanoseconds(unit):
    times = np.array(BARS["ts_event"]).view("M8[ns]").astype(f"M8[{unit}]")
    assert_bars(Bars.coerce(BARS | {"ts_event": times}))
    assert_bars(Bars.coerce(pd.DataFrame(BARS | {"ts_event": times})))
    assert_bars(Bars.coerce(pa.table(BARS | {"ts_event": pa.array(times)})))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, np.nan, 3.0], r"`ts_event` must be whole UNIX nanoseconds: row 1 is nan"),
        ([1.0, 2.0, 2.5], r"`ts_event` must be whole UNIX nanoseconds: row 2 is 2\.5"),
        (["a", "b", "c"], r"`ts_event` must be UNIX nanoseconds or numpy datetimes in UTC, its type was <U1"),
        (pd.to_datetime(BARS["ts_event"], utc=True), r"`ts_event` must be .* in UTC, its type was object"),
        ([[1, 2, 3]], r"`ts_event` must be one column, its shape was \(1, 3\)"),
    ],
)
def test_times_that_are_no_nanoseconds_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        Bars.coerce(BARS | {"ts_event": times})


def nautilus_bar(i, cls=Bar, **more):
    prices = {name: Price(BARS[name][i], 2) for name in ("open", "high", "low", "close")}
    ts = BARS["ts_event"][i]
    return cls(
        bar_type=BAR_TYPE, **prices, volume=Quantity(BARS["volume"][i], 3), ts_event=ts, ts_init=ts, **more
    )


def test_bars_from_nautilus():
    assert_bars(Bars.coerce([nautilus_bar(i) for i in range(3)]))
    assert_bars(Bars.coerce(tuple(nautilus_bar(i) for i in range(3))))
    assert np.isnan(bar_buy_volume(nautilus_bar(0)))


def test_taker_volume_of_binance_bars():
    bought = ["1.25", "0", "2.5"]
    bars = [
        nautilus_bar(
            i,
            BinanceBar,
            quote_volume=Decimal(30),
            count=3,
            taker_buy_base_volume=Decimal(bought[i]),
            taker_buy_quote_volume=Decimal(10),
        )
        for i in range(3)
    ]
    assert_bars(Bars.coerce(bars), [1.25, 0.0, 2.5])
    # Where some bars carry it and some do not, it is unknown for those that do not.
    assert_bars(Bars.coerce([bars[0], nautilus_bar(1), bars[2]]), [1.25, np.nan, 2.5])


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_prices_must_be_positive_and_finite(name, value):
    message = rf"positive, finite prices: `{name}` of row 1 is {value}"
    with pytest.raises(ValueError, match=message):
        Bars.coerce(changed(BARS, name, 1, value))
    # Bars built by hand are held to the same rule.
    by_hand = Bars.coerce(BARS)
    columns = columns_of(by_hand) | {name: np.where(np.arange(3) == 1, value, 10.0)}
    with pytest.raises(ValueError, match=message):
        Bars.coerce(Bars(**columns))


@pytest.mark.parametrize("step", [0, -1])
def test_bars_must_strictly_increase_in_time(step):
    again = START + MINUTE + step
    with pytest.raises(
        ValueError, match=rf"bars must be strictly increasing: row 2 has ts_event {again} aft"
    ):
        Bars.coerce(changed(BARS, "ts_event", 2, again))
    with pytest.raises(ValueError, match="row 1 has ts_event"):
        Bars.coerce(Bars.coerce(BARS)[::-1])


def test_good_bars_pass_through_as_they_are():
    bars = Bars.coerce(BARS)
    assert Bars.coerce(bars) is bars


def test_missing_and_ragged_columns_are_named():
    with pytest.raises(ValueError, match=r"bars lack the columns \['low', 'volume'\]; they have \['close'"):
        Bars.coerce({name: values for name, values in BARS.items() if name not in ("low", "volume")})
    with pytest.raises(ValueError, match=r"columns of bars differ in length: .*'close': 2"):
        Bars.coerce(BARS | {"close": [10.0, 10.0]})
    with pytest.raises(ValueError, match=r"`volume` must hold numbers: .*'much'"):
        Bars.coerce(changed(BARS, "volume", 0, "much"))


@pytest.mark.parametrize("source", [5, None, "bars", b"bars", object()])
def test_what_holds_no_columns_is_refused(source):
    for frame in (Bars, Trades, Signals):
        with pytest.raises(TypeError, match=f"must be a DataFrame, .* was {type(source).__name__}"):
            frame.coerce(source)


@pytest.mark.parametrize("frame", [Bars, Trades, Signals])
def test_a_sequence_of_something_else_is_refused_with_its_row(frame):
    with pytest.raises(TypeError, match=r"row 0 is float, without \['ts_event'"):
        frame.coerce([1.0, 2.0])
    with pytest.raises(ValueError, match="lack"):
        frame.coerce(np.zeros((3, 7)))


def test_an_empty_sequence_is_an_empty_frame():
    assert len(Bars.coerce([])) == len(Trades.coerce([])) == len(Signals.coerce([])) == 0


def test_rows_are_cut_and_iterated():
    bars = Bars.coerce(BARS | {"buy_volume": [1.0, 0.0, 2.0]})
    assert list(bars[1:].tuples()) == [
        (START + MINUTE, 10.5, 10.75, 10.0, 10.25, 0.0, 0.0),
        (START + 2 * MINUTE, 10.25, 10.5, 10.0, 10.0, 2.5, 2.0),
    ]
    assert all(type(value) in (int, float) for value in next(bars.tuples()))
    assert bars[np.array([True, False, True])].close.tolist() == [10.5, 10.0]
    assert len(bars[5:]) == 0


def test_the_bar_length_is_the_most_common_step():
    n = 50
    steps = np.full(n, 5 * MINUTE)
    steps[10] = 3 * 24 * 60 * MINUTE  # a gap
    steps[20:25] = MINUTE
    columns = {name: np.full(n, 10.0) for name in BARS} | {"ts_event": START + np.cumsum(steps)}
    assert Bars.coerce(columns).interval_ns() == 5 * MINUTE
    with pytest.raises(ValueError, match="two bars on, got 1"):
        Bars.coerce(columns)[:1].interval_ns()


WORDS = ["BUYER", "SELLER", "NO_AGGRESSOR"]


@pytest.mark.parametrize("kind", ["mapping", "DataFrame", "Arrow"])
@pytest.mark.parametrize("sides", [{"side": [1, -1, 0]}, {"aggressor_side": WORDS}])
def test_trades_from_columns(kind, sides):
    trades = Trades.coerce(SOURCES[kind](TRADES | sides))
    assert trades.side.dtype == np.int8
    assert trades.side.tolist() == [1, -1, 0]
    for name, values in TRADES.items():
        assert getattr(trades, name).tolist() == values
    assert Trades.coerce(trades) is trades


def test_trades_from_nautilus():
    sides = [AggressorSide.BUYER, AggressorSide.SELLER, AggressorSide.NO_AGGRESSOR]
    ticks = [
        TradeTick(
            ID,
            Price(TRADES["price"][i], 2),
            Quantity(TRADES["size"][i], 3),
            sides[i],
            TradeId(str(i)),
            TRADES["ts_event"][i],
            TRADES["ts_event"][i],
        )
        for i in range(3)
    ]
    for name, values in columns_of(Trades.coerce(ticks)).items():
        assert values.tolist() == (TRADES | {"side": [1, -1, 0]})[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": [1, 2, 0]}, r"side of trades must be 1, -1 or 0: row 1 is 2\.0"),
        ({"side": [1, 257, 0]}, r"row 1 is 257\.0"),  # would be 1 in eight bits
        ({"side": [1, -1, np.nan]}, r"row 2 is nan"),
        (
            {"aggressor_side": ["BUYER", "buyer", "SELLER"]},
            r"BUYER, SELLER or NO_AGGRESSOR: row 1 is 'buyer'",
        ),
        ({"aggressor_side": [1, 2, 0]}, r"`aggressor_side` must be .*: row 0 is '1'"),
        ({}, r"lack a `side` or `aggressor_side` column; they have \['price', 'size', 'ts_event'\]"),
        ({"side": [1, -1]}, r"trades differ in length"),
        (
            {"side": [1, -1, 0], "ts_event": [1, 3, 2]},
            r"trades must be in order of time: row 2 has ts_event 2 af",
        ),
    ],
)
def test_bad_trades_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Trades.coerce(TRADES | change)


def test_trades_built_by_hand_must_be_in_order():
    trades = Trades.coerce(TRADES | {"side": [1, -1, 0]})
    with pytest.raises(ValueError, match="trades must be in order of time"):
        Trades.coerce(trades[::-1])


@pytest.mark.parametrize("kind", SOURCES)
def test_signals_from_columns(kind):
    signals = Signals.coerce(SOURCES[kind](SIGNALS))
    assert signals.signal.dtype == np.int8
    for name, values in SIGNALS.items():
        assert getattr(signals, name).tolist() == values
    assert Signals.coerce(signals) is signals


def test_signals_without_strength_are_strong():
    columns = {name: values for name, values in SIGNALS.items() if name != "strength"}
    assert Signals.coerce(columns).strength.tolist() == [1.0] * 4


def test_signals_from_signal_data():
    data = [
        SignalData(
            instrument_id=ID,
            signal=SIGNALS["signal"][i],
            strength=SIGNALS["strength"][i],
            source="test",
            signal_id=str(i),
            ts_event=SIGNALS["ts_event"][i],
            ts_init=SIGNALS["ts_event"][i] + 1,
        )
        for i in range(4)
    ]
    for name, values in columns_of(Signals.coerce(data)).items():
        assert values.tolist() == SIGNALS[name]


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("signal", 2, 2, r"signals must be -1, 0 or 1: row 2 is 2\.0"),
        ("signal", 1, 0.5, r"row 1 is 0\.5"),
        ("signal", 3, np.nan, r"row 3 is nan"),
        ("strength", 0, 1.01, r"strength must be in \[0, 1\]: row 0 is 1\.01"),
        ("strength", 3, -0.1, r"row 3 is -0\.1"),
        ("strength", 1, np.nan, r"row 1 is nan"),
        ("ts_event", 3, 1, r"signals must be in order of time: row 3 has ts_event 1 after 2"),
    ],
)
def test_bad_signals_are_refused(name, row, value, message):
    with pytest.raises(ValueError, match=message):
        Signals.coerce(changed(SIGNALS, name, row, value))


def test_signals_built_by_hand_are_checked_too():
    good = columns_of(Signals.coerce(SIGNALS))
    for change, message in (
        ({"signal": np.full(4, 2, np.int8)}, "must be -1, 0 or 1: row 0 is 2"),
        ({"strength": np.full(4, np.nan)}, r"in \[0, 1\]: row 0 is nan"),
        ({"strength": np.ones(3)}, "differ in length"),
        ({"ts_event": good["ts_event"][::-1]}, "in order of time"),
    ):
        with pytest.raises(ValueError, match=message):
            Signals.coerce(Signals(**(good | change)))
