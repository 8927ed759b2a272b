"""The Prometheus endpoint, over real sockets."""

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ml4t_actor.health import prometheus
from ml4t_actor.health.prometheus import MetricsServer
from ml4t_actor.health.reporter import FeedVitals, HealthReporter, Latency, LinkVitals, Vitals
from ml4t_actor.messages import ActorHealth, LinkState, StrategyHealth
from tests.support.waiting import FAR_S, join, until

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
FOREVER_S = 3_600.0


def healthy(**changes) -> ActorHealth:
    now = START + 100 * SECOND
    well = {
        "feeds": {
            "BTC-USD-PERP.HYPERLIQUID": FeedVitals(interval_ns=60 * SECOND, last_bar_ns=now - 40 * SECOND)
        },
        "model_version": "v1",
        "last_signal_ns": now - SECOND // 2,
        "outbox_depth": 3,
        "ledger_rows": 4,
        "open_signals": 5,
        "inbound": LinkVitals(state=LinkState.CONNECTED),
        "counts": {"signals": {"ok": 12, "no_model": 3}, "actor": {'error in "x"\\ é': 1, "repeated": 2}},
        "latency": Latency(9, 20_000, 30_000, 4_000_000),
    }
    return HealthReporter("T-1.A", START).report(Vitals(**{**well, **changes}), now)


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsServer]]:
    with contextlib.ExitStack() as stack:

        def start(latest: Callable[[], ActorHealth | None], port: int = 0, **more) -> MetricsServer:
            server = MetricsServer("127.0.0.1", port, latest, **more)
            server.start()
            stack.callback(server.stop)
            return server

        yield start


def scrape(server: MetricsServer, accept: str = "text/plain") -> dict[tuple, float]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=FAR_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": accept})
        response = connection.getresponse()
        body = response.read().decode()
    assert response.status == 200
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def test_a_scrape_has_what_each_strategy_says(serve):
    strategies = [
        StrategyHealth(
            strategy_id="A-1",
            foreign_positions='{"BTC-USD-PERP.HYPERLIQUID":"-0.125","ETH-USD-PERP.HYPERLIQUID":"0"}',
            unsettled_entries='{"c":"SOL-USD-PERP.HYPERLIQUID","d":"SOL-USD-PERP.HYPERLIQUID"}',
            ok=False,
            problems="some",
            ts_event=START,
        ),
        StrategyHealth(
            strategy_id="B-1", foreign_positions="{}", unsettled_entries="{}", ok=True, problems=""
        ),
    ]
    samples = scrape(serve(lambda: None, strategies=lambda: strategies))
    a, b = ("strategy", "A-1"), ("strategy", "B-1")
    assert samples == {
        ("ml4t_strategy_healthy", a): 0.0,
        ("ml4t_strategy_healthy", b): 1.0,
        ("ml4t_strategy_health_timestamp_seconds", a): 1_700_000_000.0,
        ("ml4t_strategy_health_timestamp_seconds", b): 0.0,
        ("ml4t_foreign_position", ("instrument", "BTC-USD-PERP.HYPERLIQUID"), a): -0.125,
        ("ml4t_foreign_position", ("instrument", "ETH-USD-PERP.HYPERLIQUID"), a): 0.0,
        ("ml4t_unsettled_entries", ("instrument", "SOL-USD-PERP.HYPERLIQUID"), a): 2.0,
    }


def test_a_scrape_has_what_the_newest_health_says(serve):
    samples = scrape(serve(healthy))
    expected = {
        ("ml4t_healthy",): 0.0,
        ("ml4t_health_timestamp_seconds",): 1_700_000_100.0,
        ("ml4t_uptime_seconds",): 100.0,
        ("ml4t_last_bar_age_seconds",): 40.0,
        ("ml4t_last_signal_age_seconds",): 0.5,
        ("ml4t_outbox_entries",): 3.0,
        ("ml4t_ledger_waiting_rows",): 4.0,
        ("ml4t_open_signals",): 5.0,
        ("ml4t_model_serving",): 1.0,
        ("ml4t_retraining",): 0.0,
        ("ml4t_redis_connected", ("direction", "inbound")): 1.0,
        ("ml4t_signals_total", ("status", "ok")): 12.0,
        ("ml4t_signals_total", ("status", "no_model")): 3.0,
        ("ml4t_events_total", ("kind", "repeated"), ("part", "actor")): 2.0,
        ("ml4t_events_total", ("kind", 'error in "x"\\ é'), ("part", "actor")): 1.0,
        ("ml4t_enrichment_latency_seconds", ("quantile", "0.5")): 20e-6,
        ("ml4t_enrichment_latency_seconds", ("quantile", "0.99")): 30e-6,
        ("ml4t_enrichment_latency_seconds", ("quantile", "1")): 4e-3,
    }
    [info] = [key for key in samples if key[0] == "ml4t_actor_info"]
    assert dict(info[1:])["model_version"] == "v1"
    assert dict(info[1:])["actor_id"] == "T-1.A"
    assert {key: value for key, value in samples.items() if key != info} == pytest.approx(expected)


def test_what_changes_is_seen_at_the_next_scrape(serve):
    current = [None]
    server = serve(lambda: current[0])
    seen = []
    for health in (None, healthy(outbox_depth=1), healthy(outbox_depth=2)):
        current[0] = health
        seen.append(scrape(server).get(("ml4t_outbox_entries",)))
    assert seen == [None, 1.0, 2.0]


def test_openmetrics_is_spoken_too(serve):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

    server = serve(healthy)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=FAR_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        families = list(parse(connection.getresponse().read().decode()))
    assert {"ml4t_signals", "ml4t_healthy"} <= {family.name for family in families}


def test_two_in_one_process_know_nothing_of_each_other(serve):
    one, other = serve(lambda: healthy(open_signals=1)), serve(lambda: healthy(open_signals=2))
    assert one.port != other.port
    assert scrape(one)[("ml4t_open_signals",)] == 1.0
    assert scrape(other)[("ml4t_open_signals",)] == 2.0


def test_stop_frees_the_port_though_a_client_is_connected(serve, monkeypatch):
    monkeypatch.setattr(prometheus, "SILENCE_MAX_S", FOREVER_S)
    server = serve(healthy)
    port = server.port
    with socket.create_connection(("127.0.0.1", port), timeout=FAR_S):
        scrape(server)  # so that the idle one was accepted before
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        join(stopping)
        server.stop()
        again = serve(healthy, port=port)
        assert again.port == port
        assert scrape(again)


def test_a_port_in_use_is_an_error_with_the_remedy(serve):
    server = serve(healthy)
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{server.port}.*metrics_port"):
        serve(healthy, port=server.port)
    with pytest.raises(RuntimeError, match="already"):
        server.start()


def test_silent_clients_keep_nobody_out(serve, monkeypatch):
    monkeypatch.setattr(prometheus, "SILENCE_MAX_S", FOREVER_S)
    server = serve(healthy)
    with silent_clients(server, 40):
        assert scrape(server)[("ml4t_open_signals",)] == 5.0
        assert all(thread.daemon for thread in client_threads())


def test_silent_clients_are_cut_off(serve, monkeypatch, capfd):
    monkeypatch.setattr(prometheus, "SILENCE_MAX_S", 0.2)
    server = serve(healthy)
    before = client_threads()
    with silent_clients(server, 4) as clients:
        for client in clients:
            assert client.recv(1) == b""
        until(lambda: client_threads() <= before)
    assert scrape(server)
    assert capfd.readouterr().err == ""


@contextlib.contextmanager
def silent_clients(server: MetricsServer, n: int) -> Iterator[list[socket.socket]]:
    """Connect clients that say nothing, or not all that they should."""
    with contextlib.ExitStack() as stack:
        clients = []
        for i in range(n):
            address = ("127.0.0.1", server.port)
            clients.append(stack.enter_context(socket.create_connection(address, timeout=FAR_S)))
            if i % 2:
                clients[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ")
            if i % 4 == 3:  # as many as may wait to be accepted
                scrape(server)
        yield clients


def client_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "process_request" in thread.name}


def test_garbage_is_answered_and_the_next_scrape_works(serve, capfd):
    server = serve(healthy)
    for garbage in (
        b"\x00\xff" * 1000 + b"\r\n\r\n",
        b"GET " + b"a" * 100_000,
        b"POST / HTTP/9.9\r\n\r\n",
        b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=FAR_S) as client:
            with contextlib.suppress(OSError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert scrape(server)
    assert capfd.readouterr().err == ""


def test_it_does_not_keep_the_process_alive():
    code = (
        "from ml4t_actor.health.prometheus import MetricsServer\n"
        "import socket\n"
        "s = MetricsServer('127.0.0.1', 0, lambda: None); s.start()\n"
        "c = socket.create_connection(('127.0.0.1', s.port))\n"
        "print('served')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert ended.stdout == b"served\n"


def test_without_the_client_library_the_extra_is_named():
    code = "import sys; sys.modules['prometheus_client'] = None; import ml4t_actor.health.prometheus"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert b"pip install 'ml4t_actor[metrics]'" in ended.stderr


def test_only_the_address_named_is_bound(serve):
    server = serve(healthy)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", server.port), timeout=FAR_S):
        pass
