"""A Prometheus endpoint that shows the newest `ActorHealth`.

Needs the extra ``metrics``; without it the import fails with what to install.
"""

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from ml4t_actor.messages.health import NEVER, ActorHealth, LinkState

try:
    from prometheus_client import CollectorRegistry, MetricsHandler
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as e:
    raise ImportError(
        "the Prometheus endpoint needs prometheus-client: pip install 'ml4t_actor[metrics]', "
        "or leave `health.metrics_port` out"
    ) from e

CONNECTIONS_MAX = 16
SILENCE_MAX_S = 5.0

_NS = 1e-9
_AGES = (
    ("bar", "Since the last bar of the instrument for which that is longest ago.", "bar_age_seconds"),
    ("trade", "Since the last trade of the instrument for which that is longest ago.", "trade_age_seconds"),
    ("signal", "Since the last signal came in.", "signal_age_seconds"),
    ("outcome", "Since the last outcome became known.", "outcome_age_seconds"),
    (
        "model_label",
        "Since the newest outcome that the model was trained on.",
        "model_label_age_seconds",
    ),
)


class HealthCollector(Collector):
    """Turn the newest `ActorHealth` into metrics, in base units.

    What has not happened yet has no sample, and neither has a stream that is off.

    Parameters
    ----------
    latest : callable
        Returns the newest `ActorHealth`, or None; called on the server's threads.
    """

    def __init__(self, latest: Callable[[], ActorHealth | None]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of one scrape."""
        health = self._latest()
        if health is None:
            return
        yield InfoMetricFamily(
            "ml4t_actor",
            "The actor and its versions.",
            value={
                "actor_id": health.actor_id,
                "version": health.package_version,
                "nautilus_version": health.nautilus_version,
                "model_version": health.model_version,
            },
        )
        for name, documentation, value in (
            ("ml4t_healthy", "1 if nothing is wrong.", float(health.ok)),
            ("ml4t_health_timestamp_seconds", "When this held, UNIX seconds.", health.ts_event * _NS),
            ("ml4t_uptime_seconds", "Since the actor's start.", health.uptime_seconds),
            ("ml4t_outbox_entries", "Enriched signals that wait to go to Redis.", health.outbox_depth),
            ("ml4t_ledger_waiting_rows", "Rows that wait to be written.", health.ledger_rows),
            ("ml4t_open_signals", "Signals whose outcome is not known yet.", health.open_signals),
            ("ml4t_model_serving", "1 if a model serves.", float(bool(health.model_version))),
            ("ml4t_retraining", "1 while a challenger is being trained.", float(health.retraining)),
        ):
            yield GaugeMetricFamily(name, documentation, value=value)
        for name, documentation, field in _AGES:
            age = getattr(health, field)
            if age != NEVER:
                yield GaugeMetricFamily(f"ml4t_last_{name}_age_seconds", documentation, value=age)
        connected = GaugeMetricFamily(
            "ml4t_redis_connected", "1 if the stream is connected to Redis.", labels=["direction"]
        )
        for direction, state in (("inbound", health.inbound), ("outbound", health.outbound)):
            if state != LinkState.OFF:
                connected.add_metric([direction], float(state == LinkState.CONNECTED))
        yield connected
        if health.latency_n:
            latency = GaugeMetricFamily(
                "ml4t_enrichment_latency_seconds", "Of the newest enrichments.", labels=["quantile"]
            )
            for quantile, ns in (
                ("0.5", health.latency_p50_ns),
                ("0.99", health.latency_p99_ns),
                ("1", health.latency_max_ns),
            ):
                latency.add_metric([quantile], ns * _NS)
            yield latency
        yield from _counters(health.counts_by_kind)


def _counters(counts: dict[str, dict[str, int]]) -> Iterator[Metric]:
    signals = counts.get("signals")
    if signals is not None:
        family = CounterMetricFamily("ml4t_signals", "Signals answered, by status.", labels=["status"])
        for status, count in signals.items():
            family.add_metric([status], count)
        yield family
    others = {group: kinds for group, kinds in counts.items() if group != "signals"}
    if others:
        family = CounterMetricFamily(
            "ml4t_events",
            "What else was counted, by the part that did and its kind.",
            labels=["part", "kind"],
        )
        for group, kinds in others.items():
            for kind, count in kinds.items():
                family.add_metric([_snake(group), kind], count)
        yield family


def _snake(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower() or "other"


class MetricsServer:
    """Serve the metrics to Prometheus from threads of its own, which end with the process.

    A client that is silent for 5 seconds is cut off; of more than 16 connections at once the oldest is. So neither a
    slow client nor a hostile one can fill the process or keep others out.

    Parameters
    ----------
    host : str
        Address to bind to: '127.0.0.1' for this machine alone. The endpoint has neither password nor TLS.
    port : int
        Port to bind to; with 0 the system chooses, see `port`.
    latest : callable
        Returns the newest `ActorHealth`, or None before the first.
    """

    def __init__(self, host: str, port: int, latest: Callable[[], ActorHealth | None]) -> None:
        self.host = host
        self.port = port
        registry = CollectorRegistry(auto_describe=False)
        registry.register(HealthCollector(latest))
        self._handler = type("_Handler", (_Handler,), {"registry": registry})
        self._server: _Server | None = None

    def start(self) -> None:
        """Bind and serve; `port` is then the one in use.

        Raises
        ------
        RuntimeError
            If it serves already.
        OSError
            If the address cannot be bound, with what to do.
        """
        if self._server is not None:
            raise RuntimeError(f"metrics are served on {self.host}:{self.port} already")
        try:
            server = _Server(self.host, self.port, self._handler)
        except OSError as e:
            raise OSError(
                e.errno,
                f"metrics cannot be served on {self.host}:{self.port} ({e.strerror or e}); "
                "choose another `health.metrics_port` or `health.metrics_host`",
            ) from None
        self.port = server.server_port
        self._server = server
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="ml4t-metrics", daemon=True
        ).start()

    def stop(self) -> None:
        """Free the port and cut off who is connected; nothing happens if it does not serve."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.disconnect_all()


class _Handler(MetricsHandler):
    timeout = SILENCE_MAX_S
    server_version = "ml4t_actor"
    sys_version = ""


class _Server(ThreadingHTTPServer):
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, host: str, port: int, handler: type[_Handler]) -> None:
        self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._connections: dict[socket.socket, None] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__((str(address[0]), int(address[1])), handler)

    def server_bind(self) -> None:
        # The parent's asks the DNS for the name of the address, which may take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= CONNECTIONS_MAX:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                _cut_off(oldest)
            self._connections[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is none of ours
            super().handle_error(request, client_address)

    def disconnect_all(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, {}
        for connection in connections:
            _cut_off(connection)


def _cut_off(connection: socket.socket) -> None:
    with suppress(OSError):  # it may have ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)
