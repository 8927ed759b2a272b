"""The strategy's orders, where the venue carries out linked ones itself: in a backtest."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from ml4t_actor.nautilus.model import InstrumentId, OrderSide, OrderStatus, OrderType, PositionSide
from ml4t_actor.nautilus.trading import (
    Instrument,
    Order,
    OrderDenied,
    OrderEvent,
    OrderRejected,
    Position,
    Strategy,
)
from ml4t_actor.strategy.risk import PositionView
from ml4t_actor.strategy.trade import Plan, Trade

Guard = Callable[..., None]
"""Calls a function with arguments, and keeps its exceptions from the engine."""


class Desk:
    """Enters with a bracket of linked orders, and leaves with market orders.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    counts : Counter[str]
        Of the exits, by reason.
    """

    def __init__(self, strategy: Strategy, counts: "Counter[str]") -> None:
        self._strategy, self._counts = strategy, counts
        self.trades: dict[InstrumentId, Trade] = {}

    def enter(self, instrument: Instrument, plan: Plan) -> None:
        """Open a position with a stop and a target."""
        instrument_id = instrument.id
        last = self.trades.get(instrument_id)
        if last is not None:
            self.cancel_exits(last)
        bracket = self._strategy.order_factory.bracket(
            instrument_id=instrument_id,
            order_side=OrderSide.BUY if plan.side > 0 else OrderSide.SELL,
            quantity=instrument.make_qty(plan.quantity),
            entry_order_type=OrderType.MARKET,
            sl_trigger_price=plan.stop,
            tp_price=plan.target,
            tp_post_only=False,
        )
        entry, stop, target = bracket.orders
        self.trades[instrument_id] = Trade(plan.deadline_ns, plan=plan, entry=entry, stop=stop, target=target)
        self._strategy.submit_order_list(bracket)

    def exit(self, instrument_id: InstrumentId, why: str) -> None:
        """Close the position and cancel its stop and target."""
        trade = self._leave(instrument_id, why)
        positions = self.positions(instrument_id)
        trade.closing = [self._closing_order(position) for position in positions]
        self.cancel_exits(trade)
        for position, order in zip(positions, trade.closing, strict=True):
            self._strategy.submit_order(order, position_id=position.id)

    def reduce(self, instrument: Instrument, side: int, quantity: Any, horizon_ns: int) -> None:
        """Close a part of the position."""
        positions = self.positions(instrument.id)
        trade = self.trades.setdefault(instrument.id, Trade(self._strategy.clock.timestamp_ns() + horizon_ns))
        order = self._strategy.order_factory.market(
            instrument.id,
            OrderSide.BUY if side > 0 else OrderSide.SELL,
            instrument.make_qty(quantity),
            reduce_only=True,
        )
        trade.closing = [order]
        self._strategy.submit_order(order, position_id=positions[0].id)

    def cancel_exits(self, trade: Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any.

        The venue cancels the second with the first, since they are linked: a cancel of both would be rejected.
        """
        for order in trade.exits:
            if order.status != OrderStatus.PENDING_CANCEL:
                self._strategy.cancel_order(order)
            return True
        return False

    def found(self, instrument_id: InstrumentId, deadline_ns: int) -> Trade:
        """Return a trade for a position that this desk did not open."""
        trade = self.trades[instrument_id] = Trade(deadline_ns)
        return trade

    def take_event(self, event: OrderEvent) -> bool:
        """Follow up what became of an order; whether it led to orders."""
        instrument_id = event.instrument_id
        trade = self.trades[instrument_id]
        if (
            isinstance(event, OrderRejected | OrderDenied)
            and not trade.in_flight
            and trade.stop is not None
            and trade.stop.client_order_id == event.client_order_id
            and not trade.leaving
            and self.position(instrument_id) is not None
        ):
            self.exit(instrument_id, "no_stop")
            return True
        return False

    def stop(self, instrument_id: InstrumentId) -> None:
        """Cancel what is open and close the position."""
        trade = self.trades.get(instrument_id)
        if trade is None or not trade.in_flight:
            self.exit(instrument_id, "stop")
        elif trade.entry is not None and not trade.entry.is_closed:
            self._strategy.cancel_order(trade.entry)
            self.cancel_exits(trade)

    def positions(self, instrument_id: InstrumentId) -> list[Position]:
        """Return the strategy's open positions in an instrument."""
        positions: list[Position] = self._strategy.cache.positions_open(
            instrument_id=instrument_id, strategy_id=self._strategy.id
        )
        return positions

    def position(self, instrument_id: InstrumentId) -> PositionView | None:
        """Return the strategy's position in an instrument."""
        positions = self.positions(instrument_id)
        if not positions:
            return None
        return PositionView(
            signed_quantity=sum(p.signed_decimal_qty() for p in positions),
            entry_price=positions[-1].avg_px_open,
        )

    def _leave(self, instrument_id: InstrumentId, why: str) -> Trade:
        trade = self.trades.setdefault(instrument_id, Trade(0))
        if self.positions(instrument_id):
            self._counts[f"exit_{why}"] += 1
        trade.leaving = True
        return trade

    def _closing_order(self, position: Position) -> Order:
        return self._strategy.order_factory.market(
            position.instrument_id,
            OrderSide.SELL if position.side == PositionSide.LONG else OrderSide.BUY,
            position.quantity,
            reduce_only=True,
        )
