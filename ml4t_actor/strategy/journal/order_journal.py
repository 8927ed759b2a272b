"""What the strategy must not forget: signals that were entered, entries on their way, and how a day began."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple, Protocol


class JournalError(RuntimeError):
    """The journal's file cannot be used."""


class EntryIntent(NamedTuple):
    """An entry that is about to be sent, or was.

    Attributes
    ----------
    order_id : str
        The entry's client order id.
    source, signal_id : str
        Of the signal that led to it.
    instrument_id : str
        What is entered.
    side : int
        1 buys, -1 sells.
    quantity : Decimal
        To enter.
    ts : int
        When it was decided, UNIX nanoseconds.
    """

    order_id: str
    source: str
    signal_id: str
    instrument_id: str
    side: int
    quantity: Decimal
    ts: int


class UnsettledOpening(NamedTuple):
    """When the opening equity of a day was taken, while it was not known what had been traded by then.

    Attributes
    ----------
    ts_ms : int
        UNIX milliseconds.
    prices : Mapping[str, Decimal]
        By the venue's names of the instruments, those at which positions are worth what they are in it.
    """

    ts_ms: int
    prices: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class DayRecord:
    """How an account's day began, and whether its loss has reached the limit.

    Attributes
    ----------
    account : str
        Which account.
    day : int
        Days since 1970 in UTC.
    open_equity : Decimal
        At the first look of the day.
    halted : bool
        Whether nothing is entered any more that day.
    transferred : Decimal
        What was paid in, less what was paid out, since the opening.
    funding : Decimal
        What was received of it since then; negative where it was paid.
    unexplained : Decimal
        What was gained since then, negative where lost, that no trade, funding or transfer explains.
    counted_ms : int
        Up to which time, by the venue's clock in UNIX milliseconds, its records are in these; 0 where it was not asked.
    unsettled : UnsettledOpening, optional
        Where the opening is not known for certain, when it was taken and by which prices.
    """

    account: str
    day: int
    open_equity: Decimal
    halted: bool
    transferred: Decimal = Decimal(0)
    funding: Decimal = Decimal(0)
    unexplained: Decimal = Decimal(0)
    counted_ms: int = 0
    unsettled: UnsettledOpening | None = None


class OrderJournal(Protocol):
    """Remembers for the strategy; all but the writing of a file happens on the event thread."""

    def was_entered(self, source: str, signal_id: str) -> bool:
        """Return whether an entry was begun for this signal, in whichever life."""

    def begin_entry(self, intent: EntryIntent, then: Callable[[], None]) -> None:
        """Remember an entry; when that is durable call `then`, on the event thread."""

    def end_entry(self, order_id: str) -> None:
        """Remember that what became of an entry is known."""

    def open_intents(self) -> list[EntryIntent]:
        """Return the entries whose end is not known, in the order in which they were begun."""

    def day(self, account: str) -> DayRecord | None:
        """Return the newest day of an account, None if there was none."""

    def record_day(self, record: DayRecord, then: Callable[[], None] | None = None) -> None:
        """Remember a day; when that is durable call `then`, on the event thread.

        Of a day that is known already the older opening stays once it is settled, and so does a halt; the rest is
        replaced.
        """

    def days(self) -> list[DayRecord]:
        """Return the newest day of each account."""

    def newest_entry(self, instrument_id: str) -> EntryIntent | None:
        """Return the entry in an instrument that was begun last, None if there was none."""

    def want_exit(self, instrument_id: str) -> None:
        """Remember that a position is to be closed, even by another life."""

    def end_exit(self, instrument_id: str) -> None:
        """Remember that no position is to be closed any more."""

    def exits_wanted(self) -> list[str]:
        """Return the instruments whose positions are to be closed."""

    def own_quantity(self, instrument_id: str) -> Decimal:
        """Return the signed quantity that own orders were filled for, as last recorded."""

    def record_quantity(self, instrument_id: str, quantity: Decimal) -> None:
        """Remember the signed quantity that own orders were filled for."""

    def close(self, timeout_s: float) -> bool:
        """Write what waits, and end; whether all is durable."""


class MemoryJournal:
    """Remembers as long as it lives: for a backtest.

    Examples
    --------
    >>> journal = MemoryJournal()
    >>> journal.begin_entry(EntryIntent("id", "momentum", "42", "BTC", 1, Decimal(1), 0), lambda: print("sent"))
    sent
    >>> journal.was_entered("momentum", "42")
    True
    """

    def __init__(self) -> None:
        self._entered: set[tuple[str, str]] = set()
        self._open: dict[str, EntryIntent] = {}
        self._newest: dict[str, EntryIntent] = {}
        self._days: dict[str, DayRecord] = {}
        self._exits: set[str] = set()
        self._quantities: dict[str, Decimal] = {}

    def was_entered(self, source: str, signal_id: str) -> bool:
        """Return whether an entry was begun for this signal."""
        return (source, signal_id) in self._entered

    def begin_entry(self, intent: EntryIntent, then: Callable[[], None]) -> None:
        """Remember an entry and call `then`."""
        self._remember_entry(intent)
        then()

    def end_entry(self, order_id: str) -> None:
        """Remember that what became of an entry is known."""
        self._open.pop(order_id, None)

    def open_intents(self) -> list[EntryIntent]:
        """Return the entries whose end is not known, in the order in which they were begun."""
        return list(self._open.values())

    def day(self, account: str) -> DayRecord | None:
        """Return the newest day of an account, None if there was none."""
        return self._days.get(account)

    def days(self) -> list[DayRecord]:
        """Return the newest day of each account."""
        return list(self._days.values())

    def record_day(self, record: DayRecord, then: Callable[[], None] | None = None) -> None:
        """Remember a day and call `then`."""
        self._days[record.account] = merge_days(self._days.get(record.account), record)
        if then is not None:
            then()

    def newest_entry(self, instrument_id: str) -> EntryIntent | None:
        """Return the entry in an instrument that was begun last, None if there was none."""
        return self._newest.get(instrument_id)

    def want_exit(self, instrument_id: str) -> None:
        """Remember that a position is to be closed."""
        self._exits.add(instrument_id)

    def end_exit(self, instrument_id: str) -> None:
        """Remember that no position is to be closed any more."""
        self._exits.discard(instrument_id)

    def exits_wanted(self) -> list[str]:
        """Return the instruments whose positions are to be closed."""
        return sorted(self._exits)

    def own_quantity(self, instrument_id: str) -> Decimal:
        """Return the signed quantity that own orders were filled for, as last recorded."""
        return self._quantities.get(instrument_id, Decimal(0))

    def record_quantity(self, instrument_id: str, quantity: Decimal) -> None:
        """Remember the signed quantity that own orders were filled for."""
        self._quantities[instrument_id] = quantity

    def close(self, timeout_s: float) -> bool:
        """Do nothing: all is remembered already."""
        return True

    def _remember_entry(self, intent: EntryIntent) -> None:
        self._entered.add((intent.source, intent.signal_id))
        self._newest[intent.instrument_id] = intent
        self._open[intent.order_id] = intent


def merge_days(known: DayRecord | None, new: DayRecord) -> DayRecord:
    """Return the newer day; of one day the older opening, if settled, and what is newly known, halted if either is."""
    if known is None or new.day > known.day:
        return new
    if new.day < known.day:
        return known
    halted = known.halted or new.halted
    if known.unsettled is not None:
        return replace(new, halted=halted)
    return replace(new, open_equity=known.open_equity, unsettled=None, halted=halted)
