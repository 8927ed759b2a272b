"""What a live account is worth, by what the venue reports of it and what was traded since."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.components import UUID4
from ml4t_actor.nautilus.model import AccountId, Currency, PositionSide, Price, Venue
from ml4t_actor.nautilus.trading import (
    Account,
    AccountState,
    Instrument,
    OrderEvent,
    OrderFilled,
    OrderRejected,
    Position,
    PositionClosed,
    PositionEvent,
    Strategy,
)
from ml4t_actor.strategy.account.equity import Equity
from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.execution.order_execution import Guard
from ml4t_actor.strategy.orders.refusals import UNANSWERED, denies_position

_ZERO = Decimal(0)
_HYPERLIQUID = Venue("HYPERLIQUID")
# Of the notional: what Hyperliquid keeps from being withdrawn, at least.
_TRANSFER_MARGIN = Decimal("0.1")
# A report is compared when no fill was this near to it: the venue may know of one that is not here yet.
_SETTLE_NS = 2 * SECOND_NS
_LOST_ORDER_NS = 30 * SECOND_NS  # without an answer
_HOUR_NS = 3_600 * SECOND_NS
# Funding is paid at the full hour; Hyperliquid's rate is at most 4 % of the notional.
_MAX_FUNDING = Decimal("0.04")
_FUNDING_DELAY_NS = 120 * SECOND_NS
# A younger quote than this prices the positions of a report.
_QUOTE_NS = 15 * SECOND_NS
# Of the notional: the venue's price for positions against ours.
_PRICE_NOISE = Decimal("0.0025")
_CENT = Decimal("0.01")


class _Report(NamedTuple):
    """What the venue reported of an account, and what was known here at that time.

    `profit` is what all positions had made since the strategy's start, and `consistent` whether the report fits the
    positions that are known here.
    """

    equity: Decimal
    profit: Decimal
    ts: int
    consistent: bool


class _Held(NamedTuple):
    """What the open positions of an account amount to."""

    signed: Decimal
    notional: Decimal
    unrealized: Decimal
    realized: Decimal
    is_quoted: bool


class LiveEquity(Equity):
    """Equity of each live account, and whether its daily loss has reached the limit.

    Every report of the account counts, also with positions open. Between reports the profits of all positions since
    the last one are added, whichever strategy's they are.

    Nautilus's adapter for Hyperliquid reports no equity. Its balance is the raw cash, which lacks the value of
    positions, or what may be withdrawn where that is more; free is what may be withdrawn, to which the used margin, or
    a tenth of the notional if that is more, is missing. Where the balance is the raw cash, it and the signed value of
    the positions are the equity exactly; else free and margin are. Where both are known and do not agree by 1 % of the
    notional, or a margin is used without a position or the other way round, the report does not fit the positions known
    here. Elsewhere the balance is taken for a wallet's, to which
    the open profit is added, and compared with free and margin in the same way.

    What differs between a report and what was expected is told apart by its size and time, since the adapter reports
    neither transfers nor funding:

    - up to 4 % of the notional held since the last report, where a full hour passed in between: **funding**;
    - up to 0.25 % of that notional: the venue's price of the positions against ours, and fees;
    - both are profit or loss of trading, and count against the daily loss;
    - after a fill whose price is not known, and after an order of which nobody knows what became, all of it is: the
      loss of what was traded there;
    - anything else is a **deposit or withdrawal**: it shifts the day's opening equity and is no profit or loss.

    A report is compared when no order was on its way and no fill came within 2 s of it; where free and margin are
    the equity, also only with fresh quotes of all positions, since the last close is not the venue's price by then.
    Until that, and as long as a report does not fit, entries are sized by the lower of report and expectation.

    An account whose balance Nautilus calculates itself, as in the sandbox, is always up to date, as in a backtest.
    """

    def __init__(self, strategy: Strategy, exposure: Exposure, max_daily_loss: float) -> None:
        super().__init__(strategy, exposure, max_daily_loss)
        self._base: dict[AccountKey, Decimal] = {}  # equity but for the profits since the start
        self._realized: dict[AccountKey, Decimal] = {}  # of positions closed since the start
        self._pending: dict[AccountKey, _Report] = {}
        self._compared_ns: dict[AccountKey, int] = {}
        self._fill_ns: dict[AccountKey, int] = {}
        self._doubted_ns: dict[AccountKey, int] = {}
        self._notional: dict[AccountKey, Decimal] = {}  # the highest since the last comparison
        self._last_event_id: dict[AccountId, UUID4] = {}
        self._subscriptions: list[tuple[str, Callable[..., None]]] = []

    def start(self, guard: Guard) -> None:
        """Subscribe to the reports of accounts, and to the fills and positions of all strategies."""

        def on_account(event: AccountState) -> None:
            guard(self._on_account_state, event)

        def on_order(event: OrderEvent) -> None:
            if isinstance(event, OrderFilled):
                guard(self._on_fill, event)
            elif isinstance(event, OrderRejected):
                guard(self._on_rejected, event)

        def on_position(event: PositionEvent) -> None:
            if isinstance(event, PositionClosed) and event.strategy_id != self._strategy.id:
                guard(self.on_position_closed, event)

        self._subscriptions = [
            ("events.account.*", on_account),
            ("events.order.*", on_order),
            ("events.position.*", on_position),
        ]
        for topic, handler in self._subscriptions:
            self._strategy.msgbus.subscribe(topic=topic, handler=handler)

    def stop(self) -> None:
        """Unsubscribe."""
        for topic, handler in self._subscriptions:
            self._strategy.msgbus.unsubscribe(topic=topic, handler=handler)
        self._subscriptions = []

    def on_position_closed(self, event: PositionClosed) -> None:
        """Keep the profit of a position that was closed."""
        position = self._strategy.cache.position(event.position_id)
        instrument = self._strategy.cache.instrument(event.instrument_id)
        if position is None or instrument is None:
            return
        key = account_key(instrument)
        if any(_is_made_up(fill, position) for fill in position.events):
            self._doubt(key)
        else:
            self._realized[key] = self._realized.get(key, _ZERO) + _realized(position)

    def _equity_of(self, key: AccountKey, account: Account, balance: Decimal) -> Decimal:
        if account.calculate_account_state:
            return super()._equity_of(key, account, balance)
        notional = self._held(key).notional
        self._notional[key] = max(self._notional.get(key, _ZERO), notional)
        if key not in self._base:
            report = self._report(key, account.last_event)
            self._last_event_id[account.id] = account.last_event.id
            self._base[key] = report.equity - report.profit
            self._compared_ns[key] = report.ts
        self._compare_pending(key)
        return self._base[key] + self._profit(key)

    def _doubtful(self, instrument: Instrument, equity: Decimal) -> Decimal:
        """Return by how much a report that is not settled is below the equity, for an entry."""
        key = account_key(instrument)
        report = self._pending.get(key)
        if report is None or self._strategy.cache.positions_open(instrument_id=instrument.id):
            return _ZERO
        return max(equity - (report.equity - report.profit + self._profit(key)), _ZERO)

    def _on_account_state(self, event: AccountState) -> None:
        """Compare what the venue reports with what was expected, when it has settled."""
        if not event.is_reported or self._last_event_id.get(event.account_id) == event.id:
            return  # the portfolio publishes the last report again with every event of an order
        self._last_event_id[event.account_id] = event.id
        for key in list(self._base):
            account = self._strategy.portfolio.account(key[0])
            if account is not None and account.id == event.account_id:
                self._compare_pending(key)
                report = self._pending[key] = self._report(key, event)
                settled_ns = self._doubted_ns.get(key, 0) + _SETTLE_NS
                if key in self.unknown and self._held(key).notional == 0 and report.ts >= settled_ns:
                    # Nothing is held that it could be inconsistent with: better than to trade no more.
                    del self._pending[key]
                    self._apply_report(key, report)

    def _on_fill(self, event: OrderFilled) -> None:
        cache = self._strategy.cache
        instrument, order = cache.instrument(event.instrument_id), cache.order(event.client_order_id)
        if instrument is None:
            return
        key = account_key(instrument)
        self._fill_ns[key] = self._now_ns()
        position = cache.position(event.position_id) if event.position_id else None
        is_of_position = position is not None and event.trade_id in position.trade_ids
        if order is not None and order.is_reduce_only and not is_of_position:
            self._doubt(key)  # what it has closed was never known here

    def _on_rejected(self, event: OrderRejected) -> None:
        """Doubt the equity where the venue may have traded what is not known here."""
        cache = self._strategy.cache
        instrument, order = cache.instrument(event.instrument_id), cache.order(event.client_order_id)
        if instrument is None or order is None:
            return
        held = cache.positions_open(instrument_id=event.instrument_id)
        closes_nothing = order.is_reduce_only and denies_position(event.reason) and not held
        if event.reason == UNANSWERED or closes_nothing:
            self._doubt(account_key(instrument))

    def _doubt(self, key: AccountKey) -> None:
        """Put down that something was traded whose result only the venue knows."""
        self.unknown.add(key)
        self._doubted_ns[key] = self._now_ns()

    def _report(self, key: AccountKey, event: AccountState) -> _Report:
        """Return what a report says of the equity, with what is known now."""
        held = self._held(key, quoted=True)
        balance = next(b for b in event.balances if b.currency == key[1])
        total, free = balance.total.as_decimal(), balance.free.as_decimal()
        margin = _margin(event, key[1])
        is_hyperliquid = key[0] == _HYPERLIQUID
        missing = max(margin, _TRANSFER_MARGIN * held.notional) if is_hyperliquid else margin
        if is_hyperliquid and total <= free:  # not the raw cash, which is less
            equity = free + missing
            consistent = held.notional == 0 or (free > 0 and held.is_quoted)
        else:
            equity = total + (held.signed if is_hyperliquid else held.unrealized)
            consistent = abs(equity - free - missing) <= _CENT + held.notional / 100
        consistent = consistent and (margin > 0) == (held.notional > 0)
        equity = equity if consistent else min(equity, free + margin)
        now = self._now_ns()
        # One whose end was never reported stays in flight in the cache for good.
        in_flight = any(
            now - order.ts_last < _LOST_ORDER_NS for order in self._strategy.cache.orders_inflight(key[0])
        )
        quiet = now - self._fill_ns.get(key, 0) > _SETTLE_NS and not in_flight
        profit = self._realized.get(key, _ZERO) + held.unrealized + held.realized
        return _Report(equity, profit, now, consistent and quiet)

    def _compare_pending(self, key: AccountKey) -> None:
        """Apply the last report, if no fill came near to it."""
        report = self._pending.get(key)
        if report is None or not report.consistent:
            return
        if self._fill_ns.get(key, 0) >= report.ts:
            self._pending[key] = report._replace(consistent=False)  # a bound for entries until the next one
        elif self._now_ns() - report.ts >= _SETTLE_NS:
            del self._pending[key]
            self._apply_report(key, report)

    def _apply_report(self, key: AccountKey, report: _Report) -> None:
        difference = report.equity - report.profit - self._base[key]
        notional, since = self._notional.get(key, _ZERO), self._compared_ns[key]
        hours_passed = report.ts // _HOUR_NS > (since - _FUNDING_DELAY_NS) // _HOUR_NS
        cost = _CENT + notional * (_MAX_FUNDING if hours_passed else _PRICE_NOISE)
        self._base[key] += difference
        self._compared_ns[key], self._notional[key] = report.ts, self._held(key).notional
        if key in self.unknown:
            self.unknown.discard(key)
        elif abs(difference) > cost:
            self._shift_opening(key, difference, report.equity)

    def _shift_opening(self, key: AccountKey, transfer: Decimal, equity: Decimal) -> None:
        """Shift the day's opening equity by a deposit or withdrawal."""
        if key in self.opening:
            self.transferred[key] = self.transferred.get(key, _ZERO) + transfer
            if (
                self.day_open(key) <= 0
            ):  # more was taken out than there was in the morning: the day begins anew
                self.transferred[key] = equity - self.opening[key]
        kind = "deposit" if transfer > 0 else "withdrawal"
        self._strategy.log.warning(
            f"{kind} of {abs(transfer):.2f} {key[1]} at {key[0]}: equity {equity:.2f}, "
            f"the day's loss is measured from {self.day_open(key) if key in self.opening else equity:.2f}"
        )

    def _held(self, key: AccountKey, *, quoted: bool = False) -> _Held:
        """Return what the open positions amount to, at the last closes or where there are some at fresh quotes."""
        signed, notional, unrealized, realized, is_quoted = _ZERO, _ZERO, _ZERO, _ZERO, True
        for position, instrument in self._exposure.positions(key):
            quote = self._fresh_middle(instrument) if quoted else None
            is_quoted = is_quoted and quote is not None
            price = self._exposure.price(position, instrument) if quote is None else quote
            value = instrument.notional_value(position.quantity, price).as_decimal()
            signed += value if position.side == PositionSide.LONG else -value
            notional += value
            unrealized += position.unrealized_pnl(price).as_decimal()
            realized += _realized(position)
        return _Held(signed, notional, unrealized, realized, is_quoted)

    def _fresh_middle(self, instrument: Instrument) -> Price | None:
        quote = self._strategy.cache.quote_tick(instrument.id)
        if quote is None or self._now_ns() - quote.ts_init > _QUOTE_NS:
            return None
        return instrument.make_price((quote.bid_price.as_double() + quote.ask_price.as_double()) / 2)

    def _profit(self, key: AccountKey) -> Decimal:
        """Return what all positions have made since the start, open and closed ones, at the last closes."""
        held = self._held(key)
        return self._realized.get(key, _ZERO) + held.unrealized + held.realized

    def _now_ns(self) -> int:
        now_ns: int = self._strategy.clock.timestamp_ns()
        return now_ns


def _margin(event: AccountState, currency: Currency) -> Decimal:
    """Return the initial margin of all positions."""
    margins = (m.initial for m in event.margins if m.initial.currency == currency)
    return sum((m.as_decimal() for m in margins), _ZERO)


def _is_made_up(fill: OrderFilled, position: Position) -> bool:
    """Return whether Nautilus does not know a fill's price.

    It takes zero where it learns of a fill by the order's status, and the price of the entry where by the position's.
    """
    return bool(
        fill.last_px.as_double() <= 0.0 or (fill.reconciliation and fill.order_side != position.entry)
    )


def _realized(position: Position) -> Decimal:
    """Return the realized profit after fees, which a position leaves out where they are of another currency."""
    realized = position.realized_pnl
    profit: Decimal = _ZERO if realized is None else realized.as_decimal()
    own = position.settlement_currency
    return profit - sum((fee.as_decimal() for fee in position.commissions() if fee.currency != own), _ZERO)
