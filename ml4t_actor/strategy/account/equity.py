"""What the account is worth, at the last closes."""

from decimal import Decimal

from ml4t_actor.nautilus.model import Currency
from ml4t_actor.nautilus.trading import Account, Instrument, PositionClosed, Strategy
from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.execution.order_execution import Guard
from ml4t_actor.strategy.views import AccountView

_NAN = Decimal("NaN")
_ZERO = Decimal(0)


class Equity:
    """Equity of each account of a backtest, and whether its daily loss has reached the limit.

    The engine keeps the balance, to which open profits are added.

    Parameters
    ----------
    strategy : Strategy
        For its cache and portfolio.
    exposure : Exposure
        Of the accounts.
    max_daily_loss : float
        Of the equity at the day's opening.

    Attributes
    ----------
    opening : dict[AccountKey, Decimal]
        Equity with which the day began.
    transferred : dict[AccountKey, Decimal]
        What was paid in, less what was paid out, since then: the day's loss is measured from the sum of both.
    halted : set[AccountKey]
        Accounts whose daily loss has reached the limit today.
    unknown : set[AccountKey]
        Accounts that have closed a position at a price that is not known, until the venue reports.
    """

    def __init__(self, strategy: Strategy, exposure: Exposure, max_daily_loss: float) -> None:
        self._strategy, self._exposure = strategy, exposure
        self._fraction_at_limit = 1 - Decimal(repr(max_daily_loss))  # of the day's opening equity
        self.opening: dict[AccountKey, Decimal] = {}
        self.transferred: dict[AccountKey, Decimal] = {}
        self.halted: set[AccountKey] = set()
        self.unknown: set[AccountKey] = set()

    def start(self, guard: Guard) -> None:
        """Do nothing: a backtest's account is always up to date."""

    def stop(self) -> None:
        """Do nothing: nothing was subscribed to."""

    def new_day(self) -> None:
        """Begin a day: its opening equity is that of the next `mark`."""
        self.opening.clear()
        self.transferred.clear()
        self.halted.clear()

    def resume_day(
        self, key: AccountKey, open_equity: Decimal, *, halted: bool, transferred: Decimal = _ZERO
    ) -> None:
        """Go on with a day that an earlier life began."""
        self.opening[key], self.transferred[key] = open_equity, transferred
        if halted:
            self.halted.add(key)

    def day_open(self, key: AccountKey) -> Decimal:
        """Return what the day's loss of an account is measured from."""
        return self.opening[key] + self.transferred.get(key, _ZERO)

    def mark(self, instrument: Instrument) -> Decimal:
        """Return the equity of the instrument's account; halt it if its daily loss has reached the limit."""
        key = account_key(instrument)
        equity = self._mark_to_market(key, instrument.get_cost_currency())
        if not equity.is_nan():
            self.opening.setdefault(key, equity)
            if equity <= self.day_open(key) * self._fraction_at_limit:
                self.halted.add(key)
        return equity

    def view(self, instrument: Instrument) -> AccountView:
        """Return the instrument's account, as a decision about the instrument sees it."""
        equity, key = self.mark(instrument), account_key(instrument)
        if equity.is_nan():
            return AccountView(_NAN, _NAN, _NAN)
        doubtful = self._doubtful(instrument, equity)
        at_stake = self._exposure.at_stake(key, instrument.id)
        return AccountView(equity - doubtful, self.day_open(key) - doubtful, *at_stake)

    def on_position_closed(self, event: PositionClosed) -> None:
        """Do nothing: its profit is in the engine's balance."""

    def _mark_to_market(self, key: AccountKey, cost_currency: Currency) -> Decimal:
        """Return the equity at the last closes."""
        venue, currency = key
        account = self._strategy.portfolio.account(venue)
        balances = [] if account is None else [account.balance_total(currency)]
        if account is not None and account.calculate_account_state and cost_currency != currency:
            # Nautilus books profits and fees in the currency of the price: Hyperliquid's in USD, one for one with USDC.
            balances.append(account.balance_total(cost_currency))
        known = [balance.as_decimal() for balance in balances if balance is not None]
        return self._equity_of(key, account, sum(known, _ZERO)) if known else _NAN

    def _equity_of(self, key: AccountKey, account: Account, balance: Decimal) -> Decimal:
        """Return the equity of an account with this balance."""
        positions = self._exposure.positions(key)
        profits = (p.unrealized_pnl(self._exposure.price(p, i)).as_decimal() for p, i in positions)
        return sum(profits, balance)

    def _doubtful(self, instrument: Instrument, equity: Decimal) -> Decimal:
        """Return what of the equity an entry should not count on."""
        return _ZERO
