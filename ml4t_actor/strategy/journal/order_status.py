"""What became of an order, asked of the venue by its client order id, off the event thread."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Protocol

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.strategy.journal.order_journal import EntryIntent

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_TRANSIT_NS = 10 * SECOND_NS  # in which what a killed process has sent may still arrive


class OrderOutcome(Enum):
    """What a venue says of an order."""

    NEVER_SENT = auto()
    """The venue has never seen it, by its own word and not for want of an answer."""
    OPEN = auto()
    """It may still be filled."""
    ENDED = auto()
    """Filled, cancelled or refused; a position is known from the reconciliation."""


class OrderStatusSource(Protocol):
    """Asks a venue; called on a thread of its own, where it may wait, but not without end."""

    def outcome(self, order_id: str) -> OrderOutcome:
        """Return what became of the order with this client order id; raise whatever else than that was answered."""


class EndedWithProcess:
    """The venue is simulated: its orders end with the process that sent them."""

    def outcome(self, order_id: str) -> OrderOutcome:
        """Return that it ended."""
        return OrderOutcome.ENDED


class IntentSettlement:
    """Asks the venues about entries of an earlier life until the end of each is known.

    Parameters
    ----------
    sources : Mapping[str, OrderStatusSource]
        By venue.
    call_soon : callable
        Calls a function on the event thread, from any.
    on_settled : callable
        Called on the event thread with an entry whose end is known, and what it is.
    on_unsettled : callable
        Called on the event thread, after each attempt, with an entry about which nothing can be said, and why.
    """

    def __init__(
        self,
        sources: Mapping[str, OrderStatusSource],
        call_soon: Callable[[Callable[[], None]], None],
        on_settled: Callable[[EntryIntent, OrderOutcome], None],
        on_unsettled: Callable[[EntryIntent, str], None],
    ) -> None:
        self._sources, self._call_soon = sources, call_soon
        self._on_settled, self._on_unsettled = on_settled, on_unsettled
        self._stop = threading.Event()

    def start(self, intents: Sequence[EntryIntent]) -> None:
        """Begin to ask."""
        if intents:
            threading.Thread(
                target=self._run, args=(list(intents),), name="order status", daemon=True
            ).start()

    def stop(self) -> None:
        """Ask no more; an answer on its way is not passed on."""
        self._stop.set()

    def _run(self, intents: list[EntryIntent]) -> None:
        pause_s = _FIRST_PAUSE_S
        while intents:
            intents = [intent for intent in intents if not self._settle(intent)]
            if self._stop.wait(pause_s if intents else 0.0):
                return
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)

    def _settle(self, intent: EntryIntent) -> bool:
        """Ask once; return whether the end is known."""
        venue = InstrumentId.from_str(intent.instrument_id).venue.value
        source = self._sources.get(venue)
        if source is None:
            self._call(self._on_unsettled, intent, f"nothing here can ask {venue} about an order")
            return False
        try:
            outcome = source.outcome(intent.order_id)
        except Exception as e:  # of any adapter, and of the network
            self._call(self._on_unsettled, intent, f"{venue} gave no answer: {e!r}")
            return False
        if outcome == OrderOutcome.OPEN:
            self._call(self._on_unsettled, intent, f"it is still open at {venue}")
            return False
        if outcome == OrderOutcome.NEVER_SENT and time.time_ns() - intent.ts < _TRANSIT_NS:
            self._call(self._on_unsettled, intent, f"{venue} does not know it yet")
            return False
        self._call(self._on_settled, intent, outcome)
        return True

    def _call[T](self, function: Callable[[EntryIntent, T], None], intent: EntryIntent, what: T) -> None:
        if not self._stop.is_set():
            self._call_soon(partial(function, intent, what))
