"""A real `TradingNode` on the stub, as a process of its own: the unpatched adapter, and the project's strategy.

The process reads commands as JSON lines from its standard input and reports what happens as JSON lines on a pipe of
its own; the log is on its standard output. `tests.support.trader.Trader` is the handle.
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Mapping
from typing import Literal, TextIO, TypedDict

from msgspec.structs import replace
from nautilus_trader.adapters.hyperliquid import (
    HYPERLIQUID,
    HyperliquidDataClientConfig,
    HyperliquidExecClientConfig,
    HyperliquidLiveDataClientFactory,
    HyperliquidLiveExecClientFactory,
    HyperliquidProductType,
)
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import (
    ActorConfig,
    InstrumentProviderConfig,
    LiveDataEngineConfig,
    LiveExecEngineConfig,
    LoggingConfig,
    TradingNodeConfig,
)
from nautilus_trader.core.nautilus_pyo3 import HyperliquidEnvironment
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import Bar, DataType
from nautilus_trader.model.enums import OrderType, TimeInForce
from nautilus_trader.model.events import OrderEvent, PositionEvent
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.orders import Order

from ml4t_actor.messages import EnrichedSignal, StrategyHealth
from ml4t_actor.node.run import _Runner
from ml4t_actor.node.venues import order_statuses, statements
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.account.exposure import account_key
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal

INSTRUMENT_ID = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")


class PublishSignal(TypedDict):
    """A command to publish an enriched signal; `fields` replace the usual ones."""

    do: Literal["signal"]
    side: int
    fields: dict[str, object]


class ReportState(TypedDict):
    """A command to report the node's state, under a number."""

    do: Literal["state"]
    number: int


class Settings(TypedDict, total=False):
    """Fields of the node's configurations; see `tests.support.trader.Trader`."""

    strategy: dict[str, object]
    engine: dict[str, object]
    data_engine: dict[str, object]
    execution: dict[str, object]
    timeout_post_stop: float
    stops_as_node: bool


class Remote(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Carries out commands on the event thread, and reports what happens."""

    def __init__(self, pipe: TextIO, strategy: EnrichedSignalStrategy) -> None:
        super().__init__(ActorConfig(component_id="Remote"))
        self._pipe = pipe
        self._strategy = strategy
        self._signals = 0

    def on_start(self) -> None:
        """Listen to orders, positions, bars and commands."""
        self._loop = asyncio.get_running_loop()
        self.msgbus.subscribe("events.order.*", self._on_order_event)
        self.msgbus.subscribe("events.position.*", self._on_position_event)
        self.msgbus.subscribe("data.bars.*", self._on_published_bar)
        self.msgbus.subscribe("data.StrategyHealth*", self._on_strategy_health)
        threading.Thread(target=self._read, daemon=True).start()
        self.report("started", instruments=len(self.cache.instrument_ids()))

    def report(self, kind: str, **what: object) -> None:
        """Write a line about what happened."""
        self._pipe.write(f"{json.dumps({'kind': kind, 't': time.time(), **what})}\n")

    def _read(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._carry_out, json.loads(line))

    def _on_order_event(self, event: OrderEvent) -> None:
        self.report(type(event).__name__, text=str(event), id=str(event.client_order_id))

    def _on_position_event(self, event: PositionEvent) -> None:
        self.report(type(event).__name__, text=str(event))

    def _on_published_bar(self, bar: Bar) -> None:
        self.report("bar", type=str(bar.bar_type), close=float(bar.close), ts_event=bar.ts_event)

    def _on_strategy_health(self, health: StrategyHealth) -> None:
        self.report("health", **health.to_dict())

    def _carry_out(self, command: PublishSignal | ReportState) -> None:
        if command["do"] == "signal":
            self._publish(command["side"], command["fields"])
        else:
            self.report("state", number=command["number"], **self._state())

    def _publish(self, side: int, fields: Mapping[str, object]) -> None:
        self._signals += 1
        now = self.clock.timestamp_ns()
        usual = {
            "instrument_id": INSTRUMENT_ID, "signal": side, "strength": 1.0, "source": "test",
            "signal_id": str(self._signals), "meta_confidence": 1.0, "toxicity": 0.0, "vpin": 0.1,
            "regime_weight": 1.0, "regime": 0, "volatility": 0.01, "model_version": "v1",
            "status": "ok", "latency_ns": 0, "ts_event": now, "ts_init": now,
        }  # fmt: skip
        values = usual | dict(fields)
        values["instrument_id"] = InstrumentId.from_str(str(values["instrument_id"]))
        self.publish_data(DataType(EnrichedSignal), EnrichedSignal(**values))

    def _state(self) -> dict[str, object]:
        strategy = self._strategy
        account = self.portfolio.account(INSTRUMENT_ID.venue)
        instrument = self.cache.instrument(INSTRUMENT_ID)
        return {
            "knows_equity": not strategy._equity.unknown,
            "day_result": _day_result(strategy),
            "is_stated": bool(strategy._equity._stated),
            "equity": None if instrument is None else float(strategy._equity.view(instrument).equity),
            "counts": dict(strategy.counts),
            "durable_exits": _durable_exits(strategy),
            "busy": [str(i) for i, trade in strategy._execution.trades.items() if trade.in_flight],
            "balances": {} if account is None else {str(k): str(v) for k, v in account.balances().items()},
            "positions": {
                str(p.instrument_id): [str(p.strategy_id), float(p.signed_qty)]
                for p in self.cache.positions_open()
            },
            "orders": [_order_fields(order) for order in self.cache.orders()],
        }


def _day_result(strategy: EnrichedSignalStrategy) -> float | None:
    """Return what the strategy takes the day's trading to have made."""
    equity = strategy._equity
    for instrument in strategy._instruments.values():
        now, key = equity.mark(instrument), account_key(instrument)
        return float(now - equity.day_open(key)) if key in equity.opening else None
    return None


def _durable_exits(strategy: EnrichedSignalStrategy) -> list[str]:
    """Return in which instruments positions are to be closed, when all of the journal is in its file."""
    journal = strategy._journal
    if not isinstance(journal, SqliteJournal) or journal._n_durable < journal._n_recorded:
        return []
    return journal.exits_wanted()


def _order_fields(order: Order) -> dict[str, object]:
    return {
        "instrument": str(order.instrument_id),
        "rests": order.is_open
        and order.order_type != OrderType.MARKET
        and order.time_in_force != TimeInForce.IOC,
        "id": str(order.client_order_id),
        "venue_id": str(order.venue_order_id),
        "strategy": str(order.strategy_id),
        "type": order.order_type.name if hasattr(order.order_type, "name") else str(order.type_string()),
        "status": order.status_string(),
        "side": order.side_string(),
        "quantity": float(order.quantity),
        "filled": float(order.filled_qty),
        "reduce_only": order.is_reduce_only,
    }


def _build_node(base_url_ws: str, settings: Settings) -> TradingNode:
    environment, product_types = HyperliquidEnvironment.TESTNET, (HyperliquidProductType.PERP,)
    provider = InstrumentProviderConfig(load_all=True)
    data = HyperliquidDataClientConfig(
        environment=environment,
        product_types=product_types,
        base_url_ws=base_url_ws,
        http_timeout_secs=3,
        instrument_provider=provider,
    )
    execution = HyperliquidExecClientConfig(
        environment=environment,
        product_types=product_types,
        base_url_ws=base_url_ws,
        http_timeout_secs=3,
        instrument_provider=provider,
        private_key=f"0x{secrets.token_hex(32)}",
        ws_post_timeout_secs=2,
    )
    return TradingNode(
        TradingNodeConfig(
            trader_id="TESTER-001",
            logging=LoggingConfig(log_level="INFO", log_colors=False, use_pyo3=True),
            data_engine=replace(LiveDataEngineConfig(), **settings.get("data_engine", {})),
            exec_engine=replace(LiveExecEngineConfig(), **settings.get("engine", {})),
            data_clients={HYPERLIQUID: data},
            exec_clients={HYPERLIQUID: replace(execution, **settings.get("execution", {}))},
            timeout_connection=10,
            timeout_reconciliation=5,
            timeout_portfolio=5,
            timeout_disconnection=5,
            timeout_post_stop=settings.get("timeout_post_stop", 0.2),
            timeout_shutdown=2,
        )
    )


def main() -> None:
    """Run the node until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.remote")
    parser.add_argument("pipe", type=int, help="descriptor to write reports to")
    parser.add_argument("base_url_ws", help="of the stub")
    parser.add_argument("settings", type=json.loads, help="JSON, see tests.support.trader.Trader")
    arguments = parser.parse_args()
    settings: Settings = arguments.settings
    node = _build_node(arguments.base_url_ws, settings)
    strategy = EnrichedSignalStrategy(
        EnrichedSignalStrategyConfig.parse(json.dumps({"order_id_tag": "T", **settings["strategy"]}))
    )
    for config in node._config.exec_clients.values():
        if (orders := order_statuses(config)) is not None:
            strategy.use_order_statuses(HYPERLIQUID, orders)
        if (accounts := statements(config)) is not None:
            strategy.use_statements(HYPERLIQUID, accounts)
    remote = Remote(os.fdopen(arguments.pipe, "w", buffering=1), strategy)
    node.trader.add_actor(remote)
    node.trader.add_strategy(strategy)
    node.add_data_client_factory(HYPERLIQUID, HyperliquidLiveDataClientFactory)
    node.add_exec_client_factory(HYPERLIQUID, HyperliquidLiveExecClientFactory)
    node.build()
    problems: list[str] = []
    try:
        if settings.get("stops_as_node", False):
            problems = node.kernel.loop.run_until_complete(_Runner(node, node._config, []).run())
        else:
            node.run(raise_exception=True)
    finally:
        node.dispose()
        remote.report("ended", problems=problems)


if __name__ == "__main__":
    main()
