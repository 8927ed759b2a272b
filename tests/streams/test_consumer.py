"""`SignalConsumer` on a real Redis: each signal once and in order, whatever happens to Redis and is in the stream."""

import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.publisher import SignalPublisher
from ml4t_actor.streams import RedisAwayError, RedisDeniedError, RedisRefusedError, connect
from ml4t_actor.streams.codec import encode
from ml4t_actor.streams.consumer import Arrival, Batch, SignalConsumer
from tests.support.redis_server import RedisServer, rss_bytes, throwaway_certificates
from tests.support.waiting import FAR_S, join, until

STREAM = "nautilus:signals"
ENRICHED = "nautilus:enriched"
PASSWORD = "correct-horse-7391"
INSTRUMENT = "BTC-USD-PERP.HYPERLIQUID"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


class Collector:
    """Accepts batches as the actor does, and keeps what came."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.warnings: list[str] = []
        self.last_id: str | None = None

    def deliver(self, batch: Batch) -> None:
        self.arrivals += batch.arrivals
        self.last_id = batch.last_id
        batch.done()

    @property
    def ids(self) -> list[str]:
        return [a.signal.signal_id for a in self.arrivals if a.signal is not None]

    @property
    def problems(self) -> Counter[str]:
        return Counter(a.problem for a in self.arrivals if a.problem)


class Reading:
    """An consumer that runs for the length of a `with`, and its collector."""

    def __init__(self, server: RedisServer, **options: Any) -> None:
        self.collector = Collector()
        given = {"position": None, "begin_ns": 0, "parse": SignalData.from_dict}
        given |= {"deliver": self.collector.deliver, "warn": self.collector.warnings.append}
        settings = options.pop("settings", None) or server.settings()
        self.consumer = SignalConsumer(settings, options.pop("stream", STREAM), **{**given, **options})

    def __enter__(self) -> tuple[SignalConsumer, Collector]:
        self.consumer.start()
        return self.consumer, self.collector

    def __exit__(self, *_: object) -> None:
        assert self.consumer.stop(FAR_S)


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    signal = {"instrument_id": INSTRUMENT, "signal": 1, "strength": 0.5, "source": "s", "signal_id": name}
    return {"type": "SignalData", **signal, "ts_event": 5, "ts_init": 6, **changes}


def add(client: redis.Redis, *names: str, entry_id: str = "*", stream: str = STREAM) -> str:
    written = b""
    for name in names:
        written = client.xadd(stream, encode(values_of(name), "t"), id=entry_id)
    return written.decode()


def names(n: int, start: int = 0) -> list[str]:
    return [f"x{i}" for i in range(start, start + n)]


def test_each_once_in_order_and_from_where_it_left_off(server: RedisServer) -> None:
    with server.client() as client:
        add(client, *names(50))
        with Reading(server) as (consumer, collector):
            until(lambda: len(collector.ids) == 50)
            add(client, *names(50, 50))
            until(lambda: len(collector.ids) == 100)
            assert consumer.connected
            assert consumer.last_error == ""
        assert collector.ids == names(100)
        assert [a.entry_id for a in collector.arrivals] == [i.decode() for i, _ in client.xrange(STREAM)]
        add(client, *names(30, 100))
        with Reading(server, position=collector.last_id) as (consumer, after):
            until(lambda: len(after.ids) == 30)
        assert after.ids == names(30, 100)
        assert +consumer.counts == {"received": 30}
    assert collector.warnings == after.warnings == []


def test_without_a_position_it_begins_at_a_time(server: RedisServer) -> None:
    with server.client() as client:
        for second in (1, 2, 3):
            add(client, f"x{second}", entry_id=f"{second * 1000}-0")
        with Reading(server, begin_ns=2_000_000_000) as (_, collector):
            until(lambda: len(collector.ids) == 2)
    assert collector.ids == ["x2", "x3"]


def test_what_is_written_after_the_start_is_read_though_the_clock_of_redis_is_behind(
    server: RedisServer,
) -> None:
    with server.client() as client:
        add(client, "old", entry_id="1000-0")
        with Reading(server, begin_ns=60_000_000_000) as (consumer, collector):
            until(lambda: consumer.connected)
            add(client, "new", entry_id="2000-0")
            until(lambda: collector.ids)
            time.sleep(1.2)  # past the next look at the stream
            add(client, "newer", entry_id="3000-0")
            until(lambda: len(collector.ids) == 2)
    assert collector.ids == ["new", "newer"]


def test_one_batch_at_a_time(server: RedisServer) -> None:
    batches: list[Batch] = []
    with server.client() as client:
        add(client, *names(100))
        with Reading(server, deliver=batches.append, batch_size=8) as (consumer, _):
            for n in range(1, 5):
                until(lambda n=n: len(batches) == n)
                time.sleep(0.1)
                assert len(batches) == n
                batches[-1].done()
                batches[-1].done()  # twice is once
                batches[0].done()
            until(lambda: len(batches) == 5)
            assert consumer.counts["received"] <= 6 * 8  # what waits behind a slow reader is bounded
            assert consumer.stop(FAR_S)
    delivered = [a.signal.signal_id for batch in batches for a in batch.arrivals]
    assert delivered == names(40)
    assert len(batches) == 5


def test_no_signal_is_one_with_its_kind_and_the_good_ones_between_arrive(server: RedisServer) -> None:
    def parse(values: dict[str, Any]) -> SignalData:
        if values["signal_id"] == "bug":
            raise KeyError("x")
        return SignalData.from_dict(values)

    with server.client() as client:
        bad = {
            "malformed": {"topic": "t", "payload": b"\xff"},
            "unknown_type": encode({"type": "Other"}, "t"),
            "oversized": {"topic": "t", "payload": b"x" * 20_000},
            "error": encode(values_of("bug"), "t"),
        }
        for i, fields in enumerate([*bad.values(), encode(values_of("y", strength=2.0), "t")]):
            add(client, f"x{i}")
            client.xadd(STREAM, fields)
        add(client, "x5")
        with Reading(server, parse=parse) as (consumer, collector):
            until(lambda: len(collector.arrivals) == 11)
    assert collector.ids == names(6)
    assert [a.problem for a in collector.arrivals[1::2]] == [*bad, "malformed"]
    assert +consumer.counts == {"received": 11, "malformed": 2, "unknown_type": 1, "oversized": 1, "error": 1}
    assert "`strength` was 2.0" in collector.arrivals[9].message


@pytest.mark.parametrize("position", [0, 3, 20])
def test_an_entry_of_many_megabytes_is_stepped_over_in_little_memory(
    server: RedisServer, position: int
) -> None:
    megabytes = 100
    with server.client() as client:
        add(client, *names(position))
        client.xadd(STREAM, {"topic": "t", "payload": b"x" * (megabytes * 2**20)})
        add(client, *names(40, position))
        before = rss_bytes()
        peak = before
        with Reading(server) as (consumer, collector):
            while len(collector.arrivals) < position + 41:
                peak = max(peak, rss_bytes())
                time.sleep(0.001)
    assert collector.ids == names(position + 40)
    assert collector.problems == {"oversized": 1}
    assert consumer.counts["connection_errors"] == 0
    assert peak - before < megabytes * 2**20 / 5


def test_oversized_entries_at_both_ends_do_not_hide_where_the_stream_begins(server: RedisServer) -> None:
    big = {"topic": "t", "payload": b"x" * 2**20}
    with server.client() as client:
        client.xadd(STREAM, big)
        add(client, "x0")
        client.xadd(STREAM, big)
        with Reading(server) as (_, collector):
            until(lambda: len(collector.arrivals) == 3)
        last = collector.last_id
        client.xtrim(STREAM, maxlen=0, approximate=False)
        client.xadd(STREAM, big)
        add(client, "x1")
        client.xadd(STREAM, big)
        with Reading(server, position=last) as (consumer, after):
            until(lambda: len(after.arrivals) == 3)
    assert after.ids == ["x1"]
    assert consumer.counts["gap"] == 1


def test_a_stream_that_was_cut_beyond_the_position_is_a_gap(server: RedisServer) -> None:
    with server.client() as client:
        add(client, *names(10))
        with Reading(server) as (consumer, collector):
            until(lambda: len(collector.ids) == 10)
        assert consumer.counts["gap"] == 0
        add(client, *names(10, 10))
        client.xtrim(STREAM, maxlen=5, approximate=False)
        with Reading(server, position=collector.last_id) as (consumer, after):
            until(lambda: len(after.ids) == 5)
            time.sleep(1.2)  # past the next look at the stream
            assert consumer.counts["gap"] == 1
    assert after.ids == names(5, 15)
    assert len(after.warnings) == 1
    assert "has been cut beyond" in after.warnings[0]


def test_cutting_off_what_was_read_is_no_gap(server: RedisServer) -> None:
    with server.client() as client:
        add(client, *names(10))
        with Reading(server) as (consumer, collector):
            until(lambda: len(collector.ids) == 10)
            client.xtrim(STREAM, maxlen=0, approximate=False)
            time.sleep(1.2)
            add(client, "x10")
            until(lambda: len(collector.ids) == 11)
            assert consumer.counts["gap"] == 0


def test_another_stream_under_the_key_is_read_from_its_beginning(server: RedisServer) -> None:
    with server.client() as client:
        add(client, "x0", entry_id="5000-0")
        with Reading(server) as (consumer, collector):
            until(lambda: collector.ids == ["x0"])
            client.delete(STREAM)  # while it reads
            add(client, "x1", entry_id="7-0")
            until(lambda: collector.ids == ["x0", "x1"])
            assert consumer.counts["recreated"] == 1
        client.flushall()
        add(client, "x2", entry_id="3-0")
        with Reading(server, position=collector.last_id) as (_, after):
            until(lambda: after.ids == ["x2"])
        client.flushall()
        with Reading(server, position=collector.last_id) as (consumer, after):
            until(lambda: consumer.connected)
            add(client, "x3", entry_id="1-0")
            until(lambda: after.ids == ["x3"])


def test_a_stream_that_lost_its_end_is_not_read_twice(server: RedisServer) -> None:
    """As after a crash of a Redis that writes its file once a second."""
    with server.client() as client:
        for i in range(1, 11):
            add(client, f"x{i}", entry_id=f"{i}-0")
        with Reading(server) as (consumer, collector):
            until(lambda: len(collector.ids) == 10)
            kept = client.xrange(STREAM, max="8-0")
            with client.pipeline() as pipe:
                pipe.delete(STREAM)
                for entry_id, fields in kept:
                    pipe.xadd(STREAM, fields, id=entry_id)
                pipe.execute()
            until(lambda: consumer.counts["recreated"])
            add(client, "new", entry_id="9-5")
            until(lambda: len(collector.ids) == 11)
            time.sleep(0.2)
    assert collector.ids == [*(f"x{i}" for i in range(1, 11)), "new"]


def test_redis_absent_at_the_start_and_gone_for_a_while(server: RedisServer) -> None:
    server.kill()
    with Reading(server) as (consumer, collector):
        until(lambda: consumer.counts["connection_errors"] >= 2)
        assert not consumer.connected
        assert "refused" in consumer.last_error
        server.start()
        with server.client() as client:
            until(lambda: consumer.connected)
            add(client, "x0")
            until(lambda: collector.ids == ["x0"])
        server.stop()
        until(lambda: not consumer.connected)
        server.start()
        with server.client() as client:
            add(client, "x1")
            until(lambda: collector.ids == ["x0", "x1"])
        assert consumer.last_error == ""
    assert len(collector.warnings) <= 4  # not one for each attempt


def test_it_pauses_between_attempts(server: RedisServer) -> None:
    server.kill()
    with Reading(server, settings=server.settings(retry_max_seconds=0.5)) as (consumer, _):
        time.sleep(2.0)
        assert 2 <= consumer.counts["connection_errors"] <= 8  # 0.05, 0.1, 0.2, 0.4, 0.5, 0.5, ...


def test_a_paused_redis(server: RedisServer) -> None:
    with (
        server.client() as client,
        Reading(server, settings=server.settings(timeout_seconds=0.3)) as (consumer, collector),
    ):
        add(client, *names(5))
        until(lambda: len(collector.ids) == 5)
        server.pause()
        until(lambda: not consumer.connected)
        assert "imeout" in consumer.last_error
        server.resume()
        add(client, *names(5, 5))
        until(lambda: len(collector.ids) == 10)
    assert collector.ids == names(10)


@pytest.mark.parametrize("state", ["reading", "paused", "paused at start", "absent"])
def test_stop_is_quick_and_nothing_is_delivered_after_it(server: RedisServer, state: str) -> None:
    settings = server.settings(timeout_seconds=10 * FAR_S, retry_max_seconds=10 * FAR_S)
    reading = Reading(server, settings=settings)
    consumer = reading.consumer
    if state == "absent":
        server.kill()
    if state == "paused at start":
        server.pause()
    consumer.start()
    if state in ("reading", "paused"):
        until(lambda: consumer.connected)
    if state == "paused":
        server.pause()
    time.sleep(0.6)
    assert consumer.stop(FAR_S)
    if state == "reading":
        with server.client() as client:
            add(client, "x0")
        time.sleep(0.2)
        assert reading.collector.arrivals == []


def test_a_key_that_holds_no_stream(server: RedisServer) -> None:
    with server.client() as client, Reading(server) as (consumer, collector):
        client.delete(STREAM)
        client.set(STREAM, "x")
        until(lambda: "WRONGTYPE" in consumer.last_error)
        assert not consumer.connected
        client.delete(STREAM)
        add(client, "x0")
        until(lambda: collector.ids == ["x0"])


def test_a_delivery_that_fails_is_repeated(server: RedisServer) -> None:
    collector = Collector()
    failures = iter([RuntimeError("Event loop is closed"), ValueError("x")])

    def deliver(batch: Batch) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        collector.deliver(batch)

    with server.client() as client, Reading(server, deliver=deliver) as (consumer, _):
        add(client, "x0")
        until(lambda: collector.ids == ["x0"])
        add(client, "x1")
        until(lambda: collector.ids == ["x0", "x1"])
        assert consumer.counts["delivery_errors"] == 2


def test_answers_of_a_process_before_are_recognised(server: RedisServer) -> None:
    def answer(name: str, node: str = "A", kind: str = "EnrichedSignal") -> str:
        signal = SignalData.from_dict(values_of(name))
        enriched = EnrichedSignal.from_signal(signal, meta_confidence=0.7, status="ok").to_dict()
        return client.xadd(ENRICHED, encode({**enriched, "type": kind}, "t", node=node)).decode()

    with server.client() as client:
        add(client, *names(7))
        answer("x0")
        recorded = answer("x1")
        answer("x2")
        answer("x3", node="B")
        answer("x4", kind="SignalOutcome")
        client.xadd(ENRICHED, {"topic": "t", "payload": b"x" * 2**20, "node": "A"})
        client.xadd(ENRICHED, {"rubbish": b"\xff"})
        answer("x5")
        with Reading(server, answered=(ENRICHED, recorded), node="A") as (consumer, collector):
            until(lambda: len(collector.ids) == 7)
            add(client, "x2")
            until(lambda: len(collector.ids) == 8)
            assert consumer.counts["answered"] == 2
        with Reading(server, answered=(ENRICHED, None), node="A") as (_, all_of_them):
            until(lambda: len(all_of_them.ids) == 8)
        with Reading(server, answered=("absent", None), node="A") as (_, none_of_them):
            until(lambda: len(none_of_them.ids) == 8)

    def answered(by: Collector) -> list[str]:
        return [a.signal.signal_id for a in by.arrivals if a.answered is not None]

    assert answered(collector) == ["x2", "x5"]
    assert answered(all_of_them) == ["x0", "x1", "x2", "x5"]
    assert answered(none_of_them) == []
    enriched = next(a.answered for a in collector.arrivals if a.answered)
    assert EnrichedSignal.from_dict(enriched).meta_confidence == 0.7


def test_a_password_and_that_it_stays_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    with RedisServer(tmp_path, password=PASSWORD) as server, server.client() as client:
        settings = server.settings(password_env="TEST_REDIS_PASSWORD")
        monkeypatch.delenv("TEST_REDIS_PASSWORD", raising=False)
        with Reading(server, settings=settings) as (consumer, collector):
            until(lambda: "NOAUTH" in consumer.last_error)
            monkeypatch.setenv("TEST_REDIS_PASSWORD", f"wrong-{PASSWORD}")
            until(lambda: "WRONGPASS" in consumer.last_error)
            with pytest.raises(RedisDeniedError) as caught:
                connect(settings)
            seen += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
            monkeypatch.setenv("TEST_REDIS_PASSWORD", PASSWORD)
            until(lambda: consumer.connected)
            add(client, "x0")
            until(lambda: collector.ids == ["x0"])
            seen += [repr(consumer), consumer.last_error, *collector.warnings]
        with connect(settings) as link:
            seen += [repr(link), repr(settings)]
            # Redis repeats the arguments of what it does not know.
            with pytest.raises(RedisRefusedError) as refused:
                link.execute("NONSENSE", PASSWORD)
            assert "***" in str(refused.value)
            seen += [str(refused.value), repr(refused.value)]
    assert not [text for text in [*seen, caplog.text] if PASSWORD in text]


def test_tls_is_verified(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wrong_ca, _, _ = throwaway_certificates(other)
    with RedisServer(tmp_path / "redis", tls=True) as server, server.client() as client:
        add(client, *names(3))
        patient = server.settings(timeout_seconds=10 * FAR_S)  # which a stop does not wait for
        with Reading(server, settings=patient) as (_, collector):
            until(lambda: len(collector.ids) == 3)
        for settings in (server.settings(ssl_ca=str(wrong_ca)), server.settings(ssl_ca=None)):
            with pytest.raises(RedisAwayError, match="CERTIFICATE_VERIFY_FAILED"):
                connect(settings)
        with pytest.raises(RedisAwayError, match="not valid for"):
            connect(msgspec.structs.replace(server.settings(), host="localhost"))
        with pytest.raises(RedisAwayError, match="does not exist"):
            connect(server.settings(ssl_ca="nowhere.pem"))
        with pytest.raises(RedisAwayError):
            connect(server.settings(ssl=False))
        with Reading(server, settings=server.settings(ssl_ca=str(wrong_ca))) as (consumer, nothing):
            until(lambda: consumer.counts["connection_errors"] >= 2)
    assert nothing.arrivals == []


def test_without_redis_py_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from ml4t_actor.settings import RedisSettings\n"
        "from ml4t_actor.streams import SignalConsumer\n"
        "SignalConsumer(RedisSettings(), 's', parse=dict, deliver=print, position=None, begin_ns=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install ml4t_actor[redis]" in done.stderr


class Mess:
    """Entries that nobody should have sent, each with the kind it is to be counted as."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def entry(self) -> tuple[str, dict[bytes, bytes]]:
        rng = self._random
        good = msgspec.msgpack.encode({**values_of("fuzz"), "ts_event": "5"})
        as_json = msgspec.json.encode(values_of("fuzz"))
        match rng.randrange(12):
            case 0:
                return "malformed", self._of(rng.randbytes(rng.randrange(60)) + b"\xc1")
            case 1:
                raw = rng.choice([good, as_json])
                return "malformed", self._of(raw[: rng.randrange(len(raw))])
            case 2:
                return "malformed", self._of(
                    b"\x82\xa4type\xaaSignalData\xa1a" + b"\x91" * rng.randrange(1, 9_000)
                )
            case 3:
                n = rng.randrange(1, 4_000)
                return "malformed", self._of(b'{"type":"SignalData","a":' + b"[" * n + b"]" * n + b"}")
            case 4:
                return "malformed", {rng.randbytes(8): rng.randbytes(20)}
            case 5:
                return "oversized", self._of(b"x" * rng.randrange(16_400, 40_000))
            case 6:
                return "unknown_type", self._of(msgspec.msgpack.encode({"type": str(rng.random())}))
            case 7:
                bad = rng.choice([{"signal": 7}, {"strength": 9**99 if rng.random() < 0.5 else -1.0}])
                return "malformed", self._of(msgspec.json.encode(values_of("fuzz", **bad)))
            case 8:
                changed = values_of("fuzz", **{str(rng.random()): rng.random()})
                return "malformed", self._of(msgspec.msgpack.encode(changed))
            case 9:
                path = rng.choice(["../../etc/passwd", "os.system", "pkg:Class"])
                return "malformed", self._of(msgspec.json.encode({"type": "SignalData", "path": path}))
            case 10:
                digits = rng.choice([b"9" * 30, b"9" * 5_000, b"1e999", b"-", b"NaN"])
                return "malformed", self._of(as_json.replace(b"0.5", digits))
            case _:
                changed = values_of("fuzz", source="\x00" * rng.randrange(1, 200))
                return "malformed", self._of(msgspec.msgpack.encode(changed))

    @staticmethod
    def _of(payload: bytes) -> dict[bytes, bytes]:
        return {b"topic": b"t", b"payload": payload}


@pytest.mark.parametrize("n", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_no_mess_does_any_harm(tmp_path: Path, n: int) -> None:
    """Entries go in by pieces, so that Redis's memory is not what is measured."""
    mess, expected, n_good, piece = Mess(n), Counter[str](), 0, 500
    after: list[int] = []
    with RedisServer(tmp_path) as server, server.client() as client, Reading(server) as (consumer, collector):
        seen, ids = Counter[str](), []
        for _ in range(0, n, piece):
            with client.pipeline(transaction=False) as pipe:
                for i in range(piece):
                    kind, fields = mess.entry()
                    expected[kind] += 1
                    pipe.xadd(STREAM, fields, maxlen=10 * piece, approximate=True)
                    if i % 10 == 0:
                        pipe.xadd(STREAM, encode(values_of(f"x{n_good}"), "t"))
                        n_good += 1
                pipe.execute()
            until(lambda: len(collector.arrivals) == piece + piece // 10)
            seen += collector.problems
            ids += collector.ids
            collector.arrivals.clear()
            after.append(rss_bytes())
        assert consumer.connected
    assert seen == expected
    assert seen == Counter({kind: consumer.counts[kind] for kind in expected})
    assert ids == names(n_good)
    assert after[-1] - after[len(after) // 3] < 20 * 2**20
    assert consumer.counts["gap"] == 0


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_redis_is_killed_and_restarted_under_load_and_nothing_is_lost_or_doubled(
    tmp_path: Path, n: int
) -> None:
    published: list[str] = []

    def publish() -> None:
        with SignalPublisher(port=server.port, timeout_seconds=2.0, retry_seconds=60.0) as publisher:
            published.extend(publisher.publish(INSTRUMENT, 1, 0.5, "s", name) for name in names(n))

    with RedisServer(tmp_path) as server, Reading(server, batch_size=4) as (consumer, collector):
        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        for part in range(1, 6):
            until(lambda part=part: len(published) >= n * part // 6, "signals", lambda: len(published))
            match part:
                case 1 | 4:
                    server.kill()
                    time.sleep(0.1)
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
        assert not thread.is_alive()
        until(lambda: len(collector.ids) >= n, "all signals", lambda: len(collector.ids))
        time.sleep(0.1)
    assert collector.ids == names(n)
    assert [a.entry_id for a in collector.arrivals] == published
    assert consumer.counts["gap"] == consumer.counts["recreated"] == 0
