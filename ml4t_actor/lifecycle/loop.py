"""The learning loop: follows signals, watches the model, and brings both together."""

from collections.abc import Callable, Mapping

from ml4t_actor.inference import InferenceLoop, ModelInputs
from ml4t_actor.ledger import Ledger, SignalRow
from ml4t_actor.lifecycle.champion import ChampionLifecycle, Log
from ml4t_actor.lifecycle.outcome_recorder import OutcomeRecorder
from ml4t_actor.messages import EnrichedSignal, SignalOutcome
from ml4t_actor.monitoring.monitor import RetrainMonitor
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import LabelSettings


class LifecycleLoop:
    """Follows what becomes of signals, and sees to it that a good model serves.

    All calls belong on the thread of the inference loop, but for the ``check_`` methods of `succession`; what trains
    elsewhere hands its result back.

    Parameters
    ----------
    inference : InferenceLoop
        Its instruments added, its model loaded.
    ledger : Ledger
        The record of everything.
    succession : ChampionLifecycle
        Which model serves, and by which it is followed.
    labels : LabelSettings
        The barriers.
    publish : callable
        Takes each `SignalOutcome`.
    now : callable
        The clock's time, UNIX nanoseconds.
    log : Log
        Nautilus's logger.
    live : bool
        Whether state is kept on disk.
    has_past : bool, default False
        Whether past bars will be fed at the start.
    """

    def __init__(
        self,
        inference: InferenceLoop,
        ledger: Ledger,
        succession: ChampionLifecycle,
        *,
        labels: LabelSettings,
        publish: Callable[[Data], None],
        now: Callable[[], int],
        log: Log,
        live: bool,
        has_past: bool = False,
    ) -> None:
        self.ledger = ledger
        self.succession = succession
        self._publish = publish
        self._now = now
        self._log = log
        self._live = live
        self._problems_logged: dict[str, int] = {}
        self._follower = OutcomeRecorder(
            inference,
            ledger,
            labels,
            resolved=self._on_outcome,
            warn=lambda message: self._log.warning(message),
            live=live,
            has_past=has_past,
        )

    @property
    def monitor(self) -> RetrainMonitor:
        """What watches the model."""
        return self.succession.monitor

    @property
    def open_signals(self) -> int:
        """Signals whose outcome is not known yet."""
        return self._follower.n_open

    def start(self, saved: Mapping[str, bytes] | None = None) -> None:
        """Watch the model that serves; in a live engine first take up what the ledger holds.

        Parameters
        ----------
        saved : mapping of str to bytes, optional
            What `save` returned when the engine was stopped, taken where it is newer than the ledger's.
        """
        if self._live:
            self._follower.resume(saved or {}, self._now())
        self.succession.start()

    def save(self) -> dict[str, bytes]:
        """Return the state of every market, by instrument; empty in a backtest."""
        return self._follower.save()

    def on_signal(self, enriched: EnrichedSignal, served: ModelInputs | None) -> None:
        """Record an answered signal with what it was answered from, and follow it."""
        self._follower.on_signal(enriched, served)
        self.succession.on_signal(enriched, served)

    def on_answered(self, enriched: EnrichedSignal) -> None:
        """Record a signal that a process before this one has answered and not recorded."""
        self._follower.on_answered(enriched)

    def on_bar(
        self, instrument_id: InstrumentId, ts_event: int, high: float, low: float, close: float
    ) -> None:
        """Take a bar that the inference loop has accepted, and tell what it resolved."""
        self._follower.on_bar(instrument_id, ts_event, high, low, close)

    def check(self) -> None:
        """Look after what no bar resolved, the ledger's troubles, and the model."""
        self._follower.expire(self._now())
        self._tell_problems()
        self.succession.check()

    def stop(self) -> None:
        """End a retraining that is under way, and write everything that is recorded."""
        self.succession.stop()
        if not self.ledger.close():
            self._log.error(f"the ledger could not be written to its end: {self.ledger.last_error}")

    def _on_outcome(self, row: SignalRow, outcome: SignalOutcome) -> None:
        self.succession.on_outcome(row, outcome)
        self._publish(outcome)

    def _tell_problems(self) -> None:
        for kind, message in (
            ("write_errors", f"the ledger is not written: {self.ledger.last_error}; rows wait in memory"),
            ("dropped", "the ledger has dropped rows, since its buffer is full"),
        ):
            count = self.ledger.counts[kind]
            if count > self._problems_logged.get(kind, 0):
                self._problems_logged[kind] = count
                self._log.error(f"{message} ({count:,} so far)")
