"""How an account's day began, and whether it is halted: kept in the journal, for another life of the same day."""

from collections.abc import Iterable
from decimal import Decimal

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
        )
        if journal.day(record.account) != record:
            journal.record_day(record)


def _account_name(key: AccountKey) -> str:
    venue, currency = key
    return f"{venue.value} {currency.code}"
