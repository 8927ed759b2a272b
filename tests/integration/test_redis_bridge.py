"""Between Redis and real live nodes nothing is lost and nothing comes twice, whoever is killed, away or full."""

import asyncio
import contextlib
import functools
import itertools
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nautilus_trader.common.config import DatabaseConfig, MessageBusConfig
from nautilus_trader.model.data import Bar

from ml4t_actor.actor import ML4TActor
from ml4t_actor.actor.event_thread import EventThread
from ml4t_actor.actor.redis_bridge import RedisBridge
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger
from ml4t_actor.ledger.retention import delete_chunk
from ml4t_actor.lifecycle import LifecycleLoop
from ml4t_actor.lifecycle.champion import ChampionLifecycle
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.publisher import SignalPublisher
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import HealthSettings, LedgerSettings, RetrainSettings
from ml4t_actor.streams import EnrichedSignalProducer
from tests.support.nodes import Threads
from tests.support.redis_node import (
    ENRICHED,
    INNER,
    INSTRUMENT,
    SIGNALS,
    Nodes,
    RedisNode,
    Trace,
    config_of,
    entries,
    live_bars,
    market,
    save_bars,
    signal_of,
    train,
    written,
)
from tests.support.redis_server import RedisServer
from tests.support.waiting import FAR_S, Patience, end_of, join, until

OUTSIDE = "outside"
OTHERS_PAUSE_S = 0.005


class Planted(NamedTuple):
    """A market, two models of it, and a file of its bars."""

    bars: list[Bar]
    models: Path
    bars_file: Path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    bars = market()
    train(folder / "models", bars)
    made = live_bars(bars)
    save_bars(folder / "bars.npy", made)
    return Planted(made, folder / "models", folder / "bars.npy")


@pytest.fixture
def models(planted: Planted, tmp_path: Path) -> Path:
    """Return a copy of the folder of models, with no ledger in it."""
    return Path(shutil.copytree(planted.models, tmp_path / "models"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="module")
def nodes(planted: Planted) -> Iterator[Nodes]:
    with Nodes(planted.models) as nodes:
        yield nodes


@pytest.fixture
def lives(planted: Planted, nodes: Nodes, tmp_path: Path) -> Iterator["Lives"]:
    made = Lives(planted, nodes, tmp_path / "lives")
    yield made
    nodes.kill()


class Lives:
    """Starts one process after the other."""

    def __init__(self, planted: Planted, nodes: Nodes, folder: Path) -> None:
        self._planted = planted
        self._folder = folder
        self.nodes = nodes
        self.traces: list[Trace] = []

    def begin(self, config: ML4TActorConfig, *, inner: bool = False) -> Trace:
        folder = self._folder / str(len(self.traces))
        self.traces.append(self.nodes.begin_in(folder, config, self._planted.bars_file, inner=inner))
        return self.traces[-1]


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    fields = {
        "instrument_id": str(INSTRUMENT),
        "signal": 1,
        "strength": 0.5,
        "source": OUTSIDE,
        "signal_id": name,
    }
    return fields | changes


def publish(server: RedisServer, names: Sequence[str], *, encoding: Any = "json", **changes: Any) -> None:
    with SignalPublisher(port=server.port, encoding=encoding, password=server.password) as publisher:
        publisher.publish_many([values_of(name, **changes) for name in names])


def names_of(first: int, n: int) -> list[str]:
    return [str(i) for i in range(first, first + n)]


def query(models: Path, sql: str) -> list[tuple[Any, ...]]:
    path = models / "ledger.sqlite"
    if not path.exists() or not path.stat().st_size:
        return []
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def recorded(models: Path) -> list[tuple[str, str, str]]:
    """Return source, id and status of the signals in the ledger, in the order in which they got there."""
    return query(models, "SELECT source, signal_id, status FROM signals ORDER BY id")


def position(models: Path, stream: str) -> str:
    return str(query(models, f"SELECT entry_id FROM positions WHERE stream = '{stream}'")[0][0])


def ids(messages: Sequence[dict[str, Any]], source: str = OUTSIDE) -> list[str]:
    return [message["signal_id"] for message in messages if message.get("source") == source]


@contextlib.contextmanager
def another_process_publishes(server: RedisServer, names: Sequence[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "ml4t_actor.publisher", "-", "--format", "jsonl", "--encoding", "json"]
    command += ["--port", str(server.port)]
    lines = "".join(f"{json.dumps(values_of(name))}\n" for name in names)
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:

        def give() -> None:
            assert process.stdin is not None
            process.stdin.write(lines)
            process.stdin.close()

        giving = threading.Thread(target=give, daemon=True)
        giving.start()
        try:
            yield
        except BaseException:
            process.kill()  # or leaving would wait for it
            raise
        join(giving)
        assert end_of(process) == 0


@pytest.mark.parametrize("n", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_signals_from_everywhere_are_answered_once_in_order_on_the_event_thread(
    planted, models, server, monkeypatch, n
):
    threads = Threads()
    for owner, names in (
        (InferenceLoop, ("process_signal", "swap")),
        (LifecycleLoop, ("check", "record")),
        (Ledger, ("record_signal",)),
        (ChampionLifecycle, ("hot_swap_model",)),
        (EnrichedSignalProducer, ("put",)),
        (ML4TActor, ("on_data",)),
        (EventThread, ("call",)),
    ):
        for name in names:
            threads.watch(monkeypatch, owner, name)
    bundles = [ModelStore(models).load(version) for version in ModelStore(models).versions()]
    outside = names_of(0, n)
    given = [name for name in outside for _ in range(2 if int(name) % 100 == 7 else 1)]
    twice = len(given) - n
    config = config_of(
        models,
        server.settings(),
        retraining=RetrainSettings(check_seconds=0.01),
        health=HealthSettings(publish_seconds=0.02),
    )
    node = RedisNode(config)

    def swap_from_outside(over: threading.Event) -> None:
        for bundle in itertools.cycle(bundles):
            if over.wait(OTHERS_PAUSE_S):
                return
            node.actor.hot_swap_model(bundle)

    def signal_from_outside(over: threading.Event) -> None:
        for i in itertools.count():
            if over.wait(OTHERS_PAUSE_S):
                return
            node.actor.on_data(signal_of(f"thread-{i}", source="thread"))

    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        patience = Patience("answers to all", lambda: len(node.answers(OUTSIDE)))
        async with node.beside(swap_from_outside, signal_from_outside):
            with another_process_publishes(server, given):
                while len(node.answers(OUTSIDE)) < n:
                    patience.check()
                    await node.inner()
                    await asyncio.sleep(OTHERS_PAUSE_S)
        # The same id, from within the node.
        node.send(signal_of("0", source=OUTSIDE))
        await node.until(lambda: node.actor.counts["repeated"] == twice + 1)

    node.run(scenario)
    assert node.answers(OUTSIDE) == outside
    assert node.answers(INNER) == [f"inner-{i}" for i in range(node.n_inner)]
    assert node.answers("thread") == [f"thread-{i}" for i in range(len(node.answers("thread")))]
    assert len({e.model_version for e in node.enriched if e.source == OUTSIDE}) == len(bundles)
    assert {e.status for e in node.enriched} <= {"ok", "novel_input"}
    assert threads.pop("call") - {node.thread}
    assert threads.pop("on_data") - {node.thread}  # which moves itself to the event thread
    assert set(threads) == {
        "process_signal", "swap", "check", "record", "record_signal", "hot_swap_model", "put"
    }  # fmt: skip
    assert all(seen == {node.thread} for seen in threads.values()), threads
    assert node.publishing_threads == {node.thread}
    assert recorded(models) == [(e.source, e.signal_id, e.status) for e in node.enriched]
    assert [EnrichedSignal.from_dict(m) for m in written(server)] == node.enriched
    assert node.actor.counts == {"repeated": twice + 1}
    assert node.log.errors == []


class Tally(NamedTuple):
    """What became of signals, each counted once."""

    published: int
    recorded: int
    written: int
    ok: int
    on_the_bus_twice: int
    answered_before: int


def tally(server: RedisServer, models: Path, names: Sequence[str], lives: Lives) -> Tally:
    """Check that each signal is in the ledger once and among the enriched once, in order, and count."""
    rows = [row for row in recorded(models) if row[0] == OUTSIDE]
    assert sorted(Counter(name for _, name, _ in rows).items()) == sorted((name, 1) for name in names)
    messages = written(server)
    assert ids(messages) == list(names)
    # Also those that arose within the node, though nobody sends them again.
    assert sorted(recorded(models)) == sorted((m["source"], m["signal_id"], m["status"]) for m in messages)
    on_bus = Counter(name for trace in lives.traces for source, name, _ in trace.bus if source == OUTSIDE)
    assert not set(names) - set(on_bus)
    return Tally(
        published=len(ids(written(server, SIGNALS))),
        recorded=len(rows),
        written=len(ids(messages)),
        ok=sum(row[2] == "ok" for row in rows),
        on_the_bus_twice=sum(n > 1 for n in on_bus.values()),
        answered_before=sum(trace.counts("actor").get("answered before", 0) for trace in lives.traces),
    )


def settled(server: RedisServer, trace: Trace, n: int) -> None:
    """Wait until as many signals from outside are among the enriched, and nothing is on its way."""
    until(lambda: len(ids(written(server))) >= n, f"{n} enriched signals", lambda: len(written(server)))
    until(lambda: trace.health is not None and trace.health.outbox_depth == 0)


def publish_while_everything_fails(
    server: RedisServer, lives: Lives, config: ML4TActorConfig, n: int, seed: int
) -> None:
    """Publish from a thread while Redis is restarted twice and the node killed twice, at random moments."""
    rng = random.Random(seed)
    faults = ["stop redis", "kill redis", "kill node", "kill node"]
    rng.shuffle(faults)
    done = threading.Event()
    failures: list[BaseException] = []

    def produce() -> None:
        try:
            left = names_of(0, n)
            with SignalPublisher(port=server.port, encoding="json", retry_seconds=60.0) as publisher:
                while left:
                    k = rng.randint(1, max(2, n // 40))
                    publisher.publish_many([values_of(name) for name in left[:k]])
                    left = left[k:]
                    time.sleep(0.01)
        except BaseException as e:
            failures.append(e)
        finally:
            done.set()

    def progress() -> int:
        with contextlib.suppress(Exception):
            return len(ids(written(server)))
        return 0

    trace = lives.begin(config, inner=True)
    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    moments = sorted(rng.uniform(0.05, 0.85) for _ in faults)
    for moment, fault in zip(moments, faults, strict=True):
        until(lambda moment=moment: progress() >= moment * n, f"{moment:.0%} of the signals", progress)
        time.sleep(rng.uniform(0.0, 0.05))
        if fault == "kill node":
            lives.nodes.kill()
            time.sleep(rng.choice([0.0, 0.3]))
            trace = lives.begin(config, inner=True)
        else:
            server.stop() if fault == "stop redis" else server.kill()
            time.sleep(rng.choice([0.0, 0.3]))
            server.start()
    join(producer)
    assert not failures
    settled(server, trace, n)
    assert lives.nodes.stop() == 0


@pytest.mark.parametrize(
    ("n", "seeds"), [(1_000, [1]), (3_000, [2]), pytest.param(10_000, [2, 3, 4], marks=pytest.mark.long)]
)
def test_whoever_is_killed_or_restarted_each_signal_is_accounted_for(
    planted, nodes, tmp_path, n, seeds, capsys
):
    told = [f"{'seed':>6}" + "".join(f"{name:>18}" for name in Tally._fields)]
    for seed in seeds:
        folder = tmp_path / str(seed)
        models = Path(shutil.copytree(planted.models, folder / "models"))
        lives = Lives(planted, nodes, folder / "lives")
        with RedisServer(folder / "redis") as server:
            config = config_of(models, server.settings(), ledger=LedgerSettings(flush_ms=100))
            publish_while_everything_fails(server, lives, config, n, seed)
            sums = tally(server, models, names_of(0, n), lives)
        told.append(f"{seed:>6}" + "".join(f"{value:>18,}" for value in sums))
        assert (sums.published, sums.recorded, sums.written) == (n, n, n)
        assert sums.ok > 0.9 * n
        assert len(lives.traces) == 3
    with capsys.disabled():
        print("", *told, sep="\n")


KILLED = "KILLED-001"  # as the processes are called, whose ledger a node of this process can take over


async def connected(node: RedisNode) -> None:
    await node.until(lambda: node.bridge.consumer.connected and node.bridge.producer.connected)


async def all_written(node: RedisNode) -> None:
    await node.until(lambda: node.bridge.producer.depth == 0)


def test_what_was_answered_just_before_a_kill_is_recorded_and_not_answered_again(models, server, lives):
    config = functools.partial(config_of, models, server.settings())
    lives.begin(config(ledger=LedgerSettings(flush_ms=600_000)))
    publish(server, names_of(0, 40))
    until(lambda: len(written(server)) == 40)
    lives.nodes.kill()
    assert recorded(models) == []
    trace = lives.begin(config())
    publish(server, names_of(40, 5))
    until(lambda: len(written(server)) == 45)
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == names_of(0, 45)
    assert [name for _, name, _ in trace.bus] == names_of(40, 5)
    assert recorded(models) == [(m["source"], m["signal_id"], m["status"]) for m in written(server)]
    assert "'answered before': 40" in trace.log


def test_answers_that_waited_for_redis_when_the_node_was_killed_are_written_by_the_next(
    models, server, lives
):
    config = config_of(models, server.settings())
    trace = lives.begin(config, inner=True)
    publish(server, names_of(0, 10))
    until(lambda: len(ids(written(server))) == 10)
    server.kill()
    until(lambda: trace.health is not None and trace.health.outbox_depth > 20)
    assert trace.health.outbound == "connecting"
    assert trace.health.outbound_error
    lives.nodes.kill()
    server.start()
    before = Counter((m["source"], m["signal_id"]) for m in written(server))
    rows = {(source, name) for source, name, _ in recorded(models)}
    assert len(rows - set(before)) >= 20
    trace = lives.begin(config)
    until(lambda: len(written(server)) >= len(rows | set(before)))
    publish(server, names_of(10, 1))
    settled(server, trace, 11)
    assert lives.nodes.stop() == 0
    after = Counter((m["source"], m["signal_id"]) for m in written(server))
    assert set(after.values()) == {1}
    assert set(after) >= rows | set(before)
    assert ids(written(server)) == names_of(0, 11)
    assert [name for _, name, _ in trace.bus] == ["10"]


def test_an_answer_recorded_late_is_not_written_again_by_the_life_after_the_next(
    planted, models, server, lives
):
    lives.begin(config_of(models, server.settings(), ledger=LedgerSettings(flush_ms=600_000)))
    publish(server, names_of(0, 5))
    until(lambda: len(written(server)) == 5)
    lives.nodes.kill()
    server.kill()

    async def answer_some_and_meet_those_of_before(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await node.inner(3)
        server.start()
        await node.until(lambda: node.actor.counts["answered before"] == 5)
        await all_written(node)

    async def write_what_waits(node: RedisNode) -> None:
        await connected(node)
        await all_written(node)

    config = config_of(models, server.settings())
    RedisNode(config, trader_id=KILLED).run(answer_some_and_meet_those_of_before)
    RedisNode(config, trader_id=KILLED).run(write_what_waits)
    assert ids(written(server)) == names_of(0, 5)
    assert ids(written(server), INNER) == ["inner-0", "inner-1", "inner-2"]


def test_answers_that_one_life_does_not_come_to_record_are_recorded_by_the_next(
    planted, models, server, lives, monkeypatch
):
    lives.begin(config_of(models, server.settings(), ledger=LedgerSettings(flush_ms=600_000)), inner=True)
    until(lambda: len(ids(written(server), INNER)) > 3)
    publish(server, names_of(0, 5))
    until(lambda: len(ids(written(server))) == 5)
    lives.nodes.kill()
    before = Counter((m["source"], m["signal_id"]) for m in written(server))

    async def answer_some(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await node.inner(3)
        await all_written(node)

    async def go_on(node: RedisNode) -> None:
        await connected(node)
        publish(server, names_of(5, 1))
        await node.until(lambda: "5" in node.answers(OUTSIDE))
        await all_written(node)

    config = config_of(models, server.settings())
    with monkeypatch.context() as patch:
        patch.setattr(RedisBridge, "begin_reading", lambda _self: None)  # as while past bars are to come
        RedisNode(config, trader_id=KILLED).run(answer_some)
    node = RedisNode(config, trader_id=KILLED).run(go_on)
    assert node.answers(OUTSIDE) == ["5"]
    after = Counter((m["source"], m["signal_id"]) for m in written(server))
    assert after == before + Counter([(INNER, f"inner-{i}") for i in range(3)] + [(OUTSIDE, "5")])
    assert Counter((source, name) for source, name, _ in recorded(models)) == after
    assert node.actor.counts == {"answered before": len(before)}


def test_what_was_written_while_the_node_was_down_for_long_is_recorded_as_expired(planted, models, server):
    config = config_of(models, server.settings(), max_signal_age=60.0)

    async def warm(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 3))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 3)

    async def catch_up(node: RedisNode) -> None:
        await node.until(lambda: len(node.answers(OUTSIDE)) == 30)
        await all_written(node)

    RedisNode(config).run(warm)
    before = position(models, SIGNALS)
    assert before == list(entries(server, SIGNALS))[-1][0]
    long_ago = time.time_ns() - 120 * 10**9
    publish(server, names_of(3, 20), ts_event=long_ago)
    publish(server, names_of(23, 10))
    node = RedisNode(config).run(catch_up)
    assert ids(written(server)) == names_of(0, 33)
    assert [m["status"] for m in written(server)] == ["ok"] * 3 + ["expired"] * 20 + ["ok"] * 10
    assert recorded(models) == [(m["source"], m["signal_id"], m["status"]) for m in written(server)]
    assert node.answers(OUTSIDE) == names_of(3, 30)
    assert all(e.meta_confidence == 0.5 and e.regime_weight == 0.0 for e in node.enriched[:20])
    assert position(models, SIGNALS) == list(entries(server, SIGNALS))[-1][0]
    assert not node.actor.counts


def test_a_first_start_reads_no_older_entries_than_signals_may_be(planted, models, server):
    config = config_of(models, server.settings(), max_signal_age=60.0)
    publish(server, names_of(0, 6))
    [(*_, fields)] = list(entries(server, SIGNALS))[-1:]
    now_ms = time.time_ns() // 1_000_000
    with server.client() as client:
        copies = [fields for _, fields in entries(server, SIGNALS)]
        client.delete(SIGNALS)
        for i, fields in enumerate(copies):
            client.xadd(SIGNALS, fields, id=f"{now_ms - (120_000 if i < 3 else 20_000)}-{i + 1}")

    async def read(node: RedisNode) -> None:
        publish(server, names_of(6, 1))
        await node.until(lambda: "6" in node.answers(OUTSIDE))

    node = RedisNode(config).run(read)
    assert node.answers(OUTSIDE) == names_of(3, 4)
    assert ids(written(server)) == names_of(3, 4)


CONNECTED = {"inbound": "connected", "outbound": "connected"}
AWAY = {"inbound": "connecting", "outbound": "connecting"}
STALL_MAX_S = 1.0  # what waits for Redis on the event thread would take longer


def all_is_written_once(server: RedisServer, models: Path, node: RedisNode) -> None:
    answered = [(e.source, e.signal_id, e.status) for e in node.enriched]
    assert [(m["source"], m["signal_id"], m["status"]) for m in written(server)] == answered
    assert recorded(models) == answered
    assert len(set(answered)) == len(answered)


def test_a_redis_that_comes_later_gets_all_that_was_answered_before(planted, models, tmp_path):
    server = RedisServer(tmp_path / "redis")

    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        health = await node.healthy(**AWAY)
        await node.inner(100)
        await node.until(lambda: node.log.count("not there") == 2)
        assert "refused" in health.inbound_error
        assert "refused" in health.outbound_error
        assert "the inbound stream is not connected" in health.problems
        server.start()
        publish(server, names_of(0, 3))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 3)
        health = await node.healthy(**CONNECTED)
        await all_written(node)
        await node.until(lambda: node.log.count("Redis: connected") == 2)
        assert health.inbound_error == health.outbound_error == ""
        assert "connected to Redis" not in health.problems

    with contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        node = RedisNode(config_of(models, server.settings())).run(scenario)
        assert node.longest_stall_s < STALL_MAX_S
        all_is_written_once(server, models, node)


def test_a_redis_that_stands_still_delays_nobody_and_loses_nothing(planted, models, server):
    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 50))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 50)
        await node.until(lambda: node.log.count("Redis: connected") == 2)
        server.pause()
        try:
            for _ in range(20):
                await node.inner(10)
                await asyncio.sleep(0.01)
            health = await node.healthy(**AWAY)
            assert "time" in health.inbound_error.lower()
            assert "time" in health.outbound_error.lower()
            await node.until(lambda: node.log.count("Redis: lost") == 2)
            await node.inner(10)
        finally:
            server.resume()
        publish(server, names_of(50, 50))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 100)
        await node.healthy(**CONNECTED)
        await all_written(node)

    settings = server.settings(timeout_seconds=0.5)
    node = RedisNode(config_of(models, settings)).run(scenario)
    assert node.answers(OUTSIDE) == names_of(0, 100)
    assert node.longest_stall_s < STALL_MAX_S
    all_is_written_once(server, models, node)


def test_a_full_redis_is_told_and_gets_everything_when_it_has_room(planted, models, server):
    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 10)
        await all_written(node)
        with server.client() as client:
            client.config_set("maxmemory", 1)
            await node.inner(100)
            health = await node.healthy(outbound="connecting")
            assert "maxmemory" in health.outbound_error
            assert health.inbound == "connected"
            assert health.outbox_depth == 100
            await node.inner(100)
            client.config_set("maxmemory", 0)
        await all_written(node)
        publish(server, names_of(10, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 20)
        await node.healthy(**CONNECTED)
        await all_written(node)

    node = RedisNode(config_of(models, server.settings())).run(scenario)
    all_is_written_once(server, models, node)


def test_what_overflows_while_redis_is_away_is_counted_and_stays_away(planted, models, server):
    async def overflow(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await connected(node)
        server.kill()
        await node.inner(200)
        server.start()
        await all_written(node)
        await node.healthy(**CONNECTED)

    async def go_on(node: RedisNode) -> None:
        publish(server, ["later"])
        await node.until(lambda: node.answers(OUTSIDE))
        await all_written(node)

    config = config_of(models, server.settings(outbox=50))
    node = RedisNode(config).run(overflow)
    names = ids(written(server), INNER)
    dropped = node.bridge.producer.counts["dropped"]
    assert len(names) + dropped == 200
    assert 100 <= dropped <= 150  # some were on their way
    assert names == sorted(names, key=lambda name: int(name.removeprefix("inner-")))
    assert names[-50:] == [f"inner-{i}" for i in range(150, 200)]
    assert node.health is not None
    assert node.health.counts_by_kind["outbound"]["dropped"] == dropped
    assert "dropped before Redis took them" in node.health.problems
    RedisNode(config).run(go_on)
    assert ids(written(server), INNER) == names


def test_a_stop_while_redis_stands_still_is_quick_and_loses_nothing(planted, models, server):
    async def stop_amid_a_pause(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await connected(node)
        server.pause()
        await node.inner(100)
        node.actor.stop()

    async def write_what_waits(node: RedisNode) -> None:
        await connected(node)
        await all_written(node)

    config = config_of(models, server.settings(timeout_seconds=10 * FAR_S))  # which a stop does not wait for
    node = RedisNode(config).run(stop_amid_a_pause)
    assert node.log.count("enriched signals did not reach Redis, and are written by the next start") == 1
    until(lambda: exchanging() == [])
    server.resume()
    RedisNode(config).run(write_what_waits)
    assert ids(written(server), INNER) == [f"inner-{i}" for i in range(100)]


def test_streams_that_are_recreated_empty_are_read_from_their_beginning(planted, models, server):
    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 10)
        await all_written(node)
        with server.client() as client:
            client.flushall()
            client.xadd(SIGNALS, {"topic": "data.SignalData*", "payload": json.dumps(WITH_TYPE)}, id="5-1")
        await node.inner(3)
        await node.until(lambda: "early id" in node.answers(OUTSIDE))
        publish(server, names_of(10, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 21)
        await all_written(node)

    node = RedisNode(config_of(models, server.settings())).run(scenario)
    assert node.answers(OUTSIDE) == [*names_of(0, 10), "early id", *names_of(10, 10)]
    assert node.bridge.consumer.counts["recreated"] == 1
    assert node.log.count("reading it from its beginning") == 1
    assert sorted(ids(written(server))) == sorted([*names_of(10, 10), "early id"])
    assert len(ids(written(server), INNER)) == 3


WITH_TYPE = values_of("early id", type="SignalData", ts_event=str(time.time_ns()), ts_init="0")


def test_a_redis_that_comes_back_empty_is_served_from_then_on(planted, models, server):
    async def before(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 10)
        await all_written(node)

    async def after(node: RedisNode) -> None:
        await node.inner(3)
        publish(server, names_of(5, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 5)
        await node.until(lambda: node.actor.counts["repeated"] == 5)
        await all_written(node)

    config = config_of(models, server.settings())
    RedisNode(config).run(before)
    server.kill()
    shutil.rmtree(server.folder)
    server.folder.mkdir()
    server.start()
    node = RedisNode(config).run(after)
    assert node.answers(OUTSIDE) == names_of(10, 5)
    assert sorted(ids(written(server))) == sorted(names_of(10, 5))
    assert len(ids(written(server), INNER)) == 3


def test_a_stream_that_was_cut_beyond_the_position_is_told(planted, models, server):
    async def before(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 10))
        await node.until(lambda: len(node.answers(OUTSIDE)) == 10)

    async def after(node: RedisNode) -> None:
        await node.inner(3)
        await node.until(lambda: len(node.answers(OUTSIDE)) == 5)
        await node.until(
            lambda: node.health and node.health.counts_by_kind.get("inbound", {}).get("gap") == 1
        )

    config = config_of(models, server.settings())
    RedisNode(config).run(before)
    publish(server, names_of(10, 20))
    with server.client() as client:
        client.xtrim(SIGNALS, maxlen=5, approximate=False)
    node = RedisNode(config).run(after)
    assert node.answers(OUTSIDE) == names_of(25, 5)
    assert node.bridge.consumer.counts["gap"] == 1
    assert ids(written(server)) == [*names_of(0, 10), *names_of(25, 5)]


def exchanging() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(("consumer ", "producer ")))


@pytest.mark.parametrize("trouble", ["wrong password", "away"])
def test_a_node_that_requires_redis_refuses_to_start_without_it(nodes, planted, models, tmp_path, trouble):
    with RedisServer(tmp_path / "redis", password="the right one") as server:
        if trouble == "away":
            server.kill()
        config = config_of(models, server.settings(password_env="ML4T_TEST_PASSWORD"), redis_required=True)
        trace = nodes.begin_in(
            tmp_path / "life",
            config,
            planted.bars_file,
            environment={"ML4T_TEST_PASSWORD": "s3cr3t-and-wrong"},
        )
        until(lambda: "ended" in trace.log or "Error" in trace.log)
        assert nodes.end() == 1
        assert "`redis_required` is true, but Redis does not answer: " in trace.log
        assert ("WRONGPASS" if trouble == "wrong password" else "Connection refused") in trace.log
        assert "s3cr3t" not in trace.log
        assert "TradingNode: RUNNING" not in trace.log


def test_without_redis_wanted_nothing_connects(planted, models, server):
    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await node.inner(10)
        health = await node.healthy(inbound="off", outbound="off")
        assert "Redis" not in health.problems
        assert exchanging() == []
        with server.client() as client:
            assert client.info("clients")["connected_clients"] == 1
            assert client.info("stats")["total_connections_received"] <= 3  # the server's own start and these

    node = RedisNode(config_of(models, server.settings(), redis_enabled=False)).run(scenario)
    assert node.actor._live.bridge is None
    assert len(node.enriched) == 10


BUS = "bus of the node"


def bus_config(server: RedisServer, encoding: str, external: str) -> MessageBusConfig:
    return MessageBusConfig(
        database=DatabaseConfig(type="redis", host="127.0.0.1", port=server.port),
        encoding=encoding,
        streams_prefix=BUS,
        use_trader_prefix=False,
        use_trader_id=False,
        stream_per_topic=False,
        external_streams=[external],
    )


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_beside_nautilus_own_message_bus_each_signal_is_answered_once(planted, models, server, encoding):
    config = config_of(models, server.settings(encoding=encoding))
    node = RedisNode(config, message_bus=bus_config(server, encoding, SIGNALS))

    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await connected(node)
        first = iter(names_of(0, 1_000))

        def listens() -> int:
            publish(server, [next(first)], encoding=encoding)
            return node.actor.counts["repeated"]

        await node.until(listens)  # Nautilus reads from when it has connected
        n = int(next(first))
        publish(server, names_of(n, 300), encoding=encoding)
        await node.until(lambda: len(node.answers(OUTSIDE)) == n + 300)
        await node.until(lambda: node.actor.counts["repeated"] >= 301)
        await node.inner(5)
        await all_written(node)
        await node.until(lambda: len([m for m in written(server, BUS) if is_enriched(m)]) == n + 305)

    node.run(scenario)
    n = len(node.answers(OUTSIDE))
    assert node.answers(OUTSIDE) == names_of(0, n)
    assert node.publishing_threads - {node.thread}  # Nautilus hands over what it read in a thread of its own
    all_is_written_once(server, models, node)
    on_bus = written(server, BUS)
    assert [m for m in on_bus if is_enriched(m)] == [
        m | {"ts_event": str(m["ts_event"]), "ts_init": str(m["ts_init"])} for m in written(server)
    ]
    assert {m["source"] for m in on_bus if m.get("type") == "SignalData"} == {INNER}
    assert set(node.actor.counts) == {"repeated"}


def is_enriched(message: dict[str, Any]) -> bool:
    return message.get("type") == "EnrichedSignal"


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_another_node_reads_our_enriched_signals_with_nautilus_alone(
    planted, models, server, lives, tmp_path, encoding
):
    trace = lives.begin(config_of(models, server.settings(encoding=encoding)))
    others = Path(shutil.copytree(models, tmp_path / "others"))
    node = RedisNode(
        config_of(others, server.settings(), redis_enabled=False),
        message_bus=bus_config(server, encoding, ENRICHED),
    )
    node.node.kernel.msgbus.add_streaming_type(EnrichedSignal)

    async def scenario(node: RedisNode) -> None:
        first = iter(names_of(0, 1_000))

        def listens() -> list[str]:
            publish(server, [next(first)])
            return node.answers(OUTSIDE)

        await node.until(listens)
        n = int(next(first))
        publish(server, names_of(n, 50))
        await node.until(lambda: str(n + 49) in node.answers(OUTSIDE))

    node.run(scenario)
    until(lambda: len(trace.bus) == len(written(server)))
    sent = [EnrichedSignal.from_dict(m) for m in written(server)]
    assert len(node.enriched) >= 50
    assert node.enriched == sent[-len(node.enriched) :]


@pytest.mark.parametrize("kind", [SignalData, EnrichedSignal])
def test_a_subscriber_that_raises_costs_nobody_a_signal(planted, models, server, kind):
    node = RedisNode(config_of(models, server.settings()))

    def mistaken(message: Any) -> None:
        if message.signal_id == "3":
            raise ValueError("a mistake of a strategy")

    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 6))
        await node.until(lambda: "5" in node.answers(OUTSIDE))
        await all_written(node)

    node.node.kernel.msgbus.subscribe(topic=f"data.{kind.__name__}*", handler=mistaken)
    node.run(scenario)
    assert ids(written(server)) == names_of(0, 6)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 6)


def test_each_kind_of_bad_message_is_counted_and_logged_once(planted, models, server, lives):
    config = config_of(models, server.settings(), max_signal_age=600.0)
    trace = lives.begin(config)
    hour = 3_600 * 10**9
    now = time.time_ns()
    good = values_of("good", type="SignalData", ts_event=str(now), ts_init=str(now))
    topic = {"topic": "data.SignalData*"}
    bad = {
        "malformed": [
            {"topic": "t", "nothing": "here"},
            topic | {"payload": "{not json"},
            topic | {"payload": json.dumps(good | {"strength": 2.0})},
            topic | {"payload": json.dumps(good | {"strength": {"a": 1}})},
            topic | {"payload": json.dumps(good | {"ts_event": "-1"})},
            topic | {"payload": b"\xff\x00"},
        ],
        "oversized": [
            topic | {"payload": json.dumps(good | {"source": "x" * size})} for size in (17_000, 3_000_000)
        ],
        "unknown_type": [
            topic | {"payload": json.dumps(good | {"type": kind})} for kind in ("Bar", "X" * 99)
        ],
    }
    with server.client() as client:
        for group in bad.values():
            for fields in group:
                client.xadd(SIGNALS, fields)
    publish(server, ["u1", "u2"], instrument_id="XYZ-PERP.NOWHERE")
    publish(server, ["f1", "f2"], ts_event=now + hour)
    publish(server, ["e1", "e2"], ts_event=now - hour)
    publish(server, ["a", "b", "a", "b"])
    until(lambda: trace.counts("actor").get("repeated") == 2)
    assert trace.counts("actor") == {"repeated": 2} | {kind: len(group) for kind, group in bad.items()}
    assert trace.counts("signals") == {"unknown_instrument": 2, "future_signal": 2, "expired": 2, "ok": 2}
    inbound = trace.counts("inbound")
    assert {kind: inbound[kind] for kind in bad} == {kind: len(group) for kind, group in bad.items()}
    assert inbound["received"] == 20
    assert lives.nodes.stop() == 0
    warnings = [line for line in trace.log.splitlines() if "(logged at most every 10 minutes)" in line]
    for text in (
        "no field 'payload'",
        "of which at most 16384 are accepted",
        "not SignalData",
        "was given before",
        "is not for a configured instrument",
        "is from the future",
        "is older than `max_signal_age`",
    ):
        assert sum(text in line for line in warnings) == 1, text
    assert len(warnings) == 7
    assert [m["signal_id"] for m in written(server)] == ["u1", "u2", "f1", "f2", "e1", "e2", "a", "b"]


@contextlib.contextmanager
def locked(models: Path, how: str) -> Iterator[None]:
    """Keep the ledger's file from being written, or read at all."""
    with contextlib.closing(sqlite3.connect(models / "ledger.sqlite", isolation_level=None)) as connection:
        if how == "EXCLUSIVE":
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute(f"BEGIN {how}")
        yield
        connection.execute("ROLLBACK")


def test_positions_do_not_run_ahead_of_a_ledger_that_cannot_be_written(models, server, lives):
    config = config_of(models, server.settings())
    lives.begin(config)
    publish(server, names_of(0, 10))
    until(lambda: len(written(server)) == 10)
    until(lambda: len(recorded(models)) == 10)
    with locked(models, "IMMEDIATE"):
        publish(server, names_of(10, 30))
        until(lambda: len(written(server)) == 40)
        lives.nodes.kill()
        assert len(recorded(models)) == 10
    trace = lives.begin(config)
    publish(server, names_of(40, 5))
    until(lambda: len(written(server)) == 45)
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == names_of(0, 45)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 45)
    assert [name for _, name, _ in trace.bus] == names_of(40, 5)


def test_a_life_without_a_usable_ledger_is_made_up_for_by_the_next(models, server, lives):
    config = config_of(models, server.settings())
    lives.begin(config)
    publish(server, names_of(0, 10))
    until(lambda: len(written(server)) == 10)
    until(lambda: len(recorded(models)) == 10)
    assert lives.nodes.stop() == 0
    with locked(models, "EXCLUSIVE"):
        trace = lives.begin(config)
        publish(server, names_of(10, 10))
        until(lambda: len(written(server)) == 20)
        lives.nodes.kill()
    assert "signals are kept in memory only" in trace.log
    assert [name for _, name, _ in trace.bus] == names_of(10, 10)
    trace = lives.begin(config)
    publish(server, names_of(20, 5))
    until(lambda: len(written(server)) == 25)
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == names_of(0, 25)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 25)
    assert [name for _, name, _ in trace.bus] == names_of(20, 5)


@pytest.mark.slow
def test_a_stop_amid_a_flood_leaves_the_rest_to_the_next_start(models, server, lives):
    config = config_of(models, server.settings())
    n_all = 10_000  # which takes seconds to answer, and a look at the stream's length none
    publish(server, names_of(0, n_all))
    for n in (300, 3_000):
        lives.begin(config)
        until(lambda n=n: server.client().xlen(ENRICHED) >= n)
        assert lives.nodes.stop() == 0
        assert n <= len(written(server)) < n_all
        assert ids(written(server)) == [name for _, name, _ in recorded(models)]
    settled(server, lives.begin(config), n_all)
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == [name for _, name, _ in recorded(models)] == names_of(0, n_all)
    assert [name for trace in lives.traces for _, name, _ in trace.bus] == names_of(0, n_all)
    assert not any("answered before" in trace.log for trace in lives.traces)


def test_an_actor_that_is_stopped_reset_and_started_again_goes_on(planted, models, server):
    async def answered(node: RedisNode, names: list[str]) -> None:
        await node.until(lambda: set(names) <= set(node.answers(OUTSIDE)))

    async def scenario(node: RedisNode) -> None:
        await node.warm(planted.bars)
        for i in range(3):
            publish(server, names_of(20 * i, 10))
            await answered(node, names_of(20 * i, 10))
            if i == 1:
                server.pause()
            await node.inner(5)
            node.actor.stop()
            assert exchanging() == []
            if i == 1:
                server.resume()
            publish(server, names_of(20 * i + 10, 10))
            node.actor.reset()
            node.actor.start()
            assert len(exchanging()) == 2
            await node.warm(planted.bars)
            await answered(node, names_of(20 * i + 10, 10))
        await all_written(node)

    node = RedisNode(config_of(models, server.settings(timeout_seconds=0.5))).run(scenario)
    assert exchanging() == []
    assert node.answers(OUTSIDE) == names_of(0, 60)
    all_is_written_once(server, models, node)


@pytest.mark.parametrize("how", ["degrade", "fault"])
def test_an_actor_that_nautilus_hands_nothing_reads_nothing(planted, models, server, how):
    async def stopped_amid(node: RedisNode) -> None:
        await node.warm(planted.bars)
        publish(server, names_of(0, 3))
        await node.until(lambda: "2" in node.answers(OUTSIDE))
        await all_written(node)
        getattr(node.actor, how)()
        assert exchanging() == []
        publish(server, names_of(3, 3))

    RedisNode(config_of(models, server.settings())).run(stopped_amid)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 3)

    async def taken_up(node: RedisNode) -> None:
        await node.warm(planted.bars)
        await node.until(lambda: "5" in node.answers(OUTSIDE))
        await all_written(node)

    RedisNode(config_of(models, server.settings())).run(taken_up)
    assert ids(written(server)) == names_of(0, 6)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 6)


def test_the_position_outlasts_the_row_that_it_was_at(models, server, lives):
    config = config_of(models, server.settings())
    lives.begin(config)
    publish(server, names_of(0, 10))
    publish(server, ["in 1970"], ts_event=0)
    until(lambda: len(written(server)) == 11)
    until(lambda: len(recorded(models)) == 11)
    assert lives.nodes.stop() == 0
    with contextlib.closing(sqlite3.connect(models / "ledger.sqlite", isolation_level=None)) as connection:
        while delete_chunk(connection, config.ledger):
            pass
    assert len(recorded(models)) == 10
    trace = lives.begin(config)
    publish(server, names_of(10, 1))
    settled(server, trace, 12)
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == [*names_of(0, 10), "in 1970", "10"]
    assert [name for _, name, _ in trace.bus] == ["10"]


def test_first_answers_are_recognised_however_long_the_node_was_down(models, server, lives):
    lives.begin(config_of(models, server.settings()))
    publish(server, names_of(0, 5))
    until(lambda: len(written(server)) == 5)
    assert lives.nodes.stop() == 0
    read = [entry_id for entry_id, _ in entries(server, SIGNALS)]
    with contextlib.closing(sqlite3.connect(models / "ledger.sqlite", isolation_level=None)) as connection:
        # As after a kill when the ledger had the first three, and was not told yet that any had been written.
        connection.execute("DELETE FROM signals WHERE id > 3")
        connection.execute("UPDATE positions SET entry_id = ? WHERE stream = ?", (read[2], SIGNALS))
        connection.execute(
            "UPDATE positions SET entry_id = '', source = '', signal_id = '' WHERE stream = ?", (ENRICHED,)
        )
    with server.client() as client:  # another node writes there too
        client.xadd(ENRICHED, {"topic": "t", "payload": "{}"}, id=f"{time.time_ns() // 1_000_000 + 3_000}-0")
    trace = lives.begin(config_of(models, server.settings(), max_signal_age=0.001))  # so that "long" is soon
    publish(server, names_of(5, 1))
    until(lambda: "5" in ids(written(server)))
    assert lives.nodes.stop() == 0
    assert ids(written(server)) == names_of(0, 6)
    assert [name for _, name, _ in recorded(models)] == names_of(0, 6)
    assert [name for _, name, _ in trace.bus] == ["5"]
