"""Orders in a backtest, whose venue carries out linked ones itself."""

from collections.abc import Callable, Iterable

from ml4t_actor.nautilus.model import InstrumentId, OrderStatus, OrderType
from ml4t_actor.nautilus.trading import (
    Instrument,
    Order,
    OrderDenied,
    OrderEvent,
    OrderRejected,
    Position,
)
from ml4t_actor.strategy.execution.order_execution import OrderExecution, closing_side, order_side
from ml4t_actor.strategy.orders.order_ids import Leg
from ml4t_actor.strategy.orders.trade import Plan, Trade


class BacktestExecution(OrderExecution):
    """Enters with a bracket of linked orders, and exits with market orders.

    Every bar is new, the market is never out of reach, and no event comes after the end, so that some of the interface
    has nothing to do.
    """

    def start(self, instrument_ids: Iterable[InstrumentId]) -> None:
        """Do nothing: a backtest begins without positions."""

    def stop(self, on_order_event: Callable[[OrderEvent], None]) -> None:
        """Do nothing: the engine still carries out what is sent now."""

    def accept_bar(self, instrument_id: InstrumentId, closed_ns: int) -> bool:
        """Return that the bar is new."""
        return True

    def pre_trade_check(self, instrument_id: InstrumentId, plan: Plan) -> str:
        """Return that nothing stands against an entry."""
        return ""

    def enter(self, instrument: Instrument, plan: Plan) -> None:
        """Open a position with a stop and a target."""
        instrument_id = instrument.id
        last = self.trades.get(instrument_id)
        if last is not None:
            self.cancel_exits(last)
        trade = self.trades[instrument_id] = Trade(instrument_id, plan.deadline_ns, plan=plan)
        bracket = self._strategy.order_factory.bracket(
            instrument_id=instrument_id,
            order_side=order_side(plan.side),
            quantity=instrument.make_qty(plan.quantity),
            entry_order_type=OrderType.MARKET,
            sl_trigger_price=plan.stop,
            tp_price=plan.target,
            tp_post_only=False,
            entry_client_order_id=self.attempts.entry_id(instrument_id, plan),
            sl_client_order_id=self.attempts.next_id(trade, Leg.STOP),
            tp_client_order_id=self.attempts.next_id(trade, Leg.TARGET),
        )
        trade.entry, trade.stop, trade.target = bracket.orders
        self._strategy.submit_order_list(bracket)

    def exit(self, instrument_id: InstrumentId, reason: str) -> None:
        """Close the position and cancel its stop and target."""
        trade = self._begin_exit(instrument_id, reason)
        positions = self.positions(instrument_id)
        trade.closing = [self._closing_order(trade, position) for position in positions]
        self.cancel_exits(trade)
        for position, order in zip(positions, trade.closing, strict=True):
            self._strategy.submit_order(order, position_id=position.id)

    def flatten(self, instrument_id: InstrumentId) -> None:
        """Close the position, or cancel an entry on its way."""
        trade = self.trades.get(instrument_id)
        if trade is None or not trade.in_flight:
            self.exit(instrument_id, "stop")
        elif trade.entry is not None and not trade.entry.is_closed:
            self._strategy.cancel_order(trade.entry)
            self.cancel_exits(trade)

    def cancel_exits(self, trade: Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any.

        The venue cancels the second with the first, since they are linked: a cancel of both would be rejected.
        """
        for order in trade.exits:
            if order.status != OrderStatus.PENDING_CANCEL:
                self._strategy.cancel_order(order)
            return True
        return False

    def adopt(self, instrument_id: InstrumentId, deadline_ns: int) -> Trade:
        """Return a trade for a position that was not opened here."""
        trade = self.trades[instrument_id] = Trade(instrument_id, deadline_ns)
        return trade

    def on_order_event(self, event: OrderEvent) -> bool:
        """Close a position whose stop was refused; whether a signal that waits has to wait on."""
        instrument_id = event.instrument_id
        trade = self.trades[instrument_id]
        if (
            isinstance(event, OrderRejected | OrderDenied)
            and not trade.in_flight
            and trade.stop is not None
            and trade.stop.client_order_id == event.client_order_id
            and not trade.exit_decided
            and self.position(instrument_id) is not None
        ):
            self.exit(instrument_id, "no_stop")
            return True
        return False

    def on_position_closed(self) -> None:
        """Do nothing: the engine has settled it."""

    def _closing_order(self, trade: Trade, position: Position) -> Order:
        return self._strategy.order_factory.market(
            position.instrument_id,
            closing_side(position),
            position.quantity,
            reduce_only=True,
            client_order_id=self.attempts.next_id(trade, Leg.EXIT),
        )
