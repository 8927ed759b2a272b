"""What a decision about risk is based on: account, position and instrument at that time."""

from dataclasses import dataclass
from decimal import Decimal

Number = float | Decimal


@dataclass(frozen=True, slots=True)
class AccountView:
    """The account at the time of a decision, in its currency.

    Attributes
    ----------
    equity : float or Decimal
        Balance and unrealised profit.
    day_open_equity : float or Decimal
        Equity at the day's opening.
    gross_notional : float or Decimal
        Sum of the absolute notionals of all open positions at current prices, this instrument's included.
    """

    equity: Number
    day_open_equity: Number
    gross_notional: Number


@dataclass(frozen=True, slots=True)
class PositionView:
    """The open position in the signal's instrument.

    Attributes
    ----------
    signed_quantity : float or Decimal
        Positive long, negative short, 0 flat.
    entry_price : float or Decimal
        Average price of entry.
    """

    signed_quantity: Number
    entry_price: Number


@dataclass(frozen=True, slots=True)
class InstrumentView:
    """The signal's instrument: linear, so that notional is quantity * price * multiplier.

    Attributes
    ----------
    price : float or Decimal
        Current price.
    size_increment : float or Decimal
        Smallest step of a quantity.
    min_quantity, max_quantity : float or Decimal, optional
        Bounds of one order's quantity.
    min_notional : float or Decimal, optional
        Lower bound of one order's notional.
    multiplier : float or Decimal, default 1.0
        Contract multiplier.
    """

    price: Number
    size_increment: Number
    min_quantity: Number | None = None
    max_quantity: Number | None = None
    min_notional: Number | None = None
    multiplier: Number = 1.0
