"""`RedisLink` on a real Redis, and what it relies on in redis-py."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams import RedisAwayError, RedisLink, RedisRefusedError, ReplyTooLargeError, connect
from ml4t_actor.streams import connection as connections
from tests.support.redis_server import RedisServer
from tests.support.waiting import join, until

UPGRADE = (
    "redis-py {version} has no `{name}` any more, or does not use it: `streams.connection` overrides it, so adapt that "
    "before the version is allowed in pyproject.toml"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.mark.parametrize("tls", [False, True])
def test_redis_py_makes_its_socket_where_we_bound_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    base = redis.SSLConnection if tls else redis.Connection
    reason = UPGRADE.format(version=redis.__version__, name="_connect")
    assert callable(getattr(base, "_connect", None)), reason
    calls = []
    original = base._connect

    def counted(self: Any) -> Any:
        calls.append(type(self))
        return original(self)

    monkeypatch.setattr(base, "_connect", counted)
    with RedisServer(tmp_path / "redis", tls=tls) as server, connect(server.settings()) as link:
        link.ping()
    assert calls.count(connections._connection_class(tls)) == 1, reason


@pytest.mark.parametrize("tls", [False, True])
def test_a_reply_is_read_as_far_as_is_allowed(tmp_path: Path, tls: bool) -> None:
    with RedisServer(tmp_path / "redis", tls=tls) as server, server.client() as client:
        client.set("large", b"x" * 1_000_000)
        client.set("small", b"y" * 1_000)
        with connect(server.settings()) as link:
            assert link.execute("GET", "small", limit=2_000) == b"y" * 1_000
            with pytest.raises(ReplyTooLargeError) as caught:
                link.execute("GET", "large", limit=2_000)
            assert caught.value.head.startswith(b"$1000000\r\nxxx")
            assert not link.is_open
            with pytest.raises(RedisAwayError, match="no connection"):
                link.ping()


def test_a_redis_py_that_makes_its_socket_elsewhere_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Elsewhere:
        """A connection as a redis-py might have it that has renamed what is overridden."""

        def __init__(self, **options: object) -> None:
            self.closed = False

        def connect(self) -> None: ...

        def disconnect(self) -> None:
            self.closed = True

    monkeypatch.setattr(redis, "Connection", Elsewhere)
    connections._connection_class.cache_clear()
    try:
        link = RedisLink(RedisSettings())
        with pytest.raises(RuntimeError, match=rf"redis-py {redis.__version__}.*ml4t_actor\[redis\]"):
            link.open()
        assert not link.is_open
    finally:
        connections._connection_class.cache_clear()


def test_it_does_not_reconnect_by_itself(server: RedisServer) -> None:
    with connect(server.settings()) as link, server.client() as client:
        client.client_kill_filter(skipme=True, _type="normal")
        with pytest.raises(RedisAwayError):
            link.ping()
        before = client.info("stats")["total_connections_received"]
        for _ in range(3):
            with pytest.raises(RedisAwayError, match="no connection"):
                link.ping()
        assert client.info("stats")["total_connections_received"] == before
        link.open()
        link.ping()


def test_a_wait_for_redis_can_be_interrupted_from_another_thread(server: RedisServer) -> None:
    outcome: list[object] = []
    with connect(server.settings(timeout_seconds=60.0)) as link, server.client() as client:

        def wait() -> None:
            try:
                outcome.append(link.execute("BLPOP", "nothing", 0))
            except RedisAwayError as e:
                outcome.append(e)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        until(lambda: client.info("clients")["blocked_clients"] == 1)
        link.interrupt()
        join(thread)
    assert [type(one) for one in outcome] == [RedisAwayError]


def test_a_transaction_has_all_its_effects_or_none(server: RedisServer) -> None:
    with connect(server.settings()) as link, server.client() as client:
        assert link.execute_transaction(("SET", "a", 1), ("INCR", "a"), then=("PING",)) == [b"OK", 2]
        with pytest.raises(RedisRefusedError, match="wrong number"):
            link.execute_transaction(("SET", "a", 5), ("SET", "b"))
        assert client.get("a") == b"2"
        assert link.execute("WATCH", "a") == b"OK"
        client.set("a", 7)
        with pytest.raises(RedisRefusedError, match="fence has moved"):
            link.execute_transaction(("SET", "a", 5))
        assert client.get("a") == b"7"
        link.open()
        with pytest.raises(RedisAwayError, match="a part"):
            link.execute_transaction(("SET", "a", "x"), ("INCR", "a"))
