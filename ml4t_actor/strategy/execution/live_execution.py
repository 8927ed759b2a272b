"""Orders at a real venue, which may refuse them, not answer, or leave a fill unreported."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import assert_never

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.model import BarType, InstrumentId, OrderStatus
from ml4t_actor.nautilus.trading import (
    Instrument,
    Order,
    OrderCanceled,
    OrderCancelRejected,
    OrderDenied,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Strategy,
)
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution.live_market import LiveMarket
from ml4t_actor.strategy.execution.live_orders import LiveOrders, held_quantity
from ml4t_actor.strategy.execution.order_execution import Guard, OrderExecution
from ml4t_actor.strategy.execution.protection import Protection
from ml4t_actor.strategy.execution.reconciliation import Reconciliation
from ml4t_actor.strategy.journal.order_journal import OrderJournal
from ml4t_actor.strategy.journal.own_quantity import OwnQuantity
from ml4t_actor.strategy.orders.pacing import EntryPace, backoff_ns
from ml4t_actor.strategy.orders.refusals import UNANSWERED, denies_position
from ml4t_actor.strategy.orders.trade import Phase, Plan, Trade

_CHECK_SECONDS = 1.0
_SETTLE_SECONDS = 0.25  # fills of one order come together; the rest of a partial one may never be reported
_QUERY_NS = 2 * SECOND_NS
_FLAT_NS = 6 * SECOND_NS
_ACCOUNT_NS = 15 * SECOND_NS
_DOUBTED_ACCOUNT_NS = 3 * SECOND_NS


class LiveExecution(OrderExecution):
    """Sends the entry alone, and its stop and target when it is filled, for the quantity that is filled.

    Nautilus's adapter for Hyperliquid sends a market entry within an order list at a price of zero, which the venue
    refuses; its other live adapters leave linked orders to the strategy as well.

    `Phase` lists the life of a trade. Events of its orders move it on at once; once a second each trade is checked too,
    by the phase that it is in, since the event that would move it on may never come.

    - Stop and target are reduce-only and stay at the venue whatever becomes of the node. When the position is closed,
      what is left of them is cancelled, not before.
    - A position without a stop is closed: when the stop is refused, cancelled or not answered, and when a position of
      an earlier run has none.
    - Whatever has to be exited is exited with an order that reduces only, sent again until the position is gone; at the
      market, or without a fresh quote with an immediate limit order 5 % beyond the last known price.
    - The horizon ends by the bars' closes or by the clock, whichever comes first, so that a feed that has gone silent
      holds up no exit.
    - An entry that the venue did not answer in time may have been filled. It is unwound with an order that reduces
      only, until the venue says that there is no position.
    - The venue is queried about stop and target now and then, since what happens while the connection is cut is not
      reported later.
    - At the start, positions and orders that Nautilus's reconciliation brought back are resumed; the horizon runs from
      when the stop was placed.
    - Nothing is opened without fresh quotes and bars, nor when the market has left the barriers.
    - A position that own orders do not explain is left alone, with its instrument (`OwnQuantity`).
    - Entries are paced, so that the submit rate has room for what protects; an exit that is refused backs off, but one
      that was refused for want of a fresh quote is sent again as soon as there is one.

    Everything here runs on the event thread.

    Parameters
    ----------
    strategy : Strategy
        Whose orders these are.
    config : EnrichedSignalStrategyConfig
        Its configuration.
    counts : Counter[str]
        Of the exits by reason, of entries that were not answered, and of what was reconciled.
    guard : Guard
        Calls what the event loop calls back.
    loop : asyncio.AbstractEventLoop
        Of the event thread.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    journal : OrderJournal
        Remembers what own orders were filled for.
    awaits_report : Callable[[], bool]
        Returns whether a report of an account is waited for.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: EnrichedSignalStrategyConfig,
        counts: Counter[str],
        guard: Guard,
        loop: asyncio.AbstractEventLoop,
        bar_types: Mapping[InstrumentId, BarType],
        journal: OrderJournal,
        awaits_report: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(strategy, counts)
        self._awaits_report = awaits_report
        self._config, self._guard, self._loop = config, guard, loop
        self._timeout_ns = int(config.order_timeout * SECOND_NS)
        self._query_interval_ns = int(config.check_interval * SECOND_NS)
        self._instrument_ids: list[InstrumentId] = []
        self._market = LiveMarket(strategy, config.max_quote_age, counts, bar_types)
        self._orders = LiveOrders(strategy, self._market, self.attempts, config.stop_limit_slippage)
        self._reconciliation = Reconciliation(
            strategy, config, counts, self._orders, bar_types, OwnQuantity(strategy, journal, self.attempts)
        )
        self._pace = EntryPace(config.entries_per_second, self._now_ns)
        self._protection = Protection(self, strategy, self._orders, counts, guard, loop, self._timeout_ns)
        self._account_query_ns = 0
        self._stopping = False

    def start(self, instrument_ids: Iterable[InstrumentId]) -> None:
        """Subscribe to quotes, resume what an earlier run has left, and begin to check."""
        self._reconciliation.start()
        for instrument_id in instrument_ids:
            self._instrument_ids.append(instrument_id)
            self._market.subscribe(instrument_id)
            self._reconcile(instrument_id)
        self._loop.call_later(_CHECK_SECONDS, self._on_timer)

    def stop(self, on_order_event: Callable[[OrderEvent], None]) -> None:
        """Follow up orders beyond the strategy's stop, after which Nautilus passes it no event any more."""
        self._stopping = True
        strategy = self._strategy

        def on_event(event: OrderEvent) -> None:
            if not strategy.is_running:
                self._loop.call_soon_threadsafe(self._guard, on_order_event, event)

        strategy.msgbus.subscribe(topic=f"events.order.{strategy.id}", handler=on_event)

    def is_foreign(self, instrument_id: InstrumentId) -> bool:
        """Whether the position is not explained by own orders, so that the instrument is left alone."""
        return instrument_id in self._reconciliation.foreign

    def foreign_positions(self) -> dict[InstrumentId, Decimal]:
        """Return how much of the position is not own, by instrument that is left alone."""
        return {i: self._reconciliation.not_own(i, self.positions(i)) for i in self._reconciliation.foreign}

    def is_settled(self) -> bool:
        """Whether nothing is on its way, nor to be closed."""
        return all(
            phase == Phase.DONE or (phase == Phase.PROTECTED and not self._config.close_on_stop)
            for phase in (trade.phase(self._held(trade)) for trade in self.trades.values())
        )

    def unprotected(self) -> list[str]:
        """Return what the venue holds or may hold without a stop, an item an instrument."""
        items = []
        for trade in self.trades.values():
            held = self._held(trade)
            phase = trade.phase(held)
            if phase in (Phase.ENTERING, Phase.UNWINDING):
                items.append(f"{trade.instrument_id}: the venue has not answered the entry {trade.entry}")
            elif held and not trade.is_covered(held):
                items.append(
                    f"{trade.instrument_id}: {self.positions(trade.instrument_id)[0]} without a stop"
                )
        return items

    def accept_bar(self, instrument_id: InstrumentId, closed_ns: int) -> bool:
        """Return whether a bar that closed then is newer than those before; a reconnection may repeat some."""
        return self._market.accept_bar(instrument_id, closed_ns)

    def entry_price(self, instrument_id: InstrumentId, side: int, close: float) -> float:
        """Return what an entry would be filled at now, the last close without a fresh quote."""
        return self._market.entry_price(instrument_id, side) or close

    def pre_trade_check(self, instrument_id: InstrumentId, plan: Plan) -> str:
        """Return why the market does not allow an entry now, or an empty string."""
        return self._market.pre_trade_check(instrument_id, plan)

    def acquire_turn(self) -> float:
        """Return how many seconds an entry has to wait for its turn; 0 if it is now, and taken by this."""
        return self._pace.acquire() / SECOND_NS

    def enter(self, instrument: Instrument, plan: Plan) -> None:
        """Send the entry; its exits follow when it is filled."""
        last = self.trades.get(instrument.id)
        if last is not None:
            self.cancel_exits(last)
        entry, now = self._orders.make_entry(instrument, plan), self._now_ns()
        self.trades[instrument.id] = Trade(
            instrument.id,
            plan.deadline_ns,
            now + self._reconciliation.horizon_ns(instrument.id),
            plan=plan,
            entry=entry,
            sent_ns=now,
            target_price=plan.target,
        )
        self._strategy.submit_order(entry)

    def exit(self, instrument_id: InstrumentId, reason: str) -> None:
        """Close the position; its stop and target stay until that is done."""
        trade = self.trades.get(instrument_id)
        if self.is_foreign(instrument_id):
            return
        if trade is not None and trade.exit_decided and not self._is_due(trade, self._now_ns()):
            return
        trade = self._begin_exit(instrument_id, reason)
        positions = self.positions(instrument_id)
        if reason in ("no_stop", "again") and positions:
            self._strategy.log.error(f"{positions[0]} is left: {reason}")
        self._orders.close(trade, positions)

    def reduce(self, instrument: Instrument, side: int, quantity: Decimal, horizon_ns: int) -> None:
        """Close a part of the position."""
        super().reduce(instrument, side, quantity, horizon_ns)
        self._orders.stamp(self.trades[instrument.id])

    def flatten(self, instrument_id: InstrumentId) -> None:
        """Close the position; an entry on its way is followed up."""
        trade = self.trades.get(instrument_id)
        if trade is None or not trade.in_flight:
            self.exit(instrument_id, "stop")

    def cancel_exits(self, trade: Trade) -> bool:
        """Cancel what is left of stop and target; whether there was any."""
        for order in trade.exits:
            if order.status != OrderStatus.PENDING_CANCEL:
                self._strategy.cancel_order(order)
        return bool(trade.exits)

    def adopt(self, instrument_id: InstrumentId, deadline_ns: int) -> Trade | None:
        """Return a trade for a position that has come from elsewhere while the node runs, None if it is foreign."""
        self._reconcile(instrument_id)
        return self.trades.get(instrument_id)

    def on_position_closed(self) -> None:
        """Query the account, whose balance does not show the profit until then."""
        self._query_accounts()

    def on_order_event(self, event: OrderEvent) -> bool:
        """Follow up what became of an order; whether a signal that waits for it has to wait on."""
        trade = self.trades[event.instrument_id]
        self._count_refusals(trade, event)
        if trade.unwinding:
            return self._on_unwinding_event(trade, event)
        if _concerns(event, trade.entry):
            return self._on_entry_event(trade, event)
        if _denies_position(event) and trade.disputed_ns == 0:
            trade.disputed_ns = self._now_ns()
        if isinstance(event, OrderCancelRejected):  # it is done already, or never arrived
            trade.replaced = [order for order in trade.replaced if not _concerns(event, order)]
        if not self.positions(trade.instrument_id):
            self._on_event_without_position(trade, event)
        elif _concerns(event, trade.stop):
            if self._protection.on_stop_event(trade, event):
                self.exit(trade.instrument_id, "no_stop")
                return True
        elif _concerns(event, trade.target):
            self._protection.on_target_event(event)
        return False

    def _count_refusals(self, trade: Trade, event: OrderEvent) -> None:
        order = next((order for order in trade.closing if _concerns(event, order)), None)
        if order is None:
            return
        if order.filled_qty > 0:
            trade.refusals = 0
        elif isinstance(event, OrderRejected | OrderDenied | OrderCanceled | OrderExpired):
            trade.refusals += 1
            trade.exit_denied = isinstance(event, OrderDenied)
            self._strategy.log.warning(f"{trade.instrument_id}: refused {trade.refusals} times: {event}")

    def _on_entry_event(self, trade: Trade, event: OrderEvent) -> bool:
        entry = trade.entry
        if isinstance(event, OrderRejected) and event.reason == UNANSWERED:
            self._begin_unwinding(trade)
        elif entry is not None and entry.status == OrderStatus.DENIED:
            self._counts["entry_denied"] += not trade.entry_done
            self._on_entry_done(trade)
        elif trade.entry_done and isinstance(event, OrderFilled):
            self._protection.grow(trade)
        elif entry is not None and entry.is_closed:
            self._on_entry_done(trade)
        elif isinstance(event, OrderFilled):
            self._loop.call_later(_SETTLE_SECONDS, self._guard, self._on_entry_done, trade)
        return trade.in_flight

    def _on_entry_done(self, trade: Trade) -> None:
        """Protect what the entry has opened, and cancel what is left of it."""
        instrument_id, entry = trade.instrument_id, trade.entry
        if trade.entry_done or self.trades.get(instrument_id) is not trade:
            return
        trade.entry_done = True
        if entry is not None and not entry.is_closed:
            self._strategy.cancel_order(entry)
        if not self.positions(instrument_id):
            del self.trades[instrument_id]
        elif self._stopping and self._config.close_on_stop:
            self.exit(instrument_id, "stop")
        else:
            self._protection.send_stop(trade)

    def _on_event_without_position(self, trade: Trade, event: OrderEvent) -> None:
        """Cancel the exits that are left."""
        if isinstance(event, OrderCancelRejected):  # it is done already, and its end was not reported
            self._orders.query_exits(trade)
            trade.stop = None if _concerns(event, trade.stop) else trade.stop
            trade.target = None if _concerns(event, trade.target) else trade.target
        if not trade.clearing and not trade.in_flight:
            self._orders.clear(trade)

    def _begin_unwinding(self, trade: Trade) -> None:
        """See to it that there is no position: the venue did not say what became of the entry."""
        trade.unwinding = trade.entry_done = True
        self._counts["unknown_entry"] += 1
        self._strategy.log.error(
            f"{trade.instrument_id}: the venue did not answer {trade.entry}; it is unwound"
        )
        self._orders.unwind(trade)

    def _on_unwinding_event(self, trade: Trade, event: OrderEvent) -> bool:
        if _denies_position(event) and any(_concerns(event, order) for order in trade.closing):
            self._reconcile_flat(trade.instrument_id)
            self._query_accounts()  # for what it has cost
        return trade.instrument_id in self.trades

    def _reconcile_flat(self, instrument_id: InstrumentId) -> None:
        """Forget the trade, and close in the cache the position that the venue does not have."""
        trade = self.trades.pop(instrument_id, None)
        if trade is not None:
            self.cancel_exits(trade)
        self._reconciliation.close_missing(instrument_id, self.positions(instrument_id))

    def _reconcile(self, instrument_id: InstrumentId) -> None:
        """Resume position and orders that are in the cache: after a start, or come from elsewhere."""
        positions = self.positions(instrument_id)
        trade = self._reconciliation.resume(instrument_id, positions)
        if trade is None:
            return
        self.trades[instrument_id] = trade
        if not positions:
            self._orders.clear(trade)
        elif not trade.is_covered(held_quantity(positions)):
            self.exit(instrument_id, "no_stop")
        else:
            self._strategy.log.warning(f"{positions[0]} is resumed with {trade.stop} and {trade.target}")

    def _on_timer(self) -> None:
        if self._stopping and self.is_settled():
            return
        self._loop.call_later(_CHECK_SECONDS, self._on_timer)
        now = self._now_ns()
        for instrument_id in self._instrument_ids:
            self._guard(self._check, instrument_id, now)
        if now - self._account_query_ns > (_DOUBTED_ACCOUNT_NS if self._awaits_report() else _ACCOUNT_NS):
            self._account_query_ns = now
            self._guard(self._query_accounts)

    def _check(self, instrument_id: InstrumentId, now: int) -> None:
        """Move a trade on whose events stay away."""
        trade, held = self.trades.get(instrument_id), held_quantity(self.positions(instrument_id))
        if not held and trade is None:
            self._reconciliation.on_flat(instrument_id)
            if self._orders.are_left(instrument_id):
                self._reconcile(instrument_id)
        elif trade is not None:
            self._check_trade(trade, trade.phase(held), now)
        elif held and not self.is_foreign(instrument_id):
            self._reconcile(instrument_id)

    def _check_trade(self, trade: Trade, phase: Phase, now: int) -> None:
        match phase:
            case Phase.ENTERING:
                self._check_entering(trade, now)
            case Phase.UNWINDING:
                self._check_unwinding(trade, now)
            case Phase.PROTECTING:
                self._check_protecting(trade, now)
            case Phase.PROTECTED:
                self._check_protected(trade, now)
            case Phase.EXITING:
                self._check_exiting(trade, now)
            case Phase.EXIT_DUE:
                self._check_exit_due(trade, now)
            case Phase.DISPUTED:
                self._check_disputed(trade, now)
            case Phase.CLEARING:
                self._check_clearing(trade, now)
            case Phase.DONE:
                del self.trades[trade.instrument_id]
            case _:
                assert_never(phase)

    def _check_entering(self, trade: Trade, now: int) -> None:
        if now - trade.sent_ns > self._timeout_ns:
            self._begin_unwinding(trade)
        elif self._stopping and trade.entry is not None:  # the answer may be lost, and there is little time
            self._strategy.query_order(trade.entry)

    def _check_unwinding(self, trade: Trade, now: int) -> None:
        if now - trade.sent_ns > self._timeout_ns if trade.is_closing else self._is_due(trade, now):
            self._orders.unwind(trade)

    def _check_protecting(self, trade: Trade, now: int) -> None:
        if now >= trade.expires_ns:
            self.exit(trade.instrument_id, "horizon")
        elif now - (trade.unprotected_ns or trade.sent_ns) > self._timeout_ns:
            self.exit(trade.instrument_id, "no_stop")

    def _check_protected(self, trade: Trade, now: int) -> None:
        if now >= trade.expires_ns:
            self.exit(trade.instrument_id, "horizon")
        elif not self._protection.retry_target(trade) and now - trade.sent_ns > self._query_interval_ns:
            trade.sent_ns = now
            self._orders.query_exits(trade)

    def _check_exiting(self, trade: Trade, now: int) -> None:
        if now - trade.sent_ns > self._timeout_ns:
            self.exit(trade.instrument_id, "again")

    def _check_exit_due(self, trade: Trade, now: int) -> None:
        if self._is_due(trade, now):
            self.exit(trade.instrument_id, "again")

    def _check_disputed(self, trade: Trade, now: int) -> None:
        """Query the exits: a fill may be on its way, or was never reported."""
        waited = now - trade.disputed_ns
        if waited > _FLAT_NS:
            self._reconcile_flat(trade.instrument_id)
        elif waited > _QUERY_NS:
            self._orders.query_exits(trade)

    def _check_clearing(self, trade: Trade, now: int) -> None:
        if not trade.clearing or now - trade.sent_ns > self._timeout_ns:
            self._orders.clear(trade)

    def _query_accounts(self) -> None:
        self._orders.query_accounts({instrument_id.venue for instrument_id in self._instrument_ids})

    def _held(self, trade: Trade) -> Decimal:
        return held_quantity(self.positions(trade.instrument_id))

    def _is_due(self, trade: Trade, now: int) -> bool:
        """Return whether an exit may be sent again: at once where the last one lacked the quote that there is now."""
        if trade.lacked_quote and self._market.fresh_quote(trade.instrument_id) is not None:
            return True
        return now - trade.sent_ns >= backoff_ns(trade.refusals, denied=trade.exit_denied)

    def _now_ns(self) -> int:
        now_ns: int = self._strategy.clock.timestamp_ns()
        return now_ns


def _concerns(event: OrderEvent, order: Order | None) -> bool:
    """Return whether the event is one of this order."""
    return order is not None and bool(order.client_order_id == event.client_order_id)


def _denies_position(event: OrderEvent) -> bool:
    """Return whether the venue refused to close, since it has no position."""
    return isinstance(event, OrderRejected) and denies_position(event.reason)
