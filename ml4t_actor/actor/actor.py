"""The actor's lifecycle and handlers."""

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ml4t_actor.actor.factory import build_lifecycle, check_requirements, load_newest, open_ledger
from ml4t_actor.actor.health_publisher import HealthPublisher
from ml4t_actor.actor.log_throttle import LogThrottle
from ml4t_actor.actor.market_intake import MarketIntake
from ml4t_actor.actor.recorder import SessionRecorder, start_recording
from ml4t_actor.actor.redis_bridge import NOT_INSTALLED, RedisBridge, redis_is_installed
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed.bar_times import bar_interval_ns
from ml4t_actor.indicators.features import load_feature_classes
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.lifecycle import LifecycleLoop
from ml4t_actor.messages import EnrichedSignal, ModelUpdate, SignalData, SignalOutcome, Status
from ml4t_actor.nautilus.components import UUID4, Actor, TestClock, unix_nanos_to_dt
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import Bar, BarType, ClientId, DataType, TradeTick
from ml4t_actor.registry import ModelBundle, ModelStore

LINK_CHECK_S = 1.0
FEED_CHECK_S = 1.0
LOG_INTERVAL_S = 600  # between two lines about the same kind of trouble

_TYPES = {SignalOutcome: DataType(SignalOutcome), ModelUpdate: DataType(ModelUpdate)}
_WARNINGS = {
    Status.UNKNOWN_INSTRUMENT: "is not for a configured instrument; add a bar type for it to `bar_types`",
    Status.FUTURE_SIGNAL: "is from the future; check the clock of its source",
    Status.EXPIRED: "is older than `max_signal_age`; stamp it when it arises, or allow for more",
    Status.NO_MODEL: "finds no model; train one into `model_path`",
    Status.STALE_DATA: "comes when the last bar is too old, or no trades come; check the data feed",
    Status.BAD_FEATURES: "meets a feature that is not finite",
    Status.NOVEL_INPUT: "meets a market outside what the model was trained on",
    Status.LATE: "took longer than `inference_timeout_ms`",
}


class ML4TActor(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Enriches every `SignalData` on the message bus and publishes an `EnrichedSignal` for it.

    Subscribes to signals, to the bars of `config.bar_types`, and with `config.trade_ticks` to their trades. A signal is
    judged by everything the cache holds when it arrives, also by a bar that another component was handed first.

    A signal whose `signal_id` its source has used before is dropped and counted as `repeated`; every other one is
    answered, with the reason in `status` where it could not be judged. Each kind of trouble is counted, and logged
    once in a backtest, at most every ten minutes live.

    What becomes of each signal is followed bar by bar, published as a `SignalOutcome`, and kept with the signal in a
    ledger. On a timer the actor looks whether the model has got worse or is due; if so a child process trains a
    challenger, which serves from then on if it does better on signals that neither has seen. Each decision is published
    as a `ModelUpdate`. With ``retrain="off"`` the model stays as it is.

    A live actor also reads signals from a Redis stream and writes every enriched signal to another, asks for past
    bars so that features are ready within seconds, publishes an `ActorHealth` on a timer, and refuses to start where
    an instrument is missing.

    In a backtest nothing is written to disk: the ledger and retrained models are in memory, training happens at
    once and takes effect after `retrain_delay` of simulated time.

    Parameters
    ----------
    config : ML4TActorConfig
        The configuration.
    """

    def __init__(self, config: ML4TActorConfig) -> None:
        super().__init__(config)
        self._custom_features = load_feature_classes(config.custom_features)
        self._bar_types = [BarType.from_str(bar_type) for bar_type in config.bar_types]
        self._enriched_type = DataType(EnrichedSignal)
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._event_thread = 0
        self._started_ns = 0
        self._saved: dict[str, bytes] = {}
        self._reset_state()

    def _reset_state(self) -> None:
        config = self.config
        self.counts: Counter[str] = Counter()
        self._rarely = LogThrottle()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._intake: MarketIntake | None = None
        self._exchange: RedisBridge | None = None
        self._health: HealthPublisher | None = None
        self._tape: SessionRecorder | None = None
        self._learning: LifecycleLoop | None = None
        self._deliveries = 0
        self._timers: list[str] = []
        self.loop = InferenceLoop(
            default_confidence=config.default_confidence,
            feature_names=config.feature_names,
            custom_features=self._custom_features,
            labels=config.labels,
            vpin=config.vpin,
            volatility_halflife_bars=config.volatility_halflife_bars,
            max_bar_age_bars=config.max_bar_age_bars,
            max_clock_skew_ns=config.max_clock_skew_ms * 1_000_000,
            max_signal_age_ns=int(config.max_signal_age * 1e9),
            timeout_ns=config.inference_timeout_ms * 1_000_000,
        )
        for bar_type in self._bar_types:
            self.loop.add_instrument(
                bar_type.instrument_id, bar_interval_ns(bar_type), trades=config.trade_ticks
            )

    @property
    def learning(self) -> LifecycleLoop:
        """The learning loop, with the ledger and the monitor to look at; there from the start of the engine on."""
        if self._learning is None:
            raise RuntimeError("the learning loop begins when the engine starts the actor")
        return self._learning

    def on_start(self) -> None:
        """Load the newest bundle that fits, take up what was going on, compile, and subscribe.

        Raises
        ------
        RuntimeError
            Live: if an instrument is missing, or Redis where it is required.
        """
        live = not isinstance(self.clock, TestClock)
        # Wall time must not change what a backtest does.
        self.loop.flag_late = live
        self._event_thread = threading.get_ident()
        if live:
            self._event_loop = asyncio.get_running_loop()
            self._rarely.interval_ns = LOG_INTERVAL_S * 1_000_000_000
            check_requirements(self.config, self.cache, self._bar_types)
        if not self._bar_types:
            self.log.warning("`bar_types` is empty: every signal will be answered `unknown_instrument`")
        store = ModelStore(self.config.model_path)
        load_newest(store, self.loop, self.clock.timestamp_ns(), self.log)
        self.loop.compile()
        self._learning = self._begin_learning(store, live)
        self._intake = MarketIntake(
            self.config,
            self._bar_types,
            self.loop,
            self._learning,
            cache=self.cache,
            live=live,
            now=self.clock.timestamp_ns,
            request=self._request_history,
            note=self._note,
        )
        self._set_timer("checking", self.config.retraining.check_seconds, self._learning.check)
        if live:
            for key in self._learning.ledger.recent_ids(self.config.dedup_capacity):
                self._seen[key] = None
            self._begin_live()
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
        self._intake.feed.start()
        self._begin_reading()

    def on_bar(self, bar: Bar) -> None:
        """Step the features of the bar's instrument."""
        if self._intake is not None:
            self._guard("on_bar", self._intake.feed.on_bar, bar)

    def on_trade_tick(self, tick: TradeTick) -> None:
        """Step VPIN and the taker flow of the trade's instrument."""
        if self._intake is not None:
            self._guard("on_trade_tick", self._intake.feed.on_trade, tick)

    def on_historical_data(self, data: Any) -> None:
        """Take a past bar that was asked for."""
        if self._intake is not None and isinstance(data, Bar):
            self._guard("on_historical_data", self._intake.feed.on_historical_bar, data)

    def on_data(self, data: Data) -> None:
        """Enrich a signal and publish the result, on the event thread wherever it comes from."""
        if not isinstance(data, SignalData):
            return  # a topic is a prefix pattern: a user's class may begin with the same name
        if self._event_loop is not None and threading.get_ident() != self._event_thread:
            # An external stream delivers on its own. By the handler: the actor may have stopped meanwhile.
            self._on_event_thread("taking a signal", self.handle_data, data)
            return
        if self._is_repeated(data):
            self._note("repeated", f"signal {data.signal_id!r} of {data.source!r} was given before; dropped")
            return
        enriched = self.process_signal(data)
        # Before it is published: a subscriber may ask for another answer from within its handler.
        served = self.loop.served(data.instrument_id, data.signal)
        if self._tape is not None:
            self._tape.answer(enriched)
        if self._health is not None:
            self._health.on_answer(enriched)
        try:
            self.publish_data(self._enriched_type, enriched)
        finally:  # whatever a subscriber raises
            if self._learning is not None:
                self._guard("recording a signal", self._learning.on_signal, enriched, served)
            if self._exchange is not None:  # once it is recorded: what Redis has the ledger is to have too
                self._exchange.put(enriched)

    def on_stop(self) -> None:
        """Take no more signals, end a retraining under way, and write everything to its end."""
        for name in self._timers:
            self.clock.cancel_timer(name)
        self._timers.clear()
        for where, part in (
            ("stopping the exchange with Redis", self._exchange),
            ("stopping the metrics", self._health),
            ("stopping", self._learning),
        ):
            if part is not None:
                self._guard(where, part.stop)
        if self._tape is not None and (reason := self._tape.close()):
            self.log.warning(f"the tape does not hold the whole session: {reason}")
        self.log.info(f"signals by status: {dict(self.loop.counts)}, otherwise: {dict(self.counts)}")

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
        """Return the state of every market, where the node saves it."""
        return {} if self._learning is None else self._learning.save()

    def on_load(self, state: dict[str, bytes]) -> None:
        """Take up a saved state at the next start, where it is newer than the ledger's."""
        self._saved = dict(state)

    def on_reset(self) -> None:
        """Forget everything but the configuration."""
        self._reset_state()

    def process_signal(self, signal: SignalData) -> EnrichedSignal:
        """Return `signal` enriched with what the cache holds now, without publishing it.

        Must be called on the event thread. Repeated ids are answered anew here.
        """
        if self._intake is not None:
            self._guard("catching up with the cache", self._intake.feed.catch_up, signal.instrument_id)
        now = self.clock.timestamp_ns()
        if self._tape is not None:
            self._tape.signal(signal, now)
        enriched = self.loop.process_signal(signal, now_ns=now)
        if enriched.status != Status.OK:
            self._log_status(enriched)
        return enriched

    def hot_swap_model(self, bundle: ModelBundle) -> None:
        """Let `bundle` serve from the next signal on; callable from any thread.

        From another thread it has happened once the event thread has come to it, not when this returns. A restart
        serves the newest version in `model_path`, so save it there.

        Raises
        ------
        RuntimeError
            If the model is frozen, or the engine has not started.
        ValueError
            If the bundle has no version, or cannot serve here.
        """
        self.learning.succession.check_swap(bundle)
        self._on_event_thread("swapping", self.learning.succession.hot_swap_model, bundle)

    def rollback(self) -> None:
        """Let the model before the present one serve again, and after a restart too; callable from any thread.

        Raises
        ------
        RuntimeError
            If the model is frozen, there was none before it, or the engine has not started.
        """
        self.learning.succession.check_rollback()
        self._on_event_thread("rolling back", self.learning.succession.rollback)

    def request_retrain(self, reason: str = "asked for") -> None:
        """Have a challenger trained at the next check, whatever the monitor says; callable from any thread.

        Raises
        ------
        RuntimeError
            If the model is frozen, or the engine has not started.
        """
        self.learning.succession.refuse_if_frozen("retrain")
        self._on_event_thread("asking for a retraining", self.learning.succession.request_retrain, reason)

    def _begin_learning(self, store: ModelStore, live: bool) -> LifecycleLoop:
        actor = f"{self.trader_id}.{self.id}"  # two nodes may share the folder of the models
        learning = build_lifecycle(
            self.config,
            self.loop,
            store,
            open_ledger(self.config, actor, live, self._note),
            publish=self._publish_learned,
            deliver=self._deliver if live else self._deliver_later,
            progress=self._tell_progress,
            now=self.clock.timestamp_ns,
            log=self.log,
            live=live,
        )
        learning.start(self._saved)
        return learning

    def _publish_learned(self, data: Data) -> None:
        if self._health is not None and isinstance(data, SignalOutcome):
            self._health.on_outcome(data)
        self.publish_data(_TYPES[type(data)], data)

    def _deliver(self, function: Callable[[], None]) -> None:
        self._on_event_thread("taking up a challenger", function)

    def _deliver_later(self, function: Callable[[], None]) -> None:
        """Call after the simulated time that training takes."""
        self._deliveries += 1
        self.clock.set_time_alert(
            f"{self.id}-challenger-{self._deliveries}",
            self.clock.utc_now() + timedelta(seconds=self.config.retrain_delay),
            callback=lambda _event: self._guard("taking up a challenger", function),
        )

    def _tell_progress(self, what: str, share: float) -> None:
        self._on_event_thread("telling progress", self.log.info, f"retraining: {what} ({share:.0%})")

    def _on_event_thread(self, where: str, function: Callable[..., Any], *args: Any) -> None:
        """Call on the event thread: now if this is it, else when its loop comes to it."""
        if self._event_loop is None or threading.get_ident() == self._event_thread:
            self._guard(where, function, *args)
        elif not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._guard, where, function, *args)

    def _begin_live(self) -> None:
        """Begin what only a live actor does."""
        config, learning = self.config, self.learning
        self._started_ns = now = self.clock.timestamp_ns()
        self.msgbus.add_streaming_type(SignalData)  # for who has Nautilus itself listen to streams
        if config.redis_enabled and redis_is_installed():
            self._exchange = RedisBridge(
                config,
                learning.ledger,
                take_signal=self._publish_signal,
                take_answered=self._take_answered,
                on_event_thread=self._on_event_thread,
                note=self._note,
                log=self.log,
                now_ns=now,
            )
            self._exchange.start()
            self._set_timer("looking after the exchange", LINK_CHECK_S, self._exchange.tell_changes)
        elif config.redis_enabled:
            self.log.warning(f"no exchange with Redis: {NOT_INSTALLED}")
        if config.tape_path is not None and self._intake is not None:
            self._tape = start_recording(
                config, self.loop, self.cache, self.trader_id, self.id, now, self._note
            )
            self._intake.tape = self._tape
        self._health = HealthPublisher(self, self._exchange, self._tape, now)
        self._set_timer("telling health", config.health.publish_seconds, self._health.tell)
        self._set_timer("checking the feed", FEED_CHECK_S, self._check_feed)

    def _set_timer(self, task: str, seconds: float, function: Callable[[], None]) -> None:
        """Call on the event thread every so many seconds of the clock."""
        name = f"{self.id}-{task}"
        self._timers.append(name)
        self.clock.set_timer(
            name,
            interval=timedelta(seconds=seconds),
            callback=lambda _event: self._on_event_thread(task, function),
        )

    def _check_feed(self) -> None:
        if self._intake is not None:
            self._intake.feed.check(self.clock.timestamp_ns())
            self._begin_reading()

    def _begin_reading(self) -> None:
        """Let signals from Redis in, unless past bars are still to come."""
        if self._exchange is None or self._intake is None:
            return
        patience_ns = int(self.config.feed.timeout_seconds * 1e9)
        if self.clock.timestamp_ns() > self._started_ns + patience_ns or not any(
            map(self._intake.feed.is_warming_up, self.loop.instruments)
        ):
            self._exchange.begin_reading()

    def _request_history(self, bar_type: BarType, start_ns: int, done: Callable[[], None]) -> None:
        def take(_id: UUID4) -> None:
            self._on_event_thread("taking past bars", done)
            self._on_event_thread("letting signals in", self._begin_reading)

        self.request_bars(bar_type, start=unix_nanos_to_dt(start_ns), callback=take)

    def _publish_signal(self, signal: SignalData) -> None:
        """Let everybody in the node have a signal from outside, but not those outside again."""
        topic = f"data.{SignalData.__name__}"
        instrument_id = signal.instrument_id
        # The bus keeps what it has learned of a topic for good: those from outside may be of any instrument.
        is_known = instrument_id in self.loop.instruments
        topic += f".{instrument_id.venue}.{instrument_id.symbol}" if is_known else "*"
        try:
            self.msgbus.publish(topic=topic, msg=signal, external_pub=False)
        finally:
            if (signal.source, signal.signal_id) not in self._seen:  # another subscriber raised before
                self.handle_data(signal)

    def _take_answered(self, enriched: EnrichedSignal) -> None:
        if not self._is_repeated(enriched):
            self.counts["answered before"] += 1
            self.learning.on_answered(enriched)

    def _is_repeated(self, signal: SignalData | EnrichedSignal) -> bool:
        key = (signal.source, signal.signal_id)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > self.config.dedup_capacity:
            self._seen.popitem(last=False)
        return False

    def _guard(self, where: str, function: Callable[..., Any], *args: Any) -> None:
        """Call; an exception that left a handler would end a live node's process."""
        try:
            function(*args)
        except Exception as e:
            self._note(f"error in {where}", f"{where} failed: {e!r}")

    def _log_status(self, enriched: EnrichedSignal) -> None:
        status = Status(enriched.status)
        signal = f"signal {enriched.signal_id!r} of {enriched.source!r} for {enriched.instrument_id}"
        if status is Status.ERROR:
            self._log_rarely(self.log.error, status, f"{signal} failed: {self.loop.last_error!r}")
        elif status in _WARNINGS:
            self._log_rarely(self.log.warning, status, f"{signal} {_WARNINGS[status]}")

    def _note(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        self._log_rarely(self.log.warning, kind, message)

    def _log_rarely(self, log: Callable[[str], None], kind: str, message: str) -> None:
        n = self._rarely.count(kind, self.clock.timestamp_ns())
        if not n:
            return
        how_often = "once"
        if self._rarely.interval_ns is not None:
            how_often = f"at most every {LOG_INTERVAL_S // 60} minutes"
        if n > 1:
            how_often += f"; {n:,} times since the last line"
        log(f"{message} (logged {how_often})")
