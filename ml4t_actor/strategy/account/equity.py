"""What the account is worth, at the last closes."""

from collections.abc import Iterable
from decimal import Decimal

from ml4t_actor.nautilus.model import Currency
from ml4t_actor.nautilus.trading import Account, Instrument, PositionClosed, Strategy
from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.reservations import AccountKey
from ml4t_actor.strategy.account.statements import AssetTerms
from ml4t_actor.strategy.execution.order_execution import Guard
from ml4t_actor.strategy.journal.order_journal import DayRecord, UnsettledOpening
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
    funding : dict[AccountKey, Decimal]
        What of the day's profit is funding, received less paid, as far as the venue's records are known.
    unexplained : dict[AccountKey, Decimal]
        What the account has gained today, or lost, that no trade, funding or transfer explains. A loss counts as one;
        of a gain nothing is made use of that day.
    counted_ms : dict[AccountKey, int]
        Up to which time, by the venue's clock, its records are in these.
    unsettled : dict[AccountKey, UnsettledOpening]
        Accounts of which it was not known at the opening what had been traded by then, until the venue has said it.
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
        self.funding: dict[AccountKey, Decimal] = {}
        self.unexplained: dict[AccountKey, Decimal] = {}
        self.counted_ms: dict[AccountKey, int] = {}
        self.unsettled: dict[AccountKey, UnsettledOpening] = {}
        self.halted: set[AccountKey] = set()
        self.unknown: set[AccountKey] = set()

    def start(self, guard: Guard, instruments: Iterable[Instrument] = ()) -> None:
        """Do nothing: a backtest's account is always up to date."""

    def stop(self) -> None:
        """Do nothing: nothing was subscribed to."""

    def new_day(self) -> None:
        """Begin a day: its opening equity is that of the next `mark`."""
        self.opening.clear()
        self.transferred.clear()
        self.funding.clear()
        self.unexplained.clear()
        self.unsettled.clear()
        self.halted.clear()

    def resume_day(self, key: AccountKey, record: DayRecord) -> None:
        """Go on with a day that an earlier life began."""
        self.opening[key], self.transferred[key] = record.open_equity, record.transferred
        self.funding[key], self.unexplained[key] = record.funding, record.unexplained
        if record.counted_ms:
            self.counted_ms[key] = record.counted_ms
        if record.unsettled is not None:
            self.unsettled[key] = record.unsettled
        if record.halted:
            self.halted.add(key)

    def day_open(self, key: AccountKey) -> Decimal:
        """Return what the day's loss of an account is measured from."""
        return self.opening[key] + self.transferred.get(key, _ZERO)

    def mark(self, instrument: Instrument) -> Decimal:
        """Return the equity of the instrument's account; halt it if its daily loss has reached the limit."""
        key = account_key(instrument)
        equity = self._mark_to_market(key, instrument.get_cost_currency())
        if not equity.is_nan():
            if key not in self.opening:
                self.opening[key] = equity
                self._on_opening(key)
            is_lost = self._counted(key, equity) <= self.day_open(key) * self._fraction_at_limit
            if is_lost and self._is_certain(key):
                self.halted.add(key)
        return equity

    def view(self, instrument: Instrument) -> AccountView:
        """Return the instrument's account, as a decision about the instrument sees it."""
        equity, key = self.mark(instrument), account_key(instrument)
        if equity.is_nan():
            return AccountView(_NAN, _NAN, _NAN)
        equities = self._prudent(instrument, self._counted(key, equity), self.day_open(key))
        return AccountView(*equities, *self._exposure.at_stake(key, instrument.id))

    def terms(self, instrument: Instrument) -> AssetTerms | None:
        """Return on which terms the account trades an instrument; None where that is not known."""
        return None

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

    def _counted(self, key: AccountKey, equity: Decimal) -> Decimal:
        """Return the equity that is made use of: without what nobody can explain."""
        return equity - max(self.unexplained.get(key, _ZERO), _ZERO)

    def _on_opening(self, key: AccountKey) -> None:
        """Do nothing: a backtest knows what was traded."""

    def _is_certain(self, key: AccountKey) -> bool:
        """Return whether what an account has lost can't turn out to be something else."""
        return True

    def _prudent(self, instrument: Instrument, equity: Decimal, day_open: Decimal) -> tuple[Decimal, Decimal]:
        """Return the equity, now and at the day's opening, that a decision about an instrument may count on."""
        return equity, day_open
