"""How an account's day began, and whether it is halted: kept in the journal, for another life of the same day."""

from collections.abc import Iterable
from decimal import Decimal

from ml4t_actor.market_data import DAY_NS, MILLISECOND_NS
from ml4t_actor.nautilus.components import unix_nanos_to_iso8601
from ml4t_actor.nautilus.trading import Instrument
from ml4t_actor.strategy.account.equity import Equity
from ml4t_actor.strategy.account.exposure import account_key
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.journal.order_journal import DayRecord, OrderJournal

_ZERO = Decimal(0)


def resume_day(journal: OrderJournal, equity: Equity, day: int, instruments: Iterable[Instrument]) -> None:
    """Go on with the day that an earlier life began, if it is still the same."""
    for key in {account_key(instrument) for instrument in instruments}:
        record = journal.day(_account_name(key))
        if record is not None and record.day == day:
            equity.resume_day(key, record)


def record_days(journal: OrderJournal, equity: Equity, day: int) -> None:
    """Write down what the journal does not know yet of the day: an entry begun afterwards follows it there."""
    for key, open_equity in equity.opening.items():
        record = DayRecord(
            _account_name(key),
            day,
            open_equity,
            key in equity.halted,
            equity.transferred.get(key, _ZERO),
            equity.funding.get(key, _ZERO),
            equity.unexplained.get(key, _ZERO),
            equity.counted_ms.get(key, 0),
            equity.unsettled.get(key),
        )
        if journal.day(record.account) != record:
            journal.record_day(record)


def day_text(record: DayRecord) -> str:
    """Return what is known of an account's day, in a line."""
    date = unix_nanos_to_iso8601(record.day * DAY_NS)[:10]
    line = (
        f"{record.account}  {date}: opened with {record.open_equity:.2f}, transferred {record.transferred:+.2f}, "
        f"funding {record.funding:+.6f}"
    )
    if record.unexplained:
        line += f", unexplained {record.unexplained:+.2f}"
    if record.counted_ms:
        line += f", by the venue's records up to {unix_nanos_to_iso8601(record.counted_ms * MILLISECOND_NS)}"
    if record.unsettled is not None:
        line += "; what was traded by the opening is not known yet"
    return f"{line}; halted: its loss has reached the limit" if record.halted else line


def _account_name(key: AccountKey) -> str:
    venue, currency = key
    return f"{venue.value} {currency.code}"
