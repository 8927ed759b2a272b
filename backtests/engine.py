"""One run of the engine: primary, actor and strategy over the bars of a universe."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.component import TimeEvent
from nautilus_trader.common.config import ActorConfig, ImportableActorConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.core.data import Data
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId, TraderId
from nautilus_trader.trading.config import ImportableStrategyConfig

from backtests.closed_positions import ClosedPositions
from backtests.costs import TradingCosts
from backtests.fates import Decided
from backtests.market import Market
from backtests.primaries import PRIMARIES
from backtests.venue import add_markets
from ml4t_actor.actor import ML4TActor
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.ledger import Ledger
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.strategy.causes import SignalDecision

STARTING_EQUITY = 100_000.0
NO_COSTS = TradingCosts.none()


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What one run of the engine left behind."""

    enriched: list[EnrichedSignal]
    signals: list[SignalData]
    decided: dict[str, Decided]
    equity_ts: np.ndarray
    equity: np.ndarray
    trades: int
    fees: float
    funding: float
    counts: Counter[str]
    ledger: Ledger


class Recorder(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Keeps every signal, its answer and the last decision about it, and the equity once a day."""

    def __init__(self, config: ActorConfig | None = None) -> None:
        super().__init__(config)
        self.enriched: list[EnrichedSignal] = []
        self.signals: list[SignalData] = []
        self.decided: dict[str, Decided] = {}
        self.equity: list[tuple[int, float]] = []

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.SignalData*", handler=self._keep_signal)
        self.msgbus.subscribe(topic="decisions.*", handler=self._keep_decision)
        self.msgbus.subscribe(topic="data.EnrichedSignal*", handler=self._keep)
        self.clock.set_timer("equity", interval=timedelta(days=1), callback=self._sample)

    def on_stop(self) -> None:
        pass  # subscriptions end with the engine; Nautilus warns where the method is missing

    def _keep_signal(self, data: Data) -> None:
        if isinstance(data, SignalData):
            self.signals.append(data)

    def _keep_decision(self, decision: SignalDecision) -> None:
        exposure = 0.0
        if decision.opened:
            exposure = abs(float(decision.target)) * self._close(decision.instrument_id) / self.now()
        self.decided[decision.signal_id] = Decided(decision.opened, decision.cause, exposure)

    def _keep(self, data: Data) -> None:
        if isinstance(data, EnrichedSignal):
            self.enriched.append(data)

    def _sample(self, event: TimeEvent) -> None:
        self.equity.append((event.ts_event, self.now()))

    def now(self) -> float:
        """Return balances plus open profit, marked at the last bars."""
        equity = 0.0
        for account in self.cache.accounts():
            equity += sum(balance.total.as_double() for balance in account.balances().values())
        for position in self.cache.positions_open():
            instrument = self.cache.instrument(position.instrument_id)
            price = instrument.make_price(self._close(position.instrument_id))
            equity += position.unrealized_pnl(price).as_double()
        return equity

    def _close(self, instrument_id: InstrumentId) -> float:
        """Return the last close of an instrument, which has one bar type."""
        [bar_type] = self.cache.bar_types(instrument_id=instrument_id)
        return float(self.cache.bar(bar_type).close)


FROZEN = {"retrain": "off"}  # the result of one model is of that model alone


def actor_config(
    markets: list[Market], settings: TrainingSettings, model_path: Path, learning: Mapping[str, object]
) -> ImportableActorConfig:
    """Return the enriching actor as a configuration by path, as it would stand in a JSON file."""
    return ImportableActorConfig(
        actor_path="ml4t_actor.actor:ML4TActor",
        config_path="ml4t_actor.config:ML4TActorConfig",
        config={
            "model_path": str(model_path),
            "feature_names": list(META_FEATURE_NAMES),
            "bar_types": [str(market.bar_type) for market in markets],
            "labels": msgspec.to_builtins(settings.labels),
            "vpin": msgspec.to_builtins(settings.vpin),
            "volatility_halflife_bars": settings.volatility_halflife_bars,
            **learning,
        },
    )


def run_engine(
    markets: list[Market],
    primary: str,
    settings: TrainingSettings,
    model_path: Path,
    *,
    sizing: str | None,
    start: int | None = None,
    end: int | None = None,
    learning: Mapping[str, object] = FROZEN,
    costs: TradingCosts = NO_COSTS,
    log_level: str = "ERROR",
) -> EngineRun:
    """Run primary, actor and strategy over the markets' bars from `start` to `end` (UNIX nanoseconds).

    Without a `sizing` nothing trades. `learning` is added to the actor's configuration. `costs` are those beside the
    instruments' fees.
    """
    bar_types = [str(market.bar_type) for market in markets]
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("BACKTESTER-001"),
            logging=LoggingConfig(log_level=log_level),
            run_analysis=False,
            actors=[
                ImportableActorConfig(
                    actor_path="backtests.primaries:PrimaryActor",
                    config_path="backtests.primaries:PrimaryConfig",
                    config={
                        "bar_types": bar_types,
                        "primary": f"backtests.primaries:{type(PRIMARIES[primary]()).__name__}",
                    },
                ),
                actor_config(markets, settings, model_path, learning),
            ],
            strategies=[] if sizing is None else [_strategy(bar_types, settings, sizing)],
        )
    )
    recorder = Recorder()
    engine.add_actor(recorder)
    fundings = add_markets(engine, markets, costs, STARTING_EQUITY, start, end)
    engine.sort_data()
    closed = ClosedPositions(engine.kernel)
    engine.run()
    samples = [*recorder.equity, (engine.kernel.clock.timestamp_ns(), recorder.now())]
    fills = [
        event for order in engine.cache.orders() for event in order.events if isinstance(event, OrderFilled)
    ]
    run = EngineRun(
        enriched=recorder.enriched,
        signals=recorder.signals,
        decided=recorder.decided,
        equity_ts=np.array([ts for ts, _ in samples], dtype=np.int64),
        equity=np.array([value for _, value in samples]),
        trades=closed.count + len(engine.cache.positions_open()),
        fees=sum(fill.commission.as_double() for fill in fills),
        funding=sum(each.paid for each in fundings),
        counts=Counter(engine.trader.strategies()[0].counts) if sizing is not None else Counter(),
        ledger=next(a for a in engine.trader.actors() if isinstance(a, ML4TActor)).lifecycle.ledger,
    )
    engine.dispose()
    return run


def _strategy(bar_types: list[str], settings: TrainingSettings, sizing: str) -> ImportableStrategyConfig:
    return ImportableStrategyConfig(
        strategy_path="ml4t_actor.strategy:EnrichedSignalStrategy",
        config_path="ml4t_actor.strategy:EnrichedSignalStrategyConfig",
        config={
            "bar_types": bar_types,
            "sizing": sizing,
            "labels": msgspec.to_builtins(settings.labels),
            "oms_type": "NETTING",
        },
    )
