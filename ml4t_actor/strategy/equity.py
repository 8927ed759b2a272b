"""What the account is worth, at the last closes."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.nautilus.model import Currency, InstrumentId, Price, Venue
from ml4t_actor.nautilus.trading import Account, Instrument, Position, PositionClosed, Strategy
from ml4t_actor.strategy.views import AccountView

AccountKey = tuple[Venue, Currency]

_NAN = Decimal("NaN")
_ZERO = Decimal(0)
# Of the notional: what Hyperliquid keeps from being withdrawn, at least.
_TRANSFER_MARGIN = Decimal("0.1")


class _OpenPositions(NamedTuple):
    """All open positions of an account, whichever strategy's, at the last closes."""

    profit: Decimal
    gross_notional: Decimal
    n_positions: int


class _Report(NamedTuple):
    """What a live account was worth, open profits aside, when the venue last reported it."""

    event_id: object
    equity: Decimal


class Equity:
    """Equity of each account of a backtest, and whether its daily loss has reached the limit.

    The engine keeps the balance, to which open profits are added.

    Parameters
    ----------
    strategy : Strategy
        For its cache and portfolio.
    prices : Mapping[InstrumentId, float]
        Last closes.
    max_daily_loss : float
        Of the equity at the day's opening.

    Attributes
    ----------
    halted : set[AccountKey]
        Accounts whose daily loss has reached the limit today.
    unknown : set[AccountKey]
        Accounts that have closed a position at a price that is not known, until the venue reports.
    """

    def __init__(
        self, strategy: Strategy, prices: Mapping[InstrumentId, float], max_daily_loss: float
    ) -> None:
        self._strategy, self._prices = strategy, prices
        self._fraction_at_limit = 1 - Decimal(repr(max_daily_loss))  # of the day's opening equity
        self._day_open: dict[AccountKey, Decimal] = {}
        self.halted: set[AccountKey] = set()
        self.unknown: set[AccountKey] = set()

    def new_day(self) -> None:
        """Begin a day: its opening equity is that of the next `view`."""
        self._day_open.clear()
        self.halted.clear()

    def resume_day(self, key: AccountKey, open_equity: Decimal, *, halted: bool) -> None:
        """Go on with a day that an earlier life began."""
        self._day_open[key] = open_equity
        if halted:
            self.halted.add(key)

    def openings(self) -> dict[AccountKey, Decimal]:
        """Return the day's opening equity of each account, as far as it is known."""
        return dict(self._day_open)

    def view(self, instrument: Instrument) -> AccountView:
        """Return the instrument's account; halt it if its daily loss has reached the limit."""
        key = account_key(instrument)
        equity, gross_notional = self._mark_to_market(key)
        if equity.is_nan():
            return AccountView(_NAN, _NAN, _NAN)
        day_open = self._day_open.setdefault(key, equity)
        if equity <= day_open * self._fraction_at_limit:
            self.halted.add(key)
        return AccountView(equity, day_open, gross_notional)

    def on_position_closed(self, event: PositionClosed) -> None:
        """Do nothing: its profit is in the engine's balance."""

    def _mark_to_market(self, key: AccountKey) -> tuple[Decimal, Decimal]:
        """Return equity and gross notional at the last closes."""
        venue, currency = key
        account = self._strategy.portfolio.account(venue)
        balance = None if account is None else account.balance_total(currency)
        if balance is None:
            return _NAN, _NAN
        positions = self._open_positions(key)
        base = self._equity_without(positions, key, account, balance.as_decimal())
        return base + positions.profit, positions.gross_notional

    def _open_positions(self, key: AccountKey) -> _OpenPositions:
        venue, currency = key
        profit, gross_notional, count = _ZERO, _ZERO, 0
        for position in self._strategy.cache.positions_open(venue):
            instrument = self._strategy.cache.instrument(position.instrument_id)
            if account_key(instrument)[1] == currency:
                price = instrument.make_price(self._prices.get(position.instrument_id, position.avg_px_open))
                profit += self._profit(position, price)
                gross_notional += instrument.notional_value(position.quantity, price).as_decimal()
                count += 1
        return _OpenPositions(profit, gross_notional, count)

    def _profit(self, position: Position, price: Price) -> Decimal:
        """Return what an open position adds to the equity."""
        profit: Decimal = position.unrealized_pnl(price).as_decimal()
        return profit

    def _equity_without(
        self, positions: _OpenPositions, key: AccountKey, account: Account, balance: Decimal
    ) -> Decimal:
        """Return the equity without the profit of the open positions."""
        return balance


class LiveEquity(Equity):
    """Equity of each live account, and whether its daily loss has reached the limit.

    A live account's balance is what the venue last reported: Nautilus's adapter for Hyperliquid queries it at the start
    only, and what it calls the balance lacks the value of open positions. So a report counts when there is no position,
    and profits are added to it since; with a position at the start, equity is first estimated from margin and what may
    be withdrawn.
    """

    def __init__(
        self, strategy: Strategy, prices: Mapping[InstrumentId, float], max_daily_loss: float
    ) -> None:
        super().__init__(strategy, prices, max_daily_loss)
        self._reports: dict[AccountKey, _Report] = {}
        self._realized_since: dict[AccountKey, Decimal] = {}

    def on_position_closed(self, event: PositionClosed) -> None:
        """Add the profit of a position that was closed since the last report."""
        position = self._strategy.cache.position(event.position_id)
        instrument = self._strategy.cache.instrument(event.instrument_id)
        if position is None or instrument is None:
            return
        key = account_key(instrument)
        if all(fill.last_px.as_double() > 0.0 for fill in position.events):
            self._realized_since[key] = self._realized_since.get(key, _ZERO) + _realized(position)
        else:  # Nautilus makes up a fill at zero where it learns of one without its price
            self.unknown.add(key)

    def _profit(self, position: Position, price: Price) -> Decimal:
        return super()._profit(position, price) + _realized(position)

    def _equity_without(
        self, positions: _OpenPositions, key: AccountKey, account: Account, balance: Decimal
    ) -> Decimal:
        event_id, report = account.last_event.id, self._reports.get(key)
        if report is None or (report.event_id != event_id and positions.n_positions == 0):
            equity = _estimate(positions, key[1], account) if positions.n_positions else balance
            report = self._reports[key] = _Report(event_id, equity)
            self._realized_since[key] = _ZERO
            self.unknown.discard(key)
        return report.equity + self._realized_since[key]


def account_key(instrument: Instrument) -> AccountKey:
    """Return which account an instrument's profits go to.

    Hyperliquid quotes in USD and settles in USDC, one for one.
    """
    settled = getattr(instrument, "settlement_currency", None)
    return instrument.id.venue, settled or instrument.get_cost_currency()


def _estimate(positions: _OpenPositions, currency: Currency, account: Account) -> Decimal:
    """Return the equity that margin and free balance of a live account point to, without open profits."""
    margins = [m.initial for m in account.last_event.margins if m.initial.currency == currency]
    margin = sum((m.as_decimal() for m in margins), _ZERO)
    free: Decimal = account.balance_free(currency).as_decimal()
    return free + max(margin, _TRANSFER_MARGIN * positions.gross_notional) - positions.profit


def _realized(position: Position) -> Decimal:
    """Return the realized profit after fees, which a position leaves out where they are of another currency."""
    realized = position.realized_pnl
    profit: Decimal = _ZERO if realized is None else realized.as_decimal()
    own = position.settlement_currency
    return profit - sum((fee.as_decimal() for fee in position.commissions() if fee.currency != own), _ZERO)
