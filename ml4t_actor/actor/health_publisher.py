"""How the actor is, told on a timer: on the message bus, and to who scrapes."""

from typing import TYPE_CHECKING

from ml4t_actor.health.reporter import FeedVitals, HealthReporter, LatencyWindow, LinkVitals, Vitals
from ml4t_actor.ledger import Ledger
from ml4t_actor.messages import ActorHealth, EnrichedSignal, LinkState, SignalOutcome
from ml4t_actor.nautilus.model import DataType
from ml4t_actor.training.retraining import seen_until_ns

if TYPE_CHECKING:
    from ml4t_actor.actor.actor import ML4TActor
    from ml4t_actor.actor.recorder import SessionRecorder
    from ml4t_actor.actor.redis_bridge import RedisBridge
    from ml4t_actor.health.prometheus import MetricsServer as _Server
    from ml4t_actor.streams.worker import StreamWorker

_HEALTH = DataType(ActorHealth)


class HealthPublisher:
    """Publishes an `ActorHealth` each time it is asked, and offers it to Prometheus.

    Parameters
    ----------
    actor : ML4TActor
        Of whom to tell.
    exchange : RedisBridge, optional
        Its exchange with Redis.
    tape : SessionRecorder, optional
        Its recording.
    now_ns : int
        The clock's time at the start.
    """

    def __init__(
        self,
        actor: "ML4TActor",
        exchange: "RedisBridge | None",
        tape: "SessionRecorder | None",
        now_ns: int,
    ) -> None:
        self.latest: ActorHealth | None = None
        self._actor = actor
        self._exchange = exchange
        self._tape = tape
        self._latencies = LatencyWindow()
        self._last_signal_ns = 0
        self._last_outcome_ns = 0
        config = actor.config
        self._reporter = HealthReporter(str(actor.id), now_ns, max_bar_age_bars=config.max_bar_age_bars)
        self._server: _Server | None = None
        if config.health.metrics_port is not None:
            from ml4t_actor.health.prometheus import MetricsServer

            self._server = MetricsServer(
                config.health.metrics_host, config.health.metrics_port, lambda: self.latest
            )
            self._server.start()

    def on_answer(self, enriched: EnrichedSignal) -> None:
        """Take note of an answer."""
        self._latencies.add(enriched.latency_ns)
        self._last_signal_ns = enriched.ts_init

    def on_outcome(self, outcome: SignalOutcome) -> None:
        """Take note of an outcome."""
        self._last_outcome_ns = outcome.ts_init

    def tell(self) -> None:
        """Publish how the actor is now."""
        self.latest = self._reporter.report(self._vitals(), self._actor.clock.timestamp_ns())
        self._actor.publish_data(_HEALTH, self.latest)

    def stop(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.stop()

    def _vitals(self) -> Vitals:
        actor, exchange = self._actor, self._exchange
        learning, loop = actor.learning, actor.loop
        ledger = learning.ledger
        bundle = loop.bundle
        counts = {
            "signals": dict(loop.counts),
            "actor": dict(actor.counts),
            "ledger": dict(ledger.counts),
        }
        if exchange is not None:
            counts["inbound"] = dict(exchange.inlet.counts)
            counts["outbound"] = dict(exchange.outlet.counts)
        if self._tape is not None:
            counts["tape"] = {"dropped": self._tape.n_missed}
        return Vitals(
            feeds={
                instrument_id.value: FeedVitals(
                    interval_ns=loop.features(instrument_id).interval_ns,
                    last_bar_ns=loop.features(instrument_id).last_ts,
                    last_trade_ns=loop.vpin(instrument_id).last_ns if actor.config.trade_ticks else 0,
                    trades=actor.config.trade_ticks,
                    warm=loop.features(instrument_id).initialized and loop.vpin(instrument_id).initialized,
                )
                for instrument_id in loop.instruments
            },
            model_version="" if bundle is None else bundle.version,
            model_label_ns=0 if bundle is None else seen_until_ns(bundle),
            last_signal_ns=self._last_signal_ns,
            last_outcome_ns=self._last_outcome_ns,
            inbound=LinkVitals() if exchange is None else _link(exchange.inlet),
            outbound=LinkVitals() if exchange is None else _link(exchange.outlet),
            outbox_depth=0 if exchange is None else exchange.outlet.depth,
            ledger_rows=ledger.n_waiting,
            open_signals=learning.open_signals,
            ledger_error=_trouble(ledger),
            retraining=learning.succession.under_way,
            counts=counts,
            latency=self._latencies.latency(),
        )


def _trouble(ledger: Ledger) -> str:
    if ledger.path is None:
        return "its file cannot be used, rows are kept in memory only"
    return ledger.last_error if ledger.failing else ""


def _link(link: "StreamWorker") -> LinkVitals:
    state = LinkState.CONNECTED if link.connected else LinkState.CONNECTING
    return LinkVitals(state=state, error="" if link.connected else link.last_error)
