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
        Sum of the absolute notionals of all open positions at current prices, this instrument's included, and of
        entries on their way.
    leaving_notional : float or Decimal, default 0.0
        What of it orders on their way take off other instruments: nothing is opened with it, but no position is
        reduced for it a second time.
    open_risk : float or Decimal, default 0.0
        What the positions and entries of other instruments still lose from current prices up to their stops, costs
        included.
    """

    equity: Number
    day_open_equity: Number
    gross_notional: Number
    leaving_notional: Number = 0.0
    open_risk: Number = 0.0


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
    maintenance_margin : float or Decimal, optional
        Equity below which the venue liquidates, as a fraction of notional; None or 0 where the definition of the
        instrument does not give it, as Hyperliquid's adapter does not.
    liquidation_distance : float or Decimal, optional
        How far the price may move against a new position, as a fraction of its entry, until the margin that it has of
        its own is used up; None where the whole account is its margin.
    """

    price: Number
    size_increment: Number
    min_quantity: Number | None = None
    max_quantity: Number | None = None
    min_notional: Number | None = None
    multiplier: Number = 1.0
    maintenance_margin: Number | None = None
    liquidation_distance: Number | None = None
