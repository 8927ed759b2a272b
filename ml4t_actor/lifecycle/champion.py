"""The champion: whether the model that serves is still good, and which one follows it."""

import threading
from collections import deque
from collections.abc import Sequence
from typing import TypedDict, Unpack

import msgspec
import numpy as np

from ml4t_actor.inference import Answer, InferenceLoop
from ml4t_actor.ledger import Ledger, SignalRow
from ml4t_actor.lifecycle.events import (
    SERVING,
    TRIGGER,
    Events,
    are_copies,
    last_change,
    last_concluded_ns,
    serving_since_ns,
)
from ml4t_actor.lifecycle.host import Host
from ml4t_actor.lifecycle.unseen import UnseenSignals
from ml4t_actor.market_data import MINUTE_NS
from ml4t_actor.messages import REASON_LENGTH_MAX, Action, ModelUpdate, SignalOutcome, Status
from ml4t_actor.monitoring.baseline import MonitorBaseline
from ml4t_actor.monitoring.monitor import RetrainMonitor, RetrainTrigger
from ml4t_actor.registry import BundleError, ModelBundle, ModelStore
from ml4t_actor.settings import RetrainSettings, TrainingSettings
from ml4t_actor.training.retraining import RetrainResult, RetrainSpec, seen_until_ns, unseen_after_ns
from ml4t_actor.training.worker import Trainer, warm

SCORED = frozenset({Status.OK, Status.LATE})
LEARNED_FROM = frozenset({Status.OK, Status.LATE, Status.NO_MODEL, Status.NOVEL_INPUT})

STORING_THREAD = "ml4t-store"
_MODELS_KEPT = 8  # for `rollback`


class _Figures(TypedDict, total=False):
    """What a `ModelUpdate` says of the gate's comparison."""

    n: int
    champion_log_loss: float
    challenger_log_loss: float
    baseline_log_loss: float
    improvement: float
    improvement_low: float


class ChampionLifecycle:
    """Watches the model that serves, has a successor trained, and swaps it in if it is better.

    Parameters
    ----------
    inference : InferenceLoop
        Whose model it is about; its instruments added, its model loaded.
    ledger : Ledger
        Where decisions are kept, and outcomes of before a restart.
    store : ModelStore
        Written to by `rollback`, in a live engine only.
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
    retrain_delay_s : float
        Without a live engine: seconds of the clock between the start of a retraining and its effect.
    host : Host
        The clock, the log, the bus and the thread.
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
        retrain_delay_s: float,
        host: Host,
    ) -> None:
        self._inference = inference
        self._ledger = ledger
        self._store = store
        self._trainer = trainer
        self._settings = settings
        self._training = training
        self._feature_names = tuple(feature_names)
        self._interval_ns = _shortest_interval_ns(inference)
        self._min_samples = min_samples
        self._retrain_delay_s = retrain_delay_s
        self._host = host
        self._previous: deque[ModelBundle] = deque(maxlen=_MODELS_KEPT)
        self._requested = False
        self._is_retraining = False
        self._retired: ModelBundle | None = None
        self._retired_ns = 0  # or when its last would-be successor was rejected
        self._unseen = UnseenSignals(settings.max_rows)
        self._columns = np.empty(0, dtype=np.int64)  # of the served features, those that the model reads
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
    def is_retraining(self) -> bool:
        """Whether a challenger is being trained, or waits to be compared."""
        return self._is_retraining or (self._trainer is not None and self._trainer.busy)

    def start(self) -> None:
        """Watch the model that serves; in a live engine as if the process had never ended."""
        if not self._host.live:
            self._watch_active_model(self._host.now())
            return
        events = self._ledger.events()
        self._restore_champion(events)
        self._restore_unseen()
        self._restore_evidence(events)

    def add_instrument(self) -> None:
        """Count time by the bars of the instruments that the inference loop has now, and know their features."""
        self._interval_ns = self.monitor.bar_interval_ns = _shortest_interval_ns(self._inference)
        self._find_columns()

    def on_signal(self, answer: Answer) -> None:
        """Show the monitor what a signal was scored by."""
        enriched, inputs = answer
        if inputs is not None and enriched.signal and enriched.status in SCORED:
            self.monitor.record_features(inputs.features[self._columns])

    def on_outcome(self, row: SignalRow, outcome: SignalOutcome) -> None:
        """Show the monitor how a signal came out, that was recorded as `row`."""
        if outcome.label < 0:
            return
        if row.status in LEARNED_FROM and row.window_end_ns is not None:
            self._unseen.record(outcome.ts_event, row.ts_event, row.window_end_ns)
        bundle = self._inference.bundle
        version, statuses = ("", LEARNED_FROM) if bundle is None else (bundle.version, SCORED)
        if row.model_version == version and row.status in statuses:
            self.monitor.record_outcome(row.confidence, outcome.label, outcome.weight)

    def check(self) -> None:
        """Start a retraining if one is due and none is under way."""
        now_ns = self._host.now()
        if self._trainer is None or self.is_retraining:
            return
        if not (self._requested or self._unseen.count(now_ns) >= self._min_samples):
            return
        self._requested = False
        trigger = self.monitor.check_retrain_trigger(now_ns) or self._trigger_of_vacancy(now_ns)
        if trigger is not None:
            self._retrain(trigger, self._trainer, now_ns)

    def request_retrain(self, reason: str) -> None:
        """Ask for a retraining at the next check, whatever the monitor says; `RuntimeError` if frozen."""
        self.refuse_if_frozen("retrain")
        self.monitor.request(reason)
        self._requested = True

    def hot_swap_model(self, bundle: ModelBundle) -> None:
        """Let the user's own bundle serve from the next signal on; raises what `check_swap` does."""
        self.check_swap(bundle)
        self._swap(bundle, self._host.now(), Action.SWAPPED, "user", "by hand")

    def rollback(self) -> ModelBundle:
        """Let the model before the present one serve again, and after a restart too; return it.

        Raises what `check_rollback` does.
        """
        self.check_rollback()
        bundle = self._previous.pop()
        self._swap(bundle, self._host.now(), Action.ROLLED_BACK, "user", "by hand", keep_present=False)
        self._serve_after_restart(bundle)
        return bundle

    def check_swap(self, bundle: ModelBundle) -> None:
        """Raise, from any thread, what would keep `bundle` from being swapped in.

        Raises
        ------
        RuntimeError
            If the model is frozen.
        ValueError
            If it has no version, or cannot serve here.
        """
        self.refuse_if_frozen("swap the model")
        if not bundle.version:
            raise ValueError("the bundle has no version; save it in a ModelStore, which gives it one")
        self._inference.check(bundle)
        warm(bundle)

    def check_rollback(self) -> None:
        """Raise, from any thread, `RuntimeError` if the model is frozen or there was none before it."""
        self.refuse_if_frozen("roll back")
        if not self._previous:
            raise RuntimeError("there is no earlier model to roll back to: none was replaced since the start")

    def refuse_if_frozen(self, what: str) -> None:
        """Raise `RuntimeError` if the model may not change."""
        if self.frozen:
            raise RuntimeError(
                f"cannot {what}: the model is frozen by `retrain='off'`, or for want of a ledger"
            )

    def stop(self) -> None:
        """End a retraining that is under way."""
        if self._trainer is not None:
            self._trainer.cancel()

    def _restore_champion(self, events: Events) -> None:
        """Let serve what served before the restart, which the newest version in the store need not be."""
        bundle, change = self._inference.bundle, last_change(events)
        if bundle is None or change is None:
            return
        kind, version, previous = change["kind"], change["version"], str(change["detail"]["previous_version"])
        if kind == Action.RETIRED and are_copies(previous, bundle.version):
            self._retired = bundle
            self._inference.retire()
            self._host.log.warning(
                f"model {bundle.version} was retired before the restart; no model serves until a challenger beats the "
                "base rate, or you save another version"
            )
        elif kind == Action.ROLLED_BACK and are_copies(previous, bundle.version):
            # The process ended before the older model was stored again.
            if (older := self._load_if_usable(version)) is not None:
                self._inference.swap(older)
                self._previous.append(bundle)
                self._serve_after_restart(older)
        elif are_copies(version, bundle.version) and (older := self._load_if_usable(previous)) is not None:
            self._previous.append(older)

    def _load_if_usable(self, version: str) -> ModelBundle | None:
        try:
            bundle = self._store.load(version) if version else None
            if bundle is not None:
                self._inference.check(bundle)
        except ValueError as e:  # a BundleError too
            self._host.log.warning(f"model {version}, which served before, cannot be gone back to: {e}")
            return None
        return bundle

    def _restore_unseen(self) -> None:
        """Read what the model that serves now has not seen; an older one, swapped in later, has at least that."""
        since_ns = unseen_after_ns(self._inference.bundle or self._retired)
        horizon_ns = self._training.labels.horizon_bars * self._interval_ns
        for end in sorted(self._ledger.window_ends(since_ns, sorted(LEARNED_FROM))):
            # The window's end stands for the outcome's time, the entry's for the signal's, which is a little later.
            self._unseen.record(end, max(end - horizon_ns, since_ns + 1), end)

    def _restore_evidence(self, events: Events) -> None:
        """Go on with the model's age, the cooldown, and the evidence since the last retraining that was concluded.

        One that the process did not outlive does not count: what asked for it asks again.
        """
        version = "" if self._inference.bundle is None else self._inference.bundle.version
        since_ns = serving_since_ns(events, version)
        if since_ns is None:
            since_ns = self._host.now()
            self._ledger.record_event(since_ns, SERVING, version, {})
        concluded_ns = last_concluded_ns(events)
        self._retired_ns = max(concluded_ns, since_ns)
        if 0 < concluded_ns < since_ns:
            self.monitor.retrained(concluded_ns)
        self._watch_active_model(since_ns)
        if concluded_ns >= since_ns:
            self.monitor.retrained(concluded_ns)
        statuses = sorted(SCORED if version else LEARNED_FROM)
        for confidence, label, weight in self._ledger.outcomes_of(version, concluded_ns, statuses):
            self.monitor.record_outcome(confidence, label, weight)

    def _trigger_of_vacancy(self, now_ns: int) -> RetrainTrigger | None:
        """Ask, each time the cooldown is over, for a successor of the model that was retired."""
        waited = now_ns - self._retired_ns
        if self._retired is None or waited < self._settings.monitor.cooldown_bars * self._interval_ns:
            return None
        reason = f"model {self._retired.version} was retired, since it was worse than the base rate, and none serves"
        detail = {"n_outcomes": float(self.monitor.n_outcomes)}
        return RetrainTrigger(kind="first_model", reason=reason, ts=now_ns, detail=detail)

    def _retrain(self, trigger: RetrainTrigger, trainer: Trainer, now_ns: int) -> None:
        serving = self._inference.bundle
        champion = serving or self._retired
        self.monitor.retrained(now_ns)
        self._is_retraining = True
        self._retired_ns = now_ns
        version = "" if champion is None else champion.version
        self._ledger.record_event(now_ns, TRIGGER, version, msgspec.to_builtins(trigger))
        self._host.log.info(f"retraining: {trigger.reason}")
        spec = RetrainSpec(
            actor=self._ledger.actor,
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
            def finish() -> None:
                self._finish(trigger, serving, result)

            if self._host.live:
                self._host.call_soon("concluding a retraining", finish)
            else:
                self._host.call_later("concluding a retraining", self._retrain_delay_s, finish)

        trainer.start(spec, champion, done)

    def _finish(self, trigger: RetrainTrigger, serving: ModelBundle | None, result: RetrainResult) -> None:
        self._is_retraining = False
        now_ns = self._host.now()
        decision, bundle = result.decision, result.bundle
        if decision is None or bundle is None:
            self._host.log.error(f"retraining failed after {result.seconds:.1f} s: {result.error}")
            reason = f"{trigger.reason}; {_last_line(result.error)}"
            self._publish_update(Action.FAILED, now_ns, trigger.kind, reason)
            return
        self._host.log.info(f"retraining took {result.seconds:.1f} s: {decision.reason}")
        figures: _Figures = {
            "n": decision.n,
            "champion_log_loss": decision.champion_log_loss,
            "challenger_log_loss": decision.challenger_log_loss,
            "baseline_log_loss": decision.baseline_log_loss,
            "improvement": decision.improvement,
            "improvement_low": decision.improvement_low or 0.0,
        }
        reason = f"{trigger.reason}; {decision.reason}"
        if self._inference.bundle is not serving:
            reason = f"{trigger.reason}; another model was swapped in while the challenger was trained"
            self._publish_update(Action.REJECTED, now_ns, trigger.kind, reason, **figures)
            if decision.promoted and self._inference.bundle is not None:
                self._serve_after_restart(
                    self._inference.bundle
                )  # and not the challenger, the newest in the store
        elif not decision.promoted and decision.champion_failed:
            self._retire(now_ns, trigger.kind, reason, **figures)
        elif not decision.promoted:
            self._publish_update(Action.REJECTED, now_ns, trigger.kind, reason, **figures)
        else:
            try:
                self._swap(bundle, now_ns, Action.PROMOTED, trigger.kind, reason, **figures)
            except ValueError as e:
                self._host.log.error(f"the challenger is refused: {e}")
                self._publish_update(Action.FAILED, now_ns, trigger.kind, f"{trigger.reason}; {e}")

    def _swap(
        self,
        bundle: ModelBundle,
        now_ns: int,
        action: Action,
        trigger: str,
        reason: str,
        *,
        keep_present: bool = True,
        **figures: Unpack[_Figures],
    ) -> None:
        present = self._inference.bundle
        self._inference.swap(bundle)
        self._retired = None
        if keep_present and present is not None:
            self._previous.append(present)
        self._watch_active_model(now_ns)
        previous = "" if present is None else present.version
        self._publish_update(action, now_ns, trigger, reason, previous_version=previous, **figures)

    def _retire(self, now_ns: int, trigger: str, reason: str, **figures: Unpack[_Figures]) -> None:
        """Let no model serve rather than one that is worse than none, until a challenger beats the base rate."""
        present = self._inference.bundle
        assert present is not None
        self._retired, self._retired_ns = present, now_ns
        self._previous.append(present)
        self._inference.retire()
        self._watch_active_model(now_ns)
        self._host.log.error(
            f"model {present.version} is retired: {reason}; signals get the default confidence"
        )
        self._publish_update(
            Action.RETIRED, now_ns, trigger, reason, previous_version=present.version, **figures
        )

    def _watch_active_model(self, now_ns: int) -> None:
        bundle = self._inference.bundle
        baseline = None if bundle is None else MonitorBaseline.from_metrics(bundle.metrics)
        self._find_columns()
        self._unseen.reset(unseen_after_ns(bundle or self._retired))
        self.monitor.model_changed(baseline, trained_until_ns=seen_until_ns(bundle), now_ns=now_ns)

    def _find_columns(self) -> None:
        bundle = self._inference.bundle
        if bundle is not None and self._inference.instruments:
            names = self._inference.features(self._inference.instruments[0]).served_names
            self._columns = np.array([names.index(name) for name in bundle.feature_names])

    def _publish_update(
        self,
        action: Action,
        now_ns: int,
        trigger: str,
        reason: str,
        *,
        previous_version: str | None = None,
        **figures: Unpack[_Figures],
    ) -> None:
        bundle = self._inference.bundle
        version = "" if bundle is None else bundle.version
        update = ModelUpdate(
            action=action,
            version=version,
            previous_version=version if previous_version is None else previous_version,
            trigger=trigger,
            # An error of the training process may hold anything.
            reason="".join(c if c.isprintable() else " " for c in reason[:REASON_LENGTH_MAX]),
            ts_event=now_ns,
            ts_init=now_ns,
            **figures,
        )
        self._ledger.record_event(now_ns, action.value, version, update.to_dict())
        self._host.publish(update)

    def _serve_after_restart(self, bundle: ModelBundle) -> None:
        """Have the store's newest version be this one; off the event thread, since it copies files."""
        if self._host.live:
            threading.Thread(
                target=self._store_again, args=(bundle.version,), name=STORING_THREAD, daemon=True
            ).start()

    def _store_again(self, version: str) -> None:
        try:
            self._store.adopt(self._store, version)
        except (BundleError, OSError) as e:
            message = f"model {version} serves until a restart only: {e}"
            self._host.call_soon("storing a model again", lambda: self._host.log.error(message))


def _shortest_interval_ns(inference: InferenceLoop) -> int:
    intervals = (inference.features(instrument_id).interval_ns for instrument_id in inference.instruments)
    return min(intervals, default=MINUTE_NS)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
