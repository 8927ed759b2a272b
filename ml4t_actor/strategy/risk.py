"""Hard limits between a sized signal and an order, out of reach of any model.

Everything is computed with `decimal.Decimal`, exactly: 0.1 + 0.2 cannot round an order past a limit.
"""

import math
import sys
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from ml4t_actor.settings import Settings
from ml4t_actor.strategy.sizing import DirectedSignal, IntegratedSizer, as_number
from ml4t_actor.strategy.views import AccountView, InstrumentView, Number, PositionView

Action = Literal["open", "close", "reduce", "reverse", "hold", "refuse"]

FinitePositive = Annotated[float, Meta(gt=0.0, le=sys.float_info.max)]

# Wide enough for the products, differences and whole quotients below to be exact for any floats.
_EXACT = Context(prec=2000, rounding=ROUND_DOWN, traps=[InvalidOperation, DivisionByZero, Overflow])
_LARGEST_EXPONENT = 330
_ZERO = Decimal(0)
# A float position this close to a multiple of the increment, relative to itself, is that multiple.
_FLOAT_NOISE = Decimal("1e-9")


class RiskLimits(Settings, frozen=True):
    """Limits that hold whatever a model says.

    Parameters
    ----------
    max_leverage : float, default 3.0
        Gross notional of all positions, as a multiple of equity.
    max_position_fraction : float, default 1.0
        Notional of one instrument's position, as a fraction of equity.
    max_daily_loss : float, default 0.05
        Loss since the day's opening, as a fraction of opening equity, from which on nothing is opened. In (0,
        1].
    stop_loss : float, default 0.05
        Loss of a position, as a log return from its entry, from which on it must be closed.
    """

    max_leverage: FinitePositive = 3.0
    max_position_fraction: FinitePositive = 1.0
    max_daily_loss: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    stop_loss: FinitePositive = 0.05


@dataclass(frozen=True, slots=True)
class RiskDecision:
    """What to do about one signal.

    Attributes
    ----------
    action : {'open', 'close', 'reduce', 'reverse', 'hold', 'refuse'}
        `reverse` closes and opens the other way in one order; `hold` and `refuse` order nothing.
    quantity : Decimal
        Quantity to order, a multiple of the size increment; 0 for `hold` and `refuse`.
    side : int
        1 buys, -1 sells, 0 orders nothing.
    reason : str
        Why, with the numbers. Never empty.
    target : Decimal
        Signed position after the order is filled.
    """

    action: Action
    quantity: Decimal
    side: int
    reason: str
    target: Decimal


class Enriched(DirectedSignal, Protocol):
    """What the stage reads of an enriched signal."""

    @property
    def meta_confidence(self) -> float:
        """Probability that the signal pays."""

    @property
    def regime_weight(self) -> float:
        """How well signals fare in this regime."""

    @property
    def toxicity(self) -> float:
        """Percentile of VPIN."""

    @property
    def status(self) -> str:
        """Why a value is a default."""


class _RefusedError(Exception):
    """New exposure is refused, for the reason given."""


class RiskStage:
    """Turn an enriched signal into an order within fixed limits.

    A zero signal closes. An opposite one closes, and reverses if the limits leave room for the new side. One
    in the direction of an open position adds nothing (no pyramiding), and reduces it where it has outgrown a
    limit. A position beyond the stop loss is closed whatever the signal. Limits only ever block new exposure,
    never an exit.

    Full size (1.0) is one time equity in notional, before the limits.

    Parameters
    ----------
    limits : RiskLimits
        The limits.
    sizer : IntegratedSizer
        Sizes new positions.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> stage = RiskStage(RiskLimits(max_position_fraction=0.25), IntegratedSizer())
    >>> enriched = SimpleNamespace(
    ...     signal=1, strength=1.0, meta_confidence=0.75, regime_weight=1.0, toxicity=0.0, status="ok"
    ... )
    >>> account = AccountView(equity=10_000.0, day_open_equity=10_000.0, gross_notional=0.0)
    >>> instrument = InstrumentView(price=30_000.0, size_increment=0.001)
    >>> decision = stage.execute(enriched, account, None, instrument)
    >>> decision.action, decision.quantity
    ('open', Decimal('0.083'))
    >>> decision.reason
    'size 0.5 of equity 10000, capped to notional 2500 by max_position_fraction 0.25'
    """

    def __init__(self, limits: RiskLimits, sizer: IntegratedSizer) -> None:
        self.limits = limits
        self.sizer = sizer

    def execute(
        self,
        enriched: Enriched,
        account: AccountView,
        position: PositionView | None,
        instrument: InstrumentView,
        *,
        break_even: float | None = None,
    ) -> RiskDecision:
        """Decide about one enriched signal. Numbers of any kind, NaN included, give a decision, not an error.

        Parameters
        ----------
        enriched : object
            With `signal`, `strength`, `meta_confidence`, `regime_weight`, `toxicity` and `status`.
        account : AccountView
            The account now.
        position : PositionView, optional
            The open position in the instrument; None if there is none.
        instrument : InstrumentView
            The instrument now.
        break_even : float, optional
            Break-even probability of this trade, in place of the sizer's own.

        Returns
        -------
        RiskDecision
        """
        with localcontext(_EXACT):
            return self._decide(enriched, account, position, instrument, break_even)

    def must_stop(self, position: PositionView, price: Number) -> bool:
        """Return whether a position's loss has reached the stop loss.

        A price that is not positive and finite stops nothing: the next one decides. A position whose entry
        price is none is stopped, since nothing can show that it is within its limit.
        """
        quantity, entry, now = (as_number(x) for x in (position.signed_quantity, position.entry_price, price))
        if quantity == 0.0 or not (math.isfinite(now) and now > 0.0):
            return False
        if math.isnan(quantity) or not (math.isfinite(entry) and entry > 0.0):
            return True
        return math.copysign(1.0, quantity) * (math.log(now) - math.log(entry)) <= -self.limits.stop_loss

    def _decide(
        self,
        enriched: Enriched,
        account: AccountView,
        position: PositionView | None,
        instrument: InstrumentView,
        break_even: float | None,
    ) -> RiskDecision:
        held = _decimal(0 if position is None else position.signed_quantity)
        if held is None:
            return _no_order("refuse", f"the quantity of {position} must be finite", _ZERO)
        exit_quantity = _exit_quantity(abs(held), _decimal(instrument.size_increment))
        held_side = 0 if exit_quantity == 0 else _sign(held)
        signal = as_number(enriched.signal)
        side = int(math.copysign(1.0, signal)) if math.isfinite(signal) and signal != 0.0 else 0
        opposite = held_side != 0 and side == -held_side

        if position is not None and held_side and not opposite and self.must_stop(position, instrument.price):
            entry, price = position.entry_price, instrument.price
            why = f"stop_loss {self.limits.stop_loss} reached: entered at {entry}, price {price}"
            return _exit(held, exit_quantity, instrument, why)
        if not math.isfinite(signal):
            return _no_order("refuse", f"the signal was {enriched.signal!r}, must be finite", held)
        if side == 0:
            if held_side:
                return _exit(held, exit_quantity, instrument, "signal 0 closes the position")
            return _no_order("hold", f"signal 0, and no position to close (quantity {held})", held)
        if side == held_side:
            return self._keep(held, exit_quantity, account, instrument)
        try:
            order_limit = _optional("max_quantity", instrument.max_quantity)
            room = None if order_limit is None else order_limit - exit_quantity
            quantity, why = self._entry(enriched, account, exit_quantity, instrument, room, break_even)
        except _RefusedError as refusal:
            if opposite:
                return _exit(held, exit_quantity, instrument, f"opposite signal; not reversed: {refusal}")
            return _no_order("refuse", str(refusal), held)
        if opposite:
            return RiskDecision(
                "reverse", exit_quantity + quantity, side, f"opposite signal; {why}", side * quantity
            )
        return RiskDecision("open", quantity, side, why, side * quantity)

    def _keep(
        self, held: Decimal, exit_quantity: Decimal, account: AccountView, instrument: InstrumentView
    ) -> RiskDecision:
        """Hold a position that the signal confirms, or reduce it to the limits."""
        try:
            equity = _positive("equity", account.equity)
            step, unit = _step_and_unit(instrument)
            min_quantity = _optional("min_quantity", instrument.min_quantity)
            notional = exit_quantity * unit
            allowed, name = self._allowed(equity, _others(account, notional))
        except _RefusedError as unknown:
            return _no_order("hold", f"position of {held} kept, its limits not checked: {unknown}", held)
        if notional <= allowed:
            return _no_order("hold", f"already holds {held}, which the signal confirms", held)
        excess = exit_quantity - max(allowed, _ZERO) // (unit * step) * step
        why = f"notional {_text(notional)} of {held} held is above {_text(allowed)}, allowed by {name}"
        if min_quantity is not None and excess < min_quantity:
            return _no_order("hold", f"{why}; the excess {excess} is below min_quantity {min_quantity}", held)
        return _exit(held, exit_quantity, instrument, why, reduce_by=excess)

    def _entry(
        self,
        enriched: Enriched,
        account: AccountView,
        exit_quantity: Decimal,
        instrument: InstrumentView,
        order_room: Decimal | None,
        break_even: float | None,
    ) -> tuple[Decimal, str]:
        """Return the quantity of a new position and why it is that, or raise `_RefusedError`."""
        equity = _positive("equity", account.equity)
        day_open = _positive("day_open_equity", account.day_open_equity)
        step, unit = _step_and_unit(instrument)
        min_quantity = _optional("min_quantity", instrument.min_quantity)
        min_notional = _optional("min_notional", instrument.min_notional)
        if day_open - equity >= _exact(self.limits.max_daily_loss) * day_open:
            raise _RefusedError(
                f"max_daily_loss {self.limits.max_daily_loss} reached: equity {_text(equity)}, "
                f"{_text(day_open)} at the day's opening"
            )
        size = self.sizer.calculate(
            enriched,
            enriched.meta_confidence,
            enriched.regime_weight,
            enriched.toxicity,
            break_even=break_even,
        )
        if size == 0.0:
            p0 = self.sizer.break_even if break_even is None else break_even
            raise _RefusedError(
                f"size is 0: meta_confidence {enriched.meta_confidence} (break-even {p0}), strength "
                f"{enriched.strength}, regime_weight {enriched.regime_weight}, toxicity {enriched.toxicity}, "
                f"fraction {self.sizer.fraction}, status {enriched.status}"
            )
        why = f"size {abs(size):.4g} of equity {_text(equity)}"
        notional = abs(_exact(size)) * equity
        allowed, name = self._allowed(equity, _others(account, exit_quantity * unit))
        if allowed <= 0:
            raise _RefusedError(f"no room for notional {_text(notional)}: {name} leaves {_text(allowed)}")
        if notional > allowed:
            notional = allowed
            why += f", capped to notional {_text(notional)} by {name}"
        # Whole steps by integer division: the most that fit, without a rounded quotient in between.
        quantity = notional // (unit * step) * step
        if order_room is not None and quantity > order_room:
            quantity = max(order_room, _ZERO) // step * step
            why += f", capped to quantity {quantity} by max_quantity {instrument.max_quantity}"
        if quantity == 0:
            raise _RefusedError(f"notional {_text(notional)} is below one size increment of {step} ({why})")
        if min_quantity is not None and quantity < min_quantity:
            raise _RefusedError(f"quantity {quantity} is below min_quantity {min_quantity} ({why})")
        if min_notional is not None and quantity * unit < min_notional:
            raise _RefusedError(
                f"notional {_text(quantity * unit)} is below min_notional {min_notional} ({why})"
            )
        return quantity, why

    def _allowed(self, equity: Decimal, others: Decimal) -> tuple[Decimal, str]:
        """Return the most notional that this instrument may have, and which limit says so."""
        by_position = _exact(self.limits.max_position_fraction) * equity
        by_leverage = _exact(self.limits.max_leverage) * equity - others
        if by_position <= by_leverage:
            return by_position, f"max_position_fraction {self.limits.max_position_fraction}"
        return by_leverage, f"max_leverage {self.limits.max_leverage} with {_text(others)} in other positions"


def _exit(
    held: Decimal,
    exit_quantity: Decimal,
    instrument: InstrumentView,
    why: str,
    *,
    reduce_by: Decimal | None = None,
) -> RiskDecision:
    """Close a position, or reduce it where that is asked for or one order may not close it."""
    quantity = exit_quantity if reduce_by is None else reduce_by
    step, most = _decimal(instrument.size_increment), _decimal(instrument.max_quantity)
    if step is not None and step > 0 and most is not None and step <= most < quantity:
        quantity = most // step * step
        why += f"; one order may close {quantity} (max_quantity {most}) of {exit_quantity}"
    side = -_sign(held)
    if quantity == exit_quantity:
        return RiskDecision("close", quantity, side, why, _ZERO)
    return RiskDecision("reduce", quantity, side, why, held + side * quantity)


def _no_order(action: Action, reason: str, held: Decimal) -> RiskDecision:
    return RiskDecision(action, _ZERO, 0, reason, held)


def _exit_quantity(held: Decimal, step: Decimal | None) -> Decimal:
    """Return what of a position can be ordered: whole increments, or all where the increment is not known."""
    if step is None or step <= 0:
        return held
    # Nautilus gives signed quantities as floats: 0.7 - 0.4 is 0.3 to close, not 0.2.
    nearest = (held + step / 2) // step * step
    return nearest if abs(nearest - held) <= held * _FLOAT_NOISE else held // step * step


def _others(account: AccountView, own_notional: Decimal) -> Decimal:
    gross = _optional("gross_notional", account.gross_notional)
    if gross is None:
        raise _RefusedError("gross_notional was None, must be a number")
    return max(gross - own_notional, _ZERO)


def _step_and_unit(instrument: InstrumentView) -> tuple[Decimal, Decimal]:
    """Return the size increment and the notional of one unit."""
    step = _positive("size_increment", instrument.size_increment)
    return step, _positive("price", instrument.price) * _positive("multiplier", instrument.multiplier)


def _positive(name: str, value: Number) -> Decimal:
    number = _decimal(value)
    if number is None or number <= 0:
        raise _RefusedError(f"{name} was {value}, must be positive and finite")
    return number


def _optional(name: str, value: Number | None) -> Decimal | None:
    if value is None:
        return None
    number = _decimal(value)
    if number is None or number < 0:
        raise _RefusedError(f"{name} was {value}, must be finite and not negative")
    return number


def _decimal(value: object) -> Decimal | None:
    """Return a number as the decimal that it prints as, None where it is not finite (or no float's size)."""
    number = value if isinstance(value, Decimal) else _exact(as_number(value))
    return number if number.is_finite() and abs(number.adjusted()) <= _LARGEST_EXPONENT else None


def _exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _text(value: Decimal) -> str:
    return f"{float(value):.8g}"


def _sign(value: Decimal) -> int:
    return (value > 0) - (value < 0)
