"""One position from its entry to its exit, the phases of its life, and the prices of its barriers."""

import math
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto
from typing import Literal

from ml4t_actor.nautilus.model import InstrumentId, Money, Price, Quantity
from ml4t_actor.nautilus.trading import Instrument, Order
from ml4t_actor.strategy.orders.order_ids import Leg
from ml4t_actor.strategy.views import InstrumentView

NEVER_NS = 2**62


class Phase(Enum):
    """Where a trade is in its life, and what it may become.

    ============  ======================================================  ============================================
    phase         what is the case                                        next
    ============  ======================================================  ============================================
    `ENTERING`    the entry is on its way                                 `PROTECTING`, with what is filled; `DONE`,
                                                                          with nothing; `UNWINDING`, not answered
    `UNWINDING`   what the entry may have opened is being reverted        `DONE`, when the venue has no position
    `PROTECTING`  a position; no stop at the venue for all of it yet      `PROTECTED`; `EXITING`, without a stop in time
    `PROTECTED`   a position, with its stop at the venue                  `CLEARING`, when stop or target is filled;
                                                                          `EXITING`, when an exit is decided or the
                                                                          stop is cancelled
    `EXITING`     orders that close or reduce are on their way            `CLEARING`, when the position is gone;
                                                                          `EXIT_DUE`, when it is not; `DISPUTED`, when
                                                                          the venue says that there is none; after a
                                                                          reduction `PROTECTED`
    `EXIT_DUE`    an exit was decided, and no order is on its way         `EXITING`
    `DISPUTED`    the cache has a position, and the venue says that       `CLEARING`, when a fill arrives late; `DONE`,
                  there is none                                           when the cache is reconciled
    `CLEARING`    no position; stop or target is still open               `DONE`
    `DONE`        no position and no order                                `ENTERING`, in a new trade
    ============  ======================================================  ============================================

    Orders and position say which it is (`Trade.phase`), not what was remembered: so a trade that is resumed after a
    restart is in the phase that the venue left it in.
    """

    ENTERING = auto()
    UNWINDING = auto()
    PROTECTING = auto()
    PROTECTED = auto()
    EXITING = auto()
    EXIT_DUE = auto()
    DISPUTED = auto()
    CLEARING = auto()
    DONE = auto()


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
    source, signal_id : str
        Of the signal, from which the ids of the orders are derived.
    """

    side: int
    quantity: Decimal
    stop: Price
    target: Price
    deadline_ns: int
    source: str = ""
    signal_id: str = ""


@dataclass(slots=True, eq=False)
class Trade:
    """One position from its entry to its exit, with the orders that make it.

    Attributes
    ----------
    instrument_id : InstrumentId
        What is traded.
    deadline_ns, expires_ns : int
        When the horizon ends, by the bars' closes and by the clock.
    plan : Plan, optional
        What it was entered by; None for a position that was there before.
    entry, stop, target : Order, optional
        As far as they were sent.
    replaced : list[Order]
        Stops and targets in whose place others were sent, as far as they may still be at the venue.
    closing : list[Order]
        Those of the last exit or reduction.
    exit_decided : bool
        The exit is sent again until the position is gone.
    entry_done : bool
        The entry is done, even where its end was never reported.
    unwinding : bool
        The venue did not say what became of the entry.
    clearing : bool
        The position is gone, and what is left of its exits is being cancelled.
    sent_ns : int
        When an order was last sent, or the venue last queried.
    disputed_ns : int
        When the venue said that there is no position to close; 0 if it did not.
    target_price : Price, optional
        Where the target belongs.
    target_ns : int
        When the target was last sent.
    resumed_ns : int
        When a position that no signal of this life opened was taken over; 0 for others.
    unprotected_ns : int
        Since when there is a position without a stop, by the venue's fill; 0 before the first was sent.
    refusals : int
        How many exits in a row were refused, none of them filled in part.
    exit_denied : bool
        The last exit never left the node.
    lacked_quote : bool
        The last exit was sent without a fresh quote.
    attempts : Counter[Leg]
        How many orders were made for each leg.
    """

    instrument_id: InstrumentId
    deadline_ns: int
    expires_ns: int = NEVER_NS
    plan: Plan | None = None
    entry: Order | None = None
    stop: Order | None = None
    target: Order | None = None
    replaced: list[Order] = field(default_factory=list)
    closing: list[Order] = field(default_factory=list)
    exit_decided: bool = False
    entry_done: bool = False
    unwinding: bool = False
    clearing: bool = False
    sent_ns: int = 0
    disputed_ns: int = 0
    target_price: Price | None = None
    target_ns: int = 0
    resumed_ns: int = 0
    unprotected_ns: int = 0
    refusals: int = 0
    exit_denied: bool = False
    lacked_quote: bool = False
    attempts: Counter[Leg] = field(default_factory=Counter)

    def phase(self, held: Decimal) -> Phase:
        """Return the phase of a live trade whose position has this quantity, 0 where there is none."""
        if self.unwinding:
            return Phase.UNWINDING
        if self.is_entering:
            return Phase.ENTERING
        if held == 0:
            return Phase.CLEARING if self.exits else Phase.DONE
        if self.disputed_ns:
            return Phase.DISPUTED
        if self.in_flight:
            return Phase.EXITING
        if self.exit_decided:
            return Phase.EXIT_DUE
        return Phase.PROTECTED if self.is_covered(held) else Phase.PROTECTING

    def exit_reason(
        self, closed_ns: int, *, must_stop: bool
    ) -> Literal["again", "horizon", "stop_loss", "no_stop"] | None:
        """Return why the bar that closed then ends the position, or None; the loss may say that it must stop."""
        if self.exit_decided:
            return "again"
        if closed_ns >= self.deadline_ns:
            return "horizon"
        if must_stop:
            return "stop_loss"
        return "no_stop" if self.stop is not None and self.stop.is_closed else None

    @property
    def in_flight(self) -> bool:
        """Whether orders are on their way, so that the position shown may not be what it will be."""
        clearing = self.clearing and bool(self.exits)
        return self.unwinding or self.is_entering or clearing or self.is_closing

    @property
    def may_enter(self) -> bool:
        """Whether the entry may still open something: its end is not known."""
        return self.unwinding or self.is_entering

    @property
    def stop_price(self) -> Decimal | None:
        """The price of the stop that was sent or is planned; None for a position without one."""
        stop = self.stop
        if stop is None or stop.is_closed:
            return None if self.plan is None else self.plan.stop.as_decimal()
        price: Decimal = (stop.trigger_price if stop.has_trigger_price else stop.price).as_decimal()
        return price

    @property
    def is_closing(self) -> bool:
        """Whether an order that closes or reduces is on its way."""
        return any(not order.is_closed for order in self.closing)

    @property
    def exits(self) -> list[Order]:
        """Stop and target, and those that they replaced, as far as they are not done."""
        orders = (self.stop, self.target, *self.replaced)
        return [order for order in orders if order is not None and not order.is_closed]

    @property
    def is_entering(self) -> bool:
        """Whether the entry is on its way."""
        return self.entry is not None and not self.entry.is_closed and not self.entry_done

    def is_covered(self, held: Decimal) -> bool:
        """Whether the venue has a stop for all of the position."""
        stop = self.stop
        return (
            stop is not None
            and stop.is_open
            and stop.quantity.as_decimal() - stop.filled_qty.as_decimal() >= held
        )


def barriers(
    instrument: Instrument, price: float, side: int, stop_distance: float, target_distance: float
) -> tuple[Price, Price] | None:
    """Return stop and target at these log distances, or None where rounding leaves no room for them."""
    try:
        stop = nearest_tick(instrument, price * math.exp(-side * stop_distance))
        target = nearest_tick(instrument, price * math.exp(side * target_distance))
    except (ArithmeticError, ValueError):  # out of the range of prices
        return None
    low, high = sorted((stop.as_double(), target.as_double()))
    return (stop, target) if 0.0 < low < price < high else None


def instrument_view(instrument: Instrument, price: float) -> InstrumentView:
    """Return what the risk stage needs to know of an instrument."""
    return InstrumentView(
        price=price,
        size_increment=instrument.size_increment.as_decimal(),
        min_quantity=_as_decimal(instrument.min_quantity),
        max_quantity=_as_decimal(instrument.max_quantity),
        min_notional=_as_decimal(instrument.min_notional),
        multiplier=instrument.multiplier.as_decimal(),
        maintenance_margin=Decimal(instrument.margin_maint),
    )


def _as_decimal(value: Quantity | Money | None) -> Decimal | None:
    return None if value is None else value.as_decimal()


def nearest_tick(instrument: Instrument, value: float) -> Price:
    """Return the nearest price on the instrument's grid; `make_price` knows only its decimals."""
    increment: Decimal = instrument.price_increment.as_decimal()
    return instrument.make_price((Decimal(value) / increment).to_integral_value() * increment)
