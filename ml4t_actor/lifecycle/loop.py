"""The lifecycle loop: records outcomes, watches the model that serves, and brings both together."""

import math
from collections.abc import Mapping

from ml4t_actor.inference import Answer, InferenceLoop
from ml4t_actor.ledger import Ledger, SignalRow
from ml4t_actor.lifecycle.champion import ChampionLifecycle
from ml4t_actor.lifecycle.host import Host
from ml4t_actor.lifecycle.outcome_recorder import OutcomeRecorder
from ml4t_actor.messages import EnrichedSignal, SignalOutcome
from ml4t_actor.monitoring.monitor import RetrainMonitor
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import LabelSettings


class LifecycleLoop:
    """Follows what becomes of signals, and sees to it that a good model serves.

    All calls belong on the thread of the inference loop, but for the ``check_`` methods of `champion`; what trains
    elsewhere hands its result back.

    Parameters
    ----------
    inference : InferenceLoop
        Its instruments added, its model loaded.
    ledger : Ledger
        The record of everything.
    champion : ChampionLifecycle
        Which model serves, and by which it is followed.
    labels : LabelSettings
        The barriers.
    host : Host
        The clock, the log and the bus.
    has_past : bool, default False
        Whether past bars will be fed at the start.
    """

    def __init__(
        self,
        inference: InferenceLoop,
        ledger: Ledger,
        champion: ChampionLifecycle,
        *,
        labels: LabelSettings,
        host: Host,
        has_past: bool = False,
    ) -> None:
        self.ledger = ledger
        self.champion = champion
        self._host = host
        self._problems_logged: dict[str, int] = {}
        self._outcomes = OutcomeRecorder(
            inference,
            ledger,
            labels,
            on_outcome=self._on_outcome,
            warn=lambda message: host.log.warning(message),
            live=host.live,
            has_past=has_past,
        )

    @property
    def monitor(self) -> RetrainMonitor:
        """What watches the model."""
        return self.champion.monitor

    @property
    def open_signals(self) -> int:
        """Signals whose outcome is not known yet."""
        return self._outcomes.n_open

    def start(self, saved: Mapping[str, bytes] | None = None) -> None:
        """Watch the model that serves; in a live engine first restore what the ledger holds.

        Parameters
        ----------
        saved : mapping of str to bytes, optional
            What `save` returned when the engine was stopped, taken where it is newer than the ledger's.
        """
        if self._host.live:
            self._outcomes.resume(saved or {}, self._host.now())
        self.champion.start()

    def save(self) -> dict[str, bytes]:
        """Return the state of every market, by instrument; empty in a backtest."""
        return self._outcomes.save()

    def add_instrument(self, instrument_id: InstrumentId) -> None:
        """Follow signals for an instrument that the inference loop has been given."""
        self._outcomes.add_instrument(instrument_id)
        self.champion.add_instrument()

    def record(self, answer: Answer) -> None:
        """Record an enriched signal with what it was made from, and follow it."""
        self._outcomes.record(answer)
        self.champion.on_signal(answer)

    def record_unfollowed(self, enriched: EnrichedSignal) -> None:
        """Record a signal that a process before this one has answered and not recorded."""
        self._outcomes.record_unfollowed(enriched)

    def record_outcome(self, source: str, signal_id: str, ret: float, ts_event: int) -> None:
        """Record how a followed signal came out elsewhere; see `OutcomeRecorder.record_outcome`."""
        self._outcomes.record_outcome(source, signal_id, ret, ts_event)

    def on_bar(
        self,
        instrument_id: InstrumentId,
        ts_event: int,
        high: float,
        low: float,
        close: float,
        open: float = math.nan,
    ) -> None:
        """Handle a bar that the inference loop has accepted, and report what it resolved."""
        self._outcomes.on_bar(instrument_id, ts_event, high, low, close, open)

    def check(self) -> None:
        """Look after what no bar resolved, the ledger's troubles, and the model."""
        self._outcomes.expire(self._host.now())
        self._log_ledger_problems()
        self.champion.check()

    def stop(self) -> None:
        """End a retraining that is under way, and write everything that is recorded."""
        self.champion.stop()
        if not self.ledger.close():
            self._host.log.error(f"the ledger could not be written to its end: {self.ledger.last_error}")

    def _on_outcome(self, row: SignalRow, outcome: SignalOutcome) -> None:
        self.champion.on_outcome(row, outcome)
        self._host.publish(outcome)

    def _log_ledger_problems(self) -> None:
        for kind, message in (
            ("write_errors", f"the ledger is not written: {self.ledger.last_error}; rows wait in memory"),
            ("dropped", "the ledger has dropped rows, since its buffer is full"),
        ):
            count = self.ledger.counts[kind]
            if count > self._problems_logged.get(kind, 0):
                self._problems_logged[kind] = count
                self._host.log.error(f"{message} ({count:,} so far)")
