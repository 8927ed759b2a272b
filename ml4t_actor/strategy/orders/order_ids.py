"""Client order ids that follow from what an order is for, so that none is ever sent twice, in whichever process."""

import hashlib
from enum import StrEnum

from ml4t_actor.nautilus.model import ClientOrderId, InstrumentId
from ml4t_actor.nautilus.trading import Strategy

_LENGTH = 32  # the longest that venues take, and half of a SHA-256 in hexadecimal digits


class Leg(StrEnum):
    """What an order is for."""

    ENTRY = "entry"
    STOP = "stop"
    TARGET = "target"
    EXIT = "exit"
    REDUCE = "reduce"


def order_id(
    account: str, strategy: str, source: str, signal_id: str, leg: Leg, attempt: int
) -> ClientOrderId:
    """Return the client order id of one attempt at one leg of the trade that a signal led to.

    The same in every process and release: a journal and a venue are looked up by it.

    Parameters
    ----------
    account : str
        Whose position it is.
    strategy : str
        The strategy's id.
    source, signal_id : str
        Of the signal; both empty for a position that no signal opened.
    leg : Leg
        What the order is for.
    attempt : int
        Counts from 1; an entry has no second one.

    Returns
    -------
    ClientOrderId
        32 hexadecimal digits.

    Examples
    --------
    >>> order_id("HYPERLIQUID-master", "Trader-001", "momentum", "42", Leg.ENTRY, 1).value
    'afc75194a70172082594b29584044eac'
    """
    digest = hashlib.sha256()
    for part in (account, strategy, source, signal_id, leg.value, str(attempt)):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))  # or "a" + "bc" would be "ab" + "c"
        digest.update(encoded)
    return ClientOrderId(digest.hexdigest()[:_LENGTH])


def account_of(strategy: Strategy, instrument_id: InstrumentId) -> str:
    """Return the name of the account that an instrument is traded with, as the ids have it."""
    account = strategy.portfolio.account(instrument_id.venue)
    name: str = instrument_id.venue.value if account is None else account.id.value
    return name


def entry_id(strategy: Strategy, instrument_id: InstrumentId, source: str, signal_id: str) -> ClientOrderId:
    """Return the client order id of the one entry that a signal may lead to."""
    account = account_of(strategy, instrument_id)
    return order_id(account, strategy.id.value, source, signal_id, Leg.ENTRY, 1)
