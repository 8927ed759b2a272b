"""Real live `TradingNode`s for tests, without clients: what they are fed goes straight to the data engine."""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import pytest
from nautilus_trader.config import LiveExecEngineConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar, BarType, CustomData, DataType
from nautilus_trader.model.identifiers import InstrumentId, TraderId
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Price, Quantity

from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import EnrichedSignal, ModelUpdate, SignalData, SignalOutcome
from tests.support.waiting import until_async

BEAT_S = 0.002


def node_config(trader_id: str, log_level: str, **kwargs: Any) -> TradingNodeConfig:
    """Return the config of a node that starts and stops quickly."""
    return TradingNodeConfig(
        trader_id=TraderId(trader_id),
        logging=LoggingConfig(log_level=log_level, log_colors=False),
        exec_engine=LiveExecEngineConfig(reconciliation=False),
        timeout_connection=10,
        timeout_disconnection=5,
        timeout_post_stop=0.2,
        timeout_shutdown=2,
        **kwargs,
    )


def list_instruments(node: TradingNode, config: ML4TActorConfig) -> None:
    """Put what the actor wants into the node's cache, as a data client would when it connects."""
    for bar_type in config.bar_types:
        node.kernel.cache.add_instrument(instrument(BarType.from_str(bar_type).instrument_id))


def instrument(instrument_id: InstrumentId) -> CryptoPerpetual:
    return CryptoPerpetual(
        instrument_id=instrument_id,
        raw_symbol=instrument_id.symbol,
        base_currency=USDT,
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=3,
        size_precision=3,
        price_increment=Price.from_str("0.001"),
        size_increment=Quantity.from_str("0.001"),
        ts_event=0,
        ts_init=0,
    )


class Step(NamedTuple):
    """A bar, and the signals that come out of it."""

    bar: Bar
    signals: list[SignalData]


class Log:
    """Keeps what the actor would write to Nautilus's log."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def count(self, text: str) -> int:
        """Return how many lines have a text in them."""
        return sum(text in line for line in (*self.infos, *self.warnings, *self.errors))

    def info(self, message: str) -> None:
        self.infos.append(message)

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def error(self, message: str) -> None:
        self.errors.append(message)


class Live:
    """A node without clients around one actor, and everything of some kinds that it published, in order."""

    KINDS: tuple[type, ...] = (EnrichedSignal, SignalOutcome, ModelUpdate)

    def __init__(self, config: ML4TActorConfig, *, trader_id: str = "LIVE-001", **kwargs: Any) -> None:
        self.log = Log()
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.node = TradingNode(node_config(trader_id, "ERROR", **kwargs), loop=self.loop)
        list_instruments(self.node, config)
        # What it logs is kept: Nautilus's own code logs past this.
        logged = type(ML4TActor.__name__, (ML4TActor,), {"log": property(lambda _actor: self.log)})
        self.actor: ML4TActor = logged(config)
        self.node.trader.add_actor(self.actor)
        self.node.build()
        self.thread = threading.get_ident()
        self.published: list[Any] = []
        self.publishing_threads: set[int] = set()
        self._stalls_s = {"loop": 0.0, "thread": 0.0}
        for kind in self.KINDS:
            self.node.kernel.msgbus.subscribe(topic=f"data.{kind.__name__}*", handler=self._keep)

    def _keep(self, data: Any) -> None:
        self.published.append(data)
        self.publishing_threads.add(threading.get_ident())

    def of(self, kind: type) -> list[Any]:
        return [data for data in self.published if type(data) is kind]

    @property
    def enriched(self) -> list[EnrichedSignal]:
        return self.of(EnrichedSignal)

    @property
    def updates(self) -> list[ModelUpdate]:
        return self.of(ModelUpdate)

    def run(self, scenario: Callable[["Live"], Awaitable[None]]) -> "Live":
        """Run the node from start to stop, with the scenario in between."""
        try:
            self.loop.run_until_complete(self._run(scenario))
        finally:
            self.node.dispose()
            asyncio.set_event_loop(None)
        return self

    async def _run(self, scenario: Callable[["Live"], Awaitable[None]]) -> None:
        running = asyncio.create_task(self.node.run_async())
        beating = None
        try:
            await self.until(lambda: self.actor.is_running or running.done())
            if running.done():
                running.result()
            assert self.actor.is_running, "the actor did not start"
            beating = asyncio.create_task(self._beat())
            async with self.beside(self._beat_beside):
                await scenario(self)
        finally:
            if beating is not None:
                beating.cancel()
            await self.node.stop_async()
            left = asyncio.all_tasks() - {asyncio.current_task()}  # Nautilus leaves its executors' workers
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    @property
    def longest_stall_s(self) -> float:
        """How much longer the event loop stood still than a thread beside it: a busy machine holds up both."""
        return self._stalls_s["loop"] - self._stalls_s["thread"]

    async def _beat(self) -> None:
        while True:
            due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._keep_stall("loop", due)

    def _beat_beside(self, over: threading.Event) -> None:
        while not over.is_set():
            due = time.monotonic() + BEAT_S
            time.sleep(BEAT_S)
            self._keep_stall("thread", due)

    def _keep_stall(self, where: str, due: float) -> None:
        self._stalls_s[where] = max(self._stalls_s[where], time.monotonic() - due)

    async def until(self, condition: Callable[[], Any], what: str = "what is to happen") -> None:
        """Wait, as long as the node publishes anything."""
        await until_async(condition, what, lambda: len(self.published))

    async def feed(self, steps: Iterable[Step], pause_s: float = 0.0) -> None:
        """Hand bars and signals to the data engine, as a client would, and wait until it has taken them."""
        for i, step in enumerate(steps):
            self.send(step.bar, *step.signals)
            if pause_s or i % 8 == 7:
                await asyncio.sleep(pause_s)
        await self.taken()

    def send(self, *data: Bar | SignalData) -> None:
        for item in data:
            wrapped = item if isinstance(item, Bar) else CustomData(DataType(SignalData), item)
            self.node.kernel.data_engine.process(wrapped)

    async def taken(self) -> None:
        await asyncio.sleep(0)
        queued = self.node.kernel.data_engine.data_qsize
        await until_async(lambda: not queued(), "an empty queue", queued, pause_s=0.0)

    async def in_thread(self, function: Callable[[], None]) -> None:
        """Call in a thread of its own, to its end, while the event loop goes on."""
        async with self.beside(lambda _over: function()):
            pass

    @contextlib.asynccontextmanager
    async def beside(self, *functions: Callable[[threading.Event], None]) -> AsyncIterator[None]:
        """Call each in a thread of its own, beside what happens in the context.

        Each is given an event that is set when the context ends, however it does, and has to return then. Nothing
        here blocks the event loop, which a thread may be waiting for.
        """
        over = threading.Event()
        errors: list[BaseException] = []

        def call(function: Callable[[threading.Event], None]) -> None:
            try:
                function(over)
            except BaseException as e:
                errors.append(e)

        # Daemons, lest one that does not end keeps the process from ending.
        threads = [threading.Thread(target=call, args=(function,), daemon=True) for function in functions]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            await self.until(lambda: not any(thread.is_alive() for thread in threads), "the threads' end")
        if errors:
            raise errors[0]


class Threads(dict[str, set[int]]):
    """On which threads methods were called, by name."""

    def watch(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def seen(*args: Any, **kwargs: Any) -> Any:
            self.setdefault(name, set()).add(threading.get_ident())
            return original(*args, **kwargs)

        patch.setattr(owner, name, seen)
