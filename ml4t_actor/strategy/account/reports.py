"""What Nautilus's reports of a live account say of its equity, as far as they say it."""

from decimal import Decimal
from typing import NamedTuple

from ml4t_actor.nautilus.model import Currency, PositionSide, Price, Venue
from ml4t_actor.nautilus.trading import AccountState, Instrument, Position, Strategy
from ml4t_actor.strategy.account.exposure import Exposure
from ml4t_actor.strategy.account.reservations import AccountKey

_ZERO = Decimal(0)
_HYPERLIQUID = Venue("HYPERLIQUID")
# Of the notional: what Hyperliquid keeps from being withdrawn, at least.
_TRANSFER_MARGIN = Decimal("0.1")
# A younger quote than this prices the positions of a report.
_QUOTE_NS = 15_000_000_000
_CENT = Decimal("0.01")


class Held(NamedTuple):
    """What the open positions of an account amount to.

    Attributes
    ----------
    signed, notional : Decimal
        Their value, and its absolute amount.
    unrealized, realized : Decimal
        What they have made, after fees.
    is_quoted : bool
        Whether all of it is at fresh quotes.
    """

    signed: Decimal
    notional: Decimal
    unrealized: Decimal
    realized: Decimal
    is_quoted: bool


class ReportedEquity(NamedTuple):
    """What a report says of the equity.

    Attributes
    ----------
    equity : Decimal
        Where it does not fit, no more than can be.
    held : Held
        What was held by then.
    fits : bool
        Whether it fits the positions that are known here.
    """

    equity: Decimal
    held: Held
    fits: bool


class AccountReports:
    """Reads reports of accounts.

    Nautilus's adapter for Hyperliquid reports no equity. Its balance is the raw cash, which lacks the value of
    positions, or what may be withdrawn where that is more; free is what may be withdrawn, to which the used margin, or
    a tenth of the notional if that is more, is missing. Where the balance is the raw cash, it and the signed value of
    the positions are the equity exactly; else free and margin are. Where both are known and do not agree by 1 % of the
    notional, or a margin is used without a position or the other way round, the report does not fit the positions known
    here. Elsewhere the balance is taken for a wallet's, to which the open profit is added, and compared with free and
    margin in the same way.

    Parameters
    ----------
    strategy : Strategy
        For its cache and clock.
    exposure : Exposure
        Of the accounts.
    """

    def __init__(self, strategy: Strategy, exposure: Exposure) -> None:
        self._strategy, self._exposure = strategy, exposure

    def read(self, key: AccountKey, event: AccountState) -> ReportedEquity:
        """Return what a report says of the equity, with what is known now."""
        held = self.held(key, quoted=True)
        balance = next(b for b in event.balances if b.currency == key[1])
        total, free = balance.total.as_decimal(), balance.free.as_decimal()
        margin = _margin(event, key[1])
        is_hyperliquid = key[0] == _HYPERLIQUID
        missing = max(margin, _TRANSFER_MARGIN * held.notional) if is_hyperliquid else margin
        if is_hyperliquid and total <= free:  # not the raw cash, which is less
            equity = free + missing
            fits = held.notional == 0 or (free > 0 and held.is_quoted)
        else:
            equity = total + (held.signed if is_hyperliquid else held.unrealized)
            fits = abs(equity - free - missing) <= _CENT + held.notional / 100
        fits = fits and (margin > 0) == (held.notional > 0)
        return ReportedEquity(equity if fits else min(equity, free + margin), held, fits)

    def held(self, key: AccountKey, *, quoted: bool = False) -> Held:
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
            realized += realized_profit(position)
        return Held(signed, notional, unrealized, realized, is_quoted)

    def _fresh_middle(self, instrument: Instrument) -> Price | None:
        quote = self._strategy.cache.quote_tick(instrument.id)
        if quote is None or self._strategy.clock.timestamp_ns() - quote.ts_init > _QUOTE_NS:
            return None
        return instrument.make_price((quote.bid_price.as_double() + quote.ask_price.as_double()) / 2)


def realized_profit(position: Position) -> Decimal:
    """Return the realized profit after fees, which a position leaves out where they are of another currency."""
    realized = position.realized_pnl
    profit: Decimal = _ZERO if realized is None else realized.as_decimal()
    own = position.settlement_currency
    return profit - sum((fee.as_decimal() for fee in position.commissions() if fee.currency != own), _ZERO)


def _margin(event: AccountState, currency: Currency) -> Decimal:
    """Return the initial margin of all positions."""
    margins = (m.initial for m in event.margins if m.initial.currency == currency)
    return sum((m.as_decimal() for m in margins), _ZERO)
