"""The strategy inside a real `BacktestEngine`, on price paths whose outcome is computed by hand."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.core.data import Data
from nautilus_trader.model.currencies import BTC
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.model.data import Bar
from nautilus_trader.model.enums import OrderSide, OrderStatus, OrderType, TradingState
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.config import ImportableStrategyConfig, StrategyFactory

from backtests.market import Market, load_markets
from ml4t_actor.messages import Status
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.risk import RiskLimits
from tests.support.strategy_runs import (
    BOTH_SIDES,
    BUY,
    DAY_START,
    EITHER_ORDER,
    EQUITY,
    HORIZON,
    LOWER,
    MAKER,
    MINUTE,
    SELL,
    TAKER,
    UPPER,
    Bare,
    Fill,
    Q,
    Rester,
    config_for,
    enriched,
    market_of,
    run,
    signals_at,
)


@pytest.fixture(scope="module")
def listed() -> Market:
    """A market with a tick of 0.1, a step of 0.001, a taker fee of 5 bp and a maker fee of 2 bp."""
    return load_markets("binance_1m", synthetic=True)[0]


@pytest.fixture(scope="module")
def second() -> Market:
    return load_markets("binance_1m", synthetic=True)[1]


def quantity_of(equity: float, price: float, size: float = 1.0) -> float:
    """Whole steps of 0.001 that `size` times the equity buys."""
    return math.floor(size * equity / price * 1_000 + 1e-9) / 1_000


EITHER_OMS = pytest.mark.parametrize("oms", ["NETTING", "HEDGING"])


TOLD = {
    "nothing": {},
    "a break-even": {"break_even": 0.45},
    "an expected return": {"expected_return": 5.0, "break_even": 0.6},
}


@pytest.mark.parametrize("risk_target", [None, 0.5])
@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD.keys())
@BOTH_SIDES
def test_an_entry_has_the_size_of_the_stage_and_the_barriers_of_the_label(side, told, risk_target, listed):
    labels = LabelSettings(horizon_bars=HORIZON, profit_barrier=2.0, stop_barrier=1.5, cost=0.001)
    signal = {
        "signal": side, "strength": 0.64, "meta_confidence": 0.46, "regime_weight": 0.9, "toxicity": 0.3,
        "volatility": 0.0123, **told,
    }  # fmt: skip
    result = run(
        market_of(listed, [100.0] * 4), {2: signal}, labels=labels, fraction=0.5, risk_target=risk_target
    )
    entry, stop, target = result.orders[:3]
    p0 = told.get("break_even", (1.5 * 0.0123 + 0.001) / (3.5 * 0.0123))
    edge = told["expected_return"] / 123.0 if "expected_return" in told else (0.46 - p0) * 3.5
    assert 0.01 < edge < 0.09
    size = 0.64**0.5 * (edge / 0.1) * 0.5
    # The only instrument has all of the risk. A horizon is of five minutes, a year of 105,120 of them.
    full = 1.0 if risk_target is None else risk_target / (0.0123 * 105_120**0.5)
    quantity = math.floor(size * full * EQUITY / 100.0 * 1000) / 1000
    assert 0 < quantity < 5_000
    assert entry.order_type == OrderType.MARKET
    assert (entry.side == OrderSide.BUY) == (side == 1)
    assert stop.order_type == OrderType.STOP_MARKET
    assert target.order_type == OrderType.LIMIT
    assert [o.quantity.as_double() for o in (entry, stop, target)] == [quantity] * 3
    assert stop.trigger_price.as_double() == round(100.0 * math.exp(-side * 1.5 * 0.0123), 1)
    assert target.price.as_double() == round(100.0 * math.exp(side * 2.0 * 0.0123), 1)
    assert stop.is_reduce_only
    assert target.is_reduce_only
    assert result.fills[0] == (2, side, 100.0, quantity)


def test_barriers_are_rounded_to_the_tick_where_it_is_coarser_than_the_decimals(listed):
    fields = type(listed.instrument).to_dict(listed.instrument) | {"price_increment": "0.5"}
    coarse = dataclasses.replace(listed, instrument=type(listed.instrument).from_dict(fields))
    _, stop, target, *_ = run(market_of(coarse, [100.0] * 3), {1: {"signal": 1, "volatility": 0.013}}).orders
    # 100 exp(-0.013) is 98.708, 100 exp(0.013) is 101.308
    assert (stop.trigger_price.as_double(), target.price.as_double()) == (98.5, 101.5)


PATHS = {
    "target of a long": (1, {"highs": {3: 101.3}}, 3, UPPER),
    "stop of a long": (1, {"lows": {4: 98.6}}, 4, LOWER),
    "target of a short": (-1, {"lows": {4: 98.6}}, 4, LOWER),
    "stop of a short": (-1, {"highs": {3: 101.3}}, 3, UPPER),
    "horizon of a long": (1, {"highs": {3: 100.9}, "lows": {4: 99.1}}, 1 + HORIZON, 100.0),
    "horizon of a short": (-1, {"highs": {3: 100.9}, "lows": {4: 99.1}}, 1 + HORIZON, 100.0),
    "target in the horizon's bar": (1, {"highs": {1 + HORIZON: 101.3}}, 1 + HORIZON, UPPER),
    "stop in the horizon's bar": (1, {"lows": {1 + HORIZON: 98.6}}, 1 + HORIZON, LOWER),
}


@EITHER_OMS
@EITHER_ORDER
@pytest.mark.parametrize(("side", "reach", "bar", "price"), PATHS.values(), ids=PATHS.keys())
def test_a_position_ends_at_the_barrier_that_is_touched_first(side, reach, bar, price, after, oms, listed):
    market = market_of(listed, [100.0] * 12, **reach)
    result = run(market, {1: side}, after=after, oms_type=oms)
    assert result.fills == [(1, side, 100.0, Q), (bar, -side, price, Q)]
    _, stop, target = result.orders[:3]
    hit = {o.order_type for o in (stop, target) if o.status == OrderStatus.FILLED}
    at_target = price == (UPPER if side == 1 else LOWER)
    expected = set() if price == 100.0 else {OrderType.LIMIT if at_target else OrderType.STOP_MARKET}
    assert hit == expected
    assert len(result.orders) == 3 + (price == 100.0)
    assert result.counts == {"open": 1} | ({"exit_horizon": 1} if price == 100.0 else {})
    assert result.is_clean()


def test_a_gap_through_the_stop_is_filled_where_the_market_opens(listed):
    market = market_of(listed, [100.0, 100.0, 97.0, 97.0])
    market.bars.open[2] = market.bars.high[2] = 97.0
    result = run(market, {1: 1})
    assert result.fills == [(1, BUY, 100.0, Q), (2, SELL, 97.0, Q)]
    assert result.is_clean()


@EITHER_OMS
@EITHER_ORDER
@BOTH_SIDES
def test_an_opposite_signal_reverses_with_a_bracket_and_a_horizon_of_its_own(side, after, oms, listed):
    result = run(market_of(listed, [100.0] * 14), {1: side, 4: -side}, after=after, oms_type=oms)
    left = EQUITY * (1 - 2 * TAKER)
    reversed_quantity = quantity_of(left, 100.0)
    assert result.fills == [
        (1, side, 100.0, Q),
        (4, -side, 100.0, Q),
        (4, -side, 100.0, reversed_quantity),
        (4 + HORIZON, side, 100.0, reversed_quantity),
    ]
    entries = [o for o in result.orders if o.order_type == OrderType.MARKET and not o.is_reduce_only]
    assert len(entries) == 2
    stop = next(o for o in result.orders[4:] if o.order_type == OrderType.STOP_MARKET)
    assert stop.parent_order_id == entries[1].client_order_id
    assert stop.trigger_price.as_double() == (UPPER if side == 1 else LOWER)
    assert result.counts == {"open": 2, "reverse": 1, "exit_signal": 1, "exit_horizon": 1}
    assert result.is_clean()


@EITHER_ORDER
@BOTH_SIDES
def test_a_zero_signal_closes_and_a_confirming_one_changes_nothing(side, after, listed):
    roomy = RiskLimits(max_position_fraction=2.0)
    result = run(market_of(listed, [100.0] * 14), {1: side, 3: side, 4: 0, 5: 0}, after=after, limits=roomy)
    assert result.fills == [(1, side, 100.0, Q), (4, -side, 100.0, Q)]
    assert result.counts == {"open": 1, "hold": 2, "close": 1, "exit_signal": 1}
    assert result.is_clean()
    confirmed = run(market_of(listed, [100.0] * 14), {1: side, 3: side, 5: side}, after=after, limits=roomy)
    assert confirmed.fills == [(1, side, 100.0, Q), (1 + HORIZON, -side, 100.0, Q)]


@EITHER_ORDER
@BOTH_SIDES
@pytest.mark.parametrize("later", [0, -1])
def test_a_position_is_left_to_its_barriers_where_labels_do_not_end_by_signals(side, later, after, listed):
    labels = LabelSettings(horizon_bars=HORIZON, cost=0.0, exit_on_signal=False)
    result = run(market_of(listed, [100.0] * 20), {1: side, 4: later * side}, after=after, labels=labels)
    assert result.fills == [(1, side, 100.0, Q), (1 + HORIZON, -side, 100.0, Q)]
    assert result.counts == {"open": 1, "left_open": 1, "exit_horizon": 1}
    assert result.strategy.causes == ({"position": 1} if later else {})
    # Nor is the next entry held up by it.
    signals = {1: side, 4: -side, 2 + HORIZON: -side}
    again = run(market_of(listed, [100.0] * 20), signals, after=after, labels=labels)
    assert [fill[:2] for fill in again.fills[2:]] == [(2 + HORIZON, -side), (2 + 2 * HORIZON, side)]
    touched = market_of(listed, [100.0] * 20, highs={5: 102.0}, lows={5: 98.0} if side < 0 else {})
    assert run(touched, {1: side, 4: 0}, after=after, labels=labels).fills[1].bar == 5
    assert result.is_clean()


@EITHER_OMS
@BOTH_SIDES
def test_a_position_of_full_size_is_not_trimmed_by_the_fee_of_its_entry(side, oms, listed):
    # The fee has taken 500 of the million that the position is worth; then it is in profit.
    closes = [100.0, 100.0, 100.0, 100.0 + 0.3 * side, 100.0 + 0.6 * side, *[100.0 + 0.6 * side] * 4]
    result = run(market_of(listed, closes), {1: side, 2: side, 3: side, 4: side, 5: side}, oms_type=oms)
    assert [fill[:2] for fill in result.fills] == [(1, side), (1 + HORIZON, -side)]
    assert result.counts == {"open": 1, "hold": 4, "exit_horizon": 1}
    assert result.is_clean()


@EITHER_OMS
def test_a_confirming_signal_reduces_a_position_that_has_outgrown_its_limit(oms, listed):
    # A short that has lost 2 %: 1,020,000 of an equity of 979,500 may be 979,500.
    reach = {"lows": {4: 98.8}}
    result = run(
        market_of(listed, [100.0, 100.0, 102.0, 102.0, 102.0], **reach),
        {1: {"signal": -1, "volatility": 0.03}, 3: -1, 4: 0},
        oms_type=oms,
    )
    excess = Q - quantity_of(EQUITY * (1 - TAKER) - 2 * Q, 102.0)
    assert result.fills[:2] == [(1, SELL, 100.0, Q), (3, BUY, 102.0, pytest.approx(excess))]
    assert result.fills[2:] == [(4, BUY, 102.0, pytest.approx(Q - excess))]
    assert result.counts == {"open": 1, "reduce": 1, "close": 1, "exit_signal": 1}
    assert result.is_clean()


@EITHER_OMS
@EITHER_ORDER
def test_a_signal_in_the_bar_of_the_horizon_is_traded_once(after, oms, listed):
    market = market_of(listed, [100.0] * 16)
    end = 1 + HORIZON
    quantity = quantity_of(EQUITY * (1 - 2 * TAKER), 100.0)
    result = run(market, {1: 1, end: -1}, after=after, oms_type=oms)
    assert result.fills == [
        (1, BUY, 100.0, Q),
        (end, SELL, 100.0, Q),
        (end, SELL, 100.0, quantity),
        (end + HORIZON, BUY, 100.0, quantity),
    ]
    assert result.is_clean()
    flat = run(market, {1: 1, end: 0}, after=after, oms_type=oms)
    assert flat.fills == [(1, BUY, 100.0, Q), (end, SELL, 100.0, Q)]
    assert flat.is_clean()


@EITHER_ORDER
@pytest.mark.parametrize("signal", [0, -1])
def test_a_signal_in_the_bar_of_the_stop_loss_limit_is_traded_once(signal, after, listed):
    # A position without a bracket, 3 % down where the limit is 2 %: bar and signal both ask for an exit.
    market = market_of(listed, [100.0, 100.0, 97.0, 97.0, 97.0])
    position = Bare(market, 1, Q)
    result = run(market, {2: signal}, strategy=position, after=after)
    closing = [fill for fill in result.fills if fill.bar == 2]
    assert closing[0] == (2, SELL, 97.0, Q)
    assert len(closing) == 1 + (signal == -1)
    assert result.is_clean()


def test_a_position_found_at_a_start_is_closed_within_a_horizon(listed):
    market = market_of(listed, [100.0] * 12)
    result = run(market, {}, strategy=Bare(market, 1, Q))
    assert result.fills == [(0, BUY, 100.0, Q), (1 + HORIZON, SELL, 100.0, Q)]
    assert result.counts == {"exit_horizon": 1}
    assert result.is_clean()


@EITHER_ORDER
def test_of_signals_that_come_while_an_order_is_in_flight_the_newest_is_traded(after, listed):
    result = run(market_of(listed, [100.0] * 6), {1: [1, -1, 0]}, after=after)
    assert result.fills == [(1, BUY, 100.0, Q), (1, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "overtaken": 1, "close": 1, "exit_signal": 1}
    assert result.is_clean()


def test_a_signal_does_not_wait_longer_than_for_the_next_bar(listed):
    # Orders arrive two bars late: the zero signal of bar 2 has been overtaken when the entry is filled.
    slow = LatencyModel(base_latency_nanos=2 * MINUTE)
    result = run(market_of(listed, [100.0] * 14), {1: 1, 2: 0}, latency=slow)
    assert result.fills == [(3, BUY, 100.0, Q), (3 + HORIZON, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "overtaken": 1, "exit_horizon": 1}


def test_a_position_whose_stop_is_refused_is_closed_at_once(listed):
    # The entry is filled a bar late, beyond its own stop, which the venue then refuses.
    slow = LatencyModel(base_latency_nanos=1)
    result = run(market_of(listed, [100.0, 100.0, 98.0, 98.0, 98.0, 98.0]), {1: 1}, latency=slow)
    assert result.fills == [(2, BUY, 98.0, Q), (3, SELL, 98.0, Q)]
    assert result.counts == {"open": 1, "exit_no_stop": 1}
    assert result.engine.cache.orders_open() == result.engine.cache.positions_open() == []


class LosesStop(EnrichedSignalStrategy):
    """Its stop is cancelled at the bar number 3."""

    def on_bar(self, bar: Bar) -> None:
        if bar.ts_event == DAY_START + 4 * MINUTE:
            self.cancel_order(
                next(o for o in self.cache.orders_open() if o.order_type == OrderType.STOP_MARKET)
            )
        super().on_bar(bar)


def test_a_position_that_has_lost_its_stop_is_closed_at_the_next_bar(listed):
    market = market_of(listed, [100.0] * 8)
    result = run(market, {1: 1}, strategy=LosesStop(config_for([market])))
    assert result.fills == [(1, BUY, 100.0, Q), (4, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "exit_no_stop": 1}
    assert result.is_clean()


def test_an_exit_that_is_refused_is_asked_for_again_at_every_bar(listed):
    market = market_of(listed, [100.0] * 8)
    signals = signals_at(market, {1: 1, 3: 0})
    states = {3: TradingState.HALTED, 5: TradingState.ACTIVE}
    engines: list[BacktestEngine] = []

    def make(bar: Bar) -> Sequence[Data]:
        if (state := states.get((bar.ts_event - DAY_START) // MINUTE - 1)) is not None:
            engines[0].kernel.risk_engine.set_trading_state(state)
        return signals(bar)

    result = run(market, make, built=engines.append)
    assert result.fills == [(1, BUY, 100.0, Q), (5, SELL, 100.0, Q)]
    assert result.counts == {
        "open": 1,
        "close": 1,
        "exit_signal": 1,
        "exit_again": 3,
    }  # bars 3 (after its signal), 4 and 5
    assert [o.status for o in result.orders].count(OrderStatus.DENIED) == 3
    assert result.engine.cache.orders_open() == []


def test_the_daily_loss_stops_entries_until_the_next_day_even_if_it_is_made_good(listed):
    day = 24 * 60
    closes = np.full(day + 10, 100.0)
    closes[3] = 94.0  # 6 % down for one bar, without a signal in it
    market = market_of(listed, closes)
    position = Bare(market, 2, Q, limits=RiskLimits(stop_loss=0.5, max_daily_loss=0.05))
    result = run(market, {5: 0, 7: 1, day - 2: 1, day - 1: 1}, strategy=position)
    # Bar number n closes n + 1 minutes after midnight: the next day starts with number 1439.
    assert [fill.bar for fill in result.fills] == [1, 5, day - 1, day - 1 + HORIZON]
    assert result.counts["daily_loss"] == result.counts["refuse"] == 2
    assert result.is_clean()


def test_the_day_opens_at_midnight_and_not_with_its_first_signal(listed):
    # Long over midnight (bar 9); 6 % are lost before the day's first signal, which reverses and may only close.
    market = market_of(listed, [100.0] * 12 + [94.0] * 6, start=DAY_START - 9 * MINUTE)
    labels = LabelSettings(horizon_bars=100, cost=0.0)
    limits = RiskLimits(stop_loss=0.5, max_daily_loss=0.05)
    result = run(market, {14: -1}, strategy=Bare(market, 6, Q, labels=labels, limits=limits))
    assert result.fills == [(5, BUY, 100.0, Q), (14, SELL, 94.0, Q)]
    assert result.counts["close"] == 1
    assert "reverse" not in result.counts


@BOTH_SIDES
def test_a_stop_loss_limit_nearer_than_the_barrier_wins(side, listed):
    result = run(market_of(listed, [100.0] * 4), {1: side}, limits=RiskLimits(stop_loss=0.004))
    _, stop, target, *_ = result.orders
    assert stop.trigger_price.as_double() == round(100.0 * math.exp(-side * 0.004), 1)
    assert target.price.as_double() == (UPPER if side == 1 else LOWER)


def test_the_position_limit_caps_an_entry(listed):
    limits = RiskLimits(max_position_fraction=0.25)
    assert run(market_of(listed, [100.0] * 4), {1: 1}, limits=limits).fills[0].quantity == Q / 4


@BOTH_SIDES
def test_equity_and_leverage_are_those_of_all_instruments_at_their_last_closes(side, listed, second):
    # The first position gains or loses 4 % before the second market's signal; what is left of 1.5 times equity goes
    # to the second.
    first = market_of(listed, [100.0, 100.0, 104.0, 104.0, 104.0])
    other = market_of(second, [50.0] * 5)
    wide = {"volatility": 0.2}
    makes = [signals_at(first, {1: {"signal": side, **wide}}), signals_at(other, {3: {"signal": 1, **wide}})]
    result = run(
        [first, other],
        lambda bar: [s for make in makes for s in make(bar)],
        limits=RiskLimits(max_leverage=1.5, stop_loss=0.5, max_daily_loss=0.9),
    )
    equity = EQUITY * (1 - TAKER) + side * Q * 4.0
    room = min(equity, 1.5 * equity - Q * 104.0)
    bought = next(o for o in result.orders if o.instrument_id == other.instrument.id)
    assert bought.quantity.as_double() == quantity_of(room, 50.0)
    assert room == 1.5 * equity - Q * 104.0
    assert result.is_clean()


FAIL_CLOSED = {
    "defaults": {"meta_confidence": 0.5, "toxicity": 1.0, "regime_weight": 0.0, "status": "no_model"},
    "default confidence": {"meta_confidence": 0.5},
    "toxic": {"toxicity": 1.0},
    "no weight": {"regime_weight": 0.0},
    "no volatility": {"volatility": 0.0},
    **{f"status {s}": {"status": s} for s in Status if s not in (Status.OK, Status.LATE, Status.EXPIRED)},
}


@pytest.mark.parametrize("changes", FAIL_CLOSED.values(), ids=FAIL_CLOSED.keys())
def test_what_no_model_answered_opens_nothing_but_still_closes(changes, listed):
    market = market_of(listed, [100.0] * 8)
    alone = run(market, {1: {"signal": 1, **changes}, 3: {"signal": -1, **changes}})
    assert alone.orders == []
    assert alone.counts["refuse"] == 2
    against = run(market, {1: 1, 3: {"signal": -1, **changes}})
    assert against.fills == [(1, BUY, 100.0, Q), (3, SELL, 100.0, Q)]
    assert against.is_clean()


def test_a_default_confidence_above_break_even_opens_nothing(listed):
    # With a target three times as far as the stop a quarter of wins breaks even.
    labels = LabelSettings(horizon_bars=HORIZON, profit_barrier=3.0, stop_barrier=1.0, cost=0.0)
    market = market_of(listed, [100.0] * 4)
    assert (
        run(market, {1: {"signal": 1, "meta_confidence": 0.5, "status": "no_model"}}, labels=labels).orders
        == []
    )
    late = {1: {"signal": 1, "meta_confidence": 0.5, "status": "late"}}
    assert run(market, late, labels=labels, trade_statuses=["late"]).orders != []


def test_flat_sizing_trades_a_fraction_of_equity_whatever_the_confidence(listed):
    doubtful = {
        "strength": 0.1,
        "meta_confidence": 0.0,
        "toxicity": 1.0,
        "regime_weight": 0.0,
        "status": "no_model",
    }
    market = market_of(listed, [100.0] * 12)
    statuses = ["no_model"]
    result = run(
        market, {1: {"signal": -1, **doubtful}}, sizing="flat", fraction=0.25, trade_statuses=statuses
    )
    assert result.fills == [(1, SELL, 100.0, Q / 4), (1 + HORIZON, BUY, 100.0, Q / 4)]
    assert result.is_clean()
    without = {"signal": -1, **doubtful, "volatility": 0.0}
    blind = run(market, {1: without}, sizing="flat", trade_statuses=statuses)
    assert blind.orders == []
    assert blind.counts == {"no_volatility": 1, "refuse": 1}


@pytest.mark.parametrize("sizing", ["flat", "enriched"])
@pytest.mark.parametrize(
    "volatility", [1e-9, 1e3, 1.7e308], ids=["below a tick", "above any price", "overflowing"]
)
@BOTH_SIDES
def test_barriers_without_room_open_nothing_and_raise_nothing(side, volatility, sizing, listed):
    market = market_of(listed, [100.0] * 4)
    result = run(market, {1: {"signal": side, "volatility": volatility}}, sizing=sizing)
    assert result.orders == []
    assert result.counts == {"no_room_for_barriers": 1, "refuse": 1}


def test_an_account_without_the_currency_of_the_instrument_opens_nothing(listed):
    result = run(market_of(listed, [100.0] * 4), {1: 1}, balance=Money(10, BTC))
    assert result.orders == []
    assert result.counts == {"refuse": 1}


def test_signals_for_other_instruments_are_counted(listed, second):
    markets = [market_of(listed, [100.0] * 4), market_of(second, [50.0] * 4)]
    strategy = EnrichedSignalStrategy(config_for(markets[:1]))
    result = run(markets, signals_at(markets[1], {1: 1}), strategy=strategy)
    assert result.orders == []
    assert result.counts == {"not_traded_here": 1}


def test_an_instrument_that_the_engine_lacks_is_not_traded(listed, second):
    market = market_of(listed, [100.0] * 12)
    strategy = EnrichedSignalStrategy(config_for([market, second]))
    makes = [signals_at(market, {1: 1}), lambda bar: [enriched(second, bar.ts_event, 1)]]
    result = run(market, lambda bar: [s for make in makes for s in make(bar)], strategy=strategy)
    assert result.fills == [(1, BUY, 100.0, Q), (1 + HORIZON, SELL, 100.0, Q)]
    assert result.counts["not_traded_here"] == 12
    assert result.is_clean()


def test_an_entry_in_flight_at_the_stop_is_cancelled(listed):
    slow = LatencyModel(base_latency_nanos=MINUTE)
    result = run(market_of(listed, [100.0] * 3), {2: 1}, latency=slow)
    assert result.fills == []
    assert result.orders[0].status == OrderStatus.PENDING_CANCEL


@customdataclass
class EnrichedSignalOfAnotherKind(Data):
    """Its topic begins with that of `EnrichedSignal`."""

    note: str = ""


def test_data_of_another_class_under_the_same_topic_is_passed_over(listed):
    market = market_of(listed, [100.0] * 4)
    result = run(market, lambda bar: [EnrichedSignalOfAnotherKind(bar.ts_event, bar.ts_init, note="x")])
    assert result.orders == []
    assert result.counts == {}


def test_a_failure_inside_is_counted_and_leaves_no_handler(listed):
    class Broken:
        def execute(self, *_args: Any, **_kwargs: Any) -> None:
            raise RuntimeError("broken")

    market = market_of(listed, [100.0] * 4)
    strategy = EnrichedSignalStrategy(config_for([market]))
    strategy.stage = Broken()
    result = run(market, {1: 1, 2: 1}, strategy=strategy)
    assert result.counts == {"error": 2}
    assert result.engine.iteration == 4


def test_orders_of_other_strategies_are_not_touched(listed):
    market = market_of(listed, [100.0] * 6)
    rester = Rester(market)
    result = run(market, {1: 1, 3: 0}, others=[rester])
    assert result.fills == [(1, BUY, 100.0, Q), (3, SELL, 100.0, Q)]
    assert [o.status for o in result.engine.cache.orders(strategy_id=rester.id)] == [OrderStatus.ACCEPTED]


@EITHER_OMS
def test_a_stop_of_the_strategy_closes_everything_and_a_reset_forgets_it(oms, listed):
    market = market_of(listed, [100.0] * 4)
    result = run(market, {2: 1}, oms_type=oms)
    once = result.fills
    assert once == [(2, BUY, 100.0, Q), (3, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "exit_stop": 1}
    assert result.is_clean()
    result.engine.reset()
    assert result.counts == {}
    result.engine.run()
    assert result.fills == once
    assert result.counts == {"open": 1, "exit_stop": 1}


def plain_trades(
    market: Market, signals: dict[int, int], fraction: float, volatility: float, cooldown: int
) -> list[Fill]:
    """Restate the strategy with flat sizing: a bar's high comes before its low, signals come at its close."""
    fills: list[Fill] = []
    balance, side, quantity, entry, deadline, upper, lower = float(EQUITY), 0, 0.0, 0.0, 0, 0.0, 0.0
    day, day_open = None, balance
    last_bar, last_side, last_flip = -cooldown - 1, 0, -cooldown - 1

    def close(bar: int, price: float, fee: float) -> None:
        nonlocal balance, side
        fills.append(Fill(bar, -side, price, quantity))
        balance += side * quantity * (price - entry) - round(quantity * price * fee, 8)
        side = 0

    previous = float(market.bars.close[0])
    for i, (ts, _, high, low, price, *_) in enumerate(market.bars.tuples()):
        if side and high >= upper:
            close(i, upper, MAKER if side == 1 else TAKER)
        if side and low <= lower:
            close(i, lower, TAKER if side == 1 else MAKER)
        if ts // 86_400_000_000_000 != day:
            day, day_open = ts // 86_400_000_000_000, balance + side * quantity * (previous - entry)
        previous = price
        signal = signals.get(i)
        if side and (signal in (0, -side) or i >= deadline):
            close(i, price, TAKER)
            if signal == -fills[-1].side:
                signal = None  # it confirmed the position that the horizon closed
        elif side:
            signal = None
        if signal in (-1, 1) and signal == -last_side and i - last_bar <= cooldown:
            signal, last_flip = None, i
        elif i - last_flip <= cooldown:
            signal = None
        if signal in (-1, 1):
            last_bar, last_side = i, signal
            assert day_open - balance < 0.9 * day_open
            side, entry, deadline = signal, price, i + HORIZON
            quantity = quantity_of(balance, price, fraction)
            upper, lower = round(price * math.exp(volatility), 1), round(price * math.exp(-volatility), 1)
            fills.append(Fill(i, side, price, quantity))
            balance -= round(quantity * price * TAKER, 8)
    if side:
        close(len(market.bars) - 1, price, TAKER)
    return fills


@pytest.mark.parametrize(
    ("seed", "oms", "cooldown"), [(1, "NETTING", 1), (2, "HEDGING", 0), (3, "NETTING", 3)]
)
def test_a_random_market_is_traded_as_a_plain_restatement_trades_it(seed, oms, cooldown, listed):
    rng = np.random.default_rng(seed)
    n = 3_000
    closes = np.round(1_000.0 * np.exp(np.cumsum(rng.normal(0.0, 0.002, n))), 1)
    market = market_of(listed, closes)
    market.bars.high[:] = np.round(market.bars.high + rng.exponential(1.0, n), 1)
    market.bars.low[:] = np.round(market.bars.low - rng.exponential(1.0, n), 1)
    signals = {int(i): int(rng.integers(-1, 2)) for i in np.flatnonzero(rng.random(n) < 0.3)}
    wide = {i: {"signal": s, "volatility": 0.004} for i, s in signals.items()}
    limits = RiskLimits(max_daily_loss=0.9)
    result = run(
        market, wide, sizing="flat", fraction=0.2, limits=limits, oms_type=oms, cooldown_bars=cooldown
    )
    expected = plain_trades(market, signals, 0.2, 0.004, cooldown)
    assert len(expected) > 500
    assert result.fills == expected
    assert result.is_clean()


GOOD = "BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL"
REFUSED = {
    "fraction of zero": ({"fraction": 0.0}, "fraction"),
    "fraction above one": ({"fraction": 1.1}, "fraction"),
    "fraction NaN": ({"fraction": math.nan}, "fraction"),
    "fraction text": ({"fraction": "1"}, "fraction"),
    "fraction bool": ({"fraction": True}, "fraction"),
    "risk of zero": ({"risk_target": 0.0}, "risk_target"),
    "risk beyond reason": ({"risk_target": 10.1}, "risk_target"),
    "risk text": ({"risk_target": "0.2"}, "risk_target"),
    "sizing": ({"sizing": "kelly"}, "sizing"),
    "not a bar type": ({"bar_types": ["BTC"]}, "bar_types[0]"),
    "not a text": ({"bar_types": [3]}, "bar_types[0]"),
    "not a list": ({"bar_types": GOOD}, "bar_types"),
    "tick bars": ({"bar_types": ["BTCUSDT-PERP.BINANCE-100-TICK-LAST-EXTERNAL"]}, "bar_types[0]"),
    "two of one instrument": ({"bar_types": [GOOD, GOOD.replace("1-M", "5-M")]}, "bar_types[1]"),
    "labels": ({"labels": None}, "labels"),
    "limits": ({"limits": 3}, "limits"),
    "stamped_at": ({"stamped_at": "middle"}, "stamped_at"),
    "max_quote_age of zero": ({"max_quote_age": 0.0}, "max_quote_age"),
    "max_quote_age infinite": ({"max_quote_age": math.inf}, "max_quote_age"),
    "order_timeout NaN": ({"order_timeout": math.nan}, "order_timeout"),
    "check_interval text": ({"check_interval": "30"}, "check_interval"),
    "close_on_stop number": ({"close_on_stop": 1}, "close_on_stop"),
    "max_signal_age of zero": ({"max_signal_age": 0}, "max_signal_age"),
    "a status that none has": ({"trade_statuses": ["fine"]}, "trade_statuses"),
    "a status without an answer": ({"trade_statuses": ["ok", "expired"]}, "trade_statuses"),
    "statuses in no list": ({"trade_statuses": "ok"}, "trade_statuses"),
    "a status that is a list": ({"trade_statuses": [["ok"]]}, "trade_statuses"),
    "skew below zero": ({"max_clock_skew_ms": -1}, "max_clock_skew_ms"),
    "skew of half a millisecond": ({"max_clock_skew_ms": 0.5}, "max_clock_skew_ms"),
    "skew bool": ({"max_clock_skew_ms": True}, "max_clock_skew_ms"),
    "cooldown below zero": ({"cooldown_bars": -1}, "cooldown_bars"),
    "cooldown of half a bar": ({"cooldown_bars": 0.5}, "cooldown_bars"),
    "journal_path empty": ({"journal_path": ""}, "journal_path"),
    "adopt_positions text": ({"adopt_positions": "no"}, "adopt_positions"),
    "max_quote_drift of zero": ({"max_quote_drift": 0.0}, "max_quote_drift"),
    "stop_limit_slippage of one": ({"stop_limit_slippage": 1.0}, "stop_limit_slippage"),
    "entries_per_second of zero": ({"entries_per_second": 0}, "entries_per_second"),
}


@pytest.mark.parametrize(("fields", "name"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_value_is_refused_with_its_name(fields, name):
    with pytest.raises(ValueError) as raised:
        EnrichedSignalStrategyConfig(**fields)
    assert f"`{name}` was {next(iter(fields.values()))!r}" in str(raised.value) or f"`{name}`" in str(
        raised.value
    )


def test_it_claims_its_instruments_unless_it_is_told_which(listed):
    instrument_id = listed.instrument.id
    assert config_for([listed]).external_order_claims == [instrument_id]
    assert config_for([listed], external_order_claims=[]).external_order_claims == []
    assert EnrichedSignalStrategyConfig().external_order_claims == []


@pytest.mark.parametrize("sizing", ["flat", "enriched"])
def test_an_expired_signal_does_nothing_whatever_the_sizing(sizing, listed):
    market = market_of(listed, [100.0] * 8)
    alone = run(market, {1: {"signal": 1, "status": "expired"}}, sizing=sizing)
    assert alone.orders == []
    assert alone.counts == {"expired": 1}
    for side in (-1, 0):
        against = run(market, {1: 1, 3: {"signal": side, "status": "expired"}}, sizing=sizing)
        assert against.fills[0] == (1, BUY, 100.0, Q)
        assert [fill.bar for fill in against.fills[1:]] == [bar for bar in (1 + HORIZON,) if bar < 8]


def test_a_stop_that_is_to_leave_positions_leaves_them(listed):
    result = run(market_of(listed, [100.0] * 4), {2: 1}, close_on_stop=False)
    assert result.fills == [(2, BUY, 100.0, Q)]
    assert len(result.engine.cache.orders_open()) == 2


def test_wrong_json_is_refused():
    for raw in (b'{"fractoin": 0.5}', b'{"limits": {"max_leverage": -1}}', b'{"labels": {"horizon": 3}}',
                b'{"fraction": 2.0}', b'{"bar_types": ["x"]}'):  # fmt: skip
        with pytest.raises(msgspec.ValidationError):
            EnrichedSignalStrategyConfig.parse(raw)


def test_it_runs_from_json_by_path(listed):
    config = {
        "bar_types": [str(listed.bar_type)],
        "sizing": "flat",
        "fraction": 0.5,
        "risk_target": None,
        "labels": {"horizon_bars": 3, "cost": 0.0},
        "limits": {"max_position_fraction": 0.25},
        "oms_type": "NETTING",
    }
    importable = ImportableStrategyConfig.parse(
        msgspec.json.encode(
            {
                "strategy_path": "ml4t_actor.strategy:EnrichedSignalStrategy",
                "config_path": "ml4t_actor.strategy:EnrichedSignalStrategyConfig",
                "config": config,
            }
        )
    )
    strategy = StrategyFactory.create(importable)
    assert EnrichedSignalStrategyConfig.parse(strategy.config.json()) == strategy.config
    result = run(market_of(listed, [100.0] * 8), {1: 1}, strategy=strategy)
    assert result.fills == [(1, BUY, 100.0, Q / 4), (4, SELL, 100.0, Q / 4)]
