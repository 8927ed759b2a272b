"""Labels beside the trades of the same signals, in an engine without frictions."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.events import OrderFilled, OrderRejected

from backtests.costs import TradingCosts
from backtests.engine import NO_COSTS
from backtests.market import Market
from backtests.primaries import PRIMARIES, PrimaryActor, PrimaryConfig
from backtests.venue import add_markets
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.kernels.barriers import log_price
from ml4t_actor.labeling.exits import exit_bars
from ml4t_actor.labeling.triple_barrier import UNRESOLVED, triple_barrier_labels
from ml4t_actor.market_data import Signals
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.orders.order_ids import entry_id
from ml4t_actor.strategy.orders.trade import barriers
from ml4t_actor.strategy.risk import RiskLimits

EQUITY = 1_000_000.0
FRACTION = 0.001  # of the equity: what a single bar can fill
VOLUME = 1e6


@dataclass(frozen=True, slots=True)
class Position:
    """One position, from the fill of its entry to that which closed it.

    Attributes
    ----------
    entry, exit : float
        Prices.
    end_ns : int
        When it was closed.
    cost : float
        Commissions of both as a share of the notional at the entry.
    stop_refused : bool
        Whether the simulator refused its stop.
    """

    entry: float
    exit: float
    end_ns: int
    cost: float
    stop_refused: bool


@dataclass(slots=True)
class Comparison:
    """What became of each signal that is not zero.

    Attributes
    ----------
    label, trade : list of float
        Log returns of those that were traded, the trades' without commissions.
    cost : list of float
        Commissions of these trades.
    barrier : list of int
        Of these labels.
    aside : Counter
        Why others were not compared.
    """

    label: list[float] = field(default_factory=list)
    trade: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    barrier: list[int] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)


def cut(market: Market, n_bars: int, *, fees: bool = False) -> Market:
    """Return the first bars of a market with volume enough for any order, and no fees unless they are asked for."""
    fields = type(market.instrument).to_dict(market.instrument)
    if not fees:
        fields |= {"maker_fee": "0", "taker_fee": "0"}
    bars = market.bars[:n_bars]
    volume = np.full(len(bars), VOLUME)
    nothing = np.full(len(bars), np.nan)
    return dataclasses.replace(
        market,
        instrument=type(market.instrument).from_dict(fields),
        bars=dataclasses.replace(bars, volume=volume, buy_volume=nothing),
    )


def trade_all(
    market: Market, primary: str, labels: LabelSettings, models: Path, costs: TradingCosts = NO_COSTS
) -> tuple[list[EnrichedSignal], dict[int, Position]]:
    """Trade a primary's signals flat, through actor and strategy; return them and, by their number, the positions."""
    bar_types = [str(market.bar_type)]
    engine = BacktestEngine(
        BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False)
    )
    add_markets(engine, [market], costs, EQUITY)
    engine.sort_data()
    path = f"backtests.primaries:{PRIMARIES[primary].__name__}"
    engine.add_actor(PrimaryActor(PrimaryConfig(bar_types=[market.bar_type], primary=path)))
    actor = ML4TActorConfig(
        model_path=str(models),
        bar_types=bar_types,
        labels=labels,
        feature_names=["volatility"],
        retrain="off",
    )
    engine.add_actor(ML4TActor(actor))
    strategy = EnrichedSignalStrategy(
        EnrichedSignalStrategyConfig(
            bar_types=bar_types,
            labels=labels,
            sizing="flat",
            risk_target=None,
            fraction=FRACTION,
            oms_type="NETTING",
            trade_statuses=["no_model", "warming_up"],
            limits=RiskLimits(stop_loss=0.9, max_daily_loss=0.9),
        )
    )
    engine.add_strategy(strategy)
    signals: list[EnrichedSignal] = []
    engine.kernel.msgbus.subscribe("data.EnrichedSignal*", signals.append)
    engine.run()
    number_of = {
        entry_id(strategy, s.instrument_id, s.source, s.signal_id): k
        for k, s in enumerate(signals)
        if s.signal
    }
    positions = _positions(engine, number_of)
    engine.dispose()
    return signals, positions


def _positions(engine: BacktestEngine, number_of: dict[object, int]) -> dict[int, Position]:
    events = [(event, order) for order in engine.cache.orders() for event in order.events]
    refused = {order.parent_order_id for event, order in events if isinstance(event, OrderRejected)}
    # Of fills at one time in the order of the venue: a position is closed before the next one is opened.
    fills = sorted(
        ((e, o) for e, o in events if isinstance(e, OrderFilled)),
        key=lambda fill: (fill[0].ts_event, _sequence(fill[0])),
    )
    positions: dict[int, Position] = {}
    opened: OrderFilled | None = None
    for event, order in fills:
        if order.client_order_id in number_of:
            assert opened is None, "a second entry while a position was open"
            opened = event
            continue
        assert opened is not None
        assert event.order_side != opened.order_side
        assert event.last_qty == opened.last_qty, "a fill in parts"
        entry, notional = opened.last_px.as_double(), (opened.last_px * opened.last_qty).__float__()
        positions[number_of[opened.client_order_id]] = Position(
            entry=entry,
            exit=event.last_px.as_double(),
            end_ns=event.ts_event,
            cost=(opened.commission.as_double() + event.commission.as_double()) / notional,
            stop_refused=opened.client_order_id in refused,
        )
        opened = None
    return positions


def _sequence(fill: OrderFilled) -> int:
    """Return the number that the venue has given to the order's execution."""
    return int(fill.trade_id.value.rsplit("-", 1)[-1])


def compare(
    market: Market, labels: LabelSettings, signals: list[EnrichedSignal], positions: dict[int, Position]
) -> Comparison:
    """Compare each trade with the label of its signal, whose barriers are rounded as the order's."""
    bars = market.bars
    columns = Signals(
        np.array([s.ts_event for s in signals]),
        np.array([s.signal for s in signals], dtype=np.int8),
        np.ones(len(signals)),
    )
    at = np.searchsorted(bars.ts_event, columns.ts_event)
    interval_ns = bars.interval_ns()
    max_gap_ns = labels.max_gap_bars * interval_ns
    exits = exit_bars(columns, bars, max_age_ns=max_gap_ns if labels.exit_on_signal else -1)
    found = Comparison()
    free_from_ns = side_held = 0
    for k, signal in enumerate(signals):
        event = int(at[k])
        if not signal.signal:
            assert k not in positions
            continue
        assert bars.ts_event[event] == signal.ts_event
        entry = float(bars.close[event])
        stop_distance = labels.stop_barrier * signal.volatility
        target_distance = labels.profit_barrier * signal.volatility
        prices = (
            barriers(market.instrument, entry, signal.signal, stop_distance, target_distance)
            if signal.volatility > 0.0
            else None
        )
        position = positions.get(k)
        if position is None:
            # In the bar in which a position ends at its horizon, a signal of its side still confirms it.
            held = signal.ts_event < free_from_ns or (signal.ts_event, signal.signal) == (
                free_from_ns,
                side_held,
            )
            reason = "held" if held else "no barriers" if prices is None else "unexplained"
            found.aside[reason] += 1
            continue
        assert prices is not None
        free_from_ns, side_held = position.end_ns, signal.signal
        stop, target = (price.as_double() for price in prices)
        window = slice(event, event + labels.horizon_bars + 1)
        label = triple_barrier_labels(
            bars.high[window],
            bars.low[window],
            bars.close[window],
            [0],
            [signal.signal],
            np.ones(len(bars.close[window])),
            horizon=labels.horizon_bars,
            pt=signal.signal * (log_price(target) - log_price(entry)),
            sl=-signal.signal * (log_price(stop) - log_price(entry)),
            cost=0.0,
            exits=[int(exits[k]) - event],
            open=bars.open[window],
        )
        end = event + int(label.end[0])
        steps_ns = np.diff(bars.ts_event[event : end + 1])
        low, high = sorted((stop, target))
        if label.barrier[0] == UNRESOLVED:
            found.aside["after the last bar"] += 1
        elif len(steps_ns) and steps_ns.max() > max_gap_ns:
            found.aside["gap"] += 1
        elif bars.low[end] <= low and bars.high[end] >= high:
            found.aside["both touched"] += 1
        elif position.stop_refused:
            found.aside["stop refused"] += 1
        else:
            found.label.append(float(label.ret[0]))
            found.trade.append(signal.signal * (math.log(position.exit) - math.log(position.entry)))
            found.cost.append(position.cost)
            found.barrier.append(int(label.barrier[0]))
    return found
