"""Stop and target of a live position: sent, sent again where they did not arrive, and replaced as it grows."""

import asyncio
from collections import Counter

from ml4t_actor.nautilus.model import OrderStatus, Quantity
from ml4t_actor.nautilus.trading import (
    Order,
    OrderAccepted,
    OrderDenied,
    OrderEvent,
    OrderRejected,
    Position,
    Strategy,
)
from ml4t_actor.strategy.execution.live_orders import LiveOrders, held_quantity
from ml4t_actor.strategy.execution.order_execution import Guard, OrderExecution, closing_side
from ml4t_actor.strategy.orders.order_ids import Leg
from ml4t_actor.strategy.orders.pacing import backoff_ns
from ml4t_actor.strategy.orders.trade import Trade

_DENIED_SECONDS = 0.25


class Protection:
    """Sends stops and targets; what a position without a stop comes to is for the execution to decide.

    Parameters
    ----------
    execution : OrderExecution
        Has the trades and the positions.
    strategy : Strategy
        Whose orders these are.
    orders : LiveOrders
        Sends them.
    counts : Counter[str]
        Of those that were refused.
    guard : Guard
        Calls what the event loop calls back.
    loop : asyncio.AbstractEventLoop
        Of the event thread.
    timeout_ns : int
        After which a target that is not answered is replaced.
    """

    def __init__(
        self,
        execution: OrderExecution,
        strategy: Strategy,
        orders: LiveOrders,
        counts: Counter[str],
        guard: Guard,
        loop: asyncio.AbstractEventLoop,
        timeout_ns: int,
    ) -> None:
        self._execution, self._strategy, self._orders = execution, strategy, orders
        self._counts, self._guard, self._loop = counts, guard, loop
        self._timeout_ns = timeout_ns

    def send_stop(self, trade: Trade) -> None:
        """Send the stop for all of the position, unless that has changed meanwhile."""
        positions, plan = self._execution.positions(trade.instrument_id), trade.plan
        is_current = self._execution.trades.get(trade.instrument_id) is trade
        if not is_current or trade.stop is not None or trade.exit_decided or not positions or plan is None:
            return
        trade.unprotected_ns = trade.unprotected_ns or self._filled_ns(trade, positions[0])
        quantity = Quantity(held_quantity(positions), positions[0].size_precision)
        self._orders.send_stop(trade, closing_side(positions[0]), plan.stop, quantity)

    def grow(self, trade: Trade) -> None:
        """Protect what was filled after the stop was sent; the old one goes when the new one is on its way."""
        held = held_quantity(self._execution.positions(trade.instrument_id))
        if trade.exit_decided or trade.stop is None or trade.stop.quantity.as_decimal() >= held:
            return
        replaced = trade.replaced = trade.exits
        trade.stop = trade.target = None
        self.send_stop(trade)
        for order in replaced:
            self._strategy.cancel_order(order)

    def on_stop_event(self, trade: Trade, event: OrderEvent) -> bool:
        """Send the target when the venue has the stop; return whether the stop is gone for good."""
        stop = trade.stop
        if stop is None or trade.exit_decided:
            return False
        if stop.status == OrderStatus.DENIED:  # it never left the node: too many orders at once
            self._counts["stop_denied"] += 1
            trade.stop = None
            self._loop.call_later(_DENIED_SECONDS, self._guard, self.send_stop, trade)
            return False
        if isinstance(event, OrderAccepted):
            trade.unprotected_ns = 0
            if trade.target is None and not stop.is_closed:
                self._send_target(trade)
        return bool(stop.is_closed)

    def on_target_event(self, event: OrderEvent) -> None:
        """Count a target that did not arrive; `retry_target` sends it again."""
        if isinstance(event, OrderRejected | OrderDenied):
            self._counts["no_target"] += 1
            self._strategy.log.error(f"no target at the venue, it is sent again: {event}")

    def retry_target(self, trade: Trade) -> bool:
        """Send the target that is not at the venue, if it is time to; whether it was sent."""
        target, n_sent = trade.target, trade.attempts[Leg.TARGET]
        if trade.target_price is None or not (target is None or self._is_lost(trade, target)):
            return False
        denied = target is not None and target.status == OrderStatus.DENIED
        if n_sent and self._now_ns() - trade.target_ns < backoff_ns(n_sent, denied=denied):
            return False
        if target is not None and not target.is_closed:  # it may be there, and would be there twice
            self._counts["target_unanswered"] += 1
            trade.replaced.append(target)
            self._strategy.cancel_order(target)
        self._send_target(trade)
        return True

    def _is_lost(self, trade: Trade, target: Order) -> bool:
        """Return whether the venue refused a target, or has not answered it in time."""
        unanswered = (
            target.status == OrderStatus.SUBMITTED and self._now_ns() - trade.target_ns > self._timeout_ns
        )
        return unanswered or target.status in (OrderStatus.REJECTED, OrderStatus.DENIED)

    def _filled_ns(self, trade: Trade, position: Position) -> int:
        """Return since when there is what the stop is for: its fill may have been reported seconds later."""
        filled_ns: int = position.ts_last
        return min(max(filled_ns, trade.sent_ns), self._now_ns())

    def _send_target(self, trade: Trade) -> None:
        stop, price = trade.stop, trade.target_price
        if stop is not None and price is not None:
            trade.target_ns = self._now_ns()
            self._orders.send_target(trade, stop.side, price, stop.leaves_qty)

    def _now_ns(self) -> int:
        now_ns: int = self._strategy.clock.timestamp_ns()
        return now_ns
