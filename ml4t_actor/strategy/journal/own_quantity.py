"""How much of the venue's positions is the strategy's own: what its own orders were filled for."""

from collections.abc import Iterable
from decimal import Decimal

from ml4t_actor.nautilus.model import InstrumentId, OrderSide
from ml4t_actor.nautilus.trading import Order, OrderEvent, OrderFilled, Strategy
from ml4t_actor.strategy.journal.order_journal import OrderJournal
from ml4t_actor.strategy.orders.attempts import OrderAttempts

_ZERO = Decimal(0)


class OwnQuantity:
    """The sum of the fills of the strategy's own orders, across its lives, an instrument.

    A venue that nets positions by account cannot tell them from what was traded by hand. What was filled while the node
    was down is not known either: own stops and targets may have reduced the position, and an entry whose end is not
    known may have opened it. So a position that these can explain is own, and no other.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    journal : OrderJournal
        Remembers the quantities, and the entries whose end is not known.
    attempts : OrderAttempts
        Knows which orders are own.
    """

    def __init__(self, strategy: Strategy, journal: OrderJournal, attempts: OrderAttempts) -> None:
        self._strategy, self._journal, self._attempts = strategy, journal, attempts

    def start(self) -> None:
        """Add up fills from now on, beyond the strategy's stop too."""
        self._strategy.msgbus.subscribe(topic=f"events.order.{self._strategy.id}", handler=self._on_event)

    def explains(self, instrument_id: InstrumentId, held: Decimal) -> bool:
        """Return whether a signed position at the venue is own; if so remember it."""
        own = self.quantity(instrument_id)
        entering = [
            intent.side * intent.quantity
            for intent in self._journal.open_intents()
            if intent.instrument_id == instrument_id.value
        ]
        low = min(own, _ZERO) + sum((q for q in entering if q < 0), _ZERO)
        high = max(own, _ZERO) + sum((q for q in entering if q > 0), _ZERO)
        is_own = low <= held <= high
        if is_own:
            self.set(instrument_id, held)
        return is_own

    def quantity(self, instrument_id: InstrumentId) -> Decimal:
        """Return how much is own."""
        return self._journal.own_quantity(instrument_id.value)

    def resume(self, orders: Iterable[Order]) -> None:
        """Count orders of an earlier life as own."""
        for order in orders:
            self._attempts.remember(order.client_order_id)

    def set(self, instrument_id: InstrumentId, quantity: Decimal) -> None:
        """Remember how much is own."""
        self._journal.record_quantity(instrument_id.value, quantity)

    def _on_event(self, event: OrderEvent) -> None:
        if isinstance(event, OrderFilled) and self._attempts.was_made(event.client_order_id):
            side = 1 if event.order_side == OrderSide.BUY else -1
            self.set(
                event.instrument_id, self.quantity(event.instrument_id) + side * event.last_qty.as_decimal()
            )
