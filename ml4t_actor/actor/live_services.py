"""What only a live actor has: its bridge to Redis, its recording, and its health."""

from collections.abc import Callable

from ml4t_actor.actor.health_publisher import HealthPublisher
from ml4t_actor.actor.host import ActorHost
from ml4t_actor.actor.market_intake import MarketIntake
from ml4t_actor.actor.recorder import SessionRecorder, start_recording
from ml4t_actor.actor.redis_bridge import NOT_INSTALLED, RedisBridge, redis_is_installed
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.model import Identifier
from ml4t_actor.orchestrator import ML4TOrchestrator

LINK_CHECK_S = 1.0
FEED_CHECK_S = 1.0


class LiveServices:
    """Begins, serves and ends what only a live actor has.

    Parameters
    ----------
    host : ActorHost
        The actor's clock, log and bus.
    orchestrator : ML4TOrchestrator
        Started.
    intake : MarketIntake
        Where bars and trades come in.
    cache : Cache
        Of the engine.
    trader_id, actor_id : Identifier
        Whose session it is.
    on_signal : callable
        Given each signal from Redis; when it returns the signal is answered and recorded.
    on_recovered : callable
        Given each enriched signal that a killed process had written and not recorded.
    """

    def __init__(
        self,
        host: ActorHost,
        orchestrator: ML4TOrchestrator,
        intake: MarketIntake,
        *,
        cache: Cache,
        trader_id: Identifier,
        actor_id: Identifier,
        on_signal: Callable[[SignalData], None],
        on_recovered: Callable[[EnrichedSignal], None],
    ) -> None:
        config = orchestrator.config
        self._host = host
        self._orchestrator = orchestrator
        self._intake = intake
        self._started_ns = now_ns = host.now()
        self.bridge: RedisBridge | None = None
        if config.redis_enabled and redis_is_installed():
            self.bridge = RedisBridge(
                config,
                orchestrator.lifecycle.ledger,
                on_signal=on_signal,
                on_recovered=on_recovered,
                event_thread=host.event_thread,
                report_problem=orchestrator.problems.report,
                host=host,
                now_ns=now_ns,
            )
        elif config.redis_enabled:
            host.log.warning(f"no exchange with Redis: {NOT_INSTALLED}")
        self.recorder: SessionRecorder | None = None
        if config.tape_path is not None:
            self.recorder = start_recording(
                config,
                orchestrator.inference,
                cache,
                trader_id,
                actor_id,
                now_ns,
                orchestrator.problems.report,
            )
        self.health = HealthPublisher(
            str(actor_id), host, orchestrator, bridge=self.bridge, recorder=self.recorder
        )

    def start(self) -> None:
        """Connect, record and publish health; signals from Redis are let in once the markets are known."""
        self._intake.recorder = self.recorder
        self.health.start()
        if self.bridge is not None:
            self.bridge.start()
            self._host.call_every("looking after Redis", LINK_CHECK_S, self.bridge.log_connections)
        seconds = self._orchestrator.config.health.publish_seconds
        self._host.call_every("publishing health", seconds, self.health.publish)
        self._host.call_every("checking the feed", FEED_CHECK_S, self._check_feed)

    def before_answer(self, signal: SignalData, now_ns: int) -> None:
        """Record a signal that is about to be answered."""
        if self.recorder is not None:
            self.recorder.signal(signal, now_ns)

    def after_answer(self, enriched: EnrichedSignal) -> None:
        """Record an answer, and count it for the actor's health."""
        if self.recorder is not None:
            self.recorder.answer(enriched)
        self.health.on_answer(enriched)

    def after_record(self, enriched: EnrichedSignal) -> None:
        """Send an answer to Redis, once the ledger has it: what Redis has the ledger is to have too."""
        if self.bridge is not None:
            self.bridge.put(enriched)

    def let_signals_in(self) -> None:
        """Begin to read signals from Redis, unless past bars are still to come."""
        if self.bridge is None:
            return
        patience_ns = int(self._orchestrator.config.feed.timeout_seconds * SECOND_NS)
        if self._host.now() > self._started_ns + patience_ns or not any(
            map(self._intake.feed.is_warming_up, self._orchestrator.inference.instruments)
        ):
            self.bridge.begin_reading()

    def stop(self) -> None:
        """Read no more, write what waits, and free the port of the metrics."""
        if self.bridge is not None:
            self._host.event_thread.guard("stopping the bridge to Redis", self.bridge.stop)
        self._host.event_thread.guard("stopping the metrics", self.health.stop)

    def close_recording(self) -> None:
        """Write the recording to its end, after everything else has ended."""
        if self.recorder is not None and (reason := self.recorder.close()):
            self._host.log.warning(f"the recording does not hold the whole session: {reason}")

    def _check_feed(self) -> None:
        self._intake.feed.check(self._host.now())
        self.let_signals_in()
