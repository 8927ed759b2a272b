"""Learning: what became of each signal, when to retrain, and which model serves."""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Protocol
from zlib import crc32

import msgspec
import numpy as np
from nautilus_trader.core.data import Data
from nautilus_trader.model.identifiers import InstrumentId

from ml4t_actor.data import (
    REASON_LENGTH_MAX,
    Action,
    Barrier,
    EnrichedSignal,
    ModelUpdate,
    SignalOutcome,
    Status,
)
from ml4t_actor.inference import InferenceLoop, Served
from ml4t_actor.labeling import PROFIT, STOP, UNRESOLVED, VERTICAL
from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
from ml4t_actor.outcomes import OpenBarrier, OutcomeTracker, Resolution
from ml4t_actor.persistence import BundleError, ModelBundle, ModelStore
from ml4t_actor.retrain.baseline import MonitorBaseline
from ml4t_actor.retrain.job import RetrainResult, RetrainSpec, seen_until_ns, unseen_after_ns
from ml4t_actor.retrain.monitor import RetrainMonitor, RetrainTrigger
from ml4t_actor.retrain.worker import Trainer, warm
from ml4t_actor.settings import RetrainSettings, TrainingSettings

Publish = Callable[[Data], None]

# The rest has no price to enter at, or one that is too old.
FOLLOWED = frozenset(
    {Status.OK, Status.LATE, Status.NO_MODEL, Status.WARMING_UP, Status.BAD_FEATURES, Status.NOVEL_INPUT}
)
JUDGED = frozenset({Status.OK, Status.LATE})
LEARNED_FROM = frozenset({Status.OK, Status.LATE, Status.NO_MODEL, Status.NOVEL_INPUT})

_BARRIERS = {
    PROFIT: Barrier.PROFIT,
    STOP: Barrier.STOP,
    VERTICAL: Barrier.VERTICAL,
    UNRESOLVED: Barrier.UNRESOLVED,
}
_Snapshot = tuple[bytes | None, tuple[int, int, float, float]]  # of inference, and of the tracker
_SEAL_BYTES = 4
_CHANGES = frozenset({Action.PROMOTED, Action.RETIRED, Action.SWAPPED, Action.ROLLED_BACK})
_MODELS_KEPT = 8  # for `rollback`


class Log(Protocol):
    """What the loop writes its log to; Nautilus's logger is one."""

    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


class _Followed(msgspec.Struct, frozen=True):
    """What an outcome says of its signal."""

    instrument_id: InstrumentId
    signal: int
    source: str
    signal_id: str
    meta_confidence: float
    model_version: str
    status: str
    ts_event: int
    window_end_ns: int


class LearningLoop:
    """Follows what becomes of signals, watches the model, has a successor trained, and swaps it in.

    All calls belong on the thread of the inference loop; what trains elsewhere hands its result back to it.

    Parameters
    ----------
    inference : InferenceLoop
        Whose model is watched and swapped.
    ledger : Ledger
        The record of everything.
    store : ModelStore
        Where bundles are kept; written to by `rollback` in a live engine only.
    trainer : Trainer or None
        Who trains; None freezes the model.
    settings : RetrainSettings
        Monitor and gate.
    training : TrainingSettings
        Of a first model; later ones inherit those of the model that they follow.
    feature_names : sequence of str
        Of a first model.
    accuracy_drop_threshold, interval_bars, min_samples
        See `RetrainMonitor`.
    publish : callable
        Takes each `SignalOutcome` and `ModelUpdate`.
    deliver : callable
        Called with a function when a challenger is ready, maybe from another thread: it must see to it that the
        function is called on the loop's thread, in a backtest after the time that training would have taken.
    now : callable
        The clock's time, UNIX nanoseconds.
    log : Log
        Nautilus's logger.
    live : bool
        Whether models and state are kept on disk.
    """

    def __init__(
        self,
        inference: InferenceLoop,
        ledger: Ledger,
        store: ModelStore,
        trainer: Trainer | None,
        *,
        settings: RetrainSettings,
        training: TrainingSettings,
        feature_names: Sequence[str],
        accuracy_drop_threshold: float,
        interval_bars: int | None,
        min_samples: int,
        publish: Publish,
        deliver: Callable[[Callable[[], None]], None],
        now: Callable[[], int],
        log: Log,
        live: bool,
    ) -> None:
        self.inference = inference
        self.ledger = ledger
        self._store = store
        self._trainer = trainer
        self._settings = settings
        self._training = training
        self._feature_names = tuple(feature_names)
        self._min_samples = min_samples
        self._publish = publish
        self._deliver = deliver
        self._now = now
        self._log = log
        self._live = live
        self._earlier: deque[ModelBundle] = deque(maxlen=_MODELS_KEPT)
        self._trackers: dict[InstrumentId, OutcomeTracker] = {}
        self._followed: dict[tuple[str, str], _Followed] = {}
        self._feature_sets: dict[InstrumentId, int] = {}
        self._asked = False
        self._retired: ModelBundle | None = None
        self._failed_since_ns = 0
        # When each judged signal arose, and its label window ends; kept here lest a swap waits for the ledger.
        self._judged: deque[tuple[int, int]] = deque(maxlen=settings.max_rows)
        # Of those that no model has seen, the ends: a heap, and how many are past.
        self._unseen: list[int] = []
        self._n_unseen = 0
        self._unseen_after_ns = 0
        self._columns = np.empty(0, dtype=np.int64)  # of the served features, those that the model reads
        self._problems_logged: dict[str, int] = {}
        for instrument_id in inference.instruments:
            features = inference.features(instrument_id)
            self._trackers[instrument_id] = OutcomeTracker(training.labels, features.interval_ns)
            self._feature_sets[instrument_id] = ledger.feature_set(features.served_names)
        intervals = [tracker.interval_ns for tracker in self._trackers.values()]
        self._interval_ns = min(intervals, default=60_000_000_000)
        self.monitor = RetrainMonitor(
            None,
            settings.monitor,
            accuracy_drop_threshold=accuracy_drop_threshold,
            interval_bars=interval_bars,
            bar_interval_ns=self._interval_ns,
            min_samples=min_samples,
        )

    @property
    def frozen(self) -> bool:
        """Whether the model may not change."""
        return self._trainer is None

    @property
    def open_signals(self) -> int:
        """Signals whose outcome is not known yet."""
        return len(self._followed)

    def start(self, saved: Mapping[str, bytes] | None = None) -> None:
        """Watch the model that serves; in a live engine first take up what the ledger holds.

        A market whose saved state is older than its warm-up starts cold, which is quicker than to wait until the gap
        has faded. Open barriers without a state to continue from end unresolved.

        Parameters
        ----------
        saved : mapping of str to bytes, optional
            What `save` returned when the engine was stopped, taken where it is newer than the ledger's.
        """
        now_ns = self._now()
        if self._live:
            self._resume(now_ns, saved or {})
            self._recall_judged()
            self._keep_retired()
        self._watch_model(now_ns)
        if self._retired is not None:
            self._failed_since_ns = now_ns
        bundle = self.inference.bundle
        if self._live and bundle is not None:
            since = max((event["ts"] for event in self.ledger.events("trigger")), default=0)
            for confidence, label, weight in self.ledger.outcomes_of(bundle.version, since_ns=since):
                self.monitor.record_outcome(confidence, label, weight)

    def save(self) -> dict[str, bytes]:
        """Return the state of every market, by instrument; empty in a backtest."""
        saved = {}
        for instrument_id in self._trackers:
            snapshot = self._snapshot(instrument_id)
            if snapshot is not None:
                saved[snapshot[0]] = msgspec.msgpack.encode(snapshot[1:])
        return saved

    def _resume(self, now_ns: int, saved: Mapping[str, bytes]) -> None:
        snapshots = self.ledger.snapshots()
        ahead = set()
        for name, raw in saved.items():
            try:
                snapshot = msgspec.msgpack.decode(raw, type=tuple[int, bytes])
            except msgspec.MsgspecError as e:
                self._log.warning(f"the saved state of {name} is refused: {e}; the ledger's is taken")
                continue
            if snapshot[0] > snapshots.get(name, (0, b""))[0]:
                snapshots[name] = snapshot
                ahead.add(name)
        waiting: dict[InstrumentId, list[OpenBarrier]] = {}
        lost: list[OpenBarrier] = []  # to an instrument, bar length or horizon that is configured no more
        for row in self.ledger.open_signals():
            instrument_id = InstrumentId.from_str(row.instrument_id)
            barrier = _barrier(row)
            own = self._trackers.get(instrument_id)
            same = own is not None and row.window_end_ns == _window_end_ns(own, barrier)
            (waiting.setdefault(instrument_id, []) if same else lost).append(barrier)
            self._followed[row.source, row.signal_id] = _Followed(
                instrument_id,
                row.side,
                row.source,
                row.signal_id,
                row.confidence,
                row.model_version,
                row.status,
                row.ts_event,
                int(row.window_end_ns or 0),
            )
        for instrument_id, tracker in self._trackers.items():
            if instrument_id.value not in snapshots:
                continue
            _, raw = snapshots[instrument_id.value]
            barriers = waiting.get(instrument_id, [])
            # Where the state is ahead, what became of them meanwhile did not reach the ledger.
            continued = [] if instrument_id.value in ahead else barriers
            try:
                state, position = _opened(raw)
                tracker.restore(position, continued)
            except (msgspec.MsgspecError, ValueError, TypeError) as e:
                self._log.warning(f"the saved state of {instrument_id} is refused: {e}; it starts cold")
                continue
            if continued:
                del waiting[instrument_id]
            features = self.inference.features(instrument_id)
            if state is not None and now_ns - position[1] <= features.warmup_bars * features.interval_ns:
                try:
                    self.inference.restore(instrument_id, state)
                except ValueError as e:
                    self._log.warning(str(e))
        lost += [barrier for left in waiting.values() for barrier in left]
        self._resolve([_given_up(barrier, now_ns) for barrier in lost], None, now_ns)

    def _keep_retired(self) -> None:
        """Retire again what was retired before the restart, unless a newer version is there by now."""
        decided = [e for e in self.ledger.events() if e["kind"] in _CHANGES]
        bundle = self.inference.bundle
        if not decided or bundle is None or decided[-1]["kind"] != Action.RETIRED:
            return
        if decided[-1]["detail"]["previous_version"] == bundle.version:
            self._retired = bundle
            self.inference.retire()
            self._log.warning(
                f"model {bundle.version} was retired before the restart; no model serves until a challenger beats the "
                "base rate, or you save another version"
            )

    def _recall_judged(self) -> None:
        """Read what the model that serves now has not seen; an older one, swapped in later, has at least that."""
        since_ns = unseen_after_ns(self.inference.bundle)
        horizon_ns = self._training.labels.horizon_bars * self._interval_ns
        for end in self.ledger.window_ends(since_ns, sorted(LEARNED_FROM)):
            # The entry's time stands for the signal's, which is at most a little later.
            self._judged.append((max(end - horizon_ns, since_ns + 1), end))

    def on_signal(self, enriched: EnrichedSignal, served: Served | None) -> None:
        """Record an answered signal with what it was answered from, and open its barrier."""
        instrument_id = enriched.instrument_id
        status = enriched.status
        tracker = self._trackers.get(instrument_id)
        key = (enriched.source, enriched.signal_id)
        barrier = None
        if (
            tracker is not None
            and enriched.signal
            and status in FOLLOWED
            and key not in self._followed
            # Not where features start cold and old bars are replayed: the tracker would enter at a later price.
            and self.inference.features(instrument_id).last_ts == tracker.state[1]
        ):
            barrier = tracker.open(key, enriched.signal, enriched.volatility)
        window_end_ns = None
        if barrier is not None and tracker is not None:
            window_end_ns = _window_end_ns(tracker, barrier)
            self._followed[key] = _Followed(
                instrument_id,
                enriched.signal,
                enriched.source,
                enriched.signal_id,
                enriched.meta_confidence,
                enriched.model_version,
                status,
                enriched.ts_event,
                window_end_ns,
            )
        probabilities = None if served is None else served.regime_probabilities
        row = SignalRow(
            source=enriched.source,
            signal_id=enriched.signal_id,
            instrument_id=instrument_id.value,
            side=enriched.signal,
            strength=enriched.strength,
            ts_event=enriched.ts_event,
            ts_init=enriched.ts_init,
            confidence=enriched.meta_confidence,
            toxicity=enriched.toxicity,
            vpin=enriched.vpin,
            regime=enriched.regime,
            regime_weight=enriched.regime_weight,
            volatility=enriched.volatility,
            model_version=enriched.model_version,
            status=status.value if isinstance(status, Status) else status,
            latency_ns=enriched.latency_ns,
            feature_set=None if served is None else self._feature_sets[instrument_id],
            features=None if served is None else served.features.tobytes(),
            regime_probabilities=None if probabilities is None else probabilities.tobytes(),
            regime_model="" if served is None else served.regime_model,
            entry_ts=None if barrier is None else barrier.entry_ts,
            entry=None if barrier is None else barrier.entry,
            profit=None if barrier is None else barrier.profit,
            stop=None if barrier is None else barrier.stop,
            entry_bar=None if barrier is None else barrier.entry_bar,
            entry_share=None if barrier is None else barrier.entry_share,
            window_end_ns=window_end_ns,
        )
        self.ledger.record_signal(row, self._snapshot(instrument_id) if served is not None else None)
        if served is not None and enriched.signal and status in JUDGED:
            self.monitor.record_features(served.features[self._columns])

    def on_bar(
        self, instrument_id: InstrumentId, ts_event: int, high: float, low: float, close: float
    ) -> None:
        """Take a bar that the inference loop has accepted, and tell what it resolved."""
        tracker = self._trackers[instrument_id]
        # Features that started cold may be shown bars again that the barriers have counted.
        resolved = tracker.update(ts_event, high, low, close) if ts_event > tracker.state[1] else []
        self._resolve(resolved, self._snapshot(instrument_id), ts_event)

    def check(self) -> None:
        """Look after what no bar resolved, the ledger's troubles, and the model; start a retraining if one is due."""
        now_ns = self._now()
        expired = [r for tracker in self._trackers.values() for r in tracker.expire(now_ns)]
        if expired:
            self._resolve(expired, None, now_ns)
        self._tell_problems()
        if self._trainer is None or self._trainer.busy or not (self._asked or self._enough(now_ns)):
            return
        self._asked = False
        trigger = self.monitor.check_retrain_trigger(now_ns) or self._failed_model(now_ns)
        if trigger is not None:
            self._retrain(trigger, now_ns)

    def request_retrain(self, reason: str) -> None:
        """Ask for a retraining at the next check, whatever the monitor says.

        Raises
        ------
        RuntimeError
            If the model is frozen.
        """
        self.refuse_if_frozen("retrain")
        self.monitor.request(reason)
        self._asked = True

    def hot_swap_model(self, bundle: ModelBundle) -> None:
        """Let the user's own bundle serve from the next signal on.

        Raises
        ------
        RuntimeError
            If the model is frozen.
        ValueError
            If it has no version, or cannot serve here.
        """
        self.check_swap(bundle)
        self._swap(bundle, self._now(), Action.SWAPPED, "user", "by hand")

    def check_swap(self, bundle: ModelBundle) -> None:
        """Raise, from any thread, what would keep `bundle` from being swapped in; see `hot_swap_model`."""
        self.refuse_if_frozen("swap the model")
        if not bundle.version:
            raise ValueError("the bundle has no version; save it in a ModelStore, which gives it one")
        self.inference.check(bundle)
        warm(bundle)

    def check_rollback(self) -> None:
        """Raise, from any thread, what would keep `rollback` from going back."""
        self.refuse_if_frozen("roll back")
        if not self._earlier:
            raise RuntimeError("there is no earlier model to roll back to: none was replaced since the start")

    def refuse_if_frozen(self, what: str) -> None:
        """Raise `RuntimeError` if the model may not change."""
        if self.frozen:
            raise RuntimeError(
                f"cannot {what}: the model is frozen by `retrain='off'`, or for want of a ledger"
            )

    def rollback(self) -> ModelBundle:
        """Let the model before the present one serve again, and after a restart too; return it.

        Raises
        ------
        RuntimeError
            If the model is frozen, or there was none before it.
        """
        self.check_rollback()
        bundle = self._earlier.pop()
        self._swap(bundle, self._now(), Action.ROLLED_BACK, "user", "by hand", keep_present=False)
        if self._live and bundle.version in self._store.versions():
            threading.Thread(target=self._restore_version, args=(bundle.version,), daemon=True).start()
        return bundle

    def stop(self) -> None:
        """End a retraining that is under way, and write everything that is recorded."""
        if self._trainer is not None:
            self._trainer.cancel()
        if not self.ledger.close():
            self._log.error(f"the ledger could not be written to its end: {self.ledger.last_error}")

    def _failed_model(self, now_ns: int) -> RetrainTrigger | None:
        """Ask, each time the cooldown is over, for a successor of the model that was retired."""
        waited = now_ns - self._failed_since_ns
        if not self._failed_since_ns or waited < self._settings.monitor.cooldown_bars * self._interval_ns:
            return None
        version = "" if self._retired is None else self._retired.version
        reason = f"model {version} was retired, since it was worse than the base rate, and none serves"
        detail = {"n_outcomes": float(self.monitor.n_outcomes)}
        return RetrainTrigger(kind="loss", reason=reason, ts=now_ns, detail=detail)

    def _enough(self, now_ns: int) -> bool:
        """Return whether there are enough judged signals that no model has seen, their whole windows past."""
        while self._unseen and self._unseen[0] <= now_ns:
            heappop(self._unseen)
            self._n_unseen += 1
        return self._n_unseen >= self._min_samples

    def _retrain(self, trigger: RetrainTrigger, now_ns: int) -> None:
        assert self._trainer is not None
        serving = self.inference.bundle
        champion = serving or self._retired
        self.monitor.retrained(now_ns)
        self._failed_since_ns = 0
        self.ledger.record_event(
            now_ns, "trigger", "" if champion is None else champion.version, msgspec.to_builtins(trigger)
        )
        self._log.info(f"retraining: {trigger.reason}")
        spec = RetrainSpec(
            actor=self.ledger.actor,
            training=self._training if champion is None else champion.settings,
            retrain=self._settings,
            feature_names=self._feature_names if champion is None else champion.feature_names,
            interval_ns=self._interval_ns,
            min_samples=self._min_samples,
            now_ns=now_ns,
            trigger=trigger.kind,
            retired=serving is None,
        )

        def done(result: RetrainResult) -> None:
            self._deliver(lambda: self._finish(trigger, serving, result))

        self._trainer.start(spec, champion, done)

    def _finish(self, trigger: RetrainTrigger, serving: ModelBundle | None, result: RetrainResult) -> None:
        now_ns = self._now()
        decision, bundle = result.decision, result.bundle
        if decision is None or bundle is None:
            self._log.error(f"retraining failed after {result.seconds:.1f} s: {result.error}")
            self._announce(
                Action.FAILED, now_ns, trigger.kind, f"{trigger.reason}; {_one_line(result.error)}"
            )
            return
        self._log.info(f"retraining took {result.seconds:.1f} s: {decision.reason}")
        figures: dict[str, Any] = {
            "n": decision.n,
            "champion_log_loss": decision.champion_log_loss,
            "challenger_log_loss": decision.challenger_log_loss,
            "baseline_log_loss": decision.baseline_log_loss,
            "improvement": decision.improvement,
            "improvement_low": decision.improvement_low or 0.0,
        }
        reason = f"{trigger.reason}; {decision.reason}"
        if self.inference.bundle is not serving:
            reason = f"{trigger.reason}; another model was swapped in while the challenger was trained"
            self._announce(Action.REJECTED, now_ns, trigger.kind, reason, **figures)
            return
        if not decision.promoted:
            if decision.champion_failed:
                self._retire(now_ns, trigger.kind, reason, **figures)
            else:
                self._announce(Action.REJECTED, now_ns, trigger.kind, reason, **figures)
            if self.inference.bundle is None:
                self._failed_since_ns = now_ns
            return
        try:
            self._swap(bundle, now_ns, Action.PROMOTED, trigger.kind, reason, **figures)
        except ValueError as e:
            self._log.error(f"the challenger is refused: {e}")
            self._announce(Action.FAILED, now_ns, trigger.kind, f"{trigger.reason}; {e}")

    def _swap(
        self,
        bundle: ModelBundle,
        now_ns: int,
        action: Action,
        trigger: str,
        reason: str,
        *,
        keep_present: bool = True,
        **figures: Any,
    ) -> None:
        present = self.inference.bundle
        self.inference.swap(bundle)
        self._retired = None
        if keep_present and present is not None:
            self._earlier.append(present)
        self._watch_model(now_ns)
        previous = "" if present is None else present.version
        self._announce(action, now_ns, trigger, reason, previous_version=previous, **figures)

    def _retire(self, now_ns: int, trigger: str, reason: str, **figures: Any) -> None:
        """Let no model serve rather than one that is worse than none, until a challenger beats the base rate."""
        present = self.inference.bundle
        assert present is not None
        self._retired = present
        self._earlier.append(present)
        self.inference.retire()
        self._watch_model(now_ns)
        self._log.error(f"model {present.version} is retired: {reason}; signals get the default confidence")
        self._announce(Action.RETIRED, now_ns, trigger, reason, previous_version=present.version, **figures)

    def _watch_model(self, now_ns: int) -> None:
        bundle = self.inference.bundle
        baseline = None if bundle is None else MonitorBaseline.from_metrics(bundle.metrics)
        if bundle is not None and self._trackers:
            names = self.inference.features(next(iter(self._trackers))).served_names
            self._columns = np.array([names.index(name) for name in bundle.feature_names])
        self._failed_since_ns = 0
        self._unseen_after_ns = unseen_after_ns(bundle or self._retired)
        self._n_unseen = 0
        self._unseen = [end for ts, end in self._judged if ts > self._unseen_after_ns]
        heapify(self._unseen)
        self.monitor.model_changed(baseline, trained_until_ns=seen_until_ns(bundle), now_ns=now_ns)

    def _announce(
        self,
        action: Action,
        now_ns: int,
        trigger: str,
        reason: str,
        *,
        previous_version: str | None = None,
        **figures: Any,
    ) -> None:
        bundle = self.inference.bundle
        version = "" if bundle is None else bundle.version
        update = ModelUpdate(
            action=action,
            version=version,
            previous_version=version if previous_version is None else previous_version,
            trigger=trigger,
            reason=reason[:REASON_LENGTH_MAX],
            ts_event=now_ns,
            ts_init=now_ns,
            **figures,
        )
        self.ledger.record_event(now_ns, action.value, version, update.to_dict())
        self._publish(update)

    def _resolve(
        self, resolved: list[Resolution], snapshot: tuple[str, int, bytes] | None, now_ns: int
    ) -> None:
        if not resolved and snapshot is None:
            return
        rows, outcomes = [], []
        bundle = self.inference.bundle
        serving = None if bundle is None else bundle.version
        for r in resolved:
            key: Any = r.key  # as `on_signal` made it
            source, signal_id = key
            followed = self._followed.pop(key, None)
            known = r.barrier != UNRESOLVED
            rows.append(
                OutcomeRow(
                    source,
                    signal_id,
                    r.barrier,
                    r.label,
                    r.ret if known else None,
                    r.ts_end,
                    r.bars,
                    r.weight,
                )
            )
            if followed is None:
                continue
            outcomes.append(
                SignalOutcome(
                    instrument_id=followed.instrument_id,
                    signal=followed.signal,
                    source=followed.source,
                    signal_id=followed.signal_id,
                    meta_confidence=followed.meta_confidence,
                    model_version=followed.model_version,
                    status=followed.status,
                    barrier=_BARRIERS[r.barrier],
                    label=r.label,
                    ret=r.ret if known else 0.0,
                    bars=r.bars,
                    weight=r.weight,
                    ts_event=r.ts_end,
                    ts_init=now_ns,
                )
            )
            if known and followed.status in LEARNED_FROM:
                self._judged.append((followed.ts_event, followed.window_end_ns))
                if followed.ts_event > self._unseen_after_ns:
                    heappush(self._unseen, followed.window_end_ns)
            if known and (
                serving is None or (followed.model_version == serving and followed.status in JUDGED)
            ):
                self.monitor.record_outcome(followed.meta_confidence, r.label, r.weight)
        self.ledger.record_outcomes(rows, snapshot)
        for outcome in outcomes:
            self._publish(outcome)

    def _snapshot(self, instrument_id: InstrumentId) -> tuple[str, int, bytes] | None:
        if not self._live:
            return None
        position = self._trackers[instrument_id].state
        state = self.inference.state(instrument_id)
        return instrument_id.value, position[1], _sealed((state, position))

    def _tell_problems(self) -> None:
        for kind, message in (
            ("write_errors", f"the ledger is not written: {self.ledger.last_error}; rows wait in memory"),
            ("dropped", "the ledger has dropped rows, since its buffer is full"),
        ):
            count = self.ledger.counts[kind]
            if count > self._problems_logged.get(kind, 0):
                self._problems_logged[kind] = count
                self._log.error(f"{message} ({count:,} so far)")

    def _restore_version(self, version: str) -> None:
        try:
            self._store.adopt(self._store, version)
        except (BundleError, OSError) as e:
            self._log.error(f"the rollback to {version} holds until a restart only: {e}")


def _sealed(snapshot: _Snapshot) -> bytes:
    raw = msgspec.msgpack.encode(snapshot)
    return crc32(raw).to_bytes(_SEAL_BYTES) + raw


def _opened(sealed: bytes) -> _Snapshot:
    """Return what was sealed; `ValueError` if a bit of it has changed, which numbers alone would not tell."""
    raw = sealed[_SEAL_BYTES:]
    if crc32(raw).to_bytes(_SEAL_BYTES) != sealed[:_SEAL_BYTES]:
        raise ValueError("its bytes are damaged")
    snapshot: _Snapshot = msgspec.msgpack.decode(raw, type=_Snapshot)
    return snapshot


def _window_end_ns(tracker: OutcomeTracker, barrier: OpenBarrier) -> int:
    return barrier.entry_ts + tracker.labels.horizon_bars * tracker.interval_ns


def _barrier(row: SignalRow) -> OpenBarrier:
    return OpenBarrier(
        (row.source, row.signal_id),
        row.side,
        float(row.entry or 0.0),
        float(row.profit or 0.0),
        float(row.stop or 0.0),
        int(row.entry_ts or 0),
        int(row.entry_bar or 0),
        float(row.entry_share or 0.0),
    )


def _given_up(barrier: OpenBarrier, now_ns: int) -> Resolution:
    return Resolution(barrier.key, UNRESOLVED, -1, math.nan, now_ns, 0, 0.0)


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


__all__ = ["FOLLOWED", "JUDGED", "LearningLoop"]
