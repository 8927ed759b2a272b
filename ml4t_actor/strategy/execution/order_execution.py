"""What carries out the strategy's decisions: one interface, with an implementation for backtests and a live one."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Protocol

from ml4t_actor.nautilus.model import InstrumentId, OrderSide, PositionSide
from ml4t_actor.nautilus.trading import Instrument, OrderEvent, Position, Strategy
from ml4t_actor.strategy.orders.attempts import OrderAttempts
from ml4t_actor.strategy.orders.order_ids import Leg
from ml4t_actor.strategy.orders.trade import Plan, Trade
from ml4t_actor.strategy.views import PositionView


class Guard(Protocol):
    """Calls a function with arguments, and keeps its exceptions from the engine."""

    def __call__[*Arguments](self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call the function."""


class OrderExecution(ABC):
    """Enters and exits positions, one trade an instrument at a time.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    counts : Counter[str]
        Of the exits, by reason.

    Attributes
    ----------
    trades : dict[InstrumentId, Trade]
        The latest trade of each instrument, until nothing is left of it.
    attempts : OrderAttempts
        Gives the orders their ids.
    """

    def __init__(self, strategy: Strategy, counts: Counter[str]) -> None:
        self._strategy, self._counts = strategy, counts
        self.trades: dict[InstrumentId, Trade] = {}
        self.attempts = OrderAttempts(strategy)

    @abstractmethod
    def start(self, instrument_ids: Iterable[InstrumentId]) -> None:
        """Begin to trade these instruments."""

    @abstractmethod
    def stop(self, on_order_event: Callable[[OrderEvent], None]) -> None:
        """End with the strategy; call the handler with the events that come after its stop."""

    @abstractmethod
    def accept_bar(self, instrument_id: InstrumentId, closed_ns: int) -> bool:
        """Return whether a bar that closed then is newer than those before."""

    def is_foreign(self, instrument_id: InstrumentId) -> bool:
        """Whether the position is not explained by own orders, so that the instrument is left alone."""
        return False

    def foreign_positions(self) -> dict[InstrumentId, Decimal]:
        """Return how much of the position is not own, by instrument that is left alone."""
        return {}

    def is_settled(self) -> bool:
        """Whether nothing is on its way, nor to be closed."""
        return True

    def unprotected(self) -> list[str]:
        """Return what the venue holds or may hold without a stop, an item an instrument."""
        return []

    def entry_price(self, instrument_id: InstrumentId, side: int, close: float) -> float:
        """Return what an entry would be filled at now, when the last close is this."""
        return close

    def acquire_turn(self) -> float:
        """Return how many seconds an entry has to wait for its turn; 0 if it is now, and taken by this."""
        return 0.0

    @abstractmethod
    def pre_trade_check(self, instrument_id: InstrumentId, plan: Plan) -> str:
        """Return why the market does not allow an entry now, or an empty string."""

    @abstractmethod
    def enter(self, instrument: Instrument, plan: Plan) -> None:
        """Open a position with a stop and a target."""

    @abstractmethod
    def exit(self, instrument_id: InstrumentId, reason: str) -> None:
        """Close the position and cancel its stop and target."""

    @abstractmethod
    def flatten(self, instrument_id: InstrumentId) -> None:
        """Close the position at a stop of the strategy, and see to an entry on its way."""

    @abstractmethod
    def cancel_exits(self, trade: Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any."""

    @abstractmethod
    def adopt(self, instrument_id: InstrumentId, deadline_ns: int) -> Trade | None:
        """Return a trade for a position that was not opened here, None if it is to be left alone."""

    @abstractmethod
    def on_order_event(self, event: OrderEvent) -> bool:
        """Follow up what became of an order; whether a signal that waits for it has to wait on."""

    @abstractmethod
    def on_position_closed(self) -> None:
        """Follow up the end of a position."""

    def reduce(self, instrument: Instrument, side: int, quantity: Decimal, horizon_ns: int) -> None:
        """Close a part of the position."""
        positions = self.positions(instrument.id)
        deadline_ns = self._strategy.clock.timestamp_ns() + horizon_ns
        trade = self.trades.setdefault(instrument.id, Trade(instrument.id, deadline_ns))
        order = self._strategy.order_factory.market(
            instrument.id,
            order_side(side),
            instrument.make_qty(quantity),
            reduce_only=True,
            client_order_id=self.attempts.next_id(trade, Leg.REDUCE),
        )
        trade.closing = [order]
        self._strategy.submit_order(order, position_id=positions[0].id)

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

    def _begin_exit(self, instrument_id: InstrumentId, reason: str) -> Trade:
        """Return the trade, whose exit is decided from now on."""
        trade = self.trades.setdefault(instrument_id, Trade(instrument_id, 0))
        if self.positions(instrument_id):
            self._counts[f"exit_{reason}"] += 1
        trade.exit_decided = True
        return trade


def order_side(side: int) -> OrderSide:
    """Return the side of an order that buys (1) or sells (-1)."""
    return OrderSide.BUY if side > 0 else OrderSide.SELL


def closing_side(position: Position) -> OrderSide:
    """Return the side of an order that closes a position."""
    return OrderSide.SELL if position.side == PositionSide.LONG else OrderSide.BUY
