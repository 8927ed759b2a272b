"""Which signals may do what: by their age, their status, their source and what was entered before."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ml4t_actor.market_data import MILLISECOND_NS, SECOND_NS
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.nautilus.model import BarType, InstrumentId
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.journal.order_journal import OrderJournal
from ml4t_actor.strategy.views import PositionView


@dataclass(frozen=True, slots=True)
class FullSizeSignal:
    """A signal to be traded at full size, as if nothing were known about it."""

    signal: int
    status: str
    strength: float = 1.0
    meta_confidence: float = 1.0
    regime_weight: float = 1.0
    toxicity: float = 0.0
    expected_return: float = 1e9  # beyond any ramp, of a volatility of one
    volatility: float = 1.0


class SignalPolicy:
    """Says what a signal may not do, from the configuration and the journal alone.

    Parameters
    ----------
    config : EnrichedSignalStrategyConfig
        For the greatest age, the clock skew, the statuses that open and the cooldown.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    journal : OrderJournal
        Of what was entered.
    counts : Counter[str]
        Of the signals that are refused.
    """

    def __init__(
        self,
        config: EnrichedSignalStrategyConfig,
        bar_types: Mapping[InstrumentId, BarType],
        journal: OrderJournal,
        counts: Counter[str],
    ) -> None:
        self._bar_types, self._journal, self._counts = bar_types, journal, counts
        self._max_age_ns = int(config.max_signal_age * SECOND_NS)
        self._max_skew_ns = config.max_clock_skew_ms * MILLISECOND_NS
        self._statuses = frozenset(config.trade_statuses)
        self._cooldown_bars = config.cooldown_bars
        self._exit_on_signal = config.labels.exit_on_signal
        self._flips_refused: dict[InstrumentId, int] = {}  # when the last one was

    def accept(self, enriched: EnrichedSignal, now: int) -> bool:
        """Return whether a signal may do anything at all; count it if not."""
        reason = self._refusal(enriched, now)
        if reason:
            self._counts[reason] += 1
        return not reason

    def owns(self, enriched: EnrichedSignal) -> bool:
        """Return whether a position that is there belongs to the source of the signal.

        One of which nobody knows the source may be closed by any.
        """
        entry = self._journal.newest_entry(enriched.instrument_id.value)
        return entry is None or entry.source == enriched.source

    def leaves_open(self, enriched: EnrichedSignal, position: PositionView | None) -> bool:
        """Return whether a zero or opposite signal leaves the position to its barriers, as its labels do."""
        if self._exit_on_signal or position is None:
            return False
        held = position.signed_quantity
        return bool(held != 0 and enriched.signal * held <= 0)

    def why_not_open(self, enriched: EnrichedSignal, now: int) -> str:
        """Return why a signal may not open a position, or an empty string."""
        if enriched.status not in self._statuses:
            return "no_answer"
        if now - enriched.ts_event > self._max_age_ns:  # it has waited
            return "expired_here"
        if self._journal.was_entered(enriched.source, enriched.signal_id):
            return "entered_before"
        return "cooldown" if self._is_cooling_down(enriched, now) else ""

    def _refusal(self, enriched: EnrichedSignal, now: int) -> str:
        if enriched.status == Status.EXPIRED:  # what its source wants by now is not known
            return "expired"
        age_ns = now - enriched.ts_event
        if age_ns > self._max_age_ns:
            return "expired_here"
        if age_ns < -self._max_skew_ns:
            return "future"
        return "entered_before" if self._journal.was_entered(enriched.source, enriched.signal_id) else ""

    def _is_cooling_down(self, enriched: EnrichedSignal, now: int) -> bool:
        instrument_id = enriched.instrument_id
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        # Live, signals come a little after the closes, sooner or later: half a bar is none.
        cooldown_ns = self._cooldown_bars * interval_ns + interval_ns // 2
        if self._cooldown_bars == 0:
            return False
        entry = self._journal.newest_entry(instrument_id.value)
        if entry is not None and entry.side == -enriched.signal and now - entry.ts < cooldown_ns:
            self._flips_refused[instrument_id] = now
            return True
        return now - self._flips_refused.get(instrument_id, -cooldown_ns) < cooldown_ns
