"""One position from its entry to its exit, and the prices of its barriers."""

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ml4t_actor.nautilus.model import Price
from ml4t_actor.nautilus.trading import Instrument, Order
from ml4t_actor.strategy.risk import InstrumentView

NEVER_NS = 2**62


@dataclass(frozen=True, slots=True)
class Plan:
    """What a signal is to become: an entry with its exits.

    Attributes
    ----------
    side : int
        1 buys, -1 sells.
    quantity : Decimal
        To enter.
    stop, target : Price
        Of the exits.
    deadline_ns : int
        When the horizon ends, by the bars' closes.
    """

    side: int
    quantity: Decimal
    stop: Price
    target: Price
    deadline_ns: int


@dataclass(slots=True, eq=False)
class Trade:
    """One position from its entry to its exit, with the orders that make it.

    Attributes
    ----------
    deadline_ns, expires_ns : int
        When the horizon ends, by the bars' closes and by the clock.
    leaving : bool
        An exit was decided, and is asked for again until the position is gone.
    entered : bool
        The entry is done, even where its end was never told.
    unknown : bool
        The venue did not say what became of the entry.
    clearing : bool
        The position is gone, and what is left of its exits is being cancelled.
    sent_ns : int
        When an order was last sent.
    refused_ns : int
        When the venue said that there is no position to close; 0 if it did not.
    """

    deadline_ns: int
    expires_ns: int = NEVER_NS
    plan: Plan | None = None
    entry: Order | None = None
    stop: Order | None = None
    target: Order | None = None
    closing: list[Order] = field(default_factory=list)
    leaving: bool = False
    entered: bool = False
    unknown: bool = False
    clearing: bool = False
    sent_ns: int = 0
    refused_ns: int = 0

    @property
    def in_flight(self) -> bool:
        """Whether orders are on their way, so that the position shown may not be what it will be."""
        entering = self.entry is not None and not self.entry.is_closed and not self.entered
        clearing = self.clearing and bool(self.exits)
        return self.unknown or entering or clearing or any(not order.is_closed for order in self.closing)

    @property
    def exits(self) -> list[Order]:
        """Stop and target, as far as they are not done."""
        return [order for order in (self.stop, self.target) if order is not None and not order.is_closed]


def barriers(
    instrument: Instrument, price: float, side: int, stop_distance: float, target_distance: float
) -> tuple[Price, Price] | None:
    """Return stop and target at these log distances, or None where rounding leaves no room for them."""
    try:
        stop = _tick(instrument, price * math.exp(-side * stop_distance))
        target = _tick(instrument, price * math.exp(side * target_distance))
    except (ArithmeticError, ValueError):  # out of the range of prices
        return None
    low, high = sorted((stop.as_double(), target.as_double()))
    return (stop, target) if 0.0 < low < price < high else None


def instrument_view(instrument: Instrument, price: float) -> InstrumentView:
    """Return what the risk stage needs to know of an instrument."""

    def number(value: Any) -> Any:
        return None if value is None else value.as_decimal()

    return InstrumentView(
        price=price,
        size_increment=instrument.size_increment.as_decimal(),
        min_quantity=number(instrument.min_quantity),
        max_quantity=number(instrument.max_quantity),
        min_notional=number(instrument.min_notional),
        multiplier=instrument.multiplier.as_decimal(),
    )


def _tick(instrument: Instrument, value: float) -> Price:
    """Return the price on the instrument's grid that is nearest; `make_price` knows only its decimals."""
    increment: Decimal = instrument.price_increment.as_decimal()
    return instrument.make_price((Decimal(value) / increment).to_integral_value() * increment)
