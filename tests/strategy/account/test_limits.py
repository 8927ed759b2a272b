"""The limits of an account over all its instruments and orders on their way, inside a real `BacktestEngine`."""

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.model.data import Bar
from nautilus_trader.model.enums import OrderStatus, TradingState

from backtests.market import Market, load_markets
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy
from ml4t_actor.strategy.account.exposure import account_key
from ml4t_actor.strategy.risk import RiskLimits
from tests.support.strategy_runs import (
    BUY,
    EQUITY,
    HORIZON,
    MINUTE,
    SELL,
    TAKER,
    Bare,
    Fill,
    Rester,
    config_for,
    enriched,
    market_of,
    run,
)


@pytest.fixture(scope="module")
def three() -> list[Market]:
    """Three markets at 100.0 without a move, whose bars close at the same times."""
    return [market_of(market, [100.0] * 12) for market in load_markets("binance_1m", synthetic=True)[:3]]


def signals_in_all(markets: Sequence[Market], signals: dict[int, dict]):
    """Return what publishes at a bar's number the signal in each market, each from that market's bar."""
    by_id = {market.instrument.id: market for market in markets}
    start = int(markets[0].bars.ts_event[0])

    def make(bar: Bar):
        fields = signals.get((bar.ts_event - start) // MINUTE)
        market = by_id[bar.bar_type.instrument_id]
        signal_id = f"{bar.ts_event} {market.name}"
        return [] if fields is None else [enriched(market, bar.ts_event, signal_id=signal_id, **fields)]

    return make


LATENCIES = pytest.mark.parametrize(
    "latency",
    [None, LatencyModel(1), LatencyModel(MINUTE // 2)],
    ids=["at once", "a moment later", "half a bar later"],
)


@LATENCIES
@pytest.mark.parametrize("side", [1, -1])
def test_signals_of_one_instant_share_the_leverage_of_the_account(side, latency, three):
    limits = RiskLimits(max_leverage=1.0, max_daily_loss=0.9)
    confirmed = {i: {"signal": side} for i in range(1, 5)}
    result = run(three, signals_in_all(three, confirmed), limits=limits, latency=latency)
    opened = [fill for fill in result.fills if fill.bar <= 4]
    # One position has all of it; it is no excess of the others, and nothing is closed before its horizon.
    assert [(fill.side, fill.quantity) for fill in opened] == [(side, 10_000.0)]
    assert "reduce" not in result.counts
    assert "close" not in result.counts
    assert result.counts["exit_horizon"] == 1
    assert result.is_clean()


@LATENCIES
def test_what_the_first_signals_leave_goes_to_the_next(latency, three):
    limits = RiskLimits(max_leverage=1.0, max_daily_loss=0.9)
    once = signals_in_all(three, {1: {"signal": 1}})
    result = run(three, once, sizing="flat", fraction=0.4, limits=limits, latency=latency)
    opened = sorted(fill.quantity for fill in result.fills if fill.side == BUY)
    assert opened == pytest.approx([2_000.0, 4_000.0, 4_000.0], rel=0.002)  # less the fees of those before
    assert sum(opened) <= 10_000.0
    assert result.counts["exit_horizon"] == 3
    assert result.is_clean()


def test_what_a_denied_entry_had_reserved_is_free_again(three):
    engines = []
    make = signals_in_all(three, {1: {"signal": 1}})
    first, second, _ = (market.instrument.id for market in three)
    states = {first: TradingState.HALTED, second: TradingState.ACTIVE}

    def denying(bar: Bar):
        if bar.bar_type.instrument_id in states:
            engines[0].kernel.risk_engine.set_trading_state(states[bar.bar_type.instrument_id])
        return make(bar)

    limits = RiskLimits(max_leverage=1.0, max_daily_loss=0.9)
    result = run(three, denying, limits=limits, built=engines.append)
    denied = {order.instrument_id for order in result.orders if order.status == OrderStatus.DENIED}
    assert denied == {first}
    assert [fill.quantity for fill in result.fills if fill.bar == 1] == [10_000.0]
    assert result.fills[0].quantity == 10_000.0
    assert {order.instrument_id for order in result.orders if order.filled_qty > 0} == {second}


def test_reductions_of_one_instant_go_one_after_the_other(three):
    # Three positions of 1.0 times equity where 1.0 is allowed in all: two are closed, and not the third.
    limits = RiskLimits(max_leverage=1.01, stop_loss=0.5, max_daily_loss=0.9)
    strategy = Bare(three, 1, 10_000.0, limits=limits, labels=LabelSettings(horizon_bars=50, cost=0.0))
    make = signals_in_all(three, {i: {"signal": 1} for i in range(3, 6)})
    result = run(three, make, strategy=strategy, close_on_stop=False)
    before_the_end = [fill for fill in result.fills if fill.bar < 11]
    assert sum(fill.side * fill.quantity for fill in before_the_end) == pytest.approx(10_000.0, rel=0.01)
    sold = [fill for fill in before_the_end if fill.side == SELL]
    assert {fill.bar for fill in sold} == {3}
    assert sum(fill.quantity for fill in sold) == pytest.approx(20_000.0, rel=0.01)


def test_orders_of_other_strategies_count_as_if_they_were_filled(three):
    first, *_ = three
    limits = RiskLimits(max_leverage=1.0, max_daily_loss=0.9)
    make = signals_in_all([first], {3: {"signal": 1}})
    result = run(first, make, limits=limits, others=[Rester(first, quantity=8_000.0)])
    # 8000 at 50 are 400,000 of the million.
    assert result.fills[0] == Fill(3, BUY, 100.0, 6_000.0)


@pytest.mark.parametrize("side", [1, -1])
def test_entries_of_one_instant_share_the_room_of_the_daily_loss(side, three):
    # 2 % of a million may be lost; at the stop each loses a little over 1 % of its notional, with 0.1 % of fees.
    limits = RiskLimits(max_leverage=5.0, max_daily_loss=0.02)
    result = run(three, signals_in_all(three, {1: {"signal": side}}), limits=limits)
    stop = round(100.0 * math.exp(-side * 0.01), 1)
    opened = [fill for fill in result.fills if fill.bar == 1]
    assert [fill.quantity for fill in opened[:1]] == [10_000.0]
    assert opened[1].quantity > 8_000.0
    at_stops = sum(fill.quantity for fill in opened) * (abs(100.0 - stop) + 2 * TAKER * 100.0)
    assert 0.017 * EQUITY < at_stops <= 0.02 * EQUITY


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_day_exceeds_its_limit_by_slippage_alone(seed):
    """Markets without gaps, in which stops are filled at their prices: there the limit holds at every bar."""
    rng = np.random.default_rng(seed)
    n, limit = 1_200, 0.01
    markets = []
    for listed in load_markets("binance_1m", synthetic=True)[:3]:
        closes = np.round(1_000.0 * np.exp(np.cumsum(rng.normal(0.0, 0.001, n))), 1)
        market = market_of(listed, closes)
        # A stop is filled at a price that the bar has gone through.
        market.bars.high[:] = np.round(market.bars.high + rng.exponential(1.0, n), 1)
        market.bars.low[:] = np.round(market.bars.low - rng.exponential(1.0, n), 1)
        markets.append(market)
    losses: list[Decimal] = []

    class Watching(EnrichedSignalStrategy):
        def on_bar(self, bar: Bar) -> None:
            super().on_bar(bar)
            instrument = self.cache.instrument(bar.bar_type.instrument_id)
            equity = self._equity.mark(instrument)
            day_open = self._equity.day_open(account_key(instrument))
            losses.append(1 - equity / day_open)

    by_id = {market.instrument.id: market for market in markets}

    def make(bar: Bar):
        if rng.random() > 0.2:
            return []
        side, volatility = int(rng.integers(-1, 2)), float(rng.uniform(0.001, 0.006))
        market = by_id[bar.bar_type.instrument_id]
        signal_id = f"{bar.ts_event} {market.name}"
        return [enriched(market, bar.ts_event, signal=side, volatility=volatility, signal_id=signal_id)]

    limits = RiskLimits(max_leverage=5.0, max_position_fraction=2.0, max_daily_loss=limit)
    config = config_for(markets, limits=limits, sizing="flat")
    result = run(markets, make, strategy=Watching(config))
    assert len(result.fills) > 20
    assert 0.8 * limit < max(losses) <= Decimal(str(limit))


def test_one_order_may_be_limited_in_notional(three):
    first, *_ = three
    limits = RiskLimits(max_notional_per_order=123_456.0)
    result = run(first, signals_in_all([first], {1: {"signal": 1}}), limits=limits)
    assert result.fills == [(1, BUY, 100.0, 1_234.56), (1 + HORIZON, SELL, 100.0, 1_234.56)]


def test_nothing_is_opened_that_would_be_liquidated_before_its_stop(three):
    # The venue liquidates at 2.5 % of the notional: of 29 times equity in a position of another strategy, whose stop is
    # not known, nothing would be left.
    limits = RiskLimits(max_leverage=30.0, max_position_fraction=30.0, max_daily_loss=1.0)
    first, *_ = three
    strategy = Bare([first], 1, 290_000.0, limits=limits, labels=LabelSettings(horizon_bars=50, cost=0.0))
    second = three[1]
    strategy_of_second = EnrichedSignalStrategy(
        config_for([second], limits=limits, labels=LabelSettings(horizon_bars=50, cost=0.0), order_id_tag="2")
    )
    make = signals_in_all([first, second], {3: {"signal": 1}})
    result = run(
        [first, second],
        lambda bar: [s for s in make(bar) if s.instrument_id == second.instrument.id],
        strategy=strategy_of_second,
        others=[strategy],
    )
    assert result.orders == []
    assert result.counts == {"refuse": 1}
