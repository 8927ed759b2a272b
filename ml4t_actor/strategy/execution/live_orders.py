"""The orders of a live trade, sent one by one, and the queries about them."""

from collections.abc import Iterable
from decimal import Decimal

from ml4t_actor.nautilus.components import UUID4
from ml4t_actor.nautilus.live import can_query_accounts
from ml4t_actor.nautilus.model import (
    AccountId,
    InstrumentId,
    OrderSide,
    OrderStatus,
    PositionSide,
    Price,
    Quantity,
    Venue,
)
from ml4t_actor.nautilus.trading import Instrument, Order, Position, PositionStatusReport, Strategy
from ml4t_actor.strategy.execution.live_market import LiveMarket
from ml4t_actor.strategy.execution.order_execution import closing_side, order_side
from ml4t_actor.strategy.orders.attempts import OrderAttempts
from ml4t_actor.strategy.orders.order_ids import Leg
from ml4t_actor.strategy.orders.trade import Plan, Trade, nearest_tick


class LiveOrders:
    """Builds and sends orders, and puts down in the trade when.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    market : LiveMarket
        Prices the orders that close.
    attempts : OrderAttempts
        Gives the orders their ids.
    stop_limit_slippage : float
        How far beyond its trigger a stop may be filled, as a fraction of it.
    """

    def __init__(
        self, strategy: Strategy, market: LiveMarket, attempts: OrderAttempts, stop_limit_slippage: float
    ) -> None:
        self._strategy, self._market, self._attempts = strategy, market, attempts
        self._stop_limit_slippage = stop_limit_slippage

    def make_entry(self, instrument: Instrument, plan: Plan) -> Order:
        """Return the entry, to be sent alone."""
        return self._strategy.order_factory.market(
            instrument.id,
            order_side(plan.side),
            instrument.make_qty(plan.quantity),
            tags=["ENTRY"],
            client_order_id=self._attempts.entry_id(instrument.id, plan),
        )

    def send_stop(self, trade: Trade, side: OrderSide, trigger: Price, quantity: Quantity) -> None:
        """Send the stop for the quantity that is held.

        With a limit far beyond its trigger, since Nautilus's adapter for Hyperliquid gives a stop without a limit one
        that is 0.5 % beyond: where the price has jumped farther it would stay unfilled.
        """
        trade.stop = self._strategy.order_factory.stop_limit(
            trade.instrument_id,
            side,
            quantity,
            self._limit_beyond(trade.instrument_id, trigger, side),
            trigger,
            reduce_only=True,
            tags=["STOP_LOSS"],
            client_order_id=self._attempts.next_id(trade, Leg.STOP),
        )
        self.stamp(trade)
        self._strategy.submit_order(trade.stop)

    def send_target(self, trade: Trade, side: OrderSide, price: Price, quantity: Quantity) -> None:
        """Send the target for the quantity that is held."""
        trade.target = self._strategy.order_factory.limit(
            trade.instrument_id,
            side,
            quantity,
            price,
            reduce_only=True,
            tags=["TAKE_PROFIT"],
            client_order_id=self._attempts.next_id(trade, Leg.TARGET),
        )
        self._strategy.submit_order(trade.target)

    def close(self, trade: Trade, positions: Iterable[Position]) -> None:
        """Send what closes the positions."""
        by_position = [
            (p.id, self._reducing_order(trade, closing_side(p), p.quantity, Leg.EXIT)) for p in positions
        ]
        trade.closing = [order for _, order in by_position]
        self.stamp(trade)
        for position_id, order in by_position:
            self._strategy.submit_order(order, position_id=position_id)

    def unwind(self, trade: Trade) -> None:
        """Send what closes all that the entry may have opened."""
        entry = trade.entry
        assert entry is not None
        side = OrderSide.SELL if entry.side == OrderSide.BUY else OrderSide.BUY
        trade.closing = [self._reducing_order(trade, side, entry.quantity, Leg.EXIT)]
        self.stamp(trade)
        self._strategy.submit_order(trade.closing[0])

    def clear(self, trade: Trade) -> None:
        """Cancel what is left of stop and target; until that is done nothing is entered."""
        trade.clearing = True
        self.stamp(trade)
        for order in trade.exits:
            self._strategy.cancel_order(order)

    def are_left(self, instrument_id: InstrumentId) -> bool:
        """Return whether exits are open whose cancellation was lost, and which would end a later position."""
        cache = self._strategy.cache
        orders = cache.orders_open(instrument_id=instrument_id, strategy_id=self._strategy.id)
        return any(o.is_reduce_only and o.status == OrderStatus.ACCEPTED for o in orders)

    def query_exits(self, trade: Trade) -> None:
        """Query stop and target: the connection may have been cut when one was filled."""
        for order in trade.exits:
            self._strategy.query_order(order)

    def query_accounts(self, venues: Iterable[Venue]) -> None:
        """Query the accounts, which the adapter does at the start only."""
        for venue in venues:
            account = self._strategy.portfolio.account(venue)
            if account is not None and can_query_accounts(account):
                self._strategy.query_account(account.id)

    def report_flat(
        self, instrument_id: InstrumentId, account_id: AccountId, positions: list[Position]
    ) -> None:
        """Close positions in the cache that the venue does not have."""
        strategy, now = self._strategy, self._strategy.clock.timestamp_ns()
        report = PositionStatusReport(
            account_id=account_id,
            instrument_id=instrument_id,
            position_side=PositionSide.FLAT,
            quantity=Quantity.zero(strategy.cache.instrument(instrument_id).size_precision),
            report_id=UUID4(),
            ts_last=now,
            ts_init=now,
        )
        strategy.log.error(f"{instrument_id}: the venue has no position, {positions} is closed in the cache")
        strategy.msgbus.send(endpoint="ExecEngine.reconcile_execution_report", msg=report)

    def warn_of_foreign_position(self, instrument_id: InstrumentId) -> None:
        """Log a position in the instrument that is not this strategy's."""
        strategy = self._strategy
        for position in strategy.cache.positions_open(instrument_id=instrument_id):
            if position.strategy_id != strategy.id:
                strategy.log.error(
                    f"{position} is not this strategy's: add {instrument_id} to `external_order_claims`, or close it"
                )
                return

    def stamp(self, trade: Trade) -> None:
        """Put down that something was sent now."""
        trade.sent_ns = self._strategy.clock.timestamp_ns()

    def trigger_of(self, stop: Order) -> float:
        """Return where a stop triggers; the adapter may show one of an earlier life by its limit alone."""
        if stop.has_trigger_price:
            return float(stop.trigger_price)
        slip = self._stop_limit_slippage
        return float(stop.price) / (1.0 + slip if stop.side == OrderSide.BUY else 1.0 - slip)

    def _limit_beyond(self, instrument_id: InstrumentId, trigger: Price, side: OrderSide) -> Price:
        slip = self._stop_limit_slippage
        instrument = self._strategy.cache.instrument(instrument_id)
        return nearest_tick(
            instrument, trigger.as_double() * (1.0 + slip if side == OrderSide.BUY else 1.0 - slip)
        )

    def _reducing_order(self, trade: Trade, side: OrderSide, quantity: Quantity, leg: Leg) -> Order:
        order_id = self._attempts.next_id(trade, leg)
        trade.lacked_quote = self._market.fresh_quote(trade.instrument_id) is None
        return self._market.reducing_order(trade.instrument_id, side, quantity, order_id)


def match_exits(position: Position, orders: Iterable[Order]) -> tuple[Order | None, Order | None]:
    """Return which of the orders are the position's stop and target, the newest of each.

    By which side of the entry they lie on: after a restart the adapter shows a stop as a limit order.
    """
    long = position.side == PositionSide.LONG
    stops: list[Order] = []
    targets: list[Order] = []
    for order in orders:
        price = order.trigger_price if order.has_trigger_price else order.price if order.has_price else None
        if order.is_reduce_only and price is not None and order.side == closing_side(position):
            below = price.as_double() < position.avg_px_open
            (stops if below == long else targets).append(order)
    return _newest(stops), _newest(targets)


def held_quantity(positions: Iterable[Position]) -> Decimal:
    """Return the quantity of all the positions, without a sign."""
    return sum((p.quantity.as_decimal() for p in positions), Decimal(0))


def _newest(orders: list[Order]) -> Order | None:
    return max(orders, key=_accepted_ns, default=None)


def _accepted_ns(order: Order) -> int:
    accepted_ns: int = order.ts_accepted
    return accepted_ns
