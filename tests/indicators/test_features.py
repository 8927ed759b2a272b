"""Features: each against its formula, batch against streaming, and no lasting damage from bad bars."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.indicators.features import (
    BUILTIN_NAMES,
    DIRECTIONAL_NAMES,
    FeatureEngine,
    bars_with_trade_flow,
    check_feature_names,
    feature_matrix,
    load_feature_classes,
)
from ml4t_actor.market_data import Bars, Trades

MINUTE = 60_000_000_000
HALFLIFE = 12
START = 1_700_000_040 * 1_000_000_000  # a full minute


def random_bars(n: int, seed: int, *, taker: bool = False) -> Bars:
    rng = np.random.default_rng(seed)
    log_close = np.log(100.0) + np.cumsum(rng.normal(0.0, 0.002, n))
    log_open = np.concatenate([[log_close[0]], log_close[:-1]])
    high = np.maximum(log_open, log_close) + rng.exponential(0.001, n)
    low = np.minimum(log_open, log_close) - rng.exponential(0.001, n)
    volume = rng.exponential(10.0, n) * (rng.random(n) > 0.05)
    buy = volume * rng.random(n) if taker else np.full(n, np.nan)
    ts = START + MINUTE * np.cumsum(1 + (rng.random(n) < 0.05) * rng.integers(1, 5, n))
    return Bars(ts, np.exp(log_open), np.exp(high), np.exp(low), np.exp(log_close), volume, buy)


def mirrored(bars: Bars) -> Bars:
    """Negate the log price path; what was bought is now sold."""
    return Bars(
        bars.ts_event,
        1.0 / bars.open,
        1.0 / bars.low,
        1.0 / bars.high,
        1.0 / bars.close,
        bars.volume,
        bars.volume - bars.buy_volume,
    )


def fed(bars: Bars, **kwargs: object) -> FeatureEngine:
    engine = FeatureEngine(BUILTIN_NAMES, interval_ns=MINUTE, halflife_bars=HALFLIFE, **kwargs)
    for bar in bars.tuples():
        engine.update_bar(*bar)
    return engine


def ew(values: list[float] | np.ndarray, halflife: float) -> float:
    """Return the exponentially weighted mean by its definition."""
    weights = 0.5 ** (np.arange(len(values))[::-1] / halflife)
    return float(np.dot(weights, values) / weights.sum())


def naive_row(bars: Bars, side: int, strength: float) -> dict[str, float]:
    """Restate every bar feature from its formula, over the whole history at once."""
    fast, slow, long = HALFLIFE / 6, 4 * HALFLIFE, 24 * HALFLIFE
    p = np.log(bars.close)
    gaps = np.diff(bars.ts_event) / MINUTE
    r = np.diff(p) / np.sqrt(np.maximum(gaps, 1.0))
    sigmas = np.array([math.sqrt(ew(r[: i + 1] ** 2, HALFLIFE)) for i in range(len(r))])
    sigma = sigmas[-1]
    log_sigma = np.log(sigmas)
    mean, variance = ew(log_sigma, long), ew(log_sigma**2, long) - ew(log_sigma, long) ** 2
    spread = np.log(bars.high / bars.low)
    location = ((p - np.log(bars.low)) - (np.log(bars.high) - p)) / spread
    flow = 2.0 * bars.buy_volume - bars.volume
    for i in range(len(p)):
        if math.isnan(flow[i]):
            before = sigmas[i - 2] if i >= 2 else 0.0
            flow[i] = bars.volume[i] * (2 * NormalDist().cdf(r[i - 1] / before) - 1) if before > 0.0 else 0.0
    log_ratio = lambda a, b: math.log((a / b + 0.01) / 1.01)  # noqa: E731
    lagged = np.concatenate([[0.0], r[:-1]])
    day = 86_400_000_000_000
    ts = int(bars.ts_event[-1])
    return {
        "volatility": sigma,
        "momentum": side * (p[-1] - ew(p, HALFLIFE)) / (sigma * math.sqrt(HALFLIFE)),
        "regime": NormalDist().cdf((log_sigma[-1] - mean) / math.sqrt(variance)),
        "trend_strength": abs(ew(r, HALFLIFE)) / ew(abs(r), HALFLIFE),
        "momentum_fast": side * (p[-1] - ew(p, fast)) / (sigma * math.sqrt(fast)),
        "momentum_slow": side * (p[-1] - ew(p, slow)) / (sigma * math.sqrt(slow)),
        "last_return": side * r[-1] / sigma,
        "autocorrelation": ew(r * lagged, HALFLIFE) / ew(r**2, HALFLIFE),
        "skewness": side * ew(r**3, HALFLIFE) / sigma**3,
        "volatility_ratio": 0.5 * log_ratio(ew(r**2, fast), sigma**2),
        "volume_ratio": log_ratio(bars.volume[-1], ew(bars.volume, HALFLIFE)),
        "volume_trend": log_ratio(ew(bars.volume, fast), ew(bars.volume, slow)),
        "range_ratio": log_ratio(ew(spread, fast), ew(spread, slow)),
        "close_location": side * ew(location, fast),
        "flow_last": side * flow[-1] / ew(bars.volume, HALFLIFE),
        "flow_fast": side * ew(flow, fast) / ew(bars.volume, fast),
        "flow": side * ew(flow, HALFLIFE) / ew(bars.volume, HALFLIFE),
        "vpin": 0.25,
        "toxicity": 0.75,
        "hour_sin": math.sin(2 * math.pi * (ts % day) / day),
        "hour_cos": math.cos(2 * math.pi * (ts % day) / day),
        "week_sin": math.sin(2 * math.pi * (ts % (7 * day)) / (7 * day)),
        "week_cos": math.cos(2 * math.pi * (ts % (7 * day)) / (7 * day)),
        "bar_gap": math.log(gaps[-1]),
        "strength": strength,
        "signal_record": 0.0,
        "signal_age": math.log1p(10_000),
        "log_volatility": math.log(sigma),
    }


@pytest.mark.parametrize("taker", [False, True])
@pytest.mark.parametrize("n", [40, 300])
def test_each_feature_is_its_formula(n, taker):
    bars = random_bars(n, seed=n, taker=taker)
    row = fed(bars).row(-1, 0.4, vpin=0.25, toxicity=0.75)
    expected = naive_row(bars, -1, 0.4)
    assert list(expected) == list(BUILTIN_NAMES)
    for name, value in zip(BUILTIN_NAMES, row, strict=True):
        assert value == pytest.approx(expected[name], rel=1e-8, abs=1e-10), name


def test_signal_record_is_the_mean_return_in_the_direction_of_the_last_signal():
    bars = random_bars(120, seed=5)
    engine = FeatureEngine(BUILTIN_NAMES, interval_ns=MINUTE, halflife_bars=HALFLIFE)
    sides = {30: 1, 60: -1, 80: 0, 100: 1}
    held, kept, sigma, last = 0, [], 0.0, None
    for i, bar in enumerate(bars.tuples()):
        engine.update_bar(*bar)
        if last is not None:
            gap = max((bar[0] - last[0]) / MINUTE, 1.0)
            r = math.log(bar[4] / last[4]) / math.sqrt(gap)
            kept.append(held * r / sigma if sigma > 0.0 else 0.0)
        sigma, last = engine.volatility if i else 0.0, bar
        if i in sides:
            engine.record_signal(sides[i])
            held = sides[i]
    row = dict(zip(BUILTIN_NAMES, engine.row(1), strict=True))
    assert row["signal_record"] == pytest.approx(ew(kept, 4 * HALFLIFE), rel=1e-9)
    assert row["signal_age"] == pytest.approx(math.log1p(119 - 100))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 200), density=st.floats(0.05, 1.0))
def test_batch_equals_streaming_bit_for_bit(seed, n, density):
    rng = np.random.default_rng(seed)
    bars = random_bars(n, seed, taker=seed % 2 == 0)
    events = np.flatnonzero(rng.random(n) < density)
    side = rng.choice([-1, 0, 1], len(events)).astype(np.int8)
    strength, vpin, toxicity = rng.random((3, len(events)))
    batch = feature_matrix(
        bars, events, side, strength, vpin, toxicity,
        feature_names=BUILTIN_NAMES, interval_ns=MINUTE, halflife_bars=HALFLIFE,
    )  # fmt: skip
    engine = FeatureEngine(BUILTIN_NAMES, interval_ns=MINUTE, halflife_bars=HALFLIFE)
    j = 0
    for i, bar in enumerate(bars.tuples()):
        engine.update_bar(*bar)
        assert np.array_equal(batch.volatility[i], engine.volatility, equal_nan=True)
        assert batch.regime_inputs[i].tobytes() == engine.regime_inputs().tobytes()
        while j < len(events) and events[j] == i:
            row = engine.row(int(side[j]), strength[j], vpin[j], toxicity[j])
            assert row.tobytes() == batch.rows[j].tobytes()
            engine.record_signal(int(side[j]))
            j += 1
    assert j == len(events)


@given(seed=st.integers(0, 10_000), cut=st.integers(60, 150))
@settings(max_examples=25)
def test_later_bars_change_nothing(seed, cut):
    bars, other = random_bars(200, seed, taker=True), random_bars(200, seed + 1, taker=True)
    columns = [np.concatenate([getattr(b, name)[rows] for b, rows in ((bars, slice(cut)), (other, slice(cut, None)))])
               for name in ("open", "high", "low", "close", "volume", "buy_volume")]  # fmt: skip
    changed = Bars(bars.ts_event, *columns)
    events = np.arange(cut)
    ones = np.ones(cut)
    rows = [
        feature_matrix(b, events, ones.astype(np.int8), ones, ones, ones, feature_names=BUILTIN_NAMES).rows
        for b in (bars, changed)
    ]
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_market_and_side_give_the_same_row(seed):
    bars = random_bars(150, seed, taker=True)
    long = fed(bars).row(1, 0.5, 0.3, 0.6)
    short = fed(mirrored(bars)).row(-1, 0.5, 0.3, 0.6)
    np.testing.assert_allclose(short, long, rtol=1e-8, atol=1e-10)


def test_exactly_the_directional_features_change_sign_with_the_side():
    engine = fed(random_bars(150, 1, taker=True))
    long, short = engine.row(1, 0.5, 0.3, 0.6), engine.row(-1, 0.5, 0.3, 0.6)
    for name, a, b in zip(BUILTIN_NAMES, long, short, strict=True):
        assert b == (-a if name in DIRECTIONAL_NAMES else a), name


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("bad_values", {"close": float("nan")}),
        ("bad_values", {"high": float("inf")}),
        ("bad_values", {"low": 0.0}),
        ("bad_values", {"low": -1.0}),
        ("bad_values", {"volume": float("nan")}),
        ("bad_values", {"volume": -1.0}),
        ("bad_values", {"close": 1e9}),
        ("duplicates", {"ts_event": 0}),
        ("out_of_order", {"ts_event": -MINUTE}),
    ],
)
def test_a_bad_bar_is_counted_and_leaves_the_state_as_it_was(kind, damage):
    bars = random_bars(100, 3)
    engine, clean = fed(bars), fed(bars)
    names = ("ts_event", "open", "high", "low", "close", "volume", "buy_volume")
    bar = dict(zip(names, next(bars[99:].tuples()), strict=True))
    bar["ts_event"] += MINUTE
    bar |= damage
    if "ts_event" in damage:
        bar["ts_event"] = int(bars.ts_event[-1]) + damage["ts_event"]
    assert not engine.update_bar(**bar)
    assert engine.counts[kind] == 1
    assert engine.row(1).tobytes() == clean.row(1).tobytes()
    assert engine.bars == clean.bars


def test_a_gap_is_counted_and_its_return_scaled():
    bars = random_bars(60, 8)
    engine = fed(bars)
    missing = int((np.diff(bars.ts_event) > MINUTE).sum())
    assert missing > 0
    assert engine.counts["gaps"] == missing


def test_bad_prices_are_forgotten():
    # The damage of one wild but valid bar fades: after 40 half-lives it cannot be seen.
    bars = random_bars(60 + 40 * HALFLIFE, 4)
    close = bars.close.copy()
    close[59] *= 1.5
    wild = Bars(
        bars.ts_event, bars.open, np.maximum(bars.high, close), bars.low, close, bars.volume, bars.buy_volume
    )
    assert fed(wild).volatility == pytest.approx(fed(bars).volatility, rel=1e-4)


def test_state_is_restored():
    bars = random_bars(200, 6)
    engine, other = fed(bars[:120]), FeatureEngine(BUILTIN_NAMES, interval_ns=MINUTE, halflife_bars=HALFLIFE)
    other.restore(engine.state)
    for bar in bars[120:].tuples():
        engine.update_bar(*bar)
        other.update_bar(*bar)
    assert engine.row(1).tobytes() == other.row(1).tobytes()
    engine.reset()
    assert engine.bars == 0
    with pytest.raises(ValueError, match="shapes"):
        engine.restore((np.zeros(3), np.zeros(3)))


def test_before_a_bar_nothing_is_known():
    engine = FeatureEngine(interval_ns=MINUTE)
    assert not engine.initialized
    assert np.isnan(engine.row(1)).all()
    assert math.isnan(engine.volatility)
    assert np.isnan(engine.regime_inputs()).all()


def test_in_a_flat_market_only_the_log_of_no_volatility_is_undefined():
    ts = START + MINUTE * np.arange(100)
    ones = np.ones(100)
    row = fed(Bars(ts, ones, ones, ones, ones, 0 * ones, np.nan * ones)).row(1, 1.0, 0.5, 0.5)
    assert [name for name, value in zip(BUILTIN_NAMES, row, strict=True) if not np.isfinite(value)] == [
        "log_volatility"
    ]


class Spread:
    directional = False

    def __init__(self):
        self.value = float("nan")

    def update(self, ts_event, open, high, low, close, volume, buy_volume):
        self.value = (high - low) / close


class Change(Spread):
    directional = True

    def update(self, ts_event, open, high, low, close, volume, buy_volume):
        self.value = close / open - 1.0


def test_custom_features_join_the_row_live_and_in_a_batch():
    custom = load_feature_classes({"spread": f"{__name__}:Spread", "change": f"{__name__}:Change"})
    names = ["change", "volatility", "spread"]
    bars = random_bars(50, 2)
    engine = FeatureEngine(names, interval_ns=MINUTE, custom=custom)
    for bar in bars.tuples():
        engine.update_bar(*bar)
    row = engine.row(-1)
    assert row[0] == -(bars.close[-1] / bars.open[-1] - 1.0)
    assert row[2] == (bars.high[-1] - bars.low[-1]) / bars.close[-1]
    one = np.ones(1)
    batch = feature_matrix(bars, np.array([49]), -one.astype(np.int8), one, one, one, feature_names=names,
                           interval_ns=MINUTE, custom=custom)  # fmt: skip
    assert batch.rows[0].tobytes() == row.tobytes()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"volatility": "a:b"}, "name of a built-in"),
        ({"mine": "no_such_module:X"}, "cannot import"),
        ({"mine": "math"}, "cannot import"),
        ({"mine": "math:sqrt"}, "needs `directional`"),
    ],
)
def test_wrong_custom_features_are_refused(paths, message):
    with pytest.raises(ValueError, match=message):
        load_feature_classes(paths)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["volatility", "sharpness"], r"unknown feature.*sharpness.*known are volatility"), ([], "empty"),
     (["vpin", "vpin"], "more than once")],
)  # fmt: skip
def test_wrong_feature_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        check_feature_names(names)


def test_wrong_batches_are_refused():
    bars, one = random_bars(20, 1), np.ones(1)
    with pytest.raises(ValueError, match="ascend"):
        feature_matrix(bars, np.array([20]), one.astype(np.int8), one, one, one)
    with pytest.raises(ValueError, match="one length"):
        feature_matrix(bars, np.array([1, 2]), one.astype(np.int8), one, one, one)
    with pytest.raises(ValueError, match="interval_ns"):
        FeatureEngine(interval_ns=0)
    with pytest.raises(ValueError, match="halflife_bars"):
        FeatureEngine(interval_ns=MINUTE, halflife_bars=0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_taker_flow_from_trades_is_the_bought_share_of_each_bar(seed):
    rng = np.random.default_rng(seed)
    ts_close = START + MINUTE * np.arange(1, 11)
    n = 60
    t_ts = np.sort(START + rng.integers(1, 10 * MINUTE, n))
    trades = Trades(t_ts, np.ones(n), rng.exponential(1.0, n), rng.choice([-1, 0, 1], n).astype(np.int8))
    ones, volume = np.ones(10), rng.exponential(100.0, 10)
    bars = bars_with_trade_flow(
        Bars(ts_close, ones, ones, ones, ones, volume, np.full(10, np.nan)), trades, MINUTE
    )
    for i, close in enumerate(ts_close):
        inside = (t_ts > close - MINUTE) & (t_ts <= close)
        size, side = trades.size[inside], trades.side[inside]
        expected = volume[i] * (size * (1 + side) / 2).sum() / size.sum() if size.sum() > 0 else float("nan")
        assert bars.buy_volume[i] == pytest.approx(expected, nan_ok=True)

    # Live, the first trades of the next bar may come before this bar is handed over.
    early = int(rng.integers(0, MINUTE))
    engine = FeatureEngine(BUILTIN_NAMES, interval_ns=MINUTE)
    j = 0
    for i, (ts, *prices, v, _) in enumerate(bars.tuples()):
        while j < n and t_ts[j] <= ts + early:
            engine.update_trade(int(t_ts[j]), float(trades.size[j]), int(trades.side[j]))
            j += 1
        engine.update_bar(ts, *prices, v)
        one = np.ones(1)
        batch = feature_matrix(
            bars[: i + 1], np.array([i]), one.astype(np.int8), one, one, one,
            feature_names=BUILTIN_NAMES, interval_ns=MINUTE,
        )  # fmt: skip
        assert engine.row(1, 1.0, 1.0, 1.0).tobytes() == batch.rows[0].tobytes()
