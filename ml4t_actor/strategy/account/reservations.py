"""What entries on their way will take of an account's limits, until their positions count themselves."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.nautilus.model import Currency, InstrumentId, Venue

AccountKey = tuple[Venue, Currency]

_ZERO = Decimal(0)


class Reservation(NamedTuple):
    """What one entry takes of its account's limits.

    Attributes
    ----------
    account : AccountKey
        Whose limits.
    instrument_id : InstrumentId
        What is entered.
    notional : Decimal
        Of the whole order.
    risk : Decimal
        What the whole position loses up to its stop, costs included.
    """

    account: AccountKey
    instrument_id: InstrumentId
    notional: Decimal
    risk: Decimal


class Reservations:
    """Reserves notional and risk for each entry from its decision to its end.

    Examples
    --------
    >>> from ml4t_actor.nautilus.model import Currency, InstrumentId, Venue
    >>> account = Venue("HYPERLIQUID"), Currency.from_str("USDC")
    >>> btc = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
    >>> reservations = Reservations()
    >>> reservations.reserve("the entry's id", account, btc, Decimal(1_000), Decimal(10))
    >>> reservations.notional(account), reservations.risk(account)
    (Decimal('1000'), Decimal('10'))
    >>> reservations.release("the entry's id")
    >>> reservations.notional(account)
    Decimal('0')
    """

    def __init__(self) -> None:
        self._reserved: dict[str, Reservation] = {}
        self._sent: set[str] = set()

    def reserve(
        self,
        order_id: str,
        account: AccountKey,
        instrument_id: InstrumentId,
        notional: Decimal,
        risk: Decimal,
    ) -> None:
        """Reserve for an entry that is decided; what its id had reserved before is replaced."""
        self.release(order_id)
        self._reserved[order_id] = Reservation(account, instrument_id, notional, risk)

    def mark_sent(self, order_id: str) -> None:
        """Remember that an entry was sent: from now on the end of its order is the end of the reservation."""
        if order_id in self._reserved:
            self._sent.add(order_id)

    def release(self, order_id: str) -> None:
        """Release what an entry had reserved, when its end is known; an unknown id is no error."""
        self._reserved.pop(order_id, None)
        self._sent.discard(order_id)

    def release_ended(self, may_enter: Callable[[InstrumentId], bool]) -> None:
        """Release for the entries that were sent, and whose instrument's entry can't open anything any more."""
        for order_id in [i for i in self._sent if not may_enter(self._reserved[i].instrument_id)]:
            self.release(order_id)

    def notional(self, account: AccountKey) -> Decimal:
        """Return the notional that is reserved of an account."""
        return sum((entry.notional for entry in self.of(account)), _ZERO)

    def risk(self, account: AccountKey) -> Decimal:
        """Return the risk that is reserved of an account."""
        return sum((entry.risk for entry in self.of(account)), _ZERO)

    def of(self, account: AccountKey) -> Iterator[Reservation]:
        """Iterate over an account's reservations."""
        return (entry for entry in self._reserved.values() if entry.account == account)
