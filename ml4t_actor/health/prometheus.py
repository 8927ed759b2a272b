"""A Prometheus endpoint that shows the newest `ActorHealth`, and `StrategyHealth` of each strategy.

Needs the extra ``metrics``; without it the import fails with what to install.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from socketserver import BaseRequestHandler
from wsgiref.simple_server import WSGIServer

from ml4t_actor.messages.health import NEVER, ActorHealth, LinkState
from ml4t_actor.messages.strategy_health import StrategyHealth

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as e:
    raise ImportError(
        "the Prometheus endpoint needs prometheus-client: pip install 'ml4t_actor[metrics]', "
        "or leave `health.metrics_port` out"
    ) from e

type Latest = Callable[[], ActorHealth | None]
type Strategies = Callable[[], Sequence[StrategyHealth]]

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
    """Turn the newest `ActorHealth`, and the strategies', into metrics, in base units.

    What has not happened yet has no sample, and neither has a stream that is off.

    Parameters
    ----------
    latest : callable
        Returns the newest `ActorHealth`, or None; called on the server's threads.
    strategies : callable
        Returns the newest `StrategyHealth` of each strategy; called there, too.
    """

    def __init__(self, latest: Latest, strategies: Strategies) -> None:
        self._latest, self._strategies = latest, strategies

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of one scrape."""
        yield from _strategy_gauges(self._strategies())
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


def _strategy_gauges(strategies: Sequence[StrategyHealth]) -> Iterator[Metric]:
    if not strategies:
        return
    healthy = GaugeMetricFamily(
        "ml4t_strategy_healthy", "1 if nothing is wrong with the strategy.", labels=["strategy"]
    )
    held_ns = GaugeMetricFamily(
        "ml4t_strategy_health_timestamp_seconds", "When this held, UNIX seconds.", labels=["strategy"]
    )
    foreign = GaugeMetricFamily(
        "ml4t_foreign_position",
        "Of the venue's position what is not the strategy's own; the instrument is not traded.",
        labels=["strategy", "instrument"],
    )
    unsettled = GaugeMetricFamily(
        "ml4t_unsettled_entries",
        "Entries of which it is not known what became; nothing is entered there.",
        labels=["strategy", "instrument"],
    )
    for health in strategies:
        name = health.strategy_id
        healthy.add_metric([name], float(health.ok))
        held_ns.add_metric([name], health.ts_event * _NS)
        for instrument, quantity in health.foreign_by_instrument.items():
            foreign.add_metric([name, instrument], float(quantity))
        for instrument, n in Counter(health.unsettled_by_order.values()).items():
            unsettled.add_metric([name, instrument], n)
    yield from (healthy, held_ns, foreign, unsettled)


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

    A client that is silent for 5 seconds is cut off. How many may be connected at once is not limited: bind to another
    address than loopback only where a firewall keeps strangers out.

    Parameters
    ----------
    host : str
        Address to bind to: '127.0.0.1' for this machine alone. The endpoint has neither password nor TLS.
    port : int
        Port to bind to; with 0 the system chooses, see `port`.
    latest : callable
        Returns the newest `ActorHealth`, or None before the first.
    strategies : callable, optional
        Returns the newest `StrategyHealth` of each strategy.
    """

    def __init__(self, host: str, port: int, latest: Latest, strategies: Strategies = tuple) -> None:
        self.host = host
        self.port = port
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(HealthCollector(latest, strategies))
        self._server: WSGIServer | None = None

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
            server, thread = start_http_server(self.port, self.host, self._registry)
        except OSError as e:
            raise OSError(
                e.errno,
                f"metrics cannot be served on {self.host}:{self.port} ({e.strerror or e}); "
                "choose another `health.metrics_port` or `health.metrics_host`",
            ) from None
        server.RequestHandlerClass = _impatient(server.RequestHandlerClass)
        thread.name = "ml4t-metrics"
        self.port = server.server_port
        self._server = server

    def stop(self) -> None:
        """Free the port; nothing happens if it does not serve. Who is connected is cut off once silent for too long."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


def _impatient(handler: Callable[..., BaseRequestHandler]) -> type[BaseRequestHandler]:
    """Return a handler that cuts silent clients off, and prints nothing when one goes away."""

    class Handler(handler):  # type: ignore[misc, valid-type]
        timeout = SILENCE_MAX_S

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()

    return Handler
