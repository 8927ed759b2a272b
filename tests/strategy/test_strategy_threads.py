"""The live strategy called from other threads: its log, clock and cache refuse them here, as Nautilus 2 does."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.portfolio.portfolio import Portfolio

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.model import BarType, TraderId
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution import live_execution
from tests.support.nodes import instrument
from tests.support.waiting import join, until_async

BARS = "BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
BTC = BarType.from_str(BARS).instrument_id


class Confined(EnrichedSignalStrategy):
    """Its log, clock and cache refuse every thread but the one that it was made on."""

    def __init__(self) -> None:
        self.home = threading.get_ident()
        self.refused: list[str] = []
        self.accesses = 0
        self.folder = tempfile.TemporaryDirectory()
        path = f"{self.folder.name}/orders.sqlite"
        super().__init__(EnrichedSignalStrategyConfig(bar_types=[BARS], journal_path=path))

    def _check(self, what: str) -> None:
        self.accesses += 1
        if threading.get_ident() != self.home:
            self.refused.append(what)
            raise RuntimeError(f"{what} from another thread")

    @property
    def log(self):
        self._check("log")
        return super().log

    @property
    def clock(self):
        self._check("clock")
        return super().clock

    @property
    def cache(self):
        self._check("cache")
        return super().cache


def signal(number: int) -> EnrichedSignal:
    now = LiveClock().timestamp_ns()
    return EnrichedSignal(
        instrument_id=BTC, signal=1, strength=1.0, source="test", signal_id=str(number), meta_confidence=1.0,
        toxicity=0.0, vpin=0.1, regime_weight=1.0, regime=0, volatility=0.01, model_version="v1", status="ok",
        latency_ns=0, ts_event=now, ts_init=now,
    )  # fmt: skip


@asynccontextmanager
async def running() -> AsyncIterator[Confined]:
    """A live strategy without an account: it looks at clock and cache, refuses every signal, and logs that."""
    clock, cache, strategy = LiveClock(), Cache(database=None), Confined()
    bus = MessageBus(trader_id=TraderId("TESTER-001"), clock=clock)
    cache.add_instrument(instrument(BTC))
    strategy.register(
        trader_id=bus.trader_id,
        portfolio=Portfolio(msgbus=bus, clock=clock, cache=cache),
        msgbus=bus,
        cache=cache,
        clock=clock,
    )
    strategy.start()
    yield strategy
    if strategy.is_running:
        strategy.stop()
    strategy.dispose()
    strategy.folder.cleanup()


def call_from_another_thread(function: Callable[[], object]) -> None:
    """Call, and return when that is over."""
    errors: list[Exception] = []

    def call() -> None:
        try:
            function()
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    join(thread)
    assert errors == []


def test_signals_of_other_threads_are_decided_on_the_event_thread_and_in_order(monkeypatch):
    monkeypatch.setattr(live_execution, "_CHECK_SECONDS", 0.01)

    async def scenario() -> None:
        decided: list[str] = []
        async with running() as strategy:
            decide = strategy.stage.execute
            strategy.stage.execute = lambda enriched, *args, **kwargs: (
                decided.append(enriched.signal_id),
                decide(enriched, *args, **kwargs),
            )[1]
            for number in range(20):
                call_from_another_thread(lambda n=number: strategy.handle_data(signal(n)))
            assert decided == []  # the event thread had no turn yet
            await until_async(lambda: strategy.counts["refuse"] == 20)
            accesses = strategy.accesses
            await until_async(lambda: strategy.accesses > accesses + 5)  # the check of the trades goes on
        assert decided == [str(number) for number in range(20)]
        assert strategy.refused == []
        assert dict(strategy.counts) == {"refuse": 20}

    asyncio.run(scenario())


def test_an_order_event_of_another_thread_is_followed_up_on_the_event_thread():
    readers: list[int] = []

    class Event:
        @property
        def instrument_id(self):
            readers.append(threading.get_ident())
            return BTC

    async def scenario() -> None:
        async with running() as strategy:
            call_from_another_thread(lambda: strategy.on_order_event(Event()))
            assert readers == []
            await until_async(lambda: bool(readers))
            assert readers == [strategy.home]
            assert strategy.refused == []

    asyncio.run(scenario(), debug=True)  # which refuses what would not wake the loop


def test_a_signal_on_the_event_thread_is_decided_before_the_call_returns():
    async def scenario() -> None:
        async with running() as strategy:
            strategy.handle_data(signal(1))
            assert dict(strategy.counts) == {"refuse": 1}
            assert strategy.refused == []

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["delivered before the stop", "delivered after the stop"])
def test_a_signal_of_another_thread_is_not_decided_after_the_stop(when):
    async def scenario() -> None:
        async with running() as strategy:
            if when == "delivered before the stop":
                call_from_another_thread(lambda: strategy.handle_data(signal(1)))
            strategy.stop()
            if when == "delivered after the stop":
                call_from_another_thread(lambda: strategy.on_data(signal(1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert dict(strategy.counts) == {}
        assert strategy.refused == []

    asyncio.run(scenario())


def test_a_signal_of_another_thread_is_dropped_when_the_event_loop_is_gone():
    strategies: list[Confined] = []

    async def scenario() -> None:
        async with running() as strategy:
            strategies.append(strategy)

    asyncio.run(scenario())
    call_from_another_thread(lambda: strategies[0].on_data(signal(1)))
    assert dict(strategies[0].counts) == {}
    assert strategies[0].refused == []
