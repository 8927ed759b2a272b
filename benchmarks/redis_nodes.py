"""Live nodes in processes of their own, for `benchmarks.redis_latency`: the actor's, and a bare one to compare with."""

import asyncio
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import DatabaseConfig, MessageBusConfig
from nautilus_trader.config import ActorConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.core.data import Data
from nautilus_trader.live.config import LiveDataEngineConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import Bar, DataType
from nautilus_trader.model.identifiers import ClientId, InstrumentId

from backtests.market import Market, load_markets
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.settings import FeedSettings, LedgerSettings, RedisSettings
from tests.support.nodes import list_instruments, node_config

N_TRAIN = 20_000
# Without those that say how often signals come, which is nothing like in the training here.
FEATURES = tuple(name for name in META_FEATURE_NAMES if not name.startswith("signal_"))
WAIT_S = 60.0

_GROUP, _GROUP_S = 5, 0.01  # of signals in process, one right after the other
_BEAT_S = 0.001
_TURN = 16  # signals in process between which the event loop has its turn, as `RedisBridge` gives it
_EXTERNAL = ClientId("EXTERNAL")
_ENRICHED, _SIGNAL = DataType(EnrichedSignal), DataType(SignalData)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["ml4t_actor.training.loop", "tests.support.nodes"]
)  # what takes seconds to import


class Streams(NamedTuple):
    """Keys of the streams that signals come from and answers go to."""

    signals: str
    enriched: str


BARE = Streams("bare-signals", "bare-enriched")
ACTOR = Streams(ML4TActorConfig().redis_channel_signals, ML4TActorConfig().redis_channel_enriched)


class Setup(NamedTuple):
    """What each enriching node begins with: a model, and a ledger in which the market is warm."""

    models: str
    ledger: str
    bar_type: str

    @property
    def instrument_id(self) -> str:
        return self.bar_type.partition("-1-MINUTE")[0]

    def config(self, folder: str, port: int | None) -> ML4TActorConfig:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "ledger.sqlite"
        if Path(self.ledger).exists():
            shutil.copy(self.ledger, path)
        return ML4TActorConfig(
            model_path=self.models,
            bar_types=[self.bar_type],
            feature_names=list(FEATURES),
            max_bar_age_bars=1e6,  # no bar comes any more
            max_signal_age=600.0,
            inference_timeout_ms=60_000,
            feed=FeedSettings(warm_up=False),
            ledger=LedgerSettings(path=str(path)),
            retrain="off",
            redis_enabled=port is not None,
            redis=RedisSettings(port=port or 1),
        )


class Bare(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Answers each signal of an external stream at once, on whatever thread it comes."""

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="Bare"))

    def on_start(self) -> None:
        self.msgbus.add_streaming_type(SignalData)
        self.subscribe_data(_SIGNAL, client_id=_EXTERNAL)

    def on_data(self, data: Data) -> None:
        if isinstance(data, SignalData):
            enriched = EnrichedSignal.from_signal(data, meta_confidence=0.5, status=Status.OK)
            self.publish_data(_ENRICHED, enriched)


class Worker:
    """A process with a node, which carries out what is requested through a pipe."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        self._pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def wait(self) -> None:
        """Wait until the node runs."""
        if (answer := self.answer(str)) != "running":
            raise RuntimeError(f"a node did not start: {answer}")

    def stop(self) -> None:
        """Let the node come to a proper end."""
        self.send("stop")
        self._process.join(WAIT_S)

    def send(self, *request: object) -> None:
        self._pipe.send(request)

    def answer[T](self, kind: type[T]) -> T:
        if not self._pipe.poll(WAIT_S):
            raise RuntimeError("a node does not answer")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a node has died; its standard error says why") from None
        if not isinstance(answer, kind):
            raise RuntimeError(f"a node answered {answer!r}, must be a {kind.__name__}")
        return answer

    def request[T](self, kind: type[T], *request: object) -> T:
        self.send(*request)
        return self.answer(kind)


class Backlog(NamedTuple):
    """How a backlog was answered: signals per second, and the longest time that the event loop was held."""

    per_second: float
    held_s: float


class Answers:
    """What a node publishes, and how long its event loop was held meanwhile."""

    def __init__(self, node: TradingNode) -> None:
        self.latency_ns: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.first_s = self.last_s = 0.0
        self.held_s = 0.0
        node.kernel.msgbus.subscribe(topic=f"data.{EnrichedSignal.__name__}*", handler=self._keep)

    def _keep(self, enriched: EnrichedSignal) -> None:
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        self.latency_ns.append(enriched.latency_ns)
        self.statuses[enriched.status] += 1

    async def beat_until(self, done: Callable[[], bool]) -> None:
        """Wait, and note by how much a short pause was too long."""
        deadline = time.perf_counter() + WAIT_S
        while not done():
            due = time.perf_counter() + _BEAT_S
            if due > deadline:
                raise RuntimeError(f"only {len(self.latency_ns):,} signals were answered")
            await asyncio.sleep(_BEAT_S)
            if self.first_s:
                self.held_s = max(self.held_s, time.perf_counter() - due)


def run_node(
    pipe: Connection, node: TradingNode, actor: Actor, scenario: Callable[[], Awaitable[None]] | None
) -> None:
    """Run the node until its end, with the scenario in between, or until it is asked to stop."""

    async def run() -> None:
        running = asyncio.create_task(node.run_async())
        while not actor.is_running:
            if running.done():
                pipe.send("its actor is not running")
                return
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        pipe.send("running")
        if scenario is None:
            await _readable(pipe)
        else:
            await scenario()
        await node.stop_async()

    node.build()
    node.kernel.loop.run_until_complete(run())
    os._exit(0)  # Nautilus leaves tasks and threads behind


async def _readable(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(pipe.fileno(), event.set)
    await event.wait()
    loop.remove_reader(pipe.fileno())


def _quiet(trader_id: str, **options: object) -> TradingNodeConfig:
    """Return a node's config without the error that there is no venue to subscribe at."""
    config = node_config(trader_id, "ERROR", **options)
    return msgspec.structs.replace(
        config, logging=LoggingConfig(log_level="ERROR", log_component_levels={"DataEngine": "OFF"})
    )


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def bare_node(pipe: Connection, port: int) -> None:
    config = _quiet(
        "BARE-001",
        message_bus=MessageBusConfig(
            database=DatabaseConfig(type="redis", host="127.0.0.1", port=port),
            encoding="json",
            streams_prefix=BARE.enriched,
            use_trader_prefix=False,
            use_trader_id=False,
            stream_per_topic=False,
            external_streams=[BARE.signals],
        ),
        data_engine=LiveDataEngineConfig(external_clients=[_EXTERNAL]),
    )
    node, actor = TradingNode(config, loop=_new_loop()), Bare()
    node.trader.add_actor(actor)
    run_node(pipe, node, actor, None)


def enriching_node(pipe: Connection, setup: Setup, folder: str, port: int | None) -> None:
    config = setup.config(folder, port)
    node, actor = TradingNode(_quiet("BENCH-001"), loop=_new_loop()), ML4TActor(config)
    list_instruments(node, config)
    node.trader.add_actor(actor)
    answers = Answers(node)

    async def scenario() -> None:
        while True:
            if not pipe.poll():
                await _readable(pipe)
            match pipe.recv():
                case ("stop",):
                    return
                case ("warm", n_bars):
                    for bar in warm_bars(n_bars):
                        node.kernel.data_engine.process(bar)
                        await asyncio.sleep(0)
                    while actor.inference.features(bar.bar_type.instrument_id).bars < n_bars:
                        await asyncio.sleep(0.01)
                    pipe.send(actor.inference.features(bar.bar_type.instrument_id).bars)
                case ("publish", seconds, prefix):
                    pipe.send(await _publish_groups(actor, answers, setup.instrument_id, seconds, prefix))
                case ("answer in process", n):
                    pipe.send(await _answer_all(actor, answers, setup.instrument_id, n))
                case ("answer from Redis", n):
                    await answers.beat_until(lambda: len(answers.latency_ns) >= n)
                    pipe.send(Backlog(n / (answers.last_s - answers.first_s), answers.held_s))
                case ("statuses",):
                    pipe.send(dict(answers.statuses))

    run_node(pipe, node, actor, scenario)


async def _publish_groups(
    actor: ML4TActor, answers: Answers, instrument_id: str, seconds: float, prefix: str
) -> tuple[list[int], list[int]]:
    """Publish signals in process; return latencies of the enrichment, and what each publication took."""
    answers.latency_ns.clear()
    taken: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await asyncio.sleep(_GROUP_S)
        for _ in range(_GROUP):
            signal = signal_of(instrument_id, f"{prefix}-{len(taken)}")
            started = time.perf_counter_ns()
            actor.publish_data(_SIGNAL, signal)
            taken.append(time.perf_counter_ns() - started)
    return list(answers.latency_ns), taken


async def _answer_all(actor: ML4TActor, answers: Answers, instrument_id: str, n: int) -> Backlog:
    signals = [signal_of(instrument_id, f"{i}") for i in range(n)]
    beating = asyncio.create_task(answers.beat_until(lambda: len(answers.latency_ns) >= n))
    for i, signal in enumerate(signals):
        actor.publish_data(_SIGNAL, signal)
        if i % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    await beating
    return Backlog(n / (answers.last_s - answers.first_s), answers.held_s)


def side_of(name: str) -> int:
    """Return the side of a signal whose name ends in its number."""
    return 1 if int(name.rpartition("-")[2]) % 2 else -1


def signal_of(instrument_id: str, name: str) -> SignalData:
    now = time.time_ns()
    return SignalData(
        instrument_id=InstrumentId.from_str(instrument_id),
        signal=side_of(name),
        strength=1.0,
        source="benchmark",
        signal_id=name,
        ts_event=now,
        ts_init=now,
    )


def recorded_market() -> Market:
    return load_markets("binance_1m")[0]


def warm_bars(n: int) -> list[Bar]:
    """Return bars that follow those of the training, as if they had just come."""
    market = recorded_market()
    bars, instrument = market.bars[N_TRAIN : N_TRAIN + n], market.instrument
    minute_ns = 60_000_000_000
    ts = ((time.time_ns() // minute_ns - np.arange(n)[::-1]) * minute_ns).astype(np.uint64)
    columns = [np.array(getattr(bars, name)) for name in ("open", "high", "low", "close", "volume")]
    precision = instrument.price_precision, instrument.size_precision
    made: list[Bar] = Bar.from_raw_arrays_to_list(market.bar_type, *precision, *columns, ts, ts)
    return made
