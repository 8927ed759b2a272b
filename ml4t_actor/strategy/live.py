"""The strategy's orders at a real venue, which may refuse, not answer, or forget to tell."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.components import UUID4
from ml4t_actor.nautilus.model import BarType, InstrumentId, OrderSide, OrderStatus, PositionSide, Quantity
from ml4t_actor.nautilus.trading import (
    Instrument,
    Order,
    OrderAccepted,
    OrderCancelRejected,
    OrderEvent,
    OrderFilled,
    OrderRejected,
    Position,
    PositionStatusReport,
    Strategy,
)
from ml4t_actor.strategy.desk import Desk, Guard
from ml4t_actor.strategy.market import LiveMarket
from ml4t_actor.strategy.trade import Plan, Trade

_WATCH_SECONDS = 1.0
_SETTLE_SECONDS = 0.25  # fills of one order come together; the rest of a part may never be told of
_RETRY_NS = 2 * SECOND_NS
_ASK_NS = 2 * SECOND_NS
_FLAT_NS = 6 * SECOND_NS
_ACCOUNT_NS = 60 * SECOND_NS
_NO_POSITION = "reduce only order would increase position"
_UNANSWERED = "UNKNOWN"


class LiveDesk(Desk):
    """Sends the entry alone, and its stop and target when it is filled, for the quantity that is filled.

    Nautilus's adapter for Hyperliquid sends a market entry within an order list at a price of zero, which the venue
    refuses; its other live adapters leave linked orders to the strategy as well.

    - Stop and target are reduce-only and stay at the venue whatever becomes of the node. When the position is closed,
      what is left of them is cancelled, not before.
    - A position without a stop is closed: when the stop is refused, cancelled or not answered, and when a position is
      found without one.
    - Whatever has to be left is left with an order that reduces only, asked for until the position is gone; at the
      market, or without a fresh quote with an immediate limit order 5 % beyond the last known price.
    - The horizon ends by the bars' closes or by the clock, whichever comes first, so that a feed that has gone silent
      holds up no exit.
    - An entry that the venue did not answer in time may have been filled. It is undone with an order that reduces only,
      until the venue says that there is no position.
    - The venue is asked for stop and target now and then, since what happens while the connection is cut is not told
      later.
    - At the start, positions and orders that Nautilus's reconciliation found are taken up again; the horizon runs from
      when the stop was placed.
    - Nothing is opened without fresh quotes and bars, nor when the market has left the barriers.

    Everything here runs on the event thread.
    """

    def __init__(
        self,
        strategy: Strategy,
        counts: "Counter[str]",
        guard: Guard,
        loop: asyncio.AbstractEventLoop,
        bar_types: Mapping[InstrumentId, BarType],
    ) -> None:
        super().__init__(strategy, counts)
        self._guard, self._loop, self._bar_types = guard, loop, bar_types
        config = strategy.config
        self._horizon_bars: int = config.labels.horizon_bars
        self._timeout_ns = int(config.order_timeout * SECOND_NS)
        self._check_ns = int(config.check_interval * SECOND_NS)
        self._instrument_ids: list[InstrumentId] = []
        self.market = LiveMarket(strategy, counts, bar_types)
        self._asked_ns = 0
        self._watching: asyncio.TimerHandle | None = None
        self._finishing = False

    def start(self, instrument_ids: Iterable[InstrumentId]) -> None:
        """Subscribe to quotes, take up what is there, and begin to watch."""
        for instrument_id in instrument_ids:
            self._instrument_ids.append(instrument_id)
            self.market.begin(instrument_id)
            self._take_up(instrument_id)
        self._watching = self._loop.call_later(_WATCH_SECONDS, self._watch)

    def finish(self, follow_up: Callable[[OrderEvent], None]) -> None:
        """Follow up orders beyond the strategy's stop, after which Nautilus tells it of no event any more."""
        self._finishing = True
        if self._watching is not None:
            self._watching.cancel()
        strategy = self._strategy

        def handle(event: Any) -> None:
            if not strategy.is_running:
                self._loop.call_soon(self._guard, follow_up, event)

        strategy.msgbus.subscribe(topic=f"events.order.{strategy.id}", handler=handle)

    def enter(self, instrument: Instrument, plan: Plan) -> None:
        """Send the entry; its exits follow when it is filled."""
        last = self.trades.get(instrument.id)
        if last is not None:
            self.cancel_exits(last)
        entry = self._strategy.order_factory.market(
            instrument.id,
            OrderSide.BUY if plan.side > 0 else OrderSide.SELL,
            instrument.make_qty(plan.quantity),
            tags=["ENTRY"],
        )
        now = self._now()
        self.trades[instrument.id] = Trade(
            plan.deadline_ns, now + self._horizon_ns(instrument.id), plan=plan, entry=entry, sent_ns=now
        )
        self._strategy.submit_order(entry)

    def exit(self, instrument_id: InstrumentId, why: str) -> None:
        """Close the position; its stop and target stay until that is done."""
        trade = self._leave(instrument_id, why)
        positions = self.positions(instrument_id)
        if why in ("no_stop", "again") and positions:
            self._strategy.log.error(f"{positions[0]} is left: {why}")
        self._close(trade, [(p, self._closing_order(p)) for p in positions])

    def reduce(self, instrument: Instrument, side: int, quantity: Any, horizon_ns: int) -> None:
        """Close a part of the position."""
        super().reduce(instrument, side, quantity, horizon_ns)
        self.trades[instrument.id].sent_ns = self._now()

    def cancel_exits(self, trade: Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any."""
        for order in trade.exits:
            if order.status != OrderStatus.PENDING_CANCEL:
                self._strategy.cancel_order(order)
        return bool(trade.exits)

    def _clear(self, trade: Trade) -> None:
        """Cancel what is left of stop and target; until that is done nothing is entered."""
        trade.clearing = True
        trade.sent_ns = self._now()
        for order in trade.exits:
            self._strategy.cancel_order(order)

    def found(self, instrument_id: InstrumentId, deadline_ns: int) -> Trade:
        """Take up a position that has come from elsewhere while the node runs."""
        self._take_up(instrument_id)
        return self.trades[instrument_id]

    def stop(self, instrument_id: InstrumentId) -> None:
        """Close the position; an entry on its way is followed up."""
        trade = self.trades.get(instrument_id)
        if trade is None or not trade.in_flight:
            self.exit(instrument_id, "stop")

    def take_event(self, event: OrderEvent) -> bool:
        """Follow up what became of an order; whether it led to orders."""
        trade, order_id = self.trades[event.instrument_id], event.client_order_id
        refused = isinstance(event, OrderRejected) and _NO_POSITION in event.reason.lower()
        if trade.unknown:
            if refused and any(order.client_order_id == order_id for order in trade.closing):
                self._make_flat(event.instrument_id)
                self.ask_account()  # for what it has cost
            return event.instrument_id in self.trades
        if trade.entry is not None and order_id == trade.entry.client_order_id:
            return self._take_entry_event(trade, event)
        if refused and trade.refused_ns == 0:
            trade.refused_ns = self._now()
        if self.position(event.instrument_id) is None:
            if isinstance(event, OrderCancelRejected):  # it is done, and its end was not told
                trade.stop, trade.target = (
                    None if order is not None and order.client_order_id == order_id else order
                    for order in (trade.stop, trade.target)
                )
            if not trade.clearing and not trade.in_flight:
                self._clear(trade)
            return False
        stop = trade.stop
        if stop is not None and stop.client_order_id == order_id and not trade.leaving:
            if stop.is_closed:
                self.exit(event.instrument_id, "no_stop")
                return True
            if isinstance(event, OrderAccepted) and trade.target is None and trade.plan is not None:
                self._send_target(event.instrument_id, trade)
        target = trade.target
        if (
            target is not None
            and target.client_order_id == order_id
            and target.status == OrderStatus.REJECTED
        ):
            self._counts["no_target"] += 1
            self._strategy.log.error(f"no target at the venue: {event}")
        return False

    def _take_entry_event(self, trade: Trade, event: OrderEvent) -> bool:
        entry = trade.entry
        if isinstance(event, OrderRejected) and event.reason == _UNANSWERED:
            self._doubt(event.instrument_id, trade)
        elif entry is not None and entry.is_closed:
            self._settle(event.instrument_id, trade)
        elif isinstance(event, OrderFilled):
            self._loop.call_later(_SETTLE_SECONDS, self._guard, self._settle, event.instrument_id, trade)
        return trade.in_flight

    def _settle(self, instrument_id: InstrumentId, trade: Trade) -> None:
        """The entry is done: protect what it has opened."""
        if trade.entered or self.trades.get(instrument_id) is not trade:
            return
        trade.entered = True
        if not self.positions(instrument_id):
            del self.trades[instrument_id]
        elif self._finishing and self._strategy.config.close_on_stop:
            self.exit(instrument_id, "stop")
        else:
            self._protect(instrument_id, trade)

    def _protect(self, instrument_id: InstrumentId, trade: Trade) -> None:
        """Send the stop; the target follows when the venue has the stop."""
        assert trade.plan is not None
        trade.stop = self._strategy.order_factory.stop_market(
            instrument_id,
            OrderSide.SELL if trade.plan.side > 0 else OrderSide.BUY,
            Quantity(self._held(instrument_id), self.positions(instrument_id)[0].size_precision),
            trade.plan.stop,
            reduce_only=True,
            tags=["STOP_LOSS"],
        )
        trade.sent_ns = self._now()
        self._strategy.submit_order(trade.stop)

    def _send_target(self, instrument_id: InstrumentId, trade: Trade) -> None:
        stop, plan = trade.stop, trade.plan
        assert stop is not None
        assert plan is not None
        trade.target = self._strategy.order_factory.limit(
            instrument_id, stop.side, stop.quantity, plan.target, reduce_only=True, tags=["TAKE_PROFIT"]
        )
        self._strategy.submit_order(trade.target)

    def _close(self, trade: Trade, orders: list[tuple[Position | None, Order]]) -> None:
        trade.closing = [order for _, order in orders]
        trade.sent_ns = self._now()
        for position, order in orders:
            self._strategy.submit_order(order, position_id=None if position is None else position.id)

    def _closing_order(self, position: Position) -> Order:
        side = OrderSide.SELL if position.side == PositionSide.LONG else OrderSide.BUY
        return self.market.reducing_order(position.instrument_id, side, position.quantity)

    def _doubt(self, instrument_id: InstrumentId, trade: Trade) -> None:
        """The venue did not say what became of the entry: see to it that there is no position."""
        trade.unknown = trade.entered = True
        self._counts["unknown_entry"] += 1
        self._strategy.log.error(f"{instrument_id}: the venue did not answer {trade.entry}; it is undone")
        self._undo(instrument_id, trade)

    def _undo(self, instrument_id: InstrumentId, trade: Trade) -> None:
        entry = trade.entry
        assert entry is not None
        side = OrderSide.SELL if entry.side == OrderSide.BUY else OrderSide.BUY
        order = self.market.reducing_order(instrument_id, side, entry.quantity)
        self._close(trade, [(None, order)])

    def _make_flat(self, instrument_id: InstrumentId) -> None:
        """The venue has no position: let the cache have none either, and forget the trade."""
        strategy, now = self._strategy, self._now()
        trade = self.trades.pop(instrument_id, None)
        if trade is not None:
            self.cancel_exits(trade)
        others = strategy.cache.positions_open(instrument_id=instrument_id)
        account = strategy.portfolio.account(instrument_id.venue)
        if not self.positions(instrument_id) or account is None:
            return
        if any(position.strategy_id != strategy.id for position in others):
            strategy.log.error(
                f"{instrument_id} is held by several strategies: restart the node to reconcile"
            )
            return
        self._counts["not_at_venue"] += 1
        instrument = strategy.cache.instrument(instrument_id)
        report = PositionStatusReport(
            account_id=account.id,
            instrument_id=instrument_id,
            position_side=PositionSide.FLAT,
            quantity=Quantity.zero(instrument.size_precision),
            report_id=UUID4(),
            ts_last=now,
            ts_init=now,
        )
        strategy.log.error(f"{instrument_id}: the venue has no position, {others} is closed in the cache")
        strategy.msgbus.send(endpoint="ExecEngine.reconcile_execution_report", msg=report)

    def _take_up(self, instrument_id: InstrumentId) -> None:
        """Take up position and orders that are there: at a start, or come from elsewhere."""
        cache, strategy = self._strategy.cache, self._strategy
        orders = cache.orders_open(instrument_id=instrument_id, strategy_id=strategy.id)
        positions = self.positions(instrument_id)
        foreign = [
            p for p in cache.positions_open(instrument_id=instrument_id) if p.strategy_id != strategy.id
        ]
        if foreign:
            strategy.log.error(
                f"{foreign[0]} is not this strategy's: add {instrument_id} to `external_order_claims`, or close it"
            )
        if not positions and not orders:
            return
        trade = self.trades[instrument_id] = Trade(0, entered=True, sent_ns=self._now())
        if positions:
            self._counts["taken_up"] += 1
            trade.stop, trade.target = _as_exits(positions[0], orders)
        else:
            trade.stop, trade.target = (*orders, None)[:2]
        for order in orders:
            if order is not trade.stop and order is not trade.target:
                strategy.cancel_order(order)
        if not positions:
            self._clear(trade)
            return
        if trade.stop is None or trade.stop.quantity.as_decimal() < self._held(instrument_id):
            self.exit(instrument_id, "no_stop")
            return
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        placed_ns: int = trade.stop.ts_accepted
        trade.expires_ns = placed_ns + self._horizon_ns(instrument_id)
        trade.deadline_ns = placed_ns // interval_ns * interval_ns + self._horizon_ns(instrument_id)
        strategy.log.warning(f"{positions[0]} is taken up with {trade.stop} and {trade.target}")

    def _watch(self) -> None:
        self._watching = self._loop.call_later(_WATCH_SECONDS, self._watch)
        now = self._now()
        for instrument_id in self._instrument_ids:
            self._guard(self._watch_one, instrument_id, now)
        if now - self._asked_ns > _ACCOUNT_NS:
            self._asked_ns = now
            self._guard(self.ask_account)

    def ask_account(self) -> None:
        """Ask the venue for the account, which the adapter does at the start only."""
        for venue in {instrument_id.venue for instrument_id in self._instrument_ids}:
            account = self._strategy.portfolio.account(venue)
            if account is not None:
                self._strategy.query_account(account.id)

    def _watch_one(self, instrument_id: InstrumentId, now: int) -> None:
        trade = self.trades.get(instrument_id)
        positions = self.positions(instrument_id)
        if trade is None:
            if positions:
                self._take_up(instrument_id)
            return
        waited = now - trade.sent_ns
        if trade.unknown:
            pending = any(not order.is_closed for order in trade.closing)
            if waited > (self._timeout_ns if pending else _RETRY_NS):
                self._undo(instrument_id, trade)
        elif trade.entry is not None and not trade.entered and not trade.entry.is_closed:
            if waited > self._timeout_ns:
                self._doubt(instrument_id, trade)
        elif not positions:
            if not trade.exits:
                del self.trades[instrument_id]
            elif not trade.clearing or waited > self._timeout_ns:
                self._clear(trade)
        elif trade.refused_ns:
            self._watch_refused(instrument_id, trade, now)
        elif trade.in_flight:
            if waited > self._timeout_ns:
                trade.leaving = True
                self.exit(instrument_id, "again")
        elif trade.leaving:
            if waited > _RETRY_NS:
                self.exit(instrument_id, "again")
        elif now >= trade.expires_ns:
            self.exit(instrument_id, "horizon")
        elif not self._is_protected(instrument_id, trade):
            if waited > self._timeout_ns:
                self.exit(instrument_id, "no_stop")
        elif waited > self._check_ns:
            trade.sent_ns = now
            self._ask_for_exits(trade)

    def _watch_refused(self, instrument_id: InstrumentId, trade: Trade, now: int) -> None:
        """The venue says that there is nothing to close: a fill may be on its way, or was never told."""
        waited = now - trade.refused_ns
        if waited > _FLAT_NS:
            self._make_flat(instrument_id)
        elif waited > _ASK_NS:
            self._ask_for_exits(trade)

    def _ask_for_exits(self, trade: Trade) -> None:
        """Ask the venue for stop and target: the connection may have been cut when one was filled."""
        for order in trade.exits:
            self._strategy.query_order(order)

    def _is_protected(self, instrument_id: InstrumentId, trade: Trade) -> bool:
        stop = trade.stop
        return (
            stop is not None
            and stop.is_open
            and stop.quantity.as_decimal() - stop.filled_qty.as_decimal() >= self._held(instrument_id)
        )

    def _held(self, instrument_id: InstrumentId) -> Decimal:
        return sum((p.quantity.as_decimal() for p in self.positions(instrument_id)), Decimal(0))

    def _horizon_ns(self, instrument_id: InstrumentId) -> int:
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        return self._horizon_bars * interval_ns

    def _now(self) -> int:
        now: int = self._strategy.clock.timestamp_ns()
        return now


def _as_exits(position: Position, orders: list[Order]) -> tuple[Order | None, Order | None]:
    """Return which of the orders are the position's stop and target.

    By which side of the entry they lie on: after a restart the adapter shows a stop as a limit order.
    """
    long = position.side == PositionSide.LONG
    stops: list[Order] = []
    targets: list[Order] = []
    for order in orders:
        price = order.trigger_price if order.has_trigger_price else order.price if order.has_price else None
        if order.is_reduce_only and price is not None and (order.side == OrderSide.SELL) == long:
            below = price.as_double() < position.avg_px_open
            (stops if below == long else targets).append(order)
    stops.sort(key=_accepted, reverse=True)
    targets.sort(key=_accepted, reverse=True)
    return (stops[0] if stops else None), (targets[0] if targets else None)


def _accepted(order: Order) -> int:
    accepted: int = order.ts_accepted
    return accepted
