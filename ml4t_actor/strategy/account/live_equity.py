"""What a live account is worth, by what the venue says of it and what was traded since."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.market_data import MILLISECOND_NS, SECOND_NS
from ml4t_actor.nautilus.components import UUID4
from ml4t_actor.nautilus.model import AccountId
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
from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.holdings import agree, value_elsewhere
from ml4t_actor.strategy.account.recorded_equity import RecordedEquity
from ml4t_actor.strategy.account.reports import AccountReports, realized_profit
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.account.statements import (
    AccountStatement,
    AssetTerms,
    Funding,
    StatementRequest,
    Statements,
    StatementSource,
    Transfer,
)
from ml4t_actor.strategy.execution.order_execution import Guard
from ml4t_actor.strategy.journal.order_journal import DayRecord, UnsettledOpening
from ml4t_actor.strategy.orders.refusals import UNANSWERED, denies_position

_ZERO = Decimal(0)
_CENT = Decimal("0.01")
# What was filled so near to a report or a statement may be in one and not known here, or the other way round.
_SETTLE_NS = 2 * SECOND_NS
_LOST_ORDER_NS = 30 * SECOND_NS  # without an answer
# Of the notional: the venue's price for positions against ours.
_PRICE_NOISE = Decimal("0.0025")
# Of the notional: sums of rounded prices, profits and fees.
_ROUNDING = Decimal("0.00001")
_HOUR_MS = 3_600_000
# After the full hour, by when the funding is in the venue's records.
_FUNDED_MS = 20_000
# Records that appear later than this after their time are not found.
_LATE_RECORD_MS = _HOUR_MS
_AGAIN_S, _LONGEST_PAUSE_S = 3.0, 60.0
_ATTEMPTS = 3


class _Report(NamedTuple):
    """What Nautilus reported of an account, and what was known here at that time.

    `profit` is what all positions had made since the strategy's start, and `consistent` whether the report fits the
    positions that are known here.
    """

    equity: Decimal
    profit: Decimal
    ts: int
    consistent: bool


class LiveEquity(RecordedEquity):
    """Equity of each live account, and whether its daily loss has reached the limit.

    It is what the venue said last, and the profits of all positions since, whichever strategy's they are.

    Nautilus's reports of the account, `AccountReports`, have neither transfers nor funding, and the price of positions
    is the venue's. So where a venue can be asked (`StatementSource`) a report only leads to the question: at the start,
    after each full hour, after a fill whose price is not known, and when a report differs by more than a cent and
    0.25 % of the notional. The answer, a statement, is exact. By the venue's records what has changed beside the trades
    that are known here is

    - a **transfer**: it shifts the day's opening equity and is no profit or loss;
    - **funding**: a profit or loss like that of a trade, which is summed up for the day;
    - the result of fills whose price Nautilus has inferred or made up, where there were any: it learns of some from an
      order's state alone;
    - else **unexplained**, when it still is after three statements. A loss counts as one. Of a gain nothing is made use
      of that day: neither do entries grow, nor is there more to lose.

    A day that begins while it is not known what was traded so far opens with what the venue's fills since then say
    (`opening_equity`): what is found out later is no result of the new day.

    A statement counts if it fits the positions that are known here, no order is on its way and no fill came within 2 s.
    Until there is one, entries are sized by the lower of report and expectation, and what is missing counts as lost.

    Where nothing can be asked, a report that fits, with no fill within 2 s and no order on its way, is compared with
    the expectation itself. What is missing is a loss, a withdrawal too: nobody can tell them apart. What is more by a
    cent and 0.25 % of the notional is a deposit. A day that begins in doubt opens with the higher of the first look and
    the first such report.

    An account whose balance Nautilus calculates itself, as in the sandbox, is always up to date, as in a backtest.

    Parameters
    ----------
    strategy : Strategy
        For its cache, portfolio, clock and log.
    exposure : Exposure
        Of the accounts.
    max_daily_loss : float
        Of the equity at the day's opening.
    sources : Mapping[str, StatementSource], optional
        By venue.
    call_soon : callable, optional
        Calls a function on the event thread, from any; where there are sources.
    on_counted : callable, optional
        Called when what a statement says has been counted.
    """

    def __init__(
        self,
        strategy: Strategy,
        exposure: Exposure,
        max_daily_loss: float,
        sources: Mapping[str, StatementSource] | None = None,
        call_soon: Callable[[Callable[[], None]], None] = lambda function: function(),
        on_counted: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(strategy, exposure, max_daily_loss)
        self._reports = AccountReports(strategy, exposure)
        self._statements = Statements(sources or {}, call_soon, self._on_statement, self._on_no_statement)
        self._on_counted = on_counted
        self._instruments: list[Instrument] = []
        self._terms: dict[tuple[str, str], AssetTerms] = {}
        self._terms_hour: dict[str, int] = {}
        self._base: dict[AccountKey, Decimal] = {}  # equity but for the profits since the start
        self._realized: dict[AccountKey, Decimal] = {}  # of positions closed since the start
        self._pending: dict[AccountKey, _Report] = {}
        self._disputed: set[AccountKey] = set()  # by a report that has settled, until the next statement
        self._stated: set[AccountKey] = set()  # the base is that of a statement
        self._resumed: set[AccountKey] = set()  # days whose records are not known yet
        self._stated_hour: dict[AccountKey, int] = {}
        self._floor_ms: dict[AccountKey, int] = {}  # records up to then are of no concern to the day
        self._records: set[Transfer | Funding] = set()  # that are counted
        self._attempts: dict[AccountKey, int] = {}
        self._pause_s: dict[AccountKey, float] = {}
        self._fill_ns: dict[AccountKey, int] = {}
        self._inferred: set[AccountKey] = set()  # by Nautilus, the price of a fill since the last statement
        self._notional: dict[AccountKey, Decimal] = {}  # the highest since the last comparison
        self._last_event_id: dict[AccountId, UUID4] = {}
        self._subscriptions: list[tuple[str, Callable[..., None]]] = []

    def start(self, guard: Guard, instruments: Iterable[Instrument] = ()) -> None:
        """Subscribe to the reports of accounts, and to the fills and positions of all; ask for a first statement."""

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
        self._instruments = list(instruments)
        for key in {account_key(instrument) for instrument in self._instruments}:
            if (account := self._strategy.portfolio.account(key[0])) is not None:
                self._last_event_id[account.id] = account.last_event.id
            self._request_statement(key)

    def stop(self) -> None:
        """Unsubscribe, and ask no more."""
        self._statements.stop()
        for topic, handler in self._subscriptions:
            self._strategy.msgbus.unsubscribe(topic=topic, handler=handler)
        self._subscriptions = []

    def new_day(self) -> None:
        """Begin a day: its opening equity is that of the next `mark`, which has in it what was counted so far."""
        super().new_day()
        self._floor_ms.update(self.counted_ms)

    def resume_day(self, key: AccountKey, record: DayRecord) -> None:
        """Go on with a day that an earlier life began: what was transferred since then is in the next statement."""
        super().resume_day(key, record)
        if record.counted_ms:
            self._floor_ms[key] = record.counted_ms
            self._stated.discard(key)
            self._resumed.add(key)
            if self._statements.can_ask(key[0].value):
                self.unknown.add(key)  # a deposit that is not counted yet would hide a loss
            self._request_statement(key)

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
            self._realized[key] = self._realized.get(key, _ZERO) + realized_profit(position)

    def _on_opening(self, key: AccountKey) -> None:
        """Have the opening settled later, where it is not known what was traded so far."""
        if key not in self._base:
            return  # Nautilus calculates it
        now, can_ask = self._now_ns(), self._statements.can_ask(key[0].value)
        is_known = key not in self.unknown | self._inferred and self._is_quiet(key, now)
        if not is_known or (can_ask and key not in self._stated):
            self.unsettled[key] = UnsettledOpening(now // MILLISECOND_NS, self._exposure.prices(key))
            self._request_statement(key)

    def terms(self, instrument: Instrument) -> AssetTerms | None:
        """Return on which terms the account trades an instrument; None where that is not known."""
        return self._terms.get((instrument.id.venue.value, instrument.raw_symbol.value))

    def _equity_of(self, key: AccountKey, account: Account, balance: Decimal) -> Decimal:
        if account.calculate_account_state:
            return super()._equity_of(key, account, balance)
        self._notional[key] = max(self._notional.get(key, _ZERO), self._reports.held(key).notional)
        if key not in self._base:
            report = self._report(key, account.last_event)
            self._last_event_id[account.id] = account.last_event.id
            self._base[key] = report.equity - report.profit
        if key not in self.counted_ms:
            self.counted_ms[key] = self._floor_ms[key] = self._now_ns() // MILLISECOND_NS
        self._compare_pending(key)
        return self._base[key] + self._profit(key)

    def _is_certain(self, key: AccountKey) -> bool:
        """Return whether it is known what was transferred while no node ran; where not, entries alone are refused."""
        return key not in self._resumed or not self._statements.can_ask(key[0].value)

    def _prudent(self, instrument: Instrument, equity: Decimal, day_open: Decimal) -> tuple[Decimal, Decimal]:
        """Return the equities without what the last report lacks, which is lost when the report has settled."""
        key = account_key(instrument)
        report = self._pending.get(key)
        if report is None or self._strategy.cache.positions_open(instrument_id=instrument.id):
            return equity, day_open
        missing = max(equity - (report.equity - report.profit + self._profit(key)), _ZERO)
        return equity - missing, day_open if key in self._disputed else day_open - missing

    # Reports

    def _on_account_state(self, event: AccountState) -> None:
        """Compare what the venue reports with what was expected, when it has settled."""
        if not event.is_reported or self._last_event_id.get(event.account_id) == event.id:
            return  # the portfolio publishes the last report again with every event of an order
        self._last_event_id[event.account_id] = event.id
        for key in list(self._base):
            account = self._strategy.portfolio.account(key[0])
            if account is None or account.id != event.account_id:
                continue
            self._compare_pending(key)
            report = self._pending[key] = self._report(key, event)
            is_settled = report.ts - self._fill_ns.get(key, 0) > _SETTLE_NS
            if key in self.unknown and self._reports.held(key).notional == 0 and is_settled:
                # Nothing is held that it could be inconsistent with: better than to trade no more.
                self._apply_report(key, report)
            if self._is_due(key):
                self._request_statement(key)

    def _on_fill(self, event: OrderFilled) -> None:
        cache = self._strategy.cache
        instrument, order = cache.instrument(event.instrument_id), cache.order(event.client_order_id)
        if instrument is None:
            return
        key = account_key(instrument)
        self._fill_ns[key] = self._now_ns()
        if event.reconciliation or event.last_px.as_double() <= 0.0:
            self._inferred.add(key)
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
        self._fill_ns[key] = self._now_ns()
        self._request_statement(key, _AGAIN_S)

    def _report(self, key: AccountKey, event: AccountState) -> _Report:
        """Return what a report says of the equity, with what is known now."""
        equity, held, fits = self._reports.read(key, event)
        profit = self._realized.get(key, _ZERO) + held.unrealized + held.realized
        return _Report(equity, profit, self._now_ns(), fits and self._is_quiet(key, self._now_ns()))

    def _is_quiet(self, key: AccountKey, ts: int) -> bool:
        """Return whether no fill came near to this time, and no order is on its way."""
        now = self._now_ns()
        # One whose end was never reported stays in flight in the cache for good.
        in_flight = any(
            now - order.ts_last < _LOST_ORDER_NS for order in self._strategy.cache.orders_inflight(key[0])
        )
        return self._fill_ns.get(key, 0) < ts - _SETTLE_NS and not in_flight

    def _compare_pending(self, key: AccountKey) -> None:
        """Apply the last report, if no fill came near to it."""
        report = self._pending.get(key)
        if report is None or not report.consistent or key in self._disputed:
            return
        if self._fill_ns.get(key, 0) >= report.ts:
            self._pending[key] = report._replace(consistent=False)  # a bound for entries until the next one
        elif self._now_ns() - report.ts >= _SETTLE_NS:
            self._apply_report(key, report)

    def _apply_report(self, key: AccountKey, report: _Report) -> None:
        difference = report.equity - report.profit - self._base[key]
        is_as_expected = abs(difference) <= _CENT + self._notional.get(key, _ZERO) * _PRICE_NOISE
        if self._statements.can_ask(key[0].value):
            if is_as_expected and key not in self.unknown:
                del self._pending[key]
            else:
                self._disputed.add(key)
                self._request_statement(key)
            return
        del self._pending[key]
        if not is_as_expected or key in self.unknown:
            self._count_difference(key, report, difference, is_as_expected=is_as_expected)
        self._inferred.discard(key)
        self._settle_by_report(key, report.equity)

    def _count_difference(
        self, key: AccountKey, report: _Report, difference: Decimal, *, is_as_expected: bool
    ) -> None:
        """Count what a report differs by, where nothing can be asked."""
        self._base[key] += difference
        self._notional[key] = self._reports.held(key).notional
        is_doubted = key in self.unknown
        self.unknown.discard(key)
        if (
            difference > 0
        ):  # what a fill at an unknown price has gained, perhaps: else a deposit would hide its loss
            if not is_as_expected:
                self._shift_opening(key, difference, "deposit", report.equity)
        elif not is_doubted:
            self._strategy.log.error(
                f"{-difference:.2f} {key[1]} less at {key[0]} than expected, withdrawn or lost: it counts as lost "
                "today, since nothing here can ask the venue for its records"
            )

    # Statements

    def _is_due(self, key: AccountKey) -> bool:
        """Return whether a statement is due: since the last one an hour was full, and its funding is recorded."""
        return key not in self._stated or self._stated_hour.get(key) != self._hour()

    def _request_statement(self, key: AccountKey, delay_s: float = 0.0) -> None:
        venue = key[0].value
        if self._statements.can_ask(venue):
            symbols = {i.raw_symbol.value for i in self._instruments if account_key(i) == key}
            wanted = () if self._terms_hour.get(venue) == self._hour() else tuple(sorted(symbols))
            openings = (each.ts_ms for of, each in self.unsettled.items() if of[0] == key[0])
            fills_since_ms = min(openings, default=None)
            request = StatementRequest(venue, self._since_ms(key), wanted, fills_since_ms)
            self._statements.request(request, delay_s)

    def _since_ms(self, key: AccountKey) -> int:
        """Return since when records are of concern."""
        now_ms = self._now_ns() // MILLISECOND_NS
        return max(self._floor_ms.get(key, now_ms), self.counted_ms.get(key, now_ms) - _LATE_RECORD_MS)

    def _hour(self) -> int:
        """Return the last hour whose funding is in the venue's records."""
        return (self._now_ns() // MILLISECOND_NS - _FUNDED_MS) // _HOUR_MS

    def _on_no_statement(self, venue: str, why: str) -> None:
        self._strategy.log.warning(
            f"{venue} gave no statement of the account: {why}. It is asked again; until then entries are sized by the "
            "lower of what is reported and what is expected"
        )

    def _on_statement(self, request: StatementRequest, statement: AccountStatement) -> None:
        for symbol, terms in statement.terms.items():
            self._terms[request.venue, symbol] = terms
            self._terms_hour[request.venue] = self._hour()
        for key in {account_key(instrument) for instrument in self._instruments}:
            if key[0].value != request.venue or key[1].code != statement.currency:
                continue
            if request.since_ms > self._since_ms(key) or self._lacks_fills(key, request):
                self._request_statement(key)  # a day has begun meanwhile, or was resumed that began before
            elif not agree(self._exposure.positions(key), statement, self._listed(key)) or not self._is_quiet(
                key, request.asked_ns
            ):
                self._pause_s[key] = min(2.0 * self._pause_s.get(key, _AGAIN_S / 2.0), _LONGEST_PAUSE_S)
                self._request_statement(key, self._pause_s[key])
            else:
                self._pause_s.pop(key, None)
                self._apply_statement(key, statement)

    def _lacks_fills(self, key: AccountKey, request: StatementRequest) -> bool:
        """Return whether fills are wanted that were not asked for."""
        opening, since_ms = self.unsettled.get(key), request.fills_since_ms
        return opening is not None and (since_ms is None or since_ms > opening.ts_ms)

    def _listed(self, key: AccountKey) -> set[str]:
        """Return the venue's names of the instruments that are known here."""
        return {instrument.raw_symbol.value for instrument in self._strategy.cache.instruments(venue=key[0])}

    def _apply_statement(self, key: AccountKey, statement: AccountStatement) -> None:
        """Count what the venue says, unless it may say more in a moment."""
        elsewhere = value_elsewhere(statement, self._listed(key))
        equity = statement.cash + self._reports.held(key).signed + elsewhere
        floor_ms = self._floor_ms.setdefault(key, statement.ts_ms)
        transfers = [t for t in statement.transfers if t.ts_ms > floor_ms and t not in self._records]
        funding = [f for f in statement.funding if f.ts_ms > floor_ms and f not in self._records]
        transferred = sum((t.amount or _ZERO for t in transfers), _ZERO)
        funded = sum((f.amount for f in funding), _ZERO)
        base = equity - self._profit(key)
        unexplained = _ZERO
        if key in self._stated and key not in self.unknown and key not in self._inferred:
            unexplained = base - self._base[key] - transferred - funded
        if abs(unexplained) > 5 * _CENT + self._notional.get(key, _ZERO) * _ROUNDING:
            self._attempts[key] = self._attempts.get(key, 0) + 1
            if self._attempts[key] < _ATTEMPTS:
                self._request_statement(key, _AGAIN_S)
                return
            self._add_unexplained(key, unexplained)
        self._attempts.pop(key, None)
        self._base[key], self._notional[key] = base, self._reports.held(key).notional
        self._stated.add(key)
        self._resumed.discard(key)
        self._stated_hour[key] = self._hour()
        self._pending.pop(key, None)
        self._disputed.discard(key)
        self.unknown.discard(key)
        self._inferred.discard(key)
        self.counted_ms[key] = statement.ts_ms
        self._records = {r for r in self._records if r.ts_ms > statement.ts_ms - 2 * _LATE_RECORD_MS}
        self._records.update(transfers, funding)
        self._settle_opening(key, statement, transferred, funded)
        self._count_records(key, transfers, funded, equity)
        self._on_counted()

    def _profit(self, key: AccountKey) -> Decimal:
        """Return what all positions have made since the start, open and closed ones, at the last closes."""
        held = self._reports.held(key)
        return self._realized.get(key, _ZERO) + held.unrealized + held.realized

    def _now_ns(self) -> int:
        now_ns: int = self._strategy.clock.timestamp_ns()
        return now_ns


def _is_made_up(fill: OrderFilled, position: Position) -> bool:
    """Return whether Nautilus does not know a fill's price.

    It takes zero where it learns of a fill by the order's status, and the price of the entry where by the position's.
    """
    return bool(
        fill.last_px.as_double() <= 0.0 or (fill.reconciliation and fill.order_side != position.entry)
    )
