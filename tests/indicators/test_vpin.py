"""VPIN against a plain restatement of its definition, and the promises of the indicator."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml4t_actor.feed.vpin_indicator import VPINIndicator
from ml4t_actor.kernels import vpin as kernels
from ml4t_actor.market_data import Trades
from ml4t_actor.settings import VPINSettings
from tests.support.paths import DATA

MINUTE = 60_000_000_000
DAY = 1440 * MINUTE
START = 1_700_000_000_000_000_000  # and all times are multiples of 1024: the state's clock is a float
NAN = math.nan
SMALL = VPINSettings(buckets_per_day=500, window_buckets=5, history_buckets=60)


class PlainVPIN:
    """The definition, with lists: every sum made anew from all that was seen."""

    def __init__(self, s: VPINSettings) -> None:
        self.s = s
        self.counted: list[
            tuple[float, float]
        ] = []  # (days, volume) of each event after the first, as counted
        self.clock: int | None = None
        self.size: float | None = None
        self.bought = self.sold = Fraction(0)
        self.imbalances: list[float] = []
        self.values: list[float] = []
        self.changes: list[tuple[float, float]] = []  # (buckets, log price change) of each bar
        self.price: float | None = None
        self.direction = 0
        self.rate = self.weighted()

    def weighted(self) -> tuple[float, float, float]:
        """Return weighted volume, days and number of gaps: weights halve per half-life of counted time."""
        volume = days = gaps = age = 0.0
        for d, v in reversed(self.counted):
            half = self.s.volume_halflife_days
            volume += v * 0.5 ** (age / half)
            if d > 0.0:
                # integral of the weight over the gap, from its end (age) to its start (age + d)
                days += (0.5 ** (age / half) - 0.5 ** ((age + d) / half)) * half / math.log(2.0)
                gaps += 0.5 ** (age / half)
            age += d
        return volume, days, gaps

    def bucket_size(self) -> float:
        volume, days, _ = self.rate
        return volume / days / self.s.buckets_per_day if days else 0.0

    def observe(self, ts: int, volume: float) -> None:
        if self.clock is None:
            self.clock = ts
            return
        seen, days, gaps = self.rate
        bucket = 1.0 / self.s.buckets_per_day
        passed = (ts - self.clock) / DAY
        if passed > 0.0 or passed < -bucket:
            self.clock = ts
        longest = max(bucket, min(days, 100.0 * days / gaps if gaps else 0.0))
        self.counted.append((min(max(passed, 0.0), longest), min(volume, seen) if seen else volume))
        self.rate = self.weighted()

    def fill(self, volume: float, share: float) -> None:
        if self.size is None:
            enough_time = sum(d for d, _ in self.counted) * self.s.buckets_per_day >= 10.0
            if not enough_time or sum(d > 0.0 for d, _ in self.counted) < 20:
                return
            self.size = self.bucket_size()
        # Exactly: one trade fills thousands of buckets, and the rounding of as many subtractions would add up.
        left, buyers = Fraction(volume), Fraction(share)
        while left > 0:
            size = Fraction(self.size)
            part = min(left, size - (self.bought + self.sold))
            self.bought += part * buyers
            self.sold += part * (1 - buyers)
            if part == left and self.bought + self.sold < size * (1 - Fraction(1, 10**12)):
                return
            left -= part
            self.imbalances.append(float(abs(self.bought - self.sold) / size))
            window = self.s.window_buckets
            if len(self.imbalances) >= window:
                self.values.append(math.fsum(self.imbalances[-window:]) / window)
            self.size = self.bucket_size()
            self.bought = self.sold = Fraction(0)

    def trade(self, ts: int, price: float, size: float, side: int) -> None:
        if self.price is not None and price != self.price:
            self.direction = 1 if price > self.price else -1
        self.price = price
        self.observe(ts, size)
        self.fill(size, 0.5 + 0.5 * (side or self.direction))

    def bar(self, ts: int, close: float, volume: float, buy_volume: float) -> None:
        if volume == 0.0:
            return
        self.observe(ts, volume)
        share = 0.5
        if self.price is not None:
            change = math.log(close / self.price)
            top = bottom = age = 0.0
            for buckets, past in reversed(self.changes):
                half = self.s.bulk_halflife_buckets
                weight = 0.5 ** (age / half) - 0.5 ** ((age + buckets) / half)
                top, bottom, age = top + weight * past**2, bottom + weight, age + buckets
            if top > 0.0:
                scale = math.sqrt(top / bottom)
                share = NormalDist().cdf(change / scale)
                change = max(-10.0 * scale, min(10.0 * scale, change))
            self.changes.append((volume / self.bucket_size(), change))
        self.price = close
        self.fill(volume, share if math.isnan(buy_volume) else buy_volume / volume)

    def reading(self) -> tuple[float, float]:
        kept = self.values[-self.s.history_buckets :]
        if len(kept) < min(4 * self.s.window_buckets, self.s.history_buckets):
            return NAN, NAN
        now = kept[-1]
        equal = sum(abs(value - now) < 1e-12 for value in kept)
        below = sum(value < now - 1e-12 for value in kept)
        return now, (below + 0.5 * equal) / len(kept)


def random_trades(seed: int, n: int, giants: float = 0.0, unsigned: float = 0.0) -> Trades:
    rng = np.random.default_rng(seed)
    gaps = (rng.exponential(1.0, n) * 2 * MINUTE).astype(np.int64) // 1024 * 1024
    gaps[rng.random(n) < 0.2] = 0
    size = rng.lognormal(0.0, 1.2, n)
    size[rng.random(n) < giants] *= 1000.0
    flow = np.repeat(rng.normal(0.0, 0.8, n // 50 + 1), 50)[:n]
    side = np.where(rng.normal(0.0, 1.0, n) < flow, 1, -1)
    side[rng.random(n) < unsigned] = 0
    price = 100.0 * np.exp(np.cumsum(rng.choice([-1e-4, 0.0, 1e-4], n)))
    return Trades(START + np.cumsum(gaps), price, size, side.astype(np.int8))


def feed(indicator: VPINIndicator, trades: Trades) -> VPINIndicator:
    for i in range(len(trades)):
        indicator.update_raw(trades.ts_event[i], trades.price[i], trades.size[i], trades.side[i])
    return indicator


def warm(settings_: VPINSettings = SMALL, seed: int = 1, n: int = 4000) -> VPINIndicator:
    indicator = feed(VPINIndicator(settings_), random_trades(seed, n))
    assert indicator.initialized
    return indicator


def after(indicator: VPINIndicator, minutes: float = 1.0) -> int:
    return int(indicator.state[kernels.CLOCK_NS]) + int(minutes * MINUTE)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    giants=st.sampled_from([0.0, 0.01]),
    unsigned=st.sampled_from([0.0, 0.5, 1.0]),
    halflife=st.sampled_from([0.02, 1.0]),
    window=st.integers(1, 6),
    history=st.integers(1, 60),
)
# Trades that fill 7,000 buckets.
@example(seed=791750414, giants=0.01, unsigned=0.0, halflife=0.02, window=1, history=1)
def test_trades_agree_with_the_definition(seed, giants, unsigned, halflife, window, history):
    s = VPINSettings(
        buckets_per_day=500, window_buckets=window, history_buckets=history, volume_halflife_days=halflife
    )
    trades = random_trades(seed, 250, giants, unsigned)
    indicator, plain = VPINIndicator(s), PlainVPIN(s)
    for i in range(len(trades)):
        row = (int(trades.ts_event[i]), trades.price[i], trades.size[i], int(trades.side[i]))
        indicator.update_raw(*row)
        plain.trade(*row)
        value, toxicity = plain.reading()
        assert indicator.buckets == len(plain.imbalances)
        assert indicator.value == pytest.approx(value, abs=1e-10, nan_ok=True)
        assert indicator.toxicity == pytest.approx(toxicity, abs=1e-10, nan_ok=True)
        assert indicator.initialized == (not math.isnan(value))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), known=st.sampled_from([0.0, 0.5, 1.0]), jumps=st.booleans())
def test_bars_agree_with_the_definition(seed, known, jumps):
    s = VPINSettings(buckets_per_day=190, window_buckets=4, history_buckets=40, bulk_halflife_buckets=10)
    rng = np.random.default_rng(seed)
    n = 250
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    if jumps:
        close[rng.integers(0, n, 3)] *= 50.0
    volume = rng.lognormal(0.0, 1.0, n) * (rng.random(n) < 0.9)
    buy = np.where(rng.random(n) < known, volume * rng.random(n), NAN)
    ts = START + np.cumsum(rng.choice([1, 1, 1, 7], n)) * MINUTE
    plain = PlainVPIN(s)
    expected = []
    for row in zip(ts.tolist(), close, volume, buy, strict=True):
        plain.bar(*row)
        expected.append(plain.reading())
    got = np.column_stack(kernels.vpin_bars_batch(kernels.vpin_params(s), ts, close, volume, buy))
    assert not math.isnan(got[-1, 0])
    np.testing.assert_allclose(got, expected, atol=1e-9, rtol=0.0)


def test_a_trade_is_split_where_a_bucket_fills():
    indicator = warm()
    room = indicator.bucket_size - indicator.state[kernels.FILLED]
    signed, size, buckets = indicator.state[kernels.SIGNED], indicator.bucket_size, indicator.buckets
    indicator.update_raw(after(indicator), 100.0, room + 0.25 * size, -1)
    assert indicator.buckets == buckets + 1
    head = int(indicator.state[kernels.WINDOW_HEAD]) - 1
    newest = indicator.state[kernels.HEADER + head % SMALL.window_buckets]
    assert newest == pytest.approx(abs(signed - room) / size)
    assert indicator.state[kernels.FILLED] == pytest.approx(0.25 * size)
    assert indicator.state[kernels.SIGNED] == pytest.approx(-0.25 * size)


def test_no_volume_is_lost_or_counted_twice():
    s = VPINSettings(buckets_per_day=100, window_buckets=2, history_buckets=10, volume_halflife_days=1e6)
    indicator = VPINIndicator(s)
    for minute in range(5000):  # an even flow keeps the size constant
        indicator.update_raw(START + minute * MINUTE, 100.0, 3.0, 1)
        if minute == 1000:
            first = indicator.buckets * indicator.bucket_size + indicator.state[kernels.FILLED]
    total = indicator.buckets * indicator.bucket_size + indicator.state[kernels.FILLED]
    assert indicator.bucket_size == pytest.approx(3.0 * 14.4)
    assert total - first == pytest.approx(3.0 * 3999)


def test_the_tick_rule_carries_the_last_direction():
    prices = [11.0, 11.0, 10.5, 12.0, 12.0, 10.0]
    sides = [1, 1, -1, 1, 1, -1]
    unsigned, signed = VPINIndicator(SMALL), VPINIndicator(SMALL)
    for i in range(3000):
        row = (START + i * MINUTE, prices[i % 6], 1.0 + i % 7)
        unsigned.update_raw(*row, 0 if i else 1)
        signed.update_raw(*row, sides[i % 6])
    assert unsigned.initialized
    assert same(unsigned.state, signed.state)


def test_before_any_price_change_an_unknown_side_is_half_and_half():
    indicator = VPINIndicator(SMALL)
    for i in range(2000):
        indicator.update_raw(START + i * MINUTE, 100.0, 1.0 + i % 7, 0)
    assert indicator.initialized
    assert indicator.value == 0.0


def test_a_one_sided_flow_is_one_exactly_and_ties_with_itself():
    t = random_trades(43, 3000)
    read = kernels.vpin_trades_sampled(
        kernels.vpin_params(SMALL), t.ts_event, t.price, t.size, np.ones_like(t.side), t.ts_event
    )
    valid = np.isfinite(read[0])
    assert valid.mean() > 0.5
    assert (read[0][valid] == 1.0).all()
    assert (read[1][valid] == 0.5).all()


def test_the_order_of_summation_breaks_no_tie():
    state = VPINIndicator(SMALL).state
    tenths = np.random.default_rng(0).integers(0, 11, 400)
    sums = np.convolve(tenths, np.ones(5, dtype=int))[4:400]  # exact
    for i, tenth in enumerate(tenths):
        kernels._complete(state, tenth / 10.0, 1.0)
        kernels._rank(state)
        if i >= 100:
            past, now = sums[i - 63 : i - 3], sums[i - 4]
            assert state[kernels.TOXICITY] == (np.sum(past < now) + 0.5 * np.sum(past == now)) / 60


def test_a_known_side_overrules_the_tick():
    up_but_sold = VPINIndicator(SMALL)
    for i in range(3000):
        up_but_sold.update_raw(START + i * MINUTE, 100.0 + i * 0.01, 1.0, -1 if i % 2 else 1)
    rising = VPINIndicator(SMALL)
    for i in range(3000):
        rising.update_raw(START + i * MINUTE, 100.0 + i * 0.01, 1.0, 0)
    assert rising.value == pytest.approx(1.0)
    assert up_but_sold.value < 0.5


def test_a_giant_trade_fills_thousands_of_equal_buckets():
    giant, plain = warm(), PlainVPIN(SMALL)
    size = giant.bucket_size
    buckets = giant.buckets
    giant.update_raw(after(giant), 100.0, size * 5000.0, 1)
    assert 1000 < giant.buckets - buckets < 5001
    assert giant.value == 1.0
    assert giant.toxicity == 0.5, "the whole history is this one trade"
    trades = random_trades(3, 300)
    one = VPINIndicator(SMALL)
    for i in range(len(trades)):
        row = (
            int(trades.ts_event[i]),
            trades.price[i],
            trades.size[i] * (3000.0 if i == 280 else 1.0),
            1 - 2 * (i % 2),
        )
        one.update_raw(*row)
        plain.trade(*row)
    assert one.buckets == len(plain.imbalances)
    assert one.buckets > 300, "more than window and history together"
    assert (one.value, one.toxicity) == pytest.approx(plain.reading(), abs=1e-9)
    enormous = warm()
    enormous.update_raw(after(enormous), 100.0, 1e90, -1)
    assert enormous.value == 1.0
    assert np.isfinite(np.delete(enormous.state, kernels.BAR_NS)).all()


def test_the_window_mean_does_not_drift():
    s = VPINSettings(buckets_per_day=100_000, window_buckets=50, history_buckets=500)
    trades = random_trades(7, 60_000)
    state = kernels.vpin_new_state(kernels.vpin_params(s))
    kernels_loop = kernels.vpin_trade_step
    for i in range(len(trades)):
        kernels_loop(state, int(trades.ts_event[i]), trades.price[i], trades.size[i], int(trades.side[i]))
    assert state[kernels.BUCKETS] > 1e6
    window = state[kernels.HEADER : kernels.HEADER + 50]
    assert abs(state[kernels.VALUE] - math.fsum(window) / 50) < 1e-14


def test_bulk_classification_is_the_normal_distribution_of_the_standardised_change():
    indicator = VPINIndicator(VPINSettings(buckets_per_day=20, window_buckets=2, history_buckets=4))
    close = 100.0
    rng = np.random.default_rng(0)
    for i in range(900):
        close *= math.exp(rng.normal(0.0, 1e-3))
        indicator.update_bar_raw(START + i * MINUTE, close, 1.0)
    scale = math.sqrt(indicator.state[kernels.SCALE_SQUARES] / indicator.state[kernels.SCALE_WEIGHT])
    assert scale == pytest.approx(1e-3, rel=0.1)
    for z in (-2.5, -1.0, 0.0, 0.3, 4.0):
        trial = VPINIndicator(indicator.settings)
        trial.restore(indicator.state)
        trial.update_bar_raw(START + 900 * MINUTE, close * math.exp(z * scale), 1.0)
        bought = NormalDist().cdf(z)
        added = trial.state[kernels.SIGNED] - indicator.state[kernels.SIGNED]
        assert added == pytest.approx(2.0 * bought - 1.0, abs=1e-9)


def test_one_wrong_price_does_not_flatten_bulk_classification():
    s = VPINSettings(buckets_per_day=288, window_buckets=10, history_buckets=50)
    rng = np.random.default_rng(2)
    n = 3000
    ts = START + np.arange(n) * MINUTE
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    wrong = close.copy()
    wrong[1500] = 1e-6
    volume, unknown = rng.lognormal(0.0, 0.5, n), np.full(n, NAN)
    clean, _ = kernels.vpin_bars_batch(kernels.vpin_params(s), ts, close, volume, unknown)
    hurt, _ = kernels.vpin_bars_batch(kernels.vpin_params(s), ts, wrong, volume, unknown)
    assert np.abs(clean - hurt)[1700:].max() < 0.15


def test_batch_equals_streaming_bit_for_bit():
    trades = random_trades(11, 6000, giants=0.002, unsigned=0.3)
    params = kernels.vpin_params(SMALL)
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(trades.ts_event[0] - MINUTE, trades.ts_event[-1] + MINUTE, 500))
    indicator, j, streamed = VPINIndicator(SMALL), 0, []
    for time in times:
        while j < len(trades) and trades.ts_event[j] <= time:
            indicator.update_raw(trades.ts_event[j], trades.price[j], trades.size[j], trades.side[j])
            j += 1
        streamed.append((indicator.value, indicator.toxicity))
    batch = kernels.vpin_trades_sampled(
        params, trades.ts_event, trades.price, trades.size, trades.side, times
    )
    assert same(np.array(streamed), np.column_stack(batch))
    assert 0.3 < np.isfinite(batch[0]).mean() < 1.0

    n = 3000
    ts, close = START + np.arange(n) * MINUTE, 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    close[[50, 2000]] = NAN
    volume = rng.lognormal(0.0, 1.0, n)
    buy = np.where(rng.random(n) < 0.5, NAN, volume * rng.random(n))
    indicator, streamed = VPINIndicator(SMALL), []
    for row in zip(ts, close, volume, buy, strict=True):
        indicator.update_bar_raw(*row)
        streamed.append((indicator.value, indicator.toxicity))
    assert indicator.rejected == 2
    assert same(np.array(streamed), np.column_stack(kernels.vpin_bars_batch(params, ts, close, volume, buy)))


def test_values_after_a_time_do_not_depend_on_later_trades():
    trades = random_trades(13, 4000)
    other = random_trades(14, 4000)
    cut = 3000
    mixed = Trades(
        np.concatenate([trades.ts_event[:cut], trades.ts_event[cut] + other.ts_event[: 4000 - cut] - START]),
        *(
            np.concatenate([getattr(trades, name)[:cut], getattr(other, name)[: 4000 - cut]])
            for name in ("price", "size", "side")
        ),
    )
    times = trades.ts_event[:cut]
    params = kernels.vpin_params(SMALL)
    read = [
        np.column_stack(kernels.vpin_trades_sampled(params, t.ts_event, t.price, t.size, t.side, times[:-1]))
        for t in (trades, mixed)
    ]
    assert same(*read)


def test_reset_is_like_new_and_restore_continues():
    trades = random_trades(17, 5000)
    whole = feed(VPINIndicator(SMALL), trades)
    first = feed(VPINIndicator(SMALL), trades[:3000])
    saved = first.state
    second = VPINIndicator(SMALL)
    second.restore(saved)
    assert (second.initialized, second.has_inputs, second.value) == (True, True, first.value)
    assert same(feed(second, trades[3000:]).state, whole.state)
    assert same(saved, first.state), "a snapshot is a copy, in both directions"

    whole.reset()
    assert not whole.initialized
    assert not whole.has_inputs
    assert same(whole.state, VPINIndicator(SMALL).state)
    assert same(feed(whole, trades).state, second.state)

    second.restore(VPINIndicator(SMALL).state)
    assert (second.initialized, second.has_inputs) == (False, False)


def test_a_foreign_state_is_refused():
    indicator = VPINIndicator(SMALL)
    with pytest.raises(ValueError, match="shape"):
        indicator.restore(VPINIndicator().state)
    other = VPINSettings(buckets_per_day=501, window_buckets=5, history_buckets=60)
    with pytest.raises(ValueError, match="501"):
        indicator.restore(VPINIndicator(other).state)
    for slot, value in (
        (0, 99.0),
        (kernels.WINDOW_HEAD, 1e9),
        (kernels.HISTORY_COUNT, -1.0),
        (kernels.SIZE, NAN),
    ):
        broken = indicator.state
        broken[slot] = value
        with pytest.raises(ValueError, match="state"):
            indicator.restore(broken)
    assert same(indicator.state, VPINIndicator(SMALL).state)


@pytest.mark.parametrize(
    ("price", "size", "side"),
    [
        (NAN, 1.0, 1),
        (math.inf, 1.0, 1),
        (0.0, 1.0, 1),
        (-5.0, 1.0, 1),
        (100.0, NAN, 1),
        (100.0, math.inf, 1),
        (100.0, 0.0, 1),
        (100.0, -1.0, 1),
        (100.0, 1e308, 1),
        (100.0, 1e-308, 1),
        (100.0, 1.0, 2),
        (100.0, 1.0, -2),
    ],
)
def test_a_bad_trade_is_counted_and_changes_nothing_else(price, size, side):
    indicator = warm()
    expected = indicator.state
    expected[kernels.REJECTED] += 1.0
    indicator.update_raw(after(indicator), price, size, side)
    assert indicator.rejected == 1
    assert same(indicator.state, expected)
    fresh = VPINIndicator()
    fresh.update_raw(START, price, size, side)
    assert not fresh.has_inputs


@pytest.mark.parametrize(
    ("minutes", "close", "volume", "buy_volume"),
    [
        (1, NAN, 1.0, NAN),
        (1, -1.0, 1.0, NAN),
        (1, math.inf, 1.0, NAN),
        (1, 100.0, NAN, NAN),
        (1, 100.0, -1.0, NAN),
        (1, 100.0, math.inf, NAN),
        (1, 100.0, 1.0, -0.1),
        (1, 100.0, 1.0, 1.1),
        (1, 100.0, 1.0, math.inf),
        (1, 100.0, 0.0, 0.5),
        (0, 100.0, 1.0, 0.5),
        (-5, 100.0, 1.0, 0.5),
    ],
)
def test_a_bad_bar_is_counted_and_changes_nothing_else(minutes, close, volume, buy_volume):
    indicator = VPINIndicator(SMALL)
    for i in range(200):
        indicator.update_bar_raw(START + i * MINUTE, 100.0 + i % 3, 1.0 + i % 5)
    expected = indicator.state
    expected[kernels.REJECTED] += 1.0
    indicator.update_bar_raw(START + (199 + minutes) * MINUTE, close, volume, buy_volume)
    assert indicator.rejected == 1
    assert same(indicator.state, expected)


def test_a_bar_without_volume_is_like_no_bar():
    with_empty, without = VPINIndicator(SMALL), VPINIndicator(SMALL)
    rng = np.random.default_rng(3)
    for i in range(4000):
        empty = rng.random() < 0.3 or 2000 < i < 2500
        bar = (START + i * MINUTE, 100.0 + rng.normal(), 0.0 if empty else rng.lognormal())
        with_empty.update_bar_raw(*bar)
        if not empty:
            without.update_bar_raw(*bar)
    assert without.initialized
    assert same(with_empty.state, without.state)


def test_buy_volume_beyond_rounding_is_the_limit():
    indicator = VPINIndicator(SMALL)
    for i in range(2000):
        indicator.update_bar_raw(START + i * MINUTE, 100.0, 0.3, 0.1 + 0.2)  # 0.30000000000000004
    assert indicator.rejected == 0
    assert indicator.value == 1.0


@pytest.mark.parametrize("factor", [1024.0, 1000.0, 1e-6])
def test_scale_of_volume_does_not_matter(factor):
    trades = random_trades(19, 5000, unsigned=0.2)
    params = kernels.vpin_params(SMALL)
    columns = trades.ts_event, trades.price
    plain = kernels.vpin_trades_sampled(params, *columns, trades.size, trades.side, trades.ts_event)
    scaled = kernels.vpin_trades_sampled(params, *columns, trades.size * factor, trades.side, trades.ts_event)
    assert np.isfinite(plain[0]).mean() > 0.5
    np.testing.assert_allclose(scaled[0], plain[0], atol=1e-9)
    if factor == 1024.0:
        assert same(scaled[1], plain[1])


def test_swapping_buyers_and_sellers_changes_nothing():
    trades = random_trades(23, 5000)
    mirrored = Trades(trades.ts_event, 1.0 / trades.price, trades.size, -trades.side)
    a, b = feed(VPINIndicator(SMALL), trades), feed(VPINIndicator(SMALL), mirrored)
    assert (a.value, a.toxicity) == (b.value, b.toxicity)


def test_not_valid_is_nan_and_never_low():
    indicator = VPINIndicator(SMALL)
    readings = []
    for i, row in enumerate(
        zip(*(getattr(random_trades(29, 400), n) for n in ("ts_event", "price", "size")), strict=True)
    ):
        assert math.isnan(indicator.value) == math.isnan(indicator.toxicity) == (not indicator.initialized)
        assert (indicator.level is None) == (not indicator.initialized)
        indicator.update_raw(*row, 1 if i % 3 else -1)
        readings.append((indicator.initialized, indicator.buckets))
    cold = [buckets for initialized, buckets in readings if not initialized]
    assert max(cold) < SMALL.window_buckets * 5 - 1 <= min(b for ok, b in readings if ok)
    assert math.isnan(VPINIndicator().bucket_size)


def test_level_follows_toxicity():
    indicator = warm()
    for toxicity, level in (
        (0.0, "LOW"),
        (0.33, "LOW"),
        (0.34, "MEDIUM"),
        (0.89, "MEDIUM"),
        (0.9, "HIGH"),
        (1.0, "HIGH"),
    ):
        state = indicator.state
        state[kernels.TOXICITY] = toxicity
        indicator.restore(state)
        assert indicator.level == level


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(10**15), 10**15),
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(-2, 2),
        ),
        max_size=40,
    )
)
def test_whatever_comes_the_state_stays_sound(rows):
    indicator = warm(n=1500)
    ts = after(indicator)
    for step, price, size, side in rows:
        indicator.update_raw(ts + step, price, size, side)
        indicator.update_raw(ts + step, abs(price), abs(size), side)
    assert 0.0 <= indicator.value <= 1.0
    assert 0.0 < indicator.toxicity < 1.0
    assert indicator.bucket_size > 0.0
    assert np.isfinite(np.delete(indicator.state, kernels.BAR_NS)).all()


def even_flow(indicator: VPINIndicator, start: int, minutes: int, size: float = 1.0) -> int:
    for i in range(minutes * 4):
        indicator.update_raw(start + i * MINUTE // 4, 100.0, size, 1 if i % 3 else -1)
    return start + minutes * MINUTE


class TestBucketSize:
    """It follows the volume traded, and single events do not fool it."""

    settings_ = VPINSettings(window_buckets=5, history_buckets=20)
    expected = 4.0 * 1440 / 288  # one unit each 15 seconds

    def started(self, minutes: int = 600) -> tuple[VPINIndicator, int]:
        indicator = VPINIndicator(self.settings_)
        return indicator, even_flow(indicator, START, minutes)

    def test_is_daily_volume_over_buckets_per_day_from_the_first_bucket_on(self):
        indicator = VPINIndicator(self.settings_)
        sizes = set()
        for i in range(2000):
            indicator.update_raw(START + i * MINUTE // 4, 100.0, 1.0, 1)
            if not math.isnan(indicator.bucket_size):
                sizes.add(indicator.bucket_size)
            else:
                assert i <= 4 * 50 + 1, "ten mean bucket durations are 50 minutes"
        assert min(sizes) == pytest.approx(self.expected, rel=0.01)
        assert max(sizes) == pytest.approx(self.expected, rel=0.01)

    def test_follows_a_lasting_change_by_its_halflife(self):
        indicator, now = self.started(minutes=6 * 1440)
        even_flow(indicator, now, 1440, size=3.0)
        assert indicator.bucket_size == pytest.approx(2.0 * self.expected, rel=0.05)

    @pytest.mark.parametrize("gap_days", [0.5, 7.0, 365.0])
    def test_hardly_falls_over_a_gap(self, gap_days):
        indicator, now = self.started()
        now = even_flow(indicator, now + int(gap_days * DAY), 60)
        assert indicator.bucket_size == pytest.approx(self.expected, rel=0.1)
        for _ in range(10):  # a recorder that runs an hour a day
            now = even_flow(indicator, now + DAY, 60)
        assert indicator.bucket_size == pytest.approx(self.expected, rel=0.3)

    def test_survives_a_gap_right_after_the_first_trade(self):
        indicator = VPINIndicator(self.settings_)
        indicator.update_raw(START, 100.0, 1.0, 1)
        even_flow(indicator, START + 30 * DAY, 100)
        assert indicator.bucket_size == pytest.approx(self.expected, rel=0.1)

    def test_one_wrong_size_at_most_doubles_the_rate(self):
        indicator, now = self.started()
        indicator.update_raw(now, 100.0, 1e12, 1)
        even_flow(indicator, now + MINUTE, 60)
        assert indicator.bucket_size < 2.1 * self.expected

    @pytest.mark.parametrize("days", [400.0, -400.0])
    def test_one_wrong_time_does_no_damage(self, days):
        indicator, now = self.started()
        indicator.update_raw(now + int(days * DAY), 100.0, 1.0, 1)
        even_flow(indicator, now, 600)
        assert indicator.bucket_size == pytest.approx(self.expected, rel=0.1)

    def test_trades_slightly_out_of_order_count_no_time_twice(self):
        indicator = VPINIndicator(self.settings_)
        for i in range(6000):
            late = MINUTE if i % 2 else 0
            indicator.update_raw(START + i * MINUTE // 4 - late, 100.0, 1.0, 1)
        assert indicator.bucket_size == pytest.approx(self.expected, rel=0.1)

    def test_rare_trades_get_their_daily_volume_too(self):
        indicator = VPINIndicator(self.settings_)
        for i in range(400):
            indicator.update_raw(START + i * 3 * 60 * MINUTE, 100.0, 5.0, 1 if i % 2 else -1)
        assert indicator.bucket_size == pytest.approx(5.0 * 8 / 288, rel=0.1)


def real_or_synthetic_trades() -> Trades:
    folder = DATA
    path = folder / "trades" / "BTC_JPY.BITFLYER.2018-01-21_2018-01-25.parquet"
    if path.is_file():
        import pyarrow.parquet as pq

        return Trades.coerce(pq.read_table(path))
    return random_trades(31, 8000)


def test_toxicity_spreads_and_vpin_does_not_stick():
    trades = real_or_synthetic_trades()
    params = kernels.vpin_params(VPINSettings())
    times = np.arange(trades.ts_event[0], trades.ts_event[-1], 5 * MINUTE)
    vpin, toxicity = kernels.vpin_trades_sampled(
        params, trades.ts_event, trades.price, trades.size, trades.side, times
    )
    valid = np.isfinite(vpin)
    assert valid.mean() > 0.5
    low, mid, high = np.quantile(toxicity[valid], [0.1, 0.5, 0.9])
    assert low < 0.2
    assert 0.2 < mid < 0.8
    assert high > 0.7
    spread = np.quantile(vpin[valid], [0.05, 0.95])
    assert spread[1] - spread[0] > 0.1
    assert vpin[valid].max() < 0.99
    assert len(np.unique(vpin[valid])) > 300


class TestInNautilus:
    """The indicator is one of Nautilus's, fed by its objects."""

    def test_trade_ticks(self):
        from nautilus_trader.model.enums import AggressorSide
        from nautilus_trader.test_kit.providers import TestInstrumentProvider
        from nautilus_trader.test_kit.stubs.data import TestDataStubs

        btc = TestInstrumentProvider.btcusdt_binance()
        sides = {1: AggressorSide.BUYER, -1: AggressorSide.SELLER, 0: AggressorSide.NO_AGGRESSOR}
        trades = random_trades(37, 500, unsigned=0.3)
        ticks, raw = VPINIndicator(SMALL), VPINIndicator(SMALL)
        for i in range(len(trades)):
            ts, price, size = (
                int(trades.ts_event[i]),
                round(trades.price[i], 2),
                round(trades.size[i] + 1e-4, 4),
            )
            side = int(trades.side[i])
            ticks.handle_trade_tick(
                TestDataStubs.trade_tick(btc, price, size, sides[side], trade_id=str(i), ts_event=ts)
            )
            raw.update_raw(ts, price, size, side)
        assert ticks.initialized
        assert same(ticks.state, raw.state)

    def test_bars_and_binance_bars(self):
        from decimal import Decimal

        from nautilus_trader.adapters.binance.common.types import BinanceBar
        from nautilus_trader.model.data import Bar
        from nautilus_trader.model.objects import Price, Quantity
        from nautilus_trader.test_kit.stubs.data import TestDataStubs

        bar_type = TestDataStubs.bartype_btcusdt_binance_100tick_last()
        plain, binance, raw, raw_known = (VPINIndicator(SMALL) for _ in range(4))
        rng = np.random.default_rng(41)
        for i in range(500):
            close, volume = round(100.0 + rng.normal(), 2), round(rng.lognormal() + 0.01, 2)
            buy = round(volume * rng.random(), 2)
            prices = [Price(close, 2)] * 4
            ts = START + i * MINUTE
            plain.handle_bar(Bar(bar_type, *prices, Quantity(volume, 2), ts, ts))
            binance.handle_bar(
                BinanceBar(
                    bar_type,
                    *prices,
                    Quantity(volume, 2),
                    Decimal("1"),
                    3,
                    Decimal(str(buy)),
                    Decimal("1"),
                    ts,
                    ts,
                )
            )
            raw.update_bar_raw(ts, close, volume)
            raw_known.update_bar_raw(ts, close, volume, buy)
        assert plain.initialized
        assert same(plain.state, raw.state)
        assert same(binance.state, raw_known.state)
        assert plain.value != binance.value

    def test_registers_with_an_actor(self):
        from nautilus_trader.common.actor import Actor
        from nautilus_trader.indicators.base import Indicator
        from nautilus_trader.test_kit.providers import TestInstrumentProvider
        from nautilus_trader.test_kit.stubs.component import TestComponentStubs
        from nautilus_trader.test_kit.stubs.data import TestDataStubs

        btc = TestInstrumentProvider.btcusdt_binance()
        actor = Actor()
        actor.register_base(
            portfolio=TestComponentStubs.portfolio(),
            msgbus=TestComponentStubs.msgbus(),
            cache=TestComponentStubs.cache(),
            clock=TestComponentStubs.clock(),
        )
        indicator = VPINIndicator(SMALL)
        assert isinstance(indicator, Indicator)
        actor.register_indicator_for_trade_ticks(btc.id, indicator)
        assert not actor.indicators_initialized()
        for i in range(400):
            side = TestDataStubs.trade_tick(btc).aggressor_side
            tick = TestDataStubs.trade_tick(btc, 100.0, 1.0, side, str(i), START + i * 2 * MINUTE)
            actor.handle_trade_tick(tick)
        assert indicator.has_inputs
        assert actor.indicators_initialized()
        assert indicator.value == 1.0
        assert repr(indicator) == "VPINIndicator(500, 5)"
