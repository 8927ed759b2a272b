"""The orchestrator: what the actor does, without an engine around it."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.inference import Answer, InferenceLoop
from ml4t_actor.inference.instrument_state import identifier
from ml4t_actor.lifecycle import Host, LifecycleLoop
from ml4t_actor.market_data import Bars
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.monitoring import RetrainMonitor
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.orchestrator.direct_host import DirectHost
from ml4t_actor.orchestrator.expired_stamps import ExpiredStamps
from ml4t_actor.orchestrator.factory import build_inference, build_lifecycle, load_newest, open_ledger
from ml4t_actor.orchestrator.problem_log import ProblemLog
from ml4t_actor.registry import ModelBundle, ModelStore

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ml4t_actor.training import TrainingResult


class ML4TOrchestrator:
    """Answers signals, follows what becomes of them, and sees to it that a good model serves.

    `ML4TActor` is a shell around it that adds Nautilus's event thread, message bus and clock. Without an engine, call
    it directly: no Redis, no node, the same answers to the last bit. All calls belong on one thread, but for
    `hot_swap_model`, `rollback` and `request_retrain`.

    Parameters
    ----------
    config : ML4TActorConfig, optional
        As of the actor.
    host : Host, optional
        The clock, log, bus and thread; by default a `DirectHost`, whose time is that of the newest event. Then, as in a
        backtest, ledger and retrained models are in memory and a retraining takes effect after `retrain_delay`. With
        ``DirectHost(live=True)`` they are in files, and training runs in a child process.

    Attributes
    ----------
    config : ML4TActorConfig
        The configuration.
    inference : InferenceLoop
        What answers.
    problems : ProblemLog
        What went wrong, counted by kind.
    store : ModelStore
        The folder of models.

    Examples
    --------
    >>> config = ML4TActorConfig(bar_types=["ETH.SIM-1-MINUTE-LAST-EXTERNAL"], model_path="no-models-yet")
    >>> orchestrator = ML4TOrchestrator(config)
    >>> orchestrator.start()
    >>> orchestrator.update_bar("ETH.SIM", 60_000_000_000, 9.0, 9.5, 8.9, 9.2, 100.0)
    True
    >>> signal = SignalData(
    ...     instrument_id="ETH.SIM", signal=1, strength=1.0, source="me", signal_id="1", ts_event=60_000_000_000
    ... )
    >>> orchestrator.process_signal(signal).status
    <Status.NO_MODEL: 'no_model'>
    >>> orchestrator.stop()
    """

    def __init__(self, config: ML4TActorConfig | None = None, host: Host | None = None) -> None:
        self.config = ML4TActorConfig() if config is None else config
        self._direct = DirectHost() if host is None else host if isinstance(host, DirectHost) else None
        self._host: Host = self._direct or host  # type: ignore[assignment]  # one of both is there
        self.problems = ProblemLog(self._host)
        self.inference: InferenceLoop = build_inference(self.config)
        self.store = ModelStore(self.config.model_path)
        self._lifecycle: LifecycleLoop | None = None
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._expired_stamps = ExpiredStamps()

    @property
    def is_started(self) -> bool:
        """Whether signals are recorded and followed."""
        return self._lifecycle is not None

    @property
    def lifecycle(self) -> LifecycleLoop:
        """What records and follows signals, with the ledger and the champion to look at; there from `start` on."""
        if self._lifecycle is None:
            raise RuntimeError(
                "the orchestrator has not been started; call `start` (an engine does it for an actor)"
            )
        return self._lifecycle

    @property
    def retrain_monitor(self) -> RetrainMonitor:
        """What watches the model that serves; there from `start` on."""
        return self.lifecycle.monitor

    def start(self, saved: Mapping[str, bytes] | None = None, *, name: str = "ML4T") -> None:
        """Load the newest model that fits, compile, and go on where the ledger of a live orchestrator ends.

        Parameters
        ----------
        saved : mapping of str to bytes, optional
            What `save` returned, taken where it is newer than the ledger's.
        name : str, default "ML4T"
            Whose rows those in the ledger are, where several share a file.
        """
        # Wall time must not change what a backtest does.
        self.inference.flag_late = self._host.live
        load_newest(self.inference, self._host)
        self.inference.compile()
        ledger = open_ledger(self.config, name, self._host.live, self.problems.report)
        self._lifecycle = build_lifecycle(self.config, self.inference, self.store, ledger, self._host)
        self._lifecycle.start(saved)
        if self._host.live:
            for key in ledger.recent_ids(self.config.dedup_capacity):
                self._seen[key] = None
        self._host.call_every("checking", self.config.retraining.check_seconds, self.check)

    def stop(self) -> None:
        """End a retraining that is under way, and write everything to its end."""
        self._host.cancel_timers()
        self.lifecycle.stop()

    def save(self) -> dict[str, bytes]:
        """Return the state of every instrument, for the next `start`; empty where nothing outlives the process."""
        return self.lifecycle.save() if self._lifecycle is not None else {}

    def add_instrument(
        self, instrument_id: InstrumentId | str, bar_interval_ns: int, *, trades: bool = False
    ) -> None:
        """Follow an instrument that the config does not name; see `InferenceLoop.add_instrument`."""
        instrument_id = identifier(instrument_id)
        self.inference.add_instrument(instrument_id, bar_interval_ns, trades=trades)
        if self._lifecycle is not None:
            self._lifecycle.add_instrument(instrument_id)

    def update_bar(
        self,
        instrument_id: InstrumentId | str,
        ts_event: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        buy_volume: float = float("nan"),
        *,
        historical: bool = False,
        alive: bool = True,
    ) -> bool:
        """Handle one closed bar; return whether it was accepted.

        Parameters
        ----------
        instrument_id, ts_event, open, high, low, close, volume, buy_volume, historical, alive
            See `InferenceLoop.update_bar`.
        """
        if self._direct is not None:
            self._direct.advance(ts_event)
        instrument_id = identifier(instrument_id)
        accepted = self.inference.update_bar(
            instrument_id,
            ts_event,
            open,
            high,
            low,
            close,
            volume,
            buy_volume,
            historical=historical,
            alive=alive,
        )
        if accepted and self._lifecycle is not None:
            self._lifecycle.on_bar(instrument_id, ts_event, high, low, close, open)
        return accepted

    def update_trade(
        self, instrument_id: InstrumentId | str, ts_event: int, price: float, size: float, side: int
    ) -> None:
        """Handle one trade (`side`: 1 buyer, -1 seller, 0 not known)."""
        if self._direct is not None:
            self._direct.advance(ts_event)
        self.inference.update_trade(instrument_id, ts_event, price, size, side)

    def process_signal(
        self, signal: SignalData, bars: object = None, *, now_ns: int | None = None
    ) -> EnrichedSignal:
        """Enrich one signal, record it, and follow what becomes of it.

        A signal whose `signal_id` its source has used before is answered anew, counted as `repeated` and not recorded.

        Parameters
        ----------
        signal : SignalData
            The signal.
        bars : see `Bars.coerce`, optional
            The instrument's history up to now. Bars already seen, and those that closed after the signal, are passed
            over; an instrument not yet followed is added with their bar length.
        now_ns : int, optional
            The clock's time, UNIX nanoseconds; by default the signal's own, live the system's.
        """
        if bars is not None:
            self._feed(signal, Bars.coerce(bars))
        if now_ns is None:
            now_ns = self._host.now() if self._host.live else signal.ts_event
        if self._direct is not None:
            self._direct.advance(now_ns)
        answer = self.answer(signal, now_ns)
        if self.is_repeated(signal):
            self.problems.report(
                "repeated", f"signal {signal.signal_id!r} of {signal.source!r} was given before; not recorded"
            )
        else:
            self.record(answer)
        return answer.enriched

    def answer(self, signal: SignalData, now_ns: int) -> Answer:
        """Enrich one signal without recording it, and log why where the model could not be asked."""
        answer = self.inference.answer(signal, now_ns=now_ns)
        status = answer.enriched.status
        if status != Status.OK:
            self.problems.report_status(answer.enriched, self.inference.last_error)
        if status == Status.EXPIRED:
            self._explain_expired(signal, now_ns)
        else:
            self._expired_stamps.forget(signal.source)
        return answer

    def _explain_expired(self, signal: SignalData, now_ns: int) -> None:
        """Report where the stamp of an expired signal is that of a bar's open."""
        interval_ns, last_close_ns = None, 0
        if signal.instrument_id in self.inference.instruments:
            features = self.inference.features(signal.instrument_id)
            interval_ns, last_close_ns = features.interval_ns, features.last_ts
        age_ns = now_ns - signal.ts_event
        reason = self._expired_stamps.explain(signal, age_ns, interval_ns, last_close_ns)
        if reason is not None:
            name = f"signal {signal.signal_id!r} of {signal.source!r} for {signal.instrument_id}"
            self.problems.report("stamped_at_open", f"{name} is expired: {reason}")

    def is_repeated(self, signal: SignalData | EnrichedSignal) -> bool:
        """Return whether a signal of this id and source came before, and remember that it has come now."""
        key = (signal.source, signal.signal_id)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > self.config.dedup_capacity:
            self._seen.popitem(last=False)
        return False

    def record(self, answer: Answer) -> None:
        """Record an enriched signal, and follow what becomes of it."""
        if self._lifecycle is not None:
            self._lifecycle.record(answer)

    def record_outcome(self, source: str, signal_id: str, ret: float, ts_event: int | None = None) -> None:
        """Record how a signal came out, where that is known otherwise than by its barriers: by the trade, say.

        Parameters
        ----------
        source, signal_id : str
            Of the signal.
        ret : float
            Gross log return in the direction of the signal.
        ts_event : int, optional
            When it was known, UNIX nanoseconds; now by default.

        Raises
        ------
        ValueError
            If no outcome of the signal is awaited, or the return is not finite.
        """
        time_ns = self._host.now() if ts_event is None else ts_event
        self.lifecycle.record_outcome(source, signal_id, ret, time_ns)

    def train(
        self, bars: object, signals: object = None, labels: "ArrayLike | None" = None, trades: object = None
    ) -> "TrainingResult":
        """Train a model as the config describes and store it; `hot_swap_model(result.bundle)` lets it serve.

        Takes seconds to minutes, in the calling thread. See `TrainingLoop.train` for the parameters. Learning from live
        outcomes goes on by itself, away from this thread, see `request_retrain`.
        """
        from ml4t_actor.training import TrainingLoop

        return TrainingLoop(
            self.config.training_settings(),
            feature_names=self.config.feature_names,
            custom_features=self.inference.custom_features,
            store=self.store,
            progress=lambda what, share: self._host.log.info(f"training: {what} ({share:.0%})"),
        ).train(bars, signals, labels, trades)

    def hot_swap_model(self, bundle: ModelBundle) -> None:
        """Let `bundle` serve from the next signal on; callable from any thread.

        From another thread it has happened once the host's thread has come to it, not when this returns. A restart
        serves the newest version in `model_path`, so save it there.

        Raises
        ------
        RuntimeError
            If the model is frozen, or nothing has been started.
        ValueError
            If the bundle has no version, or cannot serve here.
        """
        champion = self.lifecycle.champion
        champion.check_swap(bundle)
        self._host.call_soon("swapping", lambda: champion.hot_swap_model(bundle))

    def rollback(self) -> None:
        """Let the model before the present one serve again, and after a restart too; callable from any thread.

        Raises
        ------
        RuntimeError
            If the model is frozen, there was none before it, or nothing has been started.
        """
        champion = self.lifecycle.champion
        champion.check_rollback()

        def roll_back() -> None:
            champion.rollback()

        self._host.call_soon("rolling back", roll_back)

    def request_retrain(self, reason: str = "asked for") -> None:
        """Have a challenger trained at the next check, whatever the monitor says; callable from any thread.

        Raises
        ------
        RuntimeError
            If the model is frozen, or nothing has been started.
        """
        champion = self.lifecycle.champion
        champion.refuse_if_frozen("retrain")
        self._host.call_soon("asking for a retraining", lambda: champion.request_retrain(reason))

    def check(self) -> None:
        """Look after what no bar resolved, the ledger's troubles, and whether to retrain.

        It happens every `retraining.check_seconds` of the clock; without an engine, while events come.
        """
        self.lifecycle.check()

    def _feed(self, signal: SignalData, bars: Bars) -> None:
        instrument_id = signal.instrument_id
        if instrument_id not in self.inference.instruments:
            self.add_instrument(instrument_id, bars.interval_ns())
        for bar in self.inference.unseen(instrument_id, bars, signal.ts_event).tuples():
            self.update_bar(instrument_id, *bar)
