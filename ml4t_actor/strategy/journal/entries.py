"""Entries, each in the journal before it is sent; those of an earlier life are settled by asking the venue."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.model import ClientOrderId, InstrumentId
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.strategy.journal.order_journal import EntryIntent, OrderJournal
from ml4t_actor.strategy.journal.order_status import IntentSettlement, OrderOutcome, OrderStatusSource
from ml4t_actor.strategy.orders.order_ids import entry_id
from ml4t_actor.strategy.orders.trade import Plan, Trade

_LATE_FILL_NS = 60 * SECOND_NS


class Entries:
    """Which entries are being written down, on their way, or left by an earlier life.

    Parameters
    ----------
    strategy : Strategy
        Whose entries these are.
    journal : OrderJournal
        Remembers them.
    counts : Counter[str]
        Of the entries of an earlier life, by what became of them.
    """

    def __init__(self, strategy: Strategy, journal: OrderJournal, counts: Counter[str]) -> None:
        self._strategy, self._journal, self._counts = strategy, journal, counts
        self._pending: set[str] = set()  # instruments
        self._unsettled: dict[str, EntryIntent] = {}  # by the order's id
        # Ended by the venue's word, and when that was known: what was filled may reach the cache a little later, and is
        # known as own by the intent.
        self._ended_ns: dict[str, int] = {}
        self._settlement: IntentSettlement | None = None
        self._on_settled: Callable[[InstrumentId], None] | None = None

    def settle(
        self,
        sources: Mapping[str, OrderStatusSource],
        call_soon: Callable[[Callable[[], None]], None],
        on_settled: Callable[[InstrumentId], None],
    ) -> None:
        """Find out what became of the entries of an earlier life; call back for each whose end is known."""
        self._on_settled = on_settled
        self._unsettled = {i.order_id: i for i in self._journal.open_intents() if not self._end_if_closed(i)}
        for intent in self._unsettled.values():
            self._strategy.log.warning(
                f"what became of {intent} is asked; until then it is not entered there"
            )
        self._settlement = IntentSettlement(sources, call_soon, self._on_outcome, self._on_unsettled)
        self._settlement.start(list(self._unsettled.values()))

    def stop(self) -> None:
        """Ask no more."""
        if self._settlement is not None:
            self._settlement.stop()

    def begin(self, instrument_id: InstrumentId, plan: Plan, then: Callable[[EntryIntent], None]) -> None:
        """Write an entry down; call `then` when that is durable."""
        strategy = self._strategy
        intent = EntryIntent(
            entry_id(strategy, instrument_id, plan.source, plan.signal_id).value,
            plan.source,
            plan.signal_id,
            instrument_id.value,
            plan.side,
            plan.quantity,
            strategy.clock.timestamp_ns(),
        )
        self._pending.add(intent.instrument_id)
        self._journal.begin_entry(intent, partial(self._on_durable, intent, then))

    def is_pending(self, instrument_id: InstrumentId) -> bool:
        """Return whether an entry is being written down."""
        return instrument_id.value in self._pending

    def is_unsettled(self, instrument_id: InstrumentId) -> bool:
        """Return whether it is not known what became of an entry of an earlier life."""
        return any(intent.instrument_id == instrument_id.value for intent in self._unsettled.values())

    def unsettled(self) -> list[EntryIntent]:
        """Return the entries of an earlier life of which it is not known what became."""
        return list(self._unsettled.values())

    def uncertain(self) -> list[EntryIntent]:
        """Return the entries of an earlier life that may have opened, or may yet, what is not known here."""
        now_ns = self._strategy.clock.timestamp_ns()
        return [
            intent
            for intent in self._journal.open_intents()
            if intent.order_id in self._unsettled
            or now_ns - self._ended_ns.get(intent.order_id, -_LATE_FILL_NS) < _LATE_FILL_NS
        ]

    def end_closed(self, instrument_id: InstrumentId, trade: Trade | None) -> None:
        """Close the intents of an instrument whose orders have ended; of one that is unwound that is not known."""
        if trade is not None and trade.unwinding:
            return
        now_ns = self._strategy.clock.timestamp_ns()
        for intent in self._journal.open_intents():
            if intent.instrument_id != instrument_id.value or intent.order_id in self._unsettled:
                continue
            ended_ns = self._ended_ns.get(intent.order_id)
            if ended_ns is None:
                self._end_if_closed(intent)
            elif now_ns - ended_ns > _LATE_FILL_NS:
                del self._ended_ns[intent.order_id]
                self._journal.end_entry(intent.order_id)

    def end_unsent(self, intent: EntryIntent, trade: Trade | None) -> None:
        """Close an intent if it has led to no order."""
        entry = None if trade is None else trade.entry
        if entry is None or entry.client_order_id.value != intent.order_id:
            self._journal.end_entry(intent.order_id)

    def _on_durable(self, intent: EntryIntent, then: Callable[[EntryIntent], None]) -> None:
        self._pending.discard(intent.instrument_id)
        then(intent)

    def _end_if_closed(self, intent: EntryIntent) -> bool:
        order = self._strategy.cache.order(ClientOrderId(intent.order_id))
        if order is None or not order.is_closed:
            return False
        self._journal.end_entry(intent.order_id)
        return True

    def _on_outcome(self, intent: EntryIntent, outcome: OrderOutcome) -> None:
        self._counts["never_sent" if outcome == OrderOutcome.NEVER_SENT else "settled"] += 1
        self._strategy.log.warning(f"{intent}: {outcome.name.lower()} by the venue's word")
        del self._unsettled[intent.order_id]
        if outcome == OrderOutcome.NEVER_SENT:
            self._journal.end_entry(intent.order_id)
        else:
            self._ended_ns[intent.order_id] = self._strategy.clock.timestamp_ns()
        if self._on_settled is not None:
            self._on_settled(InstrumentId.from_str(intent.instrument_id))

    def _on_unsettled(self, intent: EntryIntent, why: str) -> None:
        self._counts["unsettled"] += 1
        self._strategy.log.error(
            f"what became of {intent} is not known, nothing is entered there: {why}. It is asked again; "
            "what you know yourself you can settle while the node is down: `python -m ml4t_actor.strategy --help`"
        )
