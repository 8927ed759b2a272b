"""`EnrichedSignalProducer` on a real Redis: each message once, in order, across broken connections, refusals, kills."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.streams.codec import decode, encode, node_of
from ml4t_actor.streams.producer import EnrichedSignalProducer
from tests.support.redis_proxy import HoldingProxy
from tests.support.redis_server import RedisServer
from tests.support.waiting import FAR_S, join, until

STREAM = "nautilus:enriched"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


def message(name: str, **changes: Any) -> dict[str, Any]:
    return {"type": "EnrichedSignal", "instrument_id": "A.B", "source": "s", "signal_id": name, **changes}


def messages(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [message(f"x{i}") for i in range(start, start + n)]


def names(n: int, start: int = 0) -> list[str]:
    return [m["signal_id"] for m in messages(n, start)]


def written(server: RedisServer, node: str = "A") -> list[str]:
    with server.client() as client:
        entries = client.xrange(STREAM)
    return [str(decode(fields)["signal_id"]) for _, fields in entries if node_of(fields) == node]


def producer_to(
    server: RedisServer, *, settings: dict[str, Any] | None = None, **options: Any
) -> EnrichedSignalProducer:
    given = {"encode": dict, "node": "A", "warn": lambda text: None}
    return EnrichedSignalProducer(server.settings(**(settings or {})), STREAM, **{**given, **options})


@contextlib.contextmanager
def writing(server: RedisServer, **options: Any) -> Iterator[EnrichedSignalProducer]:
    producer = producer_to(server, **options)
    producer.start()
    try:
        yield producer
    finally:
        producer.stop(10.0)


def put_all(producer: EnrichedSignalProducer, what: list[dict[str, Any]]) -> None:
    for one in what:
        producer.put(one)


def test_each_once_in_order_and_acknowledged(server: RedisServer) -> None:
    acknowledged: list[tuple[str, str]] = []
    with writing(server, acknowledged=lambda i, m: acknowledged.append((i, m["signal_id"]))) as producer:
        put_all(producer, messages(1_000))
        until(lambda: producer.depth == 0 and producer.counts["written"] == 1_000)
        assert producer.connected
        until(lambda: acknowledged and acknowledged[-1][1] == "x999")
    assert written(server) == names(1_000)
    with server.client() as client:
        ids = {str(decode(fields)["signal_id"]): i.decode() for i, fields in client.xrange(STREAM)}
    assert acknowledged == [(ids[name], name) for _, name in acknowledged]
    assert [int(name[1:]) for _, name in acknowledged] == sorted(int(name[1:]) for _, name in acknowledged)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_an_enriched_signal_as_nautilus_would_write_it(server: RedisServer, encoding: str) -> None:
    signal = SignalData(
        instrument_id="BTC-USD-PERP.HYPERLIQUID",
        signal=1,
        strength=0.7,
        source="s",
        signal_id="1",
        ts_event=7,
    )
    enriched = EnrichedSignal.from_signal(signal, meta_confidence=0.6, status="ok")
    with writing(server, encode=EnrichedSignal.to_dict, encoding=encoding) as producer:
        producer.put(enriched)
    with server.client() as client:
        ((_, fields),) = client.xrange(STREAM)
    assert fields[b"topic"] == b"data.EnrichedSignal.HYPERLIQUID.BTC-USD-PERP"
    assert fields[b"node"] == b"A"
    payload = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    assert payload(fields[b"payload"])["ts_event"] == "7"
    assert EnrichedSignal.from_dict(decode(fields)) == enriched


def test_the_stream_is_bounded(server: RedisServer) -> None:
    with writing(server, settings={"stream_length": 100}) as producer:
        put_all(producer, messages(2_000))
    with server.client() as client:
        assert 100 <= client.xlen(STREAM) < 400  # about
    assert written(server)[-100:] == names(100, 1_900)


def test_stop_writes_what_waits(server: RedisServer) -> None:
    producer = producer_to(server)
    put_all(producer, messages(3_000))
    producer.start()
    assert producer.stop(30.0)
    assert written(server) == names(3_000)


def test_stop_without_redis_is_quick_and_keeps_count(server: RedisServer) -> None:
    server.kill()
    with writing(server, settings={"retry_max_seconds": 10 * FAR_S}) as producer:
        put_all(producer, messages(10))
        until(lambda: producer.counts["connection_errors"] >= 2)
        assert not producer.stop(10 * FAR_S)
        assert producer.depth == 10


def test_redis_absent_and_gone(server: RedisServer) -> None:
    server.kill()
    with writing(server) as producer:
        put_all(producer, messages(10))
        until(lambda: "refused" in producer.last_error)
        assert not producer.connected
        server.start()
        until(lambda: producer.depth == 0)
        server.kill()
        until(lambda: not producer.connected)  # with nothing to write
        server.start()
        until(lambda: producer.connected)
        assert producer.last_error == ""
        put_all(producer, messages(10, 10))
    assert written(server) == names(20)


def test_overflow_drops_the_oldest_and_counts_them(server: RedisServer) -> None:
    server.kill()
    with writing(server, settings={"outbox": 100}) as producer:
        until(lambda: producer.last_error)
        put_all(producer, messages(250))
        assert producer.depth <= 100
        server.start()
        until(lambda: producer.depth == 0)
    assert producer.counts["dropped"] == 150
    assert written(server) == names(100, 150)


def test_a_message_that_cannot_be_encoded_is_counted_and_passed_over(server: RedisServer) -> None:
    with writing(server) as producer:
        put_all(producer, [message("x0"), {"no": "type"}, {"type": "T", "x": object()}, message("x1")])
        until(lambda: producer.counts["written"] == 2)
        assert producer.counts["refused"] == 2
    assert written(server) == names(2)


REFUSALS: dict[str, tuple[Callable[[redis.Redis], Any], Callable[[redis.Redis], Any], str]] = {
    "full": (
        lambda client: client.config_set("maxmemory", 1),
        lambda client: client.config_set("maxmemory", 0),
        "maxmemory",
    ),
    "a replica": (
        lambda client: client.replicaof("127.0.0.1", 1),
        lambda client: client.replicaof("NO", "ONE"),
        "read only",
    ),
    "no stream": (
        lambda client: client.rename(STREAM, "kept") and client.set(STREAM, "x"),
        lambda client: client.rename("kept", STREAM),
        "WRONGTYPE",
    ),
    "loses its rights": (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "-xadd"),
        lambda client: client.execute_command("ACL", "SETUSER", "default", "+xadd"),
        "xadd",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_redis_refuses_is_kept_and_written_later(server: RedisServer, refusal: str) -> None:
    begin, end, words = REFUSALS[refusal]
    with server.client() as client, writing(server) as producer:
        producer.put(message("x0"))
        until(lambda: producer.counts["written"] == 1)
        begin(client)
        put_all(producer, messages(599, 1))
        until(lambda: producer.counts["connection_errors"] >= 3)
        assert words in producer.last_error
        assert not producer.connected
        assert producer.depth == 599
        end(client)
        until(lambda: producer.depth == 0)
        assert producer.last_error == ""
    assert written(server) == names(600)


def test_a_server_of_little_memory_takes_what_it_can_in_order(tmp_path: Path) -> None:
    with RedisServer(tmp_path, maxmemory="3mb") as server, writing(server) as producer:
        put_all(producer, messages(30_000))
        until(lambda: "maxmemory" in producer.last_error)
        with server.client() as client:
            client.config_set("maxmemory", 0)
        until(lambda: producer.depth == 0)
        assert written(server) == names(30_000)


def test_what_a_process_before_has_written_is_not_written_again(server: RedisServer) -> None:
    acknowledged: list[tuple[str, str]] = []
    with server.client() as client:

        def add(name: str, node: str = "A", **changes: Any) -> str:
            fields = encode(message(name, **changes), "t", node=node)
            return client.xadd(STREAM, fields).decode()

        add("x5")  # before what is recorded: of another run with the same ids
        recorded = add("x0")
        add("x1")
        add("x3", node="B")
        add("x3", type="SignalOutcome")
        client.xadd(STREAM, {"rubbish": b"x" * 200_000})
        last = add("x2")
        with writing(
            server,
            pending=messages(6, 1),
            after=recorded,
            acknowledged=lambda i, m: acknowledged.append((i, m["signal_id"])),
        ) as producer:
            producer.put(message("x7"))
            until(lambda: producer.depth == 0)
        assert producer.counts["found"] == 2
    ours = [name for name in written(server) if name]
    assert ours == ["x5", "x0", "x1", "x3", "x2", "x3", "x4", "x5", "x6", "x7"]
    assert acknowledged[0] == (last, "x2")
    assert acknowledged[-1][1] == "x7"


def test_pending_messages_without_a_recorded_entry_are_looked_for_from_a_time(server: RedisServer) -> None:
    with server.client() as client:
        client.xadd(STREAM, encode(message("x0"), "t", node="A"), id="1000-0")
        client.xadd(STREAM, encode(message("x1"), "t", node="A"), id="2000-0")
    with writing(server, pending=messages(3), begin_ns=1_500_000_000) as producer:
        until(lambda: producer.depth == 0)
    assert written(server) == ["x0", "x1", "x0", "x2"]
    with writing(server, pending=messages(3), begin_ns=0) as producer:
        until(lambda: producer.depth == 0)
        assert producer.counts["found"] == 3
    assert written(server) == ["x0", "x1", "x0", "x2"]


def test_pending_messages_and_a_stream_that_is_another_one(server: RedisServer) -> None:
    with server.client() as client:
        client.xadd(STREAM, encode(message("x0"), "t", node="A"), id="5-0")
    with writing(server, pending=messages(2), after="9999-0") as producer:
        until(lambda: producer.depth == 0)
    assert written(server) == ["x0", "x1"]


def test_what_was_written_though_its_answer_was_lost_is_not_written_again(server: RedisServer) -> None:
    proxy = HoldingProxy(server.port)
    with writing(server, settings={"port": proxy.port}) as producer:
        producer.put(message("x0"))
        until(lambda: producer.counts["written"] == 1)
        for i in range(1, 6):
            proxy.lose_answers.set()
            producer.put(message(f"x{i}"))
            until(lambda i=i: producer.counts["found"] == i)
        producer.put(message("x6"))
        until(lambda: producer.depth == 0)
        assert producer.counts["written"] == 2
    assert written(server) == names(7)


def test_what_arrives_after_it_was_given_up_is_not_written_twice(server: RedisServer) -> None:
    """Bytes of the old connection reach Redis after the new one has looked, missed them and written them anew."""
    proxy = HoldingProxy(server.port)
    with writing(server, settings={"port": proxy.port, "timeout_seconds": 0.5}) as producer:
        producer.put(message("x0"))
        until(lambda: producer.counts["written"] == 1)
        proxy.hold = lambda data: b"XADD" in data
        producer.put(message("x1"))
        until(lambda: producer.counts["written"] == 2)
        assert len(proxy.held) == 1
        proxy.release()
        producer.put(message("x2"))
        until(lambda: producer.depth == 0)
    assert written(server) == names(3)


def test_a_flushed_redis_stops_nothing(server: RedisServer) -> None:
    proxy = HoldingProxy(server.port)
    with server.client() as client, writing(server, settings={"port": proxy.port}) as producer:
        proxy.lose_answers.set()  # so that there is a fence
        producer.put(message("x0"))
        until(lambda: producer.depth == 0)
        client.flushall()
        producer.put(message("x1"))
        until(lambda: producer.depth == 0)
    assert written(server) == ["x1"]


def test_nodes_share_a_stream(server: RedisServer) -> None:
    with writing(server, node="A") as a, writing(server, node="B") as b:
        for one in messages(300):
            a.put(one)
            b.put(one)
        server.kill()
        server.start()
        until(lambda: a.depth == b.depth == 0)
    assert written(server, "A") == written(server, "B") == names(300)


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_redis_is_killed_and_restarted_under_load_and_nothing_is_lost_or_doubled(
    tmp_path: Path, n: int
) -> None:
    acknowledged: list[str] = []
    with (
        RedisServer(tmp_path) as server,
        writing(server, acknowledged=lambda i, m: acknowledged.append(m["signal_id"])) as producer,
    ):
        stopped = threading.Event()

        def put() -> None:
            for i, one in enumerate(messages(n)):
                producer.put(one)
                if i % 5 == 0:
                    stopped.wait(0.002)

        def n_put() -> int:
            return producer.counts["written"] + producer.depth

        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        for part in range(1, 6):
            until(lambda part=part: n_put() >= n * part // 6, "messages", n_put)
            match part:
                case 1 | 4:
                    server.kill()
                    server.start()
                case 2:
                    server.stop()
                    server.start()
                case 3:
                    server.drop_connections()
                case 5:
                    server.pause()
                    time.sleep(2.5)  # longer than any timeout here
                    server.resume()
        join(thread)
        until(lambda: producer.depth == 0, "an empty outbox", lambda: producer.depth)
        assert producer.counts["dropped"] == 0
        until(lambda: acknowledged[-1] == f"x{n - 1}")
        assert written(server) == names(n)
        assert producer.counts["written"] + producer.counts["found"] == n


def hold_after(n: int) -> Callable[[bytes], bool]:
    """Return what holds the piece with entries that comes after `n` others."""
    passing = iter([False] * n)
    return lambda data: b"XADD" in data and next(passing, True)


def test_a_process_killed_in_the_middle_leaves_what_the_next_one_completes(server: RedisServer) -> None:
    """The next one knows an acknowledged entry and all messages after it, as the ledger does; its commits may be late.

    What the killed one has sent may arrive while the next one is at work.
    """
    recorded: list[tuple[str, str]] = []
    left = messages(2_000)
    before: HoldingProxy | None = None
    for run in range(6):
        limit = len(recorded) + 2  # of what is committed before the kill

        def acknowledged(entry_id: str, one: dict[str, Any], limit: int = limit) -> None:
            if len(recorded) < limit:
                recorded.append((entry_id, one["signal_id"]))

        proxy = HoldingProxy(server.port)
        if run < 5:
            proxy.hold = hold_after(run)
        producer = producer_to(
            server,
            settings={"port": proxy.port},
            pending=left,
            after=recorded[-1][0] if recorded else None,
            acknowledged=acknowledged,
        )
        producer.start()
        until(lambda producer=producer: producer.connected)
        if before is not None:
            before.release()
        before = proxy
        if run < 5:
            until(lambda proxy=proxy: proxy.held)
            producer.stop(0.0)
            left = messages(2_000)[int(recorded[-1][1][1:]) + 1 if recorded else 0 :]
        else:
            until(lambda producer=producer: producer.depth == 0)
            producer.stop(10.0)
    assert written(server) == names(2_000)


def test_it_can_be_woken_once_for_all_that_is_put_together(server: RedisServer) -> None:
    later: list[Callable[[], None]] = []
    with writing(server, later=later.append) as producer:
        for start in (0, 50):
            put_all(producer, messages(50, start))
            (wake_up,) = later
            later.clear()
            wake_up()
            until(lambda n=start + 50: producer.counts["written"] == n)
        producer.put(message("x100"))  # whose wake-up never comes
    assert written(server) == names(101)
