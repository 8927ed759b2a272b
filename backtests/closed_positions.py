"""Positions that net, without what NautilusTrader 1.231.0 does about each past one."""

from nautilus_trader.core.message import Event
from nautilus_trader.model.events import PositionClosed
from nautilus_trader.system.kernel import NautilusKernel


class ClosedPositions:
    """Counts positions as they are closed, and purges each from the cache.

    A position that nets keeps its id when it is opened again, and Nautilus a pickled snapshot of what it was. Each
    close in one instrument makes its portfolio drop what it had summed up of the others' snapshots, so that the next
    close in those reads all of them again; each fill also walks through all orders that ever had the id. Both grow
    with the square of the number of trades. A position that is purged leaves neither, and what is opened next begins
    anew, as where positions hedge. The account is not concerned: its balances follow from fills.

    Parameters
    ----------
    kernel : NautilusKernel
        Of a backtest's engine, before it runs.

    Attributes
    ----------
    count : int
        How many were closed.
    """

    def __init__(self, kernel: NautilusKernel) -> None:
        self._cache = kernel.cache
        self.count = 0
        # Strategies subscribed when they were added: they have handled the event when it comes here.
        kernel.msgbus.subscribe(topic="events.position.*", handler=self._handle)

    def _handle(self, event: Event) -> None:
        if not isinstance(event, PositionClosed):
            return
        self.count += 1
        position = self._cache.position(event.position_id)
        if position is not None and position.is_closed:  # one fill may have flipped it
            self._cache.purge_position(position.id)
