"""Live nodes between Redis and a planted market: in the test's own process, and in processes that are killed.

``python -m tests.support.redis_node MODELS`` imports and compiles everything once, and then forks a process for
each life that it is asked for on standard input, so that a restart takes a tenth of a second.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import Bar, BarType, CustomData, DataType
from nautilus_trader.model.identifiers import InstrumentId

from backtests.synthetic import synthetic_bars
from ml4t_actor.actor import ML4TActor
from ml4t_actor.actor.redis_bridge import RedisBridge
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.market_data import Bars
from ml4t_actor.messages import ActorHealth, EnrichedSignal, ModelUpdate, SignalData, SignalOutcome
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import (
    FeedSettings,
    HealthSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    RedisSettings,
    RetrainSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from tests.support.fork_server import ForkServer, Life, serve
from tests.support.nodes import Live, list_instruments, node_config
from tests.support.redis_server import RedisServer

INSTRUMENT = InstrumentId.from_str("ABC-PERP.NOWHERE")
BAR_TYPE = BarType.from_str(f"{INSTRUMENT}-1-MINUTE-LAST-EXTERNAL")
MINUTE_NS = 60_000_000_000
NAMES = ["volatility", "momentum", "trend_strength", "strength"]
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=20, cost=0.0001),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    model=ModelSettings(parameters={"C": 0.1}, calibration="none"),
    validation=ValidationSettings(n_folds=2, embargo_bars=20, bootstrap_samples=20),
    volatility_halflife_bars=20,
)
N_TRAIN, N_LIVE = 2_000, 3_000
WARM_BARS = 650  # after which no signal is answered `warming_up`
SIGNALS, ENRICHED = "nautilus:signals", "nautilus:enriched_signals"
INNER = "inner"  # source of the signals that arise in the node
INNER_PAUSE_S = 0.02  # between two of them, each with its bar


def market() -> Bars:
    """Return bars of which the last has just closed, the same ones whenever they are asked for but for their times."""
    bars = synthetic_bars(7, N_TRAIN + N_LIVE, bar_minutes=1, price=100.0, volume=500.0)
    return dataclasses.replace(
        bars,
        ts_event=(time.time_ns() // MINUTE_NS - np.arange(len(bars))[::-1]) * MINUTE_NS,
        **{name: np.round(getattr(bars, name), 3) for name in ("open", "high", "low", "close", "volume")},
    )


def train(folder: Path, bars: Bars) -> None:
    """Train two models, of which the newer serves."""
    loop = TrainingLoop(SETTINGS, feature_names=NAMES, store=ModelStore(folder))
    for n in (N_TRAIN - 100, N_TRAIN):
        loop.train(bars[:n])


def live_bars(bars: Bars) -> list[Bar]:
    later = bars[N_TRAIN:]
    ts = later.ts_event.astype(np.uint64)
    columns = [np.array(getattr(later, name)) for name in ("open", "high", "low", "close", "volume")]
    return Bar.from_raw_arrays_to_list(BAR_TYPE, 3, 3, *columns, ts, ts)


def config_of(models: Path, redis: RedisSettings, **kwargs: Any) -> ML4TActorConfig:
    fields: dict[str, Any] = {
        "component_id": "enricher",
        "model_path": str(models),
        "bar_types": [str(BAR_TYPE)],
        "feature_names": NAMES,
        "labels": SETTINGS.labels,
        "vpin": SETTINGS.vpin,
        "volatility_halflife_bars": SETTINGS.volatility_halflife_bars,
        "max_bar_age_bars": 1e9,
        "max_signal_age": 3_600.0,
        "redis": redis,
        "feed": FeedSettings(warm_up=False),
        "inference_timeout_ms": 60_000,  # lest a busy machine makes signals late
        "retrain_min_samples": 10**9,
        "retraining": RetrainSettings(check_seconds=0.05),
        "ledger": LedgerSettings(flush_ms=20),
        "health": HealthSettings(publish_seconds=0.1),
    }
    return ML4TActorConfig(**(fields | kwargs))


def signal_of(name: str, *, source: str = INNER, **changes: Any) -> SignalData:
    now = time.time_ns()
    fields = {
        "instrument_id": INSTRUMENT,
        "signal": 1,
        "strength": 0.5,
        "source": source,
        "signal_id": name,
        "ts_event": now,
        "ts_init": now,
    }
    return SignalData(**(fields | changes))


class RedisNode(Live):
    """A node in this process, with a bridge to Redis."""

    KINDS = (SignalData, EnrichedSignal, SignalOutcome, ModelUpdate, ActorHealth)

    def __init__(self, config: ML4TActorConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.n_inner = 0

    @property
    def bridge(self) -> RedisBridge:
        assert self.actor._live is not None
        assert self.actor._live.bridge is not None
        return self.actor._live.bridge

    @property
    def health(self) -> ActorHealth | None:
        told = self.of(ActorHealth)
        return told[-1] if told else None

    async def healthy(self, **expected: str) -> ActorHealth:
        """Wait until what it tells of its health is so."""
        await self.until(
            lambda: self.health and all(getattr(self.health, k) == v for k, v in expected.items())
        )
        assert self.health is not None
        return self.health

    async def warm(self, bars: list[Bar]) -> None:
        """Take the newest bars."""
        for i, bar in enumerate(bars[-WARM_BARS:]):
            self.send(bar)
            if i % 50 == 0:
                await asyncio.sleep(0)
        await self.taken()

    async def inner(self, n: int = 1) -> list[EnrichedSignal]:
        """Have signals arise in the node, and return their answers, which are there when they have been taken."""
        sent = [f"inner-{self.n_inner + i}" for i in range(n)]
        self.n_inner += n
        self.send(*(signal_of(name) for name in sent))
        await self.taken()
        found = [e for e in self.enriched if e.source == INNER][-n:]
        assert [e.signal_id for e in found] == sent
        return found

    def answers(self, source: str) -> list[str]:
        return [e.signal_id for e in self.enriched if e.source == source]


class NodeLife(Life, frozen=True, kw_only=True):
    """What one process is to do, beside what each of them does.

    Attributes
    ----------
    folder : str
        Where it leaves `bus` (source and id of each enriched signal that the bus carried, a line each), `health`
        (JSON lines) and `log`.
    bars : str
        File of the bars, as `np.save` has it.
    inner : bool
        Whether signals arise in the node, with a bar each, as long as there are bars.
    """

    folder: str
    bars: str
    inner: bool = False


def live(life: NodeLife) -> None:
    """Run a node until SIGTERM, or until somebody kills it."""
    folder = Path(life.folder)
    bus, told = ((folder / name).open("a", buffering=1) for name in ("bus", "health"))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    config = ML4TActorConfig.parse(life.config)
    node = TradingNode(node_config("KILLED-001", "INFO"), loop=loop)
    list_instruments(node, config)
    actor = ML4TActor(config)
    node.trader.add_actor(actor)
    node.build()
    msgbus = node.kernel.msgbus
    msgbus.subscribe("data.EnrichedSignal*", lambda e: bus.write(f"{e.source} {e.signal_id} {e.status}\n"))
    msgbus.subscribe("data.ActorHealth*", lambda h: told.write(f"{json.dumps(h.to_dict())}\n"))
    bars = _load(life.bars)

    async def run() -> None:
        over = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        running = asyncio.create_task(node.run_async())
        while not (actor.is_running or running.done()):
            await asyncio.sleep(0)
        if running.done():
            running.result()
            raise SystemExit("the node ended by itself")
        last_ts = actor.inference.features(INSTRUMENT).last_ts
        left = iter([bar for bar in bars if bar.ts_event > last_ts])
        if not last_ts:
            for _ in range(WARM_BARS):
                node.kernel.data_engine.process(next(left))
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), INNER_PAUSE_S)
            bar = next(left, None) if life.inner else None
            if bar is not None:
                node.kernel.data_engine.process(bar)
                arisen = signal_of(f"{os.getpid()}-{bar.ts_event}")
                node.kernel.data_engine.process(CustomData(DataType(SignalData), arisen))
        await node.stop_async()
        running.cancel()

    loop.run_until_complete(run())


def _load(path: str) -> list[Bar]:
    columns = np.load(path)
    return Bar.from_raw_arrays_to_list(BAR_TYPE, 3, 3, *columns[1:], *[columns[0].astype(np.uint64)] * 2)


def save_bars(path: Path, bars: Iterable[Bar]) -> None:
    rows = [(b.ts_event, *map(float, (b.open, b.high, b.low, b.close, b.volume))) for b in bars]
    np.save(path, np.array(rows).T)


class Nodes(ForkServer):
    """Starts node processes and ends them, from within a test; one at a time."""

    def __init__(self, models: Path) -> None:
        super().__init__("tests.support.redis_node", models)

    def begin_in(self, folder: Path, config: ML4TActorConfig, bars: Path, **kwargs: Any) -> "Trace":
        """Start a life, and return what it leaves."""
        folder.mkdir(parents=True)
        life = NodeLife(
            config=config.json().decode(),
            log=str(folder / "log"),
            folder=str(folder),
            bars=str(bars),
            **kwargs,
        )
        self.begin(life)
        return Trace(folder)


class Trace:
    """What a life leaves: it can be read while it lives, and after it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def log(self) -> str:
        return self._text("log")

    @property
    def bus(self) -> list[tuple[str, str, str]]:
        """Source, id and status of each enriched signal that the bus carried."""
        lines = self._text("bus").splitlines(keepends=True)
        return [(*line.split(),) for line in lines if line.endswith("\n")]  # type: ignore[misc]

    @property
    def health(self) -> ActorHealth | None:
        lines = [line for line in self._text("health").splitlines(keepends=True) if line.endswith("\n")]
        return ActorHealth.from_dict(json.loads(lines[-1])) if lines else None

    def counts(self, group: str) -> dict[str, int]:
        health = self.health
        return {} if health is None else health.counts_by_kind.get(group, {})

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


def entries(server: RedisServer, stream: str = ENRICHED) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """Yield what is in a stream."""
    with server.client() as client:
        for entry_id, fields in client.xrange(stream):
            yield entry_id.decode(), fields


def written(server: RedisServer, stream: str = ENRICHED) -> list[dict[str, Any]]:
    """Return the messages in a stream, read without the project's own reader."""
    return [
        json.loads(payload) if payload.startswith(b"{") else msgspec.msgpack.decode(payload)
        for payload in (fields[b"payload"] for _, fields in entries(server, stream))
    ]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), NodeLife, lambda life: functools.partial(live, life))
