"""A real `TradingNode` on the stub, as a process of its own: the unpatched adapter, and the project's strategy.

The process takes commands as JSON lines on its standard input and tells what happens as JSON lines on a pipe of its
own; the log is on its standard output. `Trader` is the handle for tests.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Any, Self, TextIO

from examples.venue.handle import Venue

_ROOT = Path(__file__).resolve().parents[2]


class Trader:
    """Runs a node while the context lasts.

    Parameters
    ----------
    venue : Venue
        The stub that it trades on.
    **settings : Any
        `strategy`: fields of `EnrichedSignalStrategyConfig`; `engine`: of `LiveExecEngineConfig`; `data_engine`: of
        `LiveDataEngineConfig`; `execution`: of the
        adapter's configuration.

    Attributes
    ----------
    told : list[dict]
        What the process told so far.
    """

    def __init__(self, venue: Venue, **settings: Any) -> None:
        self.venue, self._settings = venue, settings
        self.told: list[dict[str, Any]] = []
        self._asked = 0

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HYPERLIQUID_")}
        self._log = tempfile.NamedTemporaryFile("w+")
        ours, theirs = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "examples.venue.trader",
                str(theirs),
                self.venue.base_url_ws,
                json.dumps(self._settings),
            ],
            cwd=_ROOT,
            env=environment | self.venue.env,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs,),
            text=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(ours),), daemon=True)
        self._reader.start()
        try:
            self.until(lambda: self.events("started"), 60, "the node's start")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        if error is not None:
            print(self.log()[-20_000:])
        self._log.close()

    def _read(self, pipe: TextIO) -> None:
        with pipe:
            for line in pipe:
                self.told.append(json.loads(line))

    def command(self, **command: Any) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(command)}\n")
        self.process.stdin.flush()

    def publish(self, side: int, **fields: Any) -> None:
        """Publish an enriched signal inside the node."""
        self.command(do="signal", side=side, fields=fields)

    def state(self) -> dict[str, Any]:
        """Return counts, positions and orders, as the node has them."""
        self._asked += 1
        number = self._asked
        self.command(do="state", number=number)

        def answer() -> dict[str, Any] | None:
            return next((e for e in self.told if e["kind"] == "state" and e["number"] == number), None)

        found: dict[str, Any] = self.until(answer, 20, "the node's state")
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what was told of a kind, such as 'OrderFilled' or 'bar'."""
        return [entry for entry in list(self.told) if entry["kind"] == kind]

    def stop(self, signum: int = SIGTERM) -> int:
        """Stop the process and return its exit code."""
        self.process.send_signal(signum)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def log(self) -> str:
        """Return the node's log."""
        return Path(self._log.name).read_text()

    def until(self, condition: Callable[[], Any], seconds: float, what: str = "") -> Any:
        """Wait as `Venue.until`, but not longer than the process lives."""

        def found() -> Any:
            result = condition()
            if not result and self.process.poll() is not None:
                raise RuntimeError(f"the node ended with {self.process.returncode}: {self.log()[-3_000:]}")
            return result

        return Venue.until(found, seconds, what)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pipe", type=int)
    parser.add_argument("base_url_ws")
    parser.add_argument("settings", type=json.loads)
    arguments = parser.parse_args()

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
    from nautilus_trader.model.data import DataType
    from nautilus_trader.model.identifiers import InstrumentId

    from ml4t_actor.messages import EnrichedSignal
    from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig

    pipe = os.fdopen(arguments.pipe, "w", buffering=1)

    def tell(kind: str, **what: Any) -> None:
        pipe.write(f"{json.dumps({'kind': kind, 't': time.time(), **what})}\n")

    class Remote(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
        """Carries out commands on the event thread, and tells what happens."""

        def __init__(self) -> None:
            super().__init__(ActorConfig(component_id="Remote"))
            self.numbers = 0

        def on_start(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.msgbus.subscribe("events.order.*", self.tell_order)
            self.msgbus.subscribe("events.position.*", self.tell_position)
            self.msgbus.subscribe("data.bars.*", self.tell_bar)
            threading.Thread(target=self.read, daemon=True).start()
            tell("started", instruments=len(self.cache.instrument_ids()))

        def read(self) -> None:
            for line in sys.stdin:
                self.loop.call_soon_threadsafe(self.obey, json.loads(line))

        def tell_order(self, event: Any) -> None:
            tell(type(event).__name__, text=str(event), id=str(event.client_order_id))

        def tell_position(self, event: Any) -> None:
            tell(type(event).__name__, text=str(event))

        def tell_bar(self, bar: Any) -> None:
            tell("bar", type=str(bar.bar_type), close=float(bar.close), ts_event=bar.ts_event)

        def obey(self, command: dict[str, Any]) -> None:
            if command["do"] == "signal":
                self.numbers += 1
                now = self.clock.timestamp_ns()
                fields = {
                    "instrument_id": InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID"),
                    "signal": command["side"], "strength": 1.0, "source": "test",
                    "signal_id": str(self.numbers), "meta_confidence": 1.0, "toxicity": 0.0, "vpin": 0.1,
                    "regime_weight": 1.0, "regime": 0, "volatility": 0.01, "model_version": "v1",
                    "status": "ok", "latency_ns": 0, "ts_event": now, "ts_init": now,
                } | command["fields"]  # fmt: skip
                self.publish_data(DataType(EnrichedSignal), EnrichedSignal(**fields))
            elif command["do"] == "state":
                tell("state", number=command["number"], **self.state())

        def state(self) -> dict[str, Any]:
            instrument_id = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
            account = self.portfolio.account(instrument_id.venue)
            instrument = self.cache.instrument(instrument_id)
            return {
                "equity": None if instrument is None else float(strategy._equity.view(instrument).equity),
                "counts": dict(strategy.counts),
                "busy": [str(i) for i, trade in strategy._desk.trades.items() if trade.in_flight],
                "balances": {}
                if account is None
                else {str(k): str(v) for k, v in account.balances().items()},
                "positions": {
                    str(p.instrument_id): [str(p.strategy_id), float(p.signed_qty)]
                    for p in self.cache.positions_open()
                },
                "orders": [
                    {
                        "id": str(o.client_order_id),
                        "venue_id": str(o.venue_order_id),
                        "strategy": str(o.strategy_id),
                        "type": o.order_type.name if hasattr(o.order_type, "name") else str(o.type_string()),
                        "status": o.status_string(),
                        "side": o.side_string(),
                        "quantity": float(o.quantity),
                        "filled": float(o.filled_qty),
                        "reduce_only": o.is_reduce_only,
                    }
                    for o in self.cache.orders()
                ],
            }

    settings = arguments.settings
    common = {
        "environment": HyperliquidEnvironment.TESTNET,
        "base_url_ws": arguments.base_url_ws,
        "product_types": (HyperliquidProductType.PERP,),
        "http_timeout_secs": 3,
        "instrument_provider": InstrumentProviderConfig(load_all=True),
    }
    execution = {"ws_post_timeout_secs": 2, "private_key": f"0x{secrets.token_hex(32)}"} | common
    node = TradingNode(
        TradingNodeConfig(
            trader_id="TESTER-001",
            logging=LoggingConfig(log_level="INFO", log_colors=False, use_pyo3=True),
            data_engine=LiveDataEngineConfig(**settings.get("data_engine", {})),
            exec_engine=LiveExecEngineConfig(**settings.get("engine", {})),
            data_clients={HYPERLIQUID: HyperliquidDataClientConfig(**common)},
            exec_clients={
                HYPERLIQUID: HyperliquidExecClientConfig(**execution | settings.get("execution", {}))
            },
            timeout_connection=10,
            timeout_reconciliation=5,
            timeout_portfolio=5,
            timeout_disconnection=5,
            timeout_post_stop=settings.get("timeout_post_stop", 0.2),
            timeout_shutdown=2,
        )
    )
    strategy = EnrichedSignalStrategy(
        EnrichedSignalStrategyConfig.parse(json.dumps({"order_id_tag": "T", **settings["strategy"]}))
    )
    node.trader.add_actor(Remote())
    node.trader.add_strategy(strategy)
    node.add_data_client_factory(HYPERLIQUID, HyperliquidLiveDataClientFactory)
    node.add_exec_client_factory(HYPERLIQUID, HyperliquidLiveExecClientFactory)
    node.build()
    try:
        node.run(raise_exception=True)
    finally:
        node.dispose()
        tell("ended")


if __name__ == "__main__":
    _main()
