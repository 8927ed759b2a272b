"""The actor: a thin shell between Nautilus's engine and the two loops, inference and learning."""

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from nautilus_trader.common.actor import Actor
from nautilus_trader.common.component import TestClock
from nautilus_trader.core.data import Data
from nautilus_trader.core.datetime import unix_nanos_to_iso8601
from nautilus_trader.model.data import Bar, BarType, DataType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import ClientId, InstrumentId

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.data import EnrichedSignal, ModelUpdate, SignalData, SignalOutcome, Status
from ml4t_actor.features import load_feature_classes
from ml4t_actor.frames import BUYER, NO_AGGRESSOR, SELLER, bar_buy_volume
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.learning import LearningLoop, Succession
from ml4t_actor.ledger import Ledger, LedgerError
from ml4t_actor.persistence import BundleError, ModelBundle, ModelStore
from ml4t_actor.retrain.job import seen_until_ns
from ml4t_actor.retrain.worker import InlineTrainer, RetrainWorker, Trainer

_SIDES = {AggressorSide.BUYER: BUYER, AggressorSide.SELLER: SELLER, AggressorSide.NO_AGGRESSOR: NO_AGGRESSOR}
_TYPES = {SignalOutcome: DataType(SignalOutcome), ModelUpdate: DataType(ModelUpdate)}
_WARN_ONCE = {
    Status.UNKNOWN_INSTRUMENT: "is not for a configured instrument; add a bar type for it to `bar_types`",
    Status.FUTURE_SIGNAL: "is from the future; check the clock of its source",
    Status.NO_MODEL: "finds no model; train one into `model_path`",
    Status.STALE_DATA: "comes when the last bar is too old; check the data feed",
    Status.BAD_FEATURES: "meets a feature that is not finite",
    Status.NOVEL_INPUT: "meets a market outside what the model was trained on",
    Status.LATE: "took longer than `inference_timeout_ms`",
}


class ML4TActor(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Enriches every `SignalData` on the message bus and publishes an `EnrichedSignal` for it.

    Subscribes to signals, to the bars of `config.bar_types`, and with `config.trade_ticks` to their trades. A signal is
    judged by everything the cache holds when it arrives, also by a bar that another component was handed first.

    A signal whose `signal_id` its source has used before is dropped and counted as `repeated`; every other one is
    answered, with the reason in `status` where it could not be judged. Each kind of trouble is logged once.

    What becomes of each signal is followed bar by bar, published as a `SignalOutcome`, and kept with the signal in a
    ledger. On a timer the actor looks whether the model has got worse or is due; if so a child process trains a
    challenger, which serves from then on if it does better on signals that neither has seen. Each decision is published
    as a `ModelUpdate`. With ``retrain="off"`` the model stays as it is.

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
        self._saved: dict[str, bytes] = {}
        self._reset_state()

    def _reset_state(self) -> None:
        config = self.config
        self.counts: Counter[str] = Counter()
        self._logged: set[str] = set()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        # Taken from the cache ahead of their delivery, which must then pass them over.
        self._bar_ahead: dict[InstrumentId, int] = {}
        self._trades_ahead: dict[InstrumentId, set[str]] = {}
        self._last_trade: dict[InstrumentId, str] = {}
        self._bar_type_of: dict[InstrumentId, BarType] = {}
        self._learning: LearningLoop | None = None
        self._deliveries = 0
        self.loop = InferenceLoop(
            default_confidence=config.default_confidence,
            feature_names=config.feature_names,
            custom_features=self._custom_features,
            labels=config.labels,
            vpin=config.vpin,
            volatility_halflife_bars=config.volatility_halflife_bars,
            max_bar_age_bars=config.max_bar_age_bars,
            max_clock_skew_ns=config.max_clock_skew_ms * 1_000_000,
            timeout_ns=config.inference_timeout_ms * 1_000_000,
        )
        for bar_type in self._bar_types:
            instrument_id = bar_type.instrument_id
            self._bar_type_of[instrument_id] = bar_type
            self.loop.add_instrument(instrument_id, _interval_ns(bar_type), trades=config.trade_ticks)

    @property
    def learning(self) -> LearningLoop:
        """The learning loop, with the ledger and the monitor to look at; there from the start of the engine on."""
        if self._learning is None:
            raise RuntimeError("the learning loop begins when the engine starts the actor")
        return self._learning

    def on_start(self) -> None:
        """Load the newest bundle that fits, take up what was going on, compile, and subscribe."""
        live = not isinstance(self.clock, TestClock)
        # Wall time must not change what a backtest does.
        self.loop.flag_late = live
        if live:
            self._event_loop = asyncio.get_running_loop()
        self._event_thread = threading.get_ident()
        if not self._bar_types:
            self.log.warning("`bar_types` is empty: every signal will be answered `unknown_instrument`")
        store = ModelStore(self.config.model_path)
        self._load_model(store)
        self.loop.compile()
        self._learning = self._begin_learning(store, live)
        if live:
            for key in self._learning.ledger.recent_ids(self.config.dedup_capacity):
                self._seen[key] = None
        self.clock.set_timer(
            f"{self.id}-check",
            interval=timedelta(seconds=self.config.retraining.check_seconds),
            callback=self._on_timer,
        )
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

    def on_bar(self, bar: Bar) -> None:
        """Step the features of the bar's instrument."""
        instrument_id = bar.bar_type.instrument_id
        if self._bar_ahead.get(instrument_id) == bar.ts_event:
            del self._bar_ahead[instrument_id]
            return
        self._guard("on_bar", self._take_bar, bar)

    def on_trade_tick(self, tick: TradeTick) -> None:
        """Step VPIN and the taker flow of the trade's instrument."""
        ahead = self._trades_ahead.get(tick.instrument_id)
        trade_id = tick.trade_id.value
        if ahead:
            if trade_id in ahead:
                ahead.discard(trade_id)
                return
            ahead.clear()
        self._guard("on_trade_tick", self._take_trade, tick)

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
        self.publish_data(self._enriched_type, enriched)
        if self._learning is not None:
            self._guard("recording a signal", self._learning.on_signal, enriched, served)

    def on_stop(self) -> None:
        """End a retraining under way, write the ledger to its end, and log what became of the signals."""
        self.clock.cancel_timer(f"{self.id}-check")
        if self._learning is not None:
            self._guard("stopping", self._learning.stop)
        self.log.info(f"signals by status: {dict(self.loop.counts)}, otherwise: {dict(self.counts)}")

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
        if signal.instrument_id in self._bar_type_of:
            self._guard("catching up with the cache", self._catch_up, signal.instrument_id)
        enriched = self.loop.process_signal(signal, now_ns=self.clock.timestamp_ns())
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

    def _begin_learning(self, store: ModelStore, live: bool) -> LearningLoop:
        config = self.config
        ledger, path = self._open_ledger(live)
        trainer: Trainer | None = None
        if config.retrain == "on":
            if not live:
                trainer = InlineTrainer(ledger, store)
            elif path is not None:
                trainer = RetrainWorker(
                    ledger,
                    path,
                    store,
                    timeout_s=config.retraining.timeout_seconds,
                    accept=self.loop.check,
                    progress=self._tell_progress,
                )
        succession = Succession(
            self.loop,
            ledger,
            store,
            trainer,
            settings=config.retraining,
            training=config.training_settings(),
            feature_names=config.feature_names,
            accuracy_drop_threshold=config.retrain_accuracy_drop_threshold,
            interval_bars=config.retrain_interval_bars,
            min_samples=config.retrain_min_samples,
            publish=self._publish_learned,
            deliver=self._deliver if live else self._deliver_later,
            now=self.clock.timestamp_ns,
            log=self.log,
            live=live,
        )
        learning = LearningLoop(
            self.loop,
            ledger,
            succession,
            labels=config.labels,
            publish=self._publish_learned,
            now=self.clock.timestamp_ns,
            log=self.log,
            live=live,
        )
        learning.start(self._saved)
        return learning

    def _open_ledger(self, live: bool) -> tuple[Ledger, Path | None]:
        config, path = self.config, None
        actor = f"{self.trader_id}.{self.id}"  # two nodes may share the folder of the models
        if live:
            path = Path(config.ledger.path or Path(config.model_path) / "ledger.sqlite")
            ledger = None
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                ledger = Ledger(path, actor, config.ledger)
                ledger.snapshots()  # one that cannot be read now has nothing to go on from
                return ledger, path
            except (LedgerError, OSError) as e:
                if ledger is not None:
                    ledger.close(0.0)
                self.counts["no ledger"] += 1
                self.log.error(f"{e}; signals are kept in memory only, and the model stays as it is")
        return Ledger(None, actor, config.ledger), None

    def _publish_learned(self, data: Data) -> None:
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

    def _on_timer(self, _event: Any) -> None:
        self._on_event_thread("checking", self.learning.check)

    def _on_event_thread(self, where: str, function: Callable[..., Any], *args: Any) -> None:
        """Call on the event thread: now if this is it, else when its loop comes to it."""
        if self._event_loop is None or threading.get_ident() == self._event_thread:
            self._guard(where, function, *args)
        elif not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._guard, where, function, *args)

    def _load_model(self, store: ModelStore) -> None:
        for version in reversed(store.versions()):
            try:
                bundle = store.load(version)
                self.loop.swap(bundle)
            except (BundleError, ValueError) as e:
                self.log.error(f"model {version} is refused: {e}")
                continue
            self.log.info(f"model {version} serves")
            learned_until, now = seen_until_ns(bundle), self.clock.timestamp_ns()
            if learned_until > now:
                self.log.warning(
                    f"model {version} learned from what became known until {unix_nanos_to_iso8601(learned_until)}, "
                    f"and it is {unix_nanos_to_iso8601(now)}: results look ahead; begin later, or train on less"
                )
            return
        self.log.warning(
            f"no model in {self.config.model_path!r}: signals get the default confidence and status `no_model`"
        )

    def _catch_up(self, instrument_id: InstrumentId) -> None:
        """Take what the cache holds and was not delivered yet: a signal may come out of the same bar or trade."""
        if self.config.trade_ticks:
            self._catch_up_trades(instrument_id)
        bar_type = self._bar_type_of[instrument_id]
        last_ts = self.loop.features(instrument_id).last_ts
        missed: list[Bar] = []
        while (bar := self.cache.bar(bar_type, len(missed))) is not None and bar.ts_event > last_ts:
            missed.append(bar)
        if missed:
            self._bar_ahead[instrument_id] = missed[0].ts_event
        for bar in reversed(missed):
            self._take_bar(bar)

    def _catch_up_trades(self, instrument_id: InstrumentId) -> None:
        last = self._last_trade.get(instrument_id)
        missed: list[TradeTick] = []
        while (tick := self.cache.trade_tick(instrument_id, len(missed))) is not None:
            if tick.trade_id.value == last:
                break
            missed.append(tick)
        for tick in reversed(missed):
            self._trades_ahead.setdefault(instrument_id, set()).add(tick.trade_id.value)
            self._take_trade(tick)

    def _take_bar(self, bar: Bar) -> None:
        instrument_id = bar.bar_type.instrument_id
        high, low, close = bar.high.as_double(), bar.low.as_double(), bar.close.as_double()
        accepted = self.loop.update_bar(
            instrument_id,
            bar.ts_event,
            bar.open.as_double(),
            high,
            low,
            close,
            bar.volume.as_double(),
            bar_buy_volume(bar),
        )
        if accepted and self._learning is not None:
            self._learning.on_bar(instrument_id, bar.ts_event, high, low, close)

    def _take_trade(self, tick: TradeTick) -> None:
        self._last_trade[tick.instrument_id] = tick.trade_id.value
        self.loop.update_trade(
            tick.instrument_id,
            tick.ts_event,
            tick.price.as_double(),
            tick.size.as_double(),
            _SIDES[tick.aggressor_side],
        )

    def _is_repeated(self, signal: SignalData) -> bool:
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
        if status in self._logged:
            return
        self._logged.add(status)
        signal = f"signal {enriched.signal_id!r} of {enriched.source!r} for {enriched.instrument_id}"
        if status is Status.ERROR:
            self.log.error(f"{signal} failed: {self.loop.last_error!r}")
        elif status in _WARN_ONCE:
            self.log.warning(f"{signal} {_WARN_ONCE[status]} (logged once)")

    def _note(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        if kind not in self._logged:
            self._logged.add(kind)
            self.log.warning(f"{message} (logged once)")


def _interval_ns(bar_type: BarType) -> int:
    if not bar_type.spec.is_time_aggregated():
        raise ValueError(f"`bar_types` has {bar_type}, must be time bars: a model knows one bar length")
    interval: timedelta = bar_type.spec.timedelta
    return interval // timedelta(microseconds=1) * 1_000
