"""What the account is worth, at the last closes."""

from collections.abc import Mapping
from decimal import Decimal

from ml4t_actor.nautilus.model import Currency, InstrumentId, Venue
from ml4t_actor.nautilus.trading import Instrument, Position, PositionClosed, Strategy
from ml4t_actor.strategy.risk import AccountView

AccountKey = tuple[Venue, Currency]

_NAN = Decimal("NaN")
_ZERO = Decimal(0)
# Of the notional: what Hyperliquid keeps from being withdrawn, at least.
_TRANSFER_MARGIN = Decimal("0.1")


class Equity:
    """Equity of each account, and whether its daily loss has reached the limit.

    In a backtest the engine keeps the balance, to which open profits are added. A live account's balance is what the
    venue last reported: Nautilus's adapter for Hyperliquid asks at the start only, and what it calls the balance lacks
    the value of open positions. So a report counts when there is no position, and profits are added to it since;
    with a position at the start, equity is first estimated from margin and what may be withdrawn.

    Parameters
    ----------
    strategy : Strategy
        For its cache and portfolio.
    prices : Mapping[InstrumentId, float]
        Last closes.
    max_daily_loss : float
        Of the equity at the day's opening.
    live : bool
        Whether the engine is live.

    Attributes
    ----------
    halted : set[AccountKey]
        Accounts whose daily loss has reached the limit today.
    unknown : set[AccountKey]
        Accounts that have closed a position at a price that is not known, until the venue reports.
    """

    def __init__(
        self, strategy: Strategy, prices: Mapping[InstrumentId, float], max_daily_loss: float, *, live: bool
    ) -> None:
        self._strategy, self._prices, self._live = strategy, prices, live
        self._left = 1 - Decimal(repr(max_daily_loss))  # of the day's opening equity, at the limit
        self._day_open: dict[AccountKey, Decimal] = {}
        self._reported: dict[AccountKey, tuple[object, Decimal]] = {}
        self._banked: dict[AccountKey, Decimal] = {}
        self.halted: set[AccountKey] = set()
        self.unknown: set[AccountKey] = set()

    def new_day(self) -> None:
        """Begin a day: its opening equity is that of the next `view`."""
        self._day_open.clear()
        self.halted.clear()

    def view(self, instrument: Instrument) -> AccountView:
        """Return the instrument's account, and note a daily loss that has reached its limit."""
        key = account_key(instrument)
        equity, gross = self._marked(*key)
        if equity.is_nan():
            return AccountView(_NAN, _NAN, _NAN)
        day_open = self._day_open.setdefault(key, equity)
        if equity <= day_open * self._left:
            self.halted.add(key)
        return AccountView(equity, day_open, gross)

    def closed(self, event: PositionClosed) -> None:
        """Bank the profit of a position that was closed since the last report."""
        position = self._strategy.cache.position(event.position_id)
        instrument = self._strategy.cache.instrument(event.instrument_id)
        if position is None or instrument is None:
            return
        key = account_key(instrument)
        if all(fill.last_px.as_double() > 0.0 for fill in position.events):
            self._banked[key] = self._banked.get(key, _ZERO) + _realized(position)
        else:  # Nautilus makes up a fill at zero where it learns of one without its price
            self.unknown.add(key)

    def _marked(self, venue: Venue, currency: Currency) -> tuple[Decimal, Decimal]:
        """Return equity and gross notional of all positions, whichever strategy's, at the last closes."""
        account = self._strategy.portfolio.account(venue)
        balance = None if account is None else account.balance_total(currency)
        if balance is None:
            return _NAN, _NAN
        profit, gross, count = _ZERO, _ZERO, 0
        for position in self._strategy.cache.positions_open(venue):
            held = self._strategy.cache.instrument(position.instrument_id)
            if account_key(held)[1] == currency:
                price = held.make_price(self._prices.get(position.instrument_id, position.avg_px_open))
                profit += position.unrealized_pnl(price).as_decimal()
                if self._live:
                    profit += _realized(position)
                gross += held.notional_value(position.quantity, price).as_decimal()
                count += 1
        if not self._live:
            return balance.as_decimal() + profit, gross
        key, report = (venue, currency), account.last_event.id
        known = self._reported.get(key)
        if known is None or (known[0] != report and count == 0):
            base: Decimal = balance.as_decimal()
            if count:
                margins = [m.initial for m in account.last_event.margins if m.initial.currency == currency]
                margin = sum((m.as_decimal() for m in margins), _ZERO)
                free = account.balance_free(currency).as_decimal()
                base = free + max(margin, _TRANSFER_MARGIN * gross) - profit
            known = self._reported[key] = (report, base)
            self._banked[key] = _ZERO
            self.unknown.discard(key)
        return known[1] + self._banked[key] + profit, gross


def account_key(instrument: Instrument) -> AccountKey:
    """Return what says which account an instrument's profits go to.

    Hyperliquid quotes in USD and settles in USDC, one for one.
    """
    settled = getattr(instrument, "settlement_currency", None)
    return instrument.id.venue, settled or instrument.get_cost_currency()


def _realized(position: Position) -> Decimal:
    """Return the realized profit after fees, which a position leaves out where they are of another currency."""
    realized = position.realized_pnl
    profit: Decimal = _ZERO if realized is None else realized.as_decimal()
    own = position.settlement_currency
    return profit - sum((fee.as_decimal() for fee in position.commissions() if fee.currency != own), _ZERO)
