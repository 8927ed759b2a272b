"""The strategy inside a real `BacktestEngine`, on price paths that are made by hand."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig, LoggingConfig
from nautilus_trader.core.data import Data
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar, DataType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide, OrderStatus
from nautilus_trader.model.events import OrderFilled, OrderInitialized
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from backtests.costs import TradingCosts
from backtests.market import Market, nautilus_bars
from backtests.venue import add_markets
from ml4t_actor.market_data import Bars
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.risk import RiskLimits

MINUTE = 60_000_000_000
DAY_START = 19_723 * 86_400_000_000_000  # midnight UTC
EQUITY = 1_000_000
TAKER, MAKER = 0.0005, 0.0002
HORIZON = 5
NO_COST = LabelSettings(horizon_bars=HORIZON, cost=0.0)
BUY, SELL = 1, -1


class Fill(NamedTuple):
    """`bar` counts from 0; `side` is 1 for a buy."""

    bar: int
    side: int
    price: float
    quantity: float


@dataclass
class Run:
    strategy: EnrichedSignalStrategy
    engine: BacktestEngine
    start: int
    submitted: list[Any]  # ids, as sent

    @property
    def orders(self) -> list[Any]:
        orders = self.engine.cache.orders(strategy_id=self.strategy.id)
        return sorted(orders, key=lambda o: self.submitted.index(o.client_order_id))

    @property
    def fills(self) -> list[Fill]:
        events = [e for order in self.orders for e in order.events if isinstance(e, OrderFilled)]
        events.sort(key=lambda e: e.ts_event)  # stable: at one time in the order of their orders
        return [
            Fill(
                (e.ts_event - self.start) // MINUTE,
                BUY if e.order_side == OrderSide.BUY else SELL,
                e.last_px.as_double(),
                e.last_qty.as_double(),
            )
            for e in events
        ]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.strategy.counts)

    def is_clean(self) -> bool:
        """Nothing open or on its way, and no order was ever refused or left over."""
        cache = self.engine.cache
        assert cache.positions_open() == []
        assert cache.orders_open() == cache.orders_inflight() == []
        assert {o.status for o in cache.orders()} <= {OrderStatus.FILLED, OrderStatus.CANCELED}
        return True


class Emitter:
    """Publishes what `make(bar)` returns, from within `on_bar`; a bar's own strategy is handed it before or after."""

    make: Callable[[Bar], Sequence[Data]]
    bar_types: list[Any]

    def on_start(self) -> None:
        for bar_type in self.bar_types:
            self.subscribe_bars(bar_type)

    def on_bar(self, bar: Bar) -> None:
        for data in self.make(bar):
            self.publish_data(DataType(type(data)), data)


class EmittingActor(Emitter, Actor):
    def __init__(self, make, bar_types) -> None:
        super().__init__(ActorConfig(component_id="Emitter"))
        self.make, self.bar_types = make, bar_types


class EmittingStrategy(Emitter, Strategy):
    def __init__(self, make, bar_types) -> None:
        super().__init__(StrategyConfig(order_id_tag="E"))
        self.make, self.bar_types = make, bar_types


def market_of(listed: Market, closes, *, highs=None, lows=None, start=DAY_START + MINUTE) -> Market:
    """Bars that open at the last close; `highs` and `lows` map a bar's number to how far it reached."""
    close = np.asarray(closes, dtype=float)
    opened = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    for i, value in (highs or {}).items():
        high[i] = value
    for i, value in (lows or {}).items():
        low[i] = value
    ts = start + MINUTE * np.arange(len(close))
    nan = np.full(len(close), np.nan)
    bars = Bars(ts, opened, high, low, close, np.full(len(close), 1e9), nan)
    return dataclasses.replace(listed, bars=bars)


def enriched(market: Market, ts: int, signal: int, **changes) -> EnrichedSignal:
    fields = {
        "instrument_id": market.instrument.id, "signal": signal, "strength": 1.0, "source": "test",
        "signal_id": f"{ts}", "meta_confidence": 1.0, "toxicity": 0.0, "vpin": 0.1, "regime_weight": 1.0,
        "regime": 0, "volatility": 0.01, "model_version": "v1", "status": "ok", "latency_ns": 0,
        "ts_event": ts, "ts_init": ts,
    }  # fmt: skip
    return EnrichedSignal(**(fields | changes))


def signals_at(market: Market, signals: dict[int, Any]):
    """Return what publishes at a bar's number its signal: a side, fields of it, or a list of such."""
    start = int(market.bars.ts_event[0])

    def make(bar: Bar) -> list[EnrichedSignal]:
        if bar.bar_type.instrument_id != market.instrument.id:
            return []
        wanted = signals.get((bar.ts_event - start) // MINUTE, [])
        wanted = wanted if isinstance(wanted, list) else [wanted]
        wanted = [{"signal": w} if isinstance(w, int) else w for w in wanted]
        ts = bar.ts_event
        return [enriched(market, ts, **({"signal_id": f"{ts}/{n}"} | w)) for n, w in enumerate(wanted)]

    return make


def config_for(markets: Sequence[Market], **changes) -> EnrichedSignalStrategyConfig:
    fields = {
        "bar_types": [str(m.bar_type) for m in markets], "labels": NO_COST, "oms_type": "NETTING",
        "risk_target": None,  # sizes are shares of equity, unless a test is about risk
    }  # fmt: skip
    return EnrichedSignalStrategyConfig(**(fields | changes))


def run(
    markets: Market | Sequence[Market],
    signals: dict[int, Any] | Callable[[Bar], Sequence[Data]],
    *,
    strategy: EnrichedSignalStrategy | None = None,
    after: bool = False,
    others: Sequence[Strategy] = (),
    balance: Money | None = None,
    latency: LatencyModel | None = None,
    modules: Sequence[SimulationModule] = (),
    costs: TradingCosts | None = None,
    built: Callable[[BacktestEngine], None] = lambda engine: None,
    **config,
) -> Run:
    markets = [markets] if isinstance(markets, Market) else list(markets)
    make = signals if callable(signals) else signals_at(markets[0], signals)
    strategy = strategy or EnrichedSignalStrategy(config_for(markets, **config))
    engine = BacktestEngine(
        BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False)
    )
    if costs is not None:
        add_markets(engine, markets, costs, EQUITY)
    else:
        engine.add_venue(
            markets[0].instrument.id.venue,
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            starting_balances=[balance or Money(EQUITY, USDT)],
            latency_model=latency,
            modules=list(modules),
        )
        for market in markets:
            engine.add_instrument(market.instrument)
            engine.add_data(nautilus_bars(market), sort=False)
    engine.sort_data()
    bar_types = [market.bar_type for market in markets]
    if not after:
        engine.add_actor(EmittingActor(make, bar_types))
    engine.add_strategy(strategy)
    for other in [EmittingStrategy(make, bar_types)] * after + list(others):
        engine.add_strategy(other)
    submitted: list[Any] = []
    engine.kernel.msgbus.subscribe(
        f"events.order.{strategy.id}",
        lambda event: (
            submitted.append(event.client_order_id) if isinstance(event, OrderInitialized) else None
        ),
    )
    built(engine)
    engine.run()
    return Run(strategy, engine, int(markets[0].bars.ts_event[0]), submitted)


BOTH_SIDES = pytest.mark.parametrize("side", [1, -1])
EITHER_ORDER = pytest.mark.parametrize("after", [False, True], ids=["signal first", "bar first"])
# Entered at 100.0 with a volatility of 0.01: 100 exp(0.01) is 101.005, 100 exp(-0.01) is 99.005.
UPPER, LOWER = 101.0, 99.0
Q = 10_000.0


class Bare(EnrichedSignalStrategy):
    """Buys at a bar without a bracket, in each market, as if the positions were there at the start."""

    def __init__(
        self, markets: Market | Sequence[Market], bars_before: int, quantity: float, **config: Any
    ) -> None:
        markets = [markets] if isinstance(markets, Market) else markets
        limits = RiskLimits(stop_loss=0.02, max_daily_loss=0.5)
        super().__init__(config_for(markets, **{"limits": limits} | config))
        self.bars_before = {market.instrument.id: bars_before for market in markets}
        self.bare_quantity = quantity

    def on_bar(self, bar: Bar) -> None:
        instrument_id = bar.bar_type.instrument_id
        self.bars_before[instrument_id] -= 1
        if self.bars_before[instrument_id] == 0:
            quantity = self.cache.instrument(instrument_id).make_qty(self.bare_quantity)
            self.submit_order(self.order_factory.market(instrument_id, OrderSide.BUY, quantity))
        super().on_bar(bar)


class Rester(Strategy):
    """Another strategy, which leaves a limit order far away in the market."""

    def __init__(self, market: Market, quantity: float = 1.0) -> None:
        super().__init__(StrategyConfig(order_id_tag="R"))
        self.market, self.quantity = market, quantity

    def on_start(self) -> None:
        self.subscribe_bars(self.market.bar_type)

    def on_bar(self, bar: Bar) -> None:
        if not self.cache.orders(strategy_id=self.id):
            self.submit_order(
                self.order_factory.limit(
                    self.market.instrument.id, OrderSide.BUY, Quantity(self.quantity, 3), Price(50.0, 1)
                )
            )
