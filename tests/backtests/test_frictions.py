"""What a backtest charges, each friction alone, against prices, times and money computed by hand."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.enums import OrderType
from nautilus_trader.model.events import OrderFilled

from backtests.costs import BASE_FUNDING_RATE, TradingCosts
from backtests.funding import HOUR_NS
from backtests.market import Market, load_markets
from ml4t_actor.settings import LabelSettings
from tests.support.strategy_runs import (
    BOTH_SIDES,
    BUY,
    EQUITY,
    MAKER,
    MINUTE,
    SELL,
    TAKER,
    Run,
    enriched,
    market_of,
    run,
)

PRICE, TICK, LATENCY_MS = 10_000.0, 0.1, 500.0
LATENCY_NS = 500_000_000
LONG_HELD = LabelSettings(horizon_bars=1_000, cost=0.0)
FRICTIONLESS = {"spread_bp": 0.0, "latency_ms": 0.0, "stop_slippage_bp": 0.0, "funding_rate": 0.0}


def costs(**changes) -> TradingCosts:
    return TradingCosts(**{**FRICTIONLESS, "entry": "close", **changes})


def with_opens(market: Market, opens: dict[int, float]) -> Market:
    """The same bars, but that those of these numbers open elsewhere."""
    bars = market.bars
    open_ = bars.open.copy()
    for number, price in opens.items():
        open_[number] = price
    high, low = np.maximum(bars.high, open_), np.minimum(bars.low, open_)
    return dataclasses.replace(market, bars=dataclasses.replace(bars, open=open_, high=high, low=low))


def fills(done: Run) -> list[OrderFilled]:
    events = [e for order in done.orders for e in order.events if isinstance(e, OrderFilled)]
    return sorted(events, key=lambda event: event.ts_event)


def prices(done: Run) -> list[float]:
    return [fill.last_px.as_double() for fill in fills(done)]


def gained(done: Run) -> float:
    account = done.engine.cache.accounts()[0]
    return sum(balance.total.as_double() for balance in account.balances().values()) - EQUITY


@pytest.fixture(scope="module")
def listed() -> Market:
    """A market with a tick of 0.1, a step of 0.001, a taker fee of 5 bp and a maker fee of 2 bp."""
    return load_markets("binance_1m", synthetic=True)[0]


class TestSpread:
    @BOTH_SIDES
    def test_who_takes_pays_half_of_it_each_time(self, listed, side):
        flat = market_of(listed, [PRICE] * 8)
        done = run(flat, {1: side, 4: 0}, labels=LONG_HELD, costs=costs(spread_bp=10.0))
        assert prices(done) == [PRICE * (1 + side * 0.0005), PRICE * (1 - side * 0.0005)]
        quantity = fills(done)[0].last_qty.as_double()
        fees = TAKER * quantity * sum(prices(done))
        assert gained(done) == pytest.approx(-quantity * PRICE * 0.0010 - fees, rel=1e-9)

    @BOTH_SIDES
    def test_a_target_waits_in_the_book_and_pays_none(self, listed, side):
        target = PRICE * math.exp(side * 0.01)
        path = market_of(
            listed, [PRICE] * 8, **({"highs": {4: target + 20}} if side > 0 else {"lows": {4: target - 20}})
        )
        done = run(path, {1: side}, labels=LONG_HELD, costs=costs(spread_bp=10.0))
        assert prices(done) == [PRICE * (1 + side * 0.0005), pytest.approx(target, abs=TICK)]
        assert fills(done)[1].order_type == OrderType.LIMIT
        paid = sum(fill.commission.as_double() for fill in fills(done))
        quantity = fills(done)[0].last_qty.as_double()
        assert paid == pytest.approx(quantity * (TAKER * prices(done)[0] + MAKER * prices(done)[1]), rel=1e-6)


class TestStops:
    @BOTH_SIDES
    def test_a_stop_that_a_bar_runs_through_fills_beyond_its_trigger(self, listed, side):
        trigger = PRICE * math.exp(-side * 0.01)
        reached = trigger * (1 - side * 0.003)
        path = market_of(
            listed, [PRICE] * 8, **({"lows": {4: reached}} if side > 0 else {"highs": {4: reached}})
        )
        exact = run(path, {1: side}, labels=LONG_HELD, costs=costs())
        slipped = run(path, {1: side}, labels=LONG_HELD, costs=costs(stop_slippage_bp=5.0))
        stop = next(order for order in slipped.orders if order.order_type == OrderType.STOP_MARKET)
        assert stop.trigger_price.as_double() == pytest.approx(trigger, abs=TICK)  # where the label has it
        assert prices(exact) == [PRICE, stop.trigger_price.as_double()]
        beyond = stop.trigger_price.as_double() * (1 - side * 0.0005)
        assert prices(slipped) == [PRICE, pytest.approx(beyond, abs=TICK / 2 + 1e-9)]
        assert (fills(slipped)[1].ts_event - slipped.start) // MINUTE == 4
        quantity = fills(slipped)[0].last_qty.as_double()
        lost = quantity * side * (prices(exact)[1] - prices(slipped)[1])
        assert gained(exact) - gained(slipped) == pytest.approx(lost, rel=0.001)

    @BOTH_SIDES
    @pytest.mark.parametrize("entry", ["next", "close"])
    def test_a_stop_that_price_jumps_over_fills_beyond_the_open(self, listed, side, entry):
        jump = PRICE * (1 - side * 0.03)
        path = with_opens(market_of(listed, [PRICE] * 5 + [jump] * 3), {5: jump})
        slipping = costs(stop_slippage_bp=5.0, spread_bp=2.0, entry=entry)
        done = run(path, {1: side}, labels=LONG_HELD, costs=slipping)
        assert prices(done)[1] == pytest.approx(jump * (1 - side * 0.0006), abs=TICK / 2 + 1e-9)

    def test_without_a_model_the_prices_are_those_of_a_model_of_no_friction(self, listed):
        rng = np.random.default_rng(5)
        closes = np.round(PRICE * np.exp(np.cumsum(rng.normal(0.0, 0.002, 400))), 1)
        path = market_of(listed, closes)
        signals = {i: int(rng.integers(-1, 2)) for i in range(5, 395, 3)}
        labels = LabelSettings(horizon_bars=20, cost=0.0)
        plain, modelled = (
            run(path, signals, labels=labels, costs=c) for c in (costs(), costs(spread_bp=1e-9))
        )
        assert len(prices(plain)) > 60
        assert prices(plain) == prices(modelled)
        assert any(fill.order_type == OrderType.STOP_MARKET for fill in fills(plain))


class TestNextPrice:
    @BOTH_SIDES
    def test_an_order_is_filled_at_the_next_open_when_it_arrives(self, listed, side):
        path = with_opens(market_of(listed, [PRICE] * 8), {2: PRICE + 7.0, 5: PRICE - 3.0})
        done = run(path, {1: side, 4: 0}, labels=LONG_HELD, costs=costs(latency_ms=LATENCY_MS, entry="next"))
        assert prices(done) == [PRICE + 7.0, PRICE - 3.0]
        closes = [done.start + number * MINUTE for number in (1, 4)]
        assert [fill.ts_event for fill in fills(done)] == [ts + LATENCY_NS for ts in closes]

    def test_each_market_has_an_open_of_its_own(self, listed):
        second = load_markets("binance_1m", synthetic=True)[1]
        paths = [
            with_opens(market_of(listed, [PRICE] * 6), {2: PRICE + 7.0}),
            with_opens(market_of(second, [2_000.0] * 6), {2: 1_998.0}),
        ]

        def make(bar):
            market = next(p for p in paths if p.instrument.id == bar.bar_type.instrument_id)
            number = (bar.ts_event - int(market.bars.ts_event[0])) // MINUTE
            return [enriched(market, bar.ts_event, BUY, signal_id=market.name)] if number == 1 else []

        done = run(paths, make, labels=LONG_HELD, costs=costs(entry="next"), fraction=0.2)
        assert sorted(prices(done)) == [1_998.0, PRICE + 7.0]

    def test_a_reversal_leaves_and_enters_at_one_open(self, listed):
        path = with_opens(market_of(listed, [PRICE] * 10), {2: PRICE + 7.0, 6: PRICE - 3.0})
        late = costs(latency_ms=LATENCY_MS, entry="next")
        done = run(path, {1: BUY, 5: SELL}, labels=LONG_HELD, costs=late)
        assert prices(done)[:3] == [PRICE + 7.0, PRICE - 3.0, PRICE - 3.0]
        reversed_at = done.start + 5 * MINUTE
        assert [fill.ts_event - reversed_at for fill in fills(done)[1:3]] == [LATENCY_NS, 2 * LATENCY_NS]

    @BOTH_SIDES
    def test_stop_and_target_stand_where_the_signal_was_given(self, listed, side):
        """They are the label's, around the close, wherever the order is filled."""
        path = with_opens(market_of(listed, [PRICE] * 8), {2: PRICE + 7.0})
        done = run(path, {1: side}, labels=LONG_HELD, costs=costs(entry="next"))
        stop, target = (
            next(order for order in done.orders if order.order_type == kind)
            for kind in (OrderType.STOP_MARKET, OrderType.LIMIT)
        )
        assert stop.trigger_price.as_double() == pytest.approx(PRICE * math.exp(-side * 0.01), abs=TICK)
        assert target.price.as_double() == pytest.approx(PRICE * math.exp(side * 0.01), abs=TICK)

    @BOTH_SIDES
    def test_an_open_beyond_the_stop_is_left_again(self, listed, side):
        """The venue refuses a stop that is in the market already: the position is closed at the next open."""
        jump = PRICE * (1 - side * 0.03)
        path = with_opens(market_of(listed, [PRICE] * 2 + [jump] * 6), {2: jump})
        done = run(path, {1: side}, labels=LONG_HELD, costs=costs(entry="next", latency_ms=LATENCY_MS))
        assert prices(done) == [jump, jump]
        assert done.engine.cache.positions_open() == []

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 10_000), cut=st.integers(20, 55))
    def test_no_fill_depends_on_what_comes_after_it(self, listed, seed, cut):
        """Two futures that part after bar `cut`: what was filled until then is the same to the last bit."""
        rng = np.random.default_rng(seed)
        closes = np.round(PRICE * np.exp(np.cumsum(rng.normal(0.0, 0.003, 60))), 1)
        other = closes.copy()
        other[cut + 1 :] = np.round(other[cut + 1 :] * 1.01, 1)
        signals = {i: int(rng.integers(-1, 2)) for i in range(2, 58)}
        late = TradingCosts(latency_ms=LATENCY_MS)
        labels = LabelSettings(horizon_bars=10, cost=0.0)
        known = []
        for path in (closes, other):
            done = run(market_of(listed, path), signals, labels=labels, costs=late)
            until = done.start + cut * MINUTE
            known.append([(f.ts_event, f.last_px, f.last_qty) for f in fills(done) if f.ts_event <= until])
        assert known[0] == known[1]
        assert known[0]


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread_bp=st.floats(0.0, 20.0),
    slippage_bp=st.floats(0.0, 20.0),
    entry=st.sampled_from(["next", "close"]),
)
def test_every_fill_of_a_walk_is_as_restated(listed, seed, spread_bp, slippage_bp, entry):
    """Each fill follows from its bar alone: market orders from a close or an open, stops from trigger or open."""
    rng = np.random.default_rng(seed)
    closes = np.round(PRICE * np.exp(np.cumsum(rng.normal(0.0, 0.004, 80))), 1)
    opens = {i: round(float(closes[i - 1] * np.exp(rng.normal(0.0, 0.002))), 1) for i in range(1, 80)}
    path = with_opens(market_of(listed, closes), opens)
    signals = {i: int(rng.integers(-1, 2)) for i in range(2, 78, 2)}
    charged = TradingCosts(
        spread_bp=spread_bp,
        stop_slippage_bp=slippage_bp,
        latency_ms=LATENCY_MS if entry == "next" else 0.0,
        entry=entry,
    )
    done = run(path, signals, labels=LabelSettings(horizon_bars=10, cost=0.0), costs=charged)
    bars, half = path.bars, spread_bp / 2e4
    for order in done.orders:
        for event in order.events:
            if not isinstance(event, OrderFilled):
                continue
            worse = 1 if event.is_buy else -1
            after = event.ts_event - done.start
            number = -(-after // MINUTE)  # of the bar that it falls into
            price = event.last_px.as_double()
            if order.order_type == OrderType.LIMIT:
                assert price == order.price.as_double()
                continue
            if order.order_type == OrderType.MARKET:
                at, share = (bars.open if entry == "next" else bars.close)[number], half
            else:
                furthest = max if event.is_buy else min
                at = furthest(order.trigger_price.as_double(), float(bars.open[number]))
                share = half + slippage_bp / 1e4
            assert price == pytest.approx(at * (1 + worse * share), abs=TICK / 2 + 1e-6)
    assert len(fills(done)) > 10


class TestFunding:
    @BOTH_SIDES
    def test_longs_pay_and_shorts_receive_each_full_hour(self, listed, side):
        path = market_of(listed, [PRICE] * 150)
        done = run(path, {10: side, 140: 0}, labels=LONG_HELD, costs=costs(funding_rate=0.0001))
        quantity = fills(done)[0].last_qty.as_double()
        hours = sum(int(path.bars.ts_event[i]) % HOUR_NS == 0 for i in range(10, 140))
        fees = 2 * TAKER * quantity * PRICE
        assert hours == 2
        assert gained(done) == pytest.approx(-side * hours * 0.0001 * quantity * PRICE - fees, rel=1e-6)


class TestSettings:
    def test_the_defaults_are_sober(self):
        default = TradingCosts()
        assert min(default.spread_bp, default.stop_slippage_bp, default.latency_ms) > 0
        assert (default.funding_rate, default.entry) == (BASE_FUNDING_RATE, "next")

    @pytest.mark.parametrize("name", ["spread_bp", "latency_ms", "stop_slippage_bp"])
    @pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
    def test_a_friction_below_nothing_is_refused(self, name, value):
        with pytest.raises(ValueError, match=f"`TradingCosts.{name}` was {value}"):
            TradingCosts(**{name: value})

    def test_a_late_order_is_not_filled_at_the_close(self):
        with pytest.raises(
            ValueError, match=r"`TradingCosts.latency_ms` was 500.0 with an entry at the close"
        ):
            TradingCosts(latency_ms=500.0, entry="close")

    def test_a_latency_of_a_third_of_a_bar_is_refused(self, listed):
        with pytest.raises(
            ValueError, match=r"`TradingCosts.latency_ms` was 20000.0, must be below a third of a bar"
        ):
            run(market_of(listed, [PRICE] * 4), {}, costs=TradingCosts(latency_ms=20_000.0))
