"""The actor's lifecycle and handlers."""

from collections import Counter
from collections.abc import Callable

from ml4t_actor.actor.host import ActorHost
from ml4t_actor.actor.live_services import LiveServices
from ml4t_actor.actor.market_intake import MarketIntake
from ml4t_actor.actor.requirements import check_requirements
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.lifecycle import LifecycleLoop
from ml4t_actor.messages import EnrichedSignal, SignalData, SignalOutcome, StrategyHealth
from ml4t_actor.nautilus.components import UUID4, Actor, is_live, unix_nanos_to_dt
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import Bar, BarType, ClientId, DataType, TradeTick
from ml4t_actor.orchestrator import ML4TOrchestrator
from ml4t_actor.registry import ModelBundle


class ML4TActor(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Enriches every `SignalData` on the message bus and publishes an `EnrichedSignal` for it.

    Subscribes to signals, to the bars of `config.bar_types`, and with `config.trade_ticks` to their trades. A signal is
    answered from everything the cache holds when it arrives, also by a bar that another component was handed first.

    A signal whose `signal_id` its source has used before is dropped and counted as `repeated`; every other one is
    answered, with the reason in `status` where it could not be scored. Each kind of trouble is counted, and logged
    once in a backtest, at most every ten minutes live.

    What becomes of each signal is followed bar by bar, published as a `SignalOutcome`, and kept with the signal in a
    ledger. On a timer the actor looks whether the model has got worse or is due; if so a child process trains a
    challenger, which serves from then on if it does better on signals that neither has seen. Each decision is published
    as a `ModelUpdate`. With ``retrain="off"`` the model stays as it is.

    A live actor also reads signals from a Redis stream and writes every enriched signal to another, requests past
    bars so that features are ready within seconds, publishes an `ActorHealth` on a timer, and refuses to start where
    an instrument is missing.

    In a backtest nothing is written to disk: the ledger and retrained models are in memory, training happens at
    once and takes effect after `retrain_delay` of simulated time.

    All of that is `ML4TOrchestrator`'s, which works without an engine too; the actor puts Nautilus's event thread, bus
    and clock onto it.

    Parameters
    ----------
    config : ML4TActorConfig
        The configuration.
    """

    def __init__(self, config: ML4TActorConfig) -> None:
        super().__init__(config)
        self._bar_types = [BarType.from_str(bar_type) for bar_type in config.bar_types]
        self._enriched_type = DataType(EnrichedSignal)
        self._saved: dict[str, bytes] = {}
        self._reset_state()

    def _reset_state(self) -> None:
        self._host = ActorHost(self)
        # The identifier of the node is not known yet, see `on_start`.
        self.orchestrator = ML4TOrchestrator(self.config, self._host)
        self._host.report_problem = self.orchestrator.problems.report
        self._event_thread = self._host.event_thread
        self._intake: MarketIntake | None = None
        self._live: LiveServices | None = None
        self._relayed: SignalData | None = None

    @property
    def inference(self) -> InferenceLoop:
        """What answers signals, with the features and the model to look at."""
        return self.orchestrator.inference

    @property
    def lifecycle(self) -> LifecycleLoop:
        """What follows signals, with the ledger and the monitor to look at; there from the start of the engine on."""
        return self.orchestrator.lifecycle

    @property
    def counts(self) -> Counter[str]:
        """Problems so far, by kind."""
        return self.orchestrator.problems.counts

    def on_start(self) -> None:
        """Load the newest bundle that fits, go on where the last life ended, compile, and subscribe.

        Raises
        ------
        RuntimeError
            Live: if an instrument is missing, or Redis where it is required.
        """
        self._host.live = live = is_live(self.clock)
        self._event_thread.enter(live=live)
        if live:
            check_requirements(self.config, self.cache, self._bar_types)
        if not self._bar_types:
            self.log.warning("`bar_types` is empty: every signal will be answered `unknown_instrument`")
        # Two nodes may share the folder of the models.
        self.orchestrator.start(self._saved, name=f"{self.trader_id}.{self.id}")
        self._intake = MarketIntake(
            self._bar_types,
            self.orchestrator,
            self._host,
            cache=self.cache,
            request=self._request_history,
        )
        if live:
            self._start_live_services(self._intake)
        self._subscribe()
        self._intake.feed.start()
        self._let_signals_in()

    def on_bar(self, bar: Bar) -> None:
        """Step the features of the bar's instrument."""
        if self._intake is not None:
            self._event_thread.guard("on_bar", self._intake.feed.on_bar, bar)

    def on_trade_tick(self, tick: TradeTick) -> None:
        """Step VPIN and the taker flow of the trade's instrument."""
        if self._intake is not None:
            self._event_thread.guard("on_trade_tick", self._intake.feed.on_trade, tick)

    def on_historical_data(self, data: Data) -> None:
        """Step by a past bar that was requested."""
        if self._intake is not None and isinstance(data, Bar):
            self._event_thread.guard("on_historical_data", self._intake.feed.on_historical_bar, data)

    def on_data(self, data: Data) -> None:
        """Enrich a signal and publish the result, on the event thread wherever it comes from.

        How strategies are, live, is passed on to Prometheus.
        """
        if not isinstance(data, SignalData | StrategyHealth) or data is self._relayed:
            return  # a topic is a prefix pattern: a user's class may begin with the same name
        if not self._event_thread.is_current:
            # An external stream delivers on its own. By the handler: the actor may have stopped meanwhile.
            self._event_thread.call(f"handling a {type(data).__name__}", self.handle_data, data)
        elif isinstance(data, SignalData):
            self._answer(data)
        elif self._live is not None:
            self._live.health.on_strategy(data)

    def on_stop(self) -> None:
        """Enrich no more signals, end a retraining under way, and write everything to its end."""
        self._host.cancel_timers()
        if self._live is not None:
            self._live.stop()
        if self.orchestrator.is_started:
            self._event_thread.guard("stopping", self.orchestrator.stop)
        if self._live is not None:
            self._live.close_recording()
        self.log.info(f"signals by status: {dict(self.inference.counts)}, otherwise: {dict(self.counts)}")

    def on_resume(self) -> None:
        """Begin again, as after a start."""
        self.on_start()

    def on_degrade(self) -> None:
        """Stop: Nautilus hands a degraded actor nothing, so that what comes in would be lost."""
        self.on_stop()

    def on_fault(self) -> None:
        """Stop, as for a degraded actor."""
        self.on_stop()

    def on_save(self) -> dict[str, bytes]:
        """Return the state of every instrument, where the node saves it."""
        return self.orchestrator.save()

    def on_load(self, state: dict[str, bytes]) -> None:
        """Restore a saved state at the next start, where it is newer than the ledger's."""
        self._saved = dict(state)

    def on_reset(self) -> None:
        """Forget everything but the configuration."""
        self._reset_state()

    def process_signal(self, signal: SignalData) -> EnrichedSignal:
        """Return `signal` enriched with what the cache holds now, without publishing or recording it.

        Must be called on the event thread. Repeated ids are answered anew here.
        """
        return self.orchestrator.answer(signal, self._catch_up(signal)).enriched

    def hot_swap_model(self, bundle: ModelBundle) -> None:
        """Let `bundle` serve from the next signal on; see `ML4TOrchestrator.hot_swap_model`."""
        self.orchestrator.hot_swap_model(bundle)

    def rollback(self) -> None:
        """Let the model before the present one serve again; see `ML4TOrchestrator.rollback`."""
        self.orchestrator.rollback()

    def request_retrain(self, reason: str = "asked for") -> None:
        """Have a challenger trained at the next check; see `ML4TOrchestrator.request_retrain`."""
        self.orchestrator.request_retrain(reason)

    def _start_live_services(self, intake: MarketIntake) -> None:
        for kind in (SignalData, StrategyHealth):
            self.msgbus.add_streaming_type(kind)  # for who has Nautilus itself listen to streams
        self.msgbus.subscribe(topic=f"data.{StrategyHealth.__name__}*", handler=self.handle_data)
        self._live = LiveServices(
            self._host,
            self.orchestrator,
            intake,
            cache=self.cache,
            trader_id=self.trader_id,
            actor_id=self.id,
            on_signal=self._relay,
            on_recovered=self._record_recovered,
        )
        self._host.on_publish = self._on_publish
        self._live.start()

    def _subscribe(self) -> None:
        # The bus itself carries signals of either topic, `data.SignalData*` of an actor and
        # `data.SignalData.<venue>.<symbol>` of the data engine; `subscribe_data` is for clients that must be told to
        # deliver.
        if self.config.client_id is None:
            self.msgbus.subscribe(topic=f"data.{SignalData.__name__}*", handler=self.handle_data)
        else:
            self.subscribe_data(DataType(SignalData), client_id=ClientId(self.config.client_id))
        for bar_type in self._bar_types:
            self.subscribe_bars(bar_type)
            if self.config.trade_ticks:
                self.subscribe_trade_ticks(bar_type.instrument_id)

    def _answer(self, signal: SignalData) -> None:
        """Enrich a signal, publish the answer, and record both."""
        if self.orchestrator.is_repeated(signal):
            self.orchestrator.problems.report(
                "repeated", f"signal {signal.signal_id!r} of {signal.source!r} was given before; dropped"
            )
            return
        answer = self.orchestrator.answer(signal, self._catch_up(signal))
        enriched, live = answer.enriched, self._live
        if live is not None:
            live.after_answer(enriched)
        try:
            self.publish_data(self._enriched_type, enriched)
        finally:  # whatever a subscriber raises
            self._event_thread.guard("recording a signal", self.orchestrator.record, answer)
            if live is not None:
                live.after_record(enriched)

    def _catch_up(self, signal: SignalData) -> int:
        """Handle what the cache holds and no handler was given yet; return the clock's time, UNIX nanoseconds."""
        if self._intake is not None:
            catch_up = self._intake.feed.catch_up
            self._event_thread.guard("catching up with the cache", catch_up, signal.instrument_id)
        now_ns = self._host.now()
        if self._live is not None:
            self._live.before_answer(signal, now_ns)
        return now_ns

    def _relay(self, signal: SignalData) -> None:
        """Let everybody in the node have a signal from outside, but not those outside again, and answer it."""
        topic = f"data.{SignalData.__name__}"
        instrument_id = signal.instrument_id
        # The bus keeps what it has learned of a topic for good: those from outside may be of any instrument.
        is_known = instrument_id in self.inference.instruments
        topic += f".{instrument_id.venue}.{instrument_id.symbol}" if is_known else "*"
        self._relayed = signal  # our own subscription passes it over
        try:
            self._event_thread.guard(
                "another component's handling of a signal",
                lambda: self.msgbus.publish(topic=topic, msg=signal, external_pub=False),
            )
        finally:
            self._relayed = None
        self._answer(signal)

    def _record_recovered(self, enriched: EnrichedSignal) -> None:
        if not self.orchestrator.is_repeated(enriched):
            self.counts["answered before"] += 1
            self.lifecycle.record_unfollowed(enriched)

    def _on_publish(self, data: Data) -> None:
        if self._live is not None and isinstance(data, SignalOutcome):
            self._live.health.on_outcome(data)

    def _request_history(self, bar_type: BarType, start_ns: int, done: Callable[[], None]) -> None:
        def on_end(_id: UUID4) -> None:
            self._event_thread.call("handling past bars", done)
            self._event_thread.call("letting signals in", self._let_signals_in)

        self.request_bars(bar_type, start=unix_nanos_to_dt(start_ns), callback=on_end)

    def _let_signals_in(self) -> None:
        if self._live is not None:
            self._live.let_signals_in()
