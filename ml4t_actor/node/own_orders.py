"""What the strategies' journals know of orders and positions, without the node that writes them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import NamedTuple

from ml4t_actor.node.config import StrategyPlan
from ml4t_actor.strategy.journal import EntryIntent
from ml4t_actor.strategy.order_ids import Leg, order_id
from ml4t_actor.strategy.sqlite_journal import read_entries

N_ENTRIES = 200  # the newest: what is open stems from them
N_ATTEMPTS = 5


class OwnOrders(NamedTuple):
    """What is known of the orders of the strategies.

    Attributes
    ----------
    newest : Mapping[str, EntryIntent]
        The entry that was begun last, by instrument.
    client_ids : Collection[str]
        Ids, as the venue has them, of orders that entries led to.
    """

    newest: Mapping[str, EntryIntent]
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
    newest: dict[str, EntryIntent] = {}
    client_ids: set[str] = set()
    for strategy in strategies:
        path = strategy.config.journal_file(strategy.name)
        for entry in read_entries(path, N_ENTRIES) if path.exists() else ():
            newest[entry.instrument_id] = entry
            client_ids.add(client_id_of(entry.order_id))
            for leg, attempt in product(Leg, range(1, N_ATTEMPTS + 1)):
                own = order_id(account, strategy.name, entry.source, entry.signal_id, leg, attempt)
                client_ids.add(client_id_of(own.value))
    return OwnOrders(newest, client_ids)
