"""Hard limits between a sized signal and an order, out of reach of any model, computed exactly."""

import math
import sys
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from ml4t_actor.settings import Settings
from ml4t_actor.strategy.alpha_output import AlphaOutput, Enriched, meta_output_of
from ml4t_actor.strategy.causes import Cause
from ml4t_actor.strategy.exact import (
    EXACT,
    RefusedError,
    decimal_of,
    exact,
    not_negative,
    optional,
    positive,
    sign_of,
    text,
)
from ml4t_actor.strategy.signal_size import size_of
from ml4t_actor.strategy.sizing import IntegratedSizer, as_number
from ml4t_actor.strategy.views import AccountView, InstrumentView, Number, PositionView

Action = Literal["open", "close", "reduce", "reverse", "hold", "refuse"]

FinitePositive = Annotated[float, Meta(gt=0.0, le=sys.float_info.max)]

_ZERO = Decimal(0)
# A float position this close to a multiple of the increment, relative to itself, is that multiple.
_FLOAT_NOISE = Decimal("1e-9")
# A position is reduced when it is above a limit by more than this share of it: no fee is as much.
_TOLERANCE = Decimal("0.01")


class RiskLimits(Settings, frozen=True):
    """Limits that hold whatever a model says.

    They hold for the whole account of an instrument, whichever strategy's positions it has, with entries on their way
    counted as if they were filled. An open position that prices or a loss have carried above a limit is reduced to it
    when a signal confirms it and it is above by more than 1 % of the limit, so that no fee trims it.

    Parameters
    ----------
    max_leverage : float, default 3.0
        Gross notional of all positions, as a multiple of equity.
    max_position_fraction : float, default 1.0
        Notional of one instrument's position, as a fraction of equity.
    max_daily_loss : float, default 0.05
        Loss since the day's opening, as a fraction of opening equity, from which on nothing is opened. In (0,
        1]. An entry is no larger than leaves room for its own loss at its stop and that of all others, costs included:
        the day's loss exceeds the limit by slippage alone.
    stop_loss : float, default 0.05
        Loss of a position, as a log return from its entry, from which on it must be closed.
    max_notional_per_order : float, optional
        Notional that one entry may add, in the account's currency. Nautilus's own
        `RiskEngineConfig.max_notional_per_order` is not applied to margin accounts, whatever it says.
    maintenance_margin : float, default 0.1667
        Equity below which the venue liquidates, as a fraction of notional, where an instrument's definition does not
        give it: nothing is opened that would be liquidated before its stop. Hyperliquid's adapter never gives it; there
        it is half the inverse of the asset's maximal leverage: the default is that of the lowest, 3, and BTC's
        is 0.0125.
    """

    max_leverage: FinitePositive = 3.0
    max_position_fraction: FinitePositive = 1.0
    max_daily_loss: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    stop_loss: FinitePositive = 0.05
    max_notional_per_order: FinitePositive | None = None
    maintenance_margin: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.1667


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
    cause : str, default ''
        In one word what kept the signal from opening a position, see `ml4t_actor.strategy.causes.Cause`; empty where
        it opens one, and where none was to be opened.
    """

    action: Action
    quantity: Decimal
    side: int
    reason: str
    target: Decimal
    cause: Cause = ""


class _Limit(NamedTuple):
    """The most notional of a position, which limit says so, and that limit for all positions together."""

    notional: Decimal
    name: str
    whole: Decimal = _ZERO


class _Terms(NamedTuple):
    """What a call says of the trade, see `RiskStage.execute`."""

    break_even: float | None
    loss_at_stop: float | None
    full_size: Number


class _Room(NamedTuple):
    """What an account leaves for an entry."""

    equity: Decimal
    others: Decimal
    open_risk: Decimal
    loss_rate: Decimal
    most: _Limit


class RiskStage:
    """Turn an enriched signal into an order within fixed limits.

    A zero signal closes. An opposite one closes, and reverses if the limits leave room for the new side. One
    in the direction of an open position adds nothing (no pyramiding), and reduces it where it has clearly outgrown
    a limit. A position beyond the stop loss is closed whatever the signal. Limits only ever block new exposure,
    never an exit.

    Full size (1.0) is one time equity in notional, before the limits, or the multiple of it that a call gives: see
    `ml4t_actor.strategy.sizing.full_size`.

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
    'size 1: strength 1, ramp 1 of edge 0.5, regime 1, toxicity 1, fraction 1, of 1 times equity 10000, capped to \
notional 2500 by max_position_fraction 0.25'
    """

    def __init__(self, limits: RiskLimits, sizer: IntegratedSizer) -> None:
        self.limits = limits
        self.sizer = sizer

    def execute(
        self,
        enriched: Enriched | AlphaOutput,
        account: AccountView,
        position: PositionView | None,
        instrument: InstrumentView,
        *,
        break_even: float | None = None,
        loss_at_stop: float | None = None,
        full_size: Number = 1.0,
    ) -> RiskDecision:
        """Decide about one enriched signal. Numbers of any kind, NaN included, give a decision, not an error.

        Parameters
        ----------
        enriched : object
            With `signal`, `strength`, `meta_confidence`, `regime_weight`, `toxicity` and, for the reason's text,
            `status`; or an alpha's output, with such an object as its `meta_output`. A field that the latter lacks is
            read of the alpha's output itself. Whatever has the fields fits, an `EnrichedSignal` among others. Where
            it has `expected_return` and `volatility` it is sized by these, else by its confidence above its
            `break_even`, or what stands in for that.
        account : AccountView
            The account now.
        position : PositionView, optional
            The open position in the instrument; None if there is none.
        instrument : InstrumentView
            The instrument now.
        break_even : float, optional
            Break-even probability of this trade, in place of the signal's and of the sizer's own.
        loss_at_stop : float, optional
            What the new position would lose at its stop, costs included, as a fraction of its notional; by default
            what `stop_loss` lets it lose.
        full_size : float or Decimal, default 1.0
            Notional of a size of 1.0, as a multiple of equity.

        Returns
        -------
        RiskDecision

        Raises
        ------
        AttributeError
            If a field is missing.
        """
        enriched = meta_output_of(enriched)
        with localcontext(EXACT):
            terms = _Terms(break_even, loss_at_stop, full_size)
            return self._decide(enriched, account, position, instrument, terms)

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
        terms: _Terms,
    ) -> RiskDecision:
        held = decimal_of(0 if position is None else position.signed_quantity)
        if held is None:
            return _no_order("refuse", f"the quantity of {position} must be finite", _ZERO, "account")
        exit_quantity = _exit_quantity(abs(held), decimal_of(instrument.size_increment))
        held_side = 0 if exit_quantity == 0 else sign_of(held)
        signal = as_number(enriched.signal)
        side = int(math.copysign(1.0, signal)) if math.isfinite(signal) and signal != 0.0 else 0
        opposite = held_side != 0 and side == -held_side

        if position is not None and held_side and not opposite and self.must_stop(position, instrument.price):
            entry, price = position.entry_price, instrument.price
            why = f"stop_loss {self.limits.stop_loss} reached: entered at {entry}, price {price}"
            return replace(_exit(held, exit_quantity, instrument, why), cause="position" if side else "")
        if not math.isfinite(signal):
            return _no_order("refuse", f"the signal was {enriched.signal!r}, must be finite", held, "signal")
        if side == 0:
            if held_side:
                return _exit(held, exit_quantity, instrument, "signal 0 closes the position")
            return _no_order("hold", f"signal 0, and no position to close (quantity {held})", held)
        if side == held_side:
            return replace(self._keep(held, exit_quantity, account, instrument), cause="position")
        try:
            # First of all: what the limits stop is what was worth trading.
            size, why = size_of(enriched, self.sizer, terms.break_even)
            multiple = positive("full_size", terms.full_size)
            loss = loss_at(self.limits.stop_loss, side) if terms.loss_at_stop is None else terms.loss_at_stop
            room = self._room(account, exit_quantity, instrument, loss)
            why += f", of {text(multiple)} times equity {text(room.equity)}"
            wanted = abs(exact(size)) * multiple * room.equity
            quantity, why = self._entry(wanted, why, exit_quantity, instrument, room)
            _check_isolated(room, instrument)
        except RefusedError as refusal:
            if opposite:
                why = f"opposite signal; not reversed: {refusal}"
                return replace(_exit(held, exit_quantity, instrument, why), cause=refusal.cause)
            return _no_order("refuse", str(refusal), held, refusal.cause)
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
            equity = positive("equity", account.equity)
            step, unit = _step_and_unit(instrument)
            min_quantity = optional("min_quantity", instrument.min_quantity)
            min_notional = optional("min_notional", instrument.min_notional)
            notional = exit_quantity * unit
            others = _others(account, notional) - not_negative("leaving_notional", account.leaving_notional)
            limits = self._standing_limits(equity, max(others, _ZERO))
        except RefusedError as unknown:
            return _no_order("hold", f"position of {held} kept, its limits not checked: {unknown}", held)
        if all(notional <= limit.notional + _TOLERANCE * limit.whole for limit in limits):
            return _no_order("hold", f"already holds {held}, which the signal confirms", held)
        allowed, name = min(limits)[:2]
        excess = exit_quantity - max(allowed, _ZERO) // (unit * step) * step
        why = f"notional {text(notional)} of {held} held is above {text(allowed)}, allowed by {name}"
        if min_quantity is not None and excess < min_quantity:
            return _no_order("hold", f"{why}; the excess {excess} is below min_quantity {min_quantity}", held)
        if min_notional is not None and excess * unit < min_notional:
            return _no_order("hold", f"{why}; the excess {excess} is below min_notional {min_notional}", held)
        return _exit(held, exit_quantity, instrument, why, reduce_by=excess)

    def _standing_limits(self, equity: Decimal, others: Decimal) -> list[_Limit]:
        """Return what this instrument's position may have as long as it is open."""
        limits = self.limits
        by_position = exact(limits.max_position_fraction) * equity
        by_leverage = exact(limits.max_leverage) * equity
        return [
            _Limit(by_position, f"max_position_fraction {limits.max_position_fraction}", by_position),
            _Limit(
                by_leverage - others,
                f"max_leverage {limits.max_leverage} with {text(others)} in other positions",
                by_leverage,
            ),
        ]

    def _room(
        self, account: AccountView, exit_quantity: Decimal, instrument: InstrumentView, loss_at_stop: float
    ) -> _Room:
        """Return what an entry may have, or raise `RefusedError`."""
        limits = self.limits
        equity = positive("equity", account.equity)
        day_open = positive("day_open_equity", account.day_open_equity)
        _, unit = _step_and_unit(instrument)
        others = _others(account, exit_quantity * unit)
        open_risk = not_negative("open_risk", account.open_risk)
        loss_rate = positive("loss_at_stop", loss_at_stop)
        most_loss, loss = exact(limits.max_daily_loss) * day_open, day_open - equity
        if loss >= most_loss:
            raise RefusedError(
                f"max_daily_loss {limits.max_daily_loss} reached: equity {text(equity)}, "
                f"{text(day_open)} at the day's opening"
            )
        bounds = self._standing_limits(equity, others)
        bounds.append(
            _Limit(
                (most_loss - loss - open_risk) / loss_rate,
                f"max_daily_loss {limits.max_daily_loss} with {text(loss)} lost, {text(open_risk)} at risk and "
                f"{text(loss_rate)} of the notional to lose at the stop",
            )
        )
        if limits.max_notional_per_order is not None:
            per_order = exact(limits.max_notional_per_order)
            bounds.append(_Limit(per_order, f"max_notional_per_order {limits.max_notional_per_order}"))
        return _Room(equity, others, open_risk, loss_rate, min(bounds))

    def _entry(
        self, notional: Decimal, why: str, exit_quantity: Decimal, instrument: InstrumentView, room: _Room
    ) -> tuple[Decimal, str]:
        """Return the quantity of a new position of so much and why it is that, or raise `RefusedError`."""
        step, unit = _step_and_unit(instrument)
        allowed, name = room.most[:2]
        if allowed <= 0:
            raise RefusedError(f"no room for notional {text(notional)}: {name} leaves {text(allowed)}")
        if notional > allowed:
            notional = allowed
            why += f", capped to notional {text(notional)} by {name}"
        # Whole steps by integer division: the most that fit, without a rounded quotient in between.
        quantity = notional // (unit * step) * step
        max_quantity = optional("max_quantity", instrument.max_quantity)
        if max_quantity is not None and quantity > max_quantity - exit_quantity:
            quantity = max(max_quantity - exit_quantity, _ZERO) // step * step
            why += f", capped to quantity {quantity} by max_quantity {instrument.max_quantity}"
        if quantity == 0:
            raise RefusedError(f"notional {text(notional)} is below one size increment of {step} ({why})")
        _check_minimum(quantity, unit, instrument, why)
        self._check_liquidation(quantity * unit, room, instrument)
        return quantity, why

    def _check_liquidation(self, notional: Decimal, room: _Room, instrument: InstrumentView) -> None:
        """Refuse what a cross margin would liquidate before all stops are reached."""
        margin = optional("maintenance_margin", instrument.maintenance_margin)
        margin = margin or exact(self.limits.maintenance_margin)
        left = room.equity - room.open_risk - notional * room.loss_rate
        needed = margin * (room.others + notional)
        if left <= needed:
            raise RefusedError(
                f"liquidation before the stop: of equity {text(room.equity)} the stops leave {text(left)}, and "
                f"maintenance_margin {margin} of notional {text(room.others + notional)} needs {text(needed)}"
            )


def _check_isolated(room: _Room, instrument: InstrumentView) -> None:
    """Refuse what a margin of its own would let be liquidated before its stop is reached."""
    distance = optional("liquidation_distance", instrument.liquidation_distance)
    if distance is not None and room.loss_rate >= distance:
        raise RefusedError(
            f"liquidation before the stop: the position's own margin lasts for {text(distance)} of the notional, and "
            f"{text(room.loss_rate)} are to lose at the stop"
        )


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
    step, most = decimal_of(instrument.size_increment), decimal_of(instrument.max_quantity)
    if step is not None and step > 0 and most is not None and step <= most < quantity:
        quantity = most // step * step
        why += f"; one order may close {quantity} (max_quantity {most}) of {exit_quantity}"
    side = -sign_of(held)
    if quantity == exit_quantity:
        return RiskDecision("close", quantity, side, why, _ZERO)
    return RiskDecision("reduce", quantity, side, why, held + side * quantity)


def _check_minimum(quantity: Decimal, unit: Decimal, instrument: InstrumentView, why: str) -> None:
    min_quantity = optional("min_quantity", instrument.min_quantity)
    min_notional = optional("min_notional", instrument.min_notional)
    if min_quantity is not None and quantity < min_quantity:
        raise RefusedError(f"quantity {quantity} is below min_quantity {min_quantity} ({why})")
    if min_notional is not None and quantity * unit < min_notional:
        raise RefusedError(f"notional {text(quantity * unit)} is below min_notional {min_notional} ({why})")


def loss_at(distance: float, side: int) -> float:
    """Return what a position loses at this log distance from its entry, as a fraction of its notional."""
    try:
        return -side * math.expm1(-side * distance)
    except OverflowError:  # of a short, whose loss has no bound
        return math.inf


def _no_order(action: Action, reason: str, held: Decimal, cause: Cause = "") -> RiskDecision:
    return RiskDecision(action, _ZERO, 0, reason, held, cause)


def _exit_quantity(held: Decimal, step: Decimal | None) -> Decimal:
    """Return what of a position can be ordered: whole increments, or all where the increment is not known."""
    if step is None or step <= 0:
        return held
    # Nautilus gives signed quantities as floats: 0.7 - 0.4 is 0.3 to close, not 0.2.
    nearest = (held + step / 2) // step * step
    return nearest if abs(nearest - held) <= held * _FLOAT_NOISE else held // step * step


def _others(account: AccountView, own_notional: Decimal) -> Decimal:
    return max(not_negative("gross_notional", account.gross_notional) - own_notional, _ZERO)


def _step_and_unit(instrument: InstrumentView) -> tuple[Decimal, Decimal]:
    """Return the size increment and the notional of one unit."""
    step = positive("size_increment", instrument.size_increment)
    return step, positive("price", instrument.price) * positive("multiplier", instrument.multiplier)
