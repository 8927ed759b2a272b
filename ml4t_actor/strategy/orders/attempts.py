"""Numbers the orders of each trade, so that none is submitted under an id that was used before."""

from ml4t_actor.nautilus.model import ClientOrderId, InstrumentId
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.strategy.orders.order_ids import Leg, account_of, entry_id, order_id
from ml4t_actor.strategy.orders.trade import Plan, Trade


class OrderAttempts:
    """Derives the ids of a strategy's orders and counts the attempts at each leg of a trade.

    Nautilus denies an order whose id was used, and takes the one that used it for closed. A trade that no signal of
    this life opened counts its attempts under the time at which it was resumed: how often an earlier life tried is not
    known.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._made: set[ClientOrderId] = set()

    def remember(self, client_order_id: ClientOrderId) -> None:
        """Take an id of an earlier life for one that was given."""
        self._made.add(client_order_id)

    def was_made(self, client_order_id: ClientOrderId) -> bool:
        """Return whether an id was given to an order."""
        return client_order_id in self._made

    def entry_id(self, instrument_id: InstrumentId, plan: Plan) -> ClientOrderId:
        """Return the id of the entry that a plan leads to, of which there is one only."""
        new = entry_id(self._strategy, instrument_id, plan.source, plan.signal_id)
        self._made.add(new)
        return new

    def next_id(self, trade: Trade, leg: Leg) -> ClientOrderId:
        """Return the id of the next attempt at a leg."""
        if trade.plan is not None:
            source, signal_id = trade.plan.source, trade.plan.signal_id
        else:
            if trade.resumed_ns == 0:
                trade.resumed_ns = self._strategy.clock.timestamp_ns()
            source, signal_id = "", f"{trade.instrument_id}@{trade.resumed_ns}"
        account, strategy = account_of(self._strategy, trade.instrument_id), str(self._strategy.id)
        while True:
            trade.attempts[leg] += 1
            new = order_id(account, strategy, source, signal_id, leg, trade.attempts[leg])
            if not self._strategy.cache.order_exists(new):
                self._made.add(new)
                return new
