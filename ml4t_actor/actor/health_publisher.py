"""How the actor is, published on a timer: on the message bus, and to who scrapes, with what strategies publish."""

from typing import TYPE_CHECKING

from ml4t_actor.health.reporter import FeedVitals, HealthReporter, LatencyWindow, LinkVitals, Vitals
from ml4t_actor.ledger import Ledger
from ml4t_actor.lifecycle import Host
from ml4t_actor.messages import ActorHealth, EnrichedSignal, LinkState, SignalOutcome, StrategyHealth
from ml4t_actor.orchestrator import ML4TOrchestrator
from ml4t_actor.training.retraining import seen_until_ns

if TYPE_CHECKING:
    from ml4t_actor.actor.recorder import SessionRecorder
    from ml4t_actor.actor.redis_bridge import RedisBridge
    from ml4t_actor.health.prometheus import MetricsServer as _Server
    from ml4t_actor.streams.worker import StreamWorker


class HealthPublisher:
    """Publishes an `ActorHealth` each time `publish` is called, and offers it to Prometheus.

    Parameters
    ----------
    actor_id : str
        Of whom to report.
    host : Host
        The clock and the bus.
    orchestrator : ML4TOrchestrator
        What it does.
    bridge : RedisBridge, optional
        Its bridge to Redis.
    recorder : SessionRecorder, optional
        Its recording.
    """

    def __init__(
        self,
        actor_id: str,
        host: Host,
        orchestrator: ML4TOrchestrator,
        *,
        bridge: "RedisBridge | None" = None,
        recorder: "SessionRecorder | None" = None,
    ) -> None:
        self.latest: ActorHealth | None = None
        self._strategies: tuple[StrategyHealth, ...] = ()  # the metrics server reads it on threads of its own
        self._host = host
        self._orchestrator = orchestrator
        self._bridge = bridge
        self._recorder = recorder
        self._latencies = LatencyWindow()
        self._last_signal_ns = 0
        self._last_outcome_ns = 0
        self._reporter = HealthReporter(
            actor_id, host.now(), max_bar_age_bars=orchestrator.config.max_bar_age_bars
        )
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen for who scrapes, where a port is configured."""
        settings = self._orchestrator.config.health
        if settings.metrics_port is not None:
            from ml4t_actor.health.prometheus import MetricsServer

            self._server = MetricsServer(
                settings.metrics_host,
                settings.metrics_port,
                lambda: self.latest,
                lambda: self._strategies,
            )
            self._server.start()

    def on_answer(self, enriched: EnrichedSignal) -> None:
        """Count an answer."""
        self._latencies.add(enriched.latency_ns)
        self._last_signal_ns = enriched.ts_init

    def on_outcome(self, outcome: SignalOutcome) -> None:
        """Remember when the last outcome came."""
        self._last_outcome_ns = outcome.ts_init

    def on_strategy(self, health: StrategyHealth) -> None:
        """Show how a strategy is, until it says otherwise."""
        others = (each for each in self._strategies if each.strategy_id != health.strategy_id)
        self._strategies = (*others, health)

    def publish(self) -> None:
        """Publish how the actor is now."""
        self.latest = self._reporter.report(self._vitals(), self._host.now())
        self._host.publish(self.latest)

    def stop(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.stop()

    def _vitals(self) -> Vitals:
        orchestrator, bridge = self._orchestrator, self._bridge
        inference, lifecycle = orchestrator.inference, orchestrator.lifecycle
        ledger, bundle = lifecycle.ledger, inference.bundle
        return Vitals(
            feeds=self._feeds(),
            model_version="" if bundle is None else bundle.version,
            model_label_ns=0 if bundle is None else seen_until_ns(bundle),
            last_signal_ns=self._last_signal_ns,
            last_outcome_ns=self._last_outcome_ns,
            inbound=LinkVitals() if bridge is None else _link(bridge.consumer),
            outbound=LinkVitals() if bridge is None else _link(bridge.producer),
            outbox_depth=0 if bridge is None else bridge.producer.depth,
            ledger_rows=ledger.n_waiting,
            open_signals=lifecycle.open_signals,
            ledger_error=_ledger_error(ledger),
            retraining=lifecycle.champion.is_retraining,
            counts=self._counts(),
            latency=self._latencies.latency(),
        )

    def _feeds(self) -> dict[str, FeedVitals]:
        inference, trades = self._orchestrator.inference, self._orchestrator.config.trade_ticks
        feeds = {}
        for instrument_id in inference.instruments:
            features, vpin = inference.features(instrument_id), inference.vpin(instrument_id)
            feeds[instrument_id.value] = FeedVitals(
                interval_ns=features.interval_ns,
                last_bar_ns=features.last_ts,
                last_trade_ns=vpin.last_ns if trades else 0,
                trades=trades,
                warm=features.initialized and vpin.initialized,
            )
        return feeds

    def _counts(self) -> dict[str, dict[str, int]]:
        orchestrator = self._orchestrator
        counts = {
            "signals": dict(orchestrator.inference.counts),
            "actor": dict(orchestrator.problems.counts),
            "ledger": dict(orchestrator.lifecycle.ledger.counts),
        }
        if self._bridge is not None:
            counts["inbound"] = dict(self._bridge.consumer.counts)
            counts["outbound"] = dict(self._bridge.producer.counts)
        if self._recorder is not None:
            counts["tape"] = {"dropped": self._recorder.n_missed}  # the name that dashboards know
        return counts


def _ledger_error(ledger: Ledger) -> str:
    if ledger.path is None:
        return "its file cannot be used, rows are kept in memory only"
    return ledger.last_error if ledger.failing else ""


def _link(link: "StreamWorker") -> LinkVitals:
    state = LinkState.CONNECTED if link.connected else LinkState.CONNECTING
    return LinkVitals(state=state, error="" if link.connected else link.last_error)
