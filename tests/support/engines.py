"""A small real `BacktestEngine` for tests: chosen components, one instrument, and everything published kept."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig, LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar, CustomData, DataType, TradeTick
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import ClientId
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.strategy import Strategy

from backtests.market import Market
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import EnrichedSignal, SignalData


class Listener(Actor):
    """Keeps every enriched signal."""

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="Listener"))
        self.enriched: list[EnrichedSignal] = []

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.EnrichedSignal*", handler=self.enriched.append)


class _Emitting:
    """Publishes what `make(bar or trade)` returns, from within the handler that was handed it."""

    make: Callable[[Any], SignalData | None]
    sources: Sequence[Any]

    def emit(self, event: Any) -> None:
        signal = self.make(event)
        if signal is not None:
            self.publish_data(DataType(SignalData), signal)

    def on_start(self) -> None:
        for source in self.sources:
            if hasattr(source, "spec"):
                self.subscribe_bars(source)
            else:
                self.subscribe_trade_ticks(source)

    def on_bar(self, bar: Bar) -> None:
        self.emit(bar)

    def on_trade_tick(self, tick: TradeTick) -> None:
        self.emit(tick)


class EmittingActor(_Emitting, Actor):
    def __init__(self, make: Callable[[Any], SignalData | None], sources: Sequence[Any]) -> None:
        super().__init__(ActorConfig(component_id="EmittingActor"))
        self.make, self.sources = make, sources


class EmittingStrategy(_Emitting, Strategy):
    def __init__(self, make: Callable[[Any], SignalData | None], sources: Sequence[Any]) -> None:
        super().__init__()
        self.make, self.sources = make, sources


def run_engine(
    market: Market,
    data: Sequence[Any],
    components: Sequence[Any],
    config: ML4TActorConfig | None,
    *,
    signals: Sequence[CustomData] = (),
) -> tuple[list[EnrichedSignal], ML4TActor, BacktestEngine]:
    """Run `components` in their order over `data`.

    The string "actor" stands for the actor under test; a function is given it and returns a component.
    """
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        market.instrument.id.venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        starting_balances=[Money(1_000_000, USDT)],
    )
    engine.add_instrument(market.instrument)
    listener, actor = Listener(), ML4TActor(config or ML4TActorConfig())
    engine.add_actor(listener)
    for component in components:
        if isinstance(component, str):
            component = actor
        elif not isinstance(component, Actor):
            component = component(actor)
        if isinstance(component, Strategy):
            engine.add_strategy(component)
        else:
            engine.add_actor(component)
    engine.add_data(list(data))
    if signals:
        engine.add_data(list(signals), client_id=ClientId("SIGNALS"))
    engine.run()
    return listener.enriched, actor, engine


def without_latency(enriched: Sequence[EnrichedSignal]) -> list[bytes]:
    """Return the bytes of each, but for the one field that is measured on the machine."""
    return [msgspec.msgpack.encode({**e.to_dict(), "latency_ns": 0}) for e in enriched]
