"""What the strategies' journals know of orders and positions, without the node that writes them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from itertools import product
from typing import NamedTuple

from ml4t_actor.node.config import StrategyPlan
from ml4t_actor.strategy.journal.sqlite_journal import read_orders
from ml4t_actor.strategy.orders.order_ids import Leg, order_id

N_ENTRIES = 200  # the newest: what is open stems from them
N_ATTEMPTS = 5
_ZERO = Decimal(0)


class OwnOrders(NamedTuple):
    """What is known of the orders of the strategies.

    Attributes
    ----------
    held : Mapping[str, tuple[Decimal, Decimal]]
        The least and the most signed quantity that own orders explain, by instrument: own exits may have been filled
        while no node ran, and entries whose end is not known.
    client_ids : Collection[str]
        Ids, as the venue has them, of orders that entries led to.
    """

    held: Mapping[str, tuple[Decimal, Decimal]]
    client_ids: Collection[str]


def read_own_orders(
    strategies: Iterable[StrategyPlan], account: str, client_id_of: Callable[[str], str]
) -> OwnOrders:
    """Return what is the strategies' own, by their journals.

    Parameters
    ----------
    strategies : iterable of StrategyPlan
        The strategies.
    account : str
        Name of the account, as order ids have it.
    client_id_of : callable
        Returns under which id the venue has an order.

    Raises
    ------
    JournalError
        If a journal is in use, or is none.
    """
    held: dict[str, tuple[Decimal, Decimal]] = {}
    client_ids: set[str] = set()
    for strategy in strategies:
        path = strategy.config.journal_file(strategy.name)
        if not path.exists():
            continue
        stored = read_orders(path, N_ENTRIES)
        for name, quantity in stored.quantities.items():
            held[name] = (min(quantity, _ZERO), max(quantity, _ZERO))
        for entry in stored.entries:
            if entry.order_id in stored.unsettled:
                low, high = held.get(entry.instrument_id, (_ZERO, _ZERO))
                signed = entry.side * entry.quantity
                held[entry.instrument_id] = (low + min(signed, _ZERO), high + max(signed, _ZERO))
            client_ids.add(client_id_of(entry.order_id))
            for leg, attempt in product(Leg, range(1, N_ATTEMPTS + 1)):
                own = order_id(account, strategy.name, entry.source, entry.signal_id, leg, attempt)
                client_ids.add(client_id_of(own.value))
    return OwnOrders(held, client_ids)
