"""The size of one signal with what made it, or what made it zero."""

import math

from ml4t_actor.strategy.alpha_output import Enriched, told_break_even
from ml4t_actor.strategy.causes import Cause
from ml4t_actor.strategy.exact import RefusedError
from ml4t_actor.strategy.sizing import IntegratedSizer, SizeFactors, as_number

_SCORED = ("ok", "late", None)


def size_of(enriched: Enriched, sizer: IntegratedSizer, break_even: float | None) -> tuple[float, str]:
    """Return the size of a signal, not zero, and its factors in words.

    Parameters
    ----------
    enriched : object
        With the fields of `Enriched`; `expected_return`, `volatility`, `break_even` and `status` where it has them.
    sizer : IntegratedSizer
        What sizes it.
    break_even : float or None
        In place of what the signal itself tells, and of the sizer's own.

    Raises
    ------
    RefusedError
        If the size is zero, with the cause and the numbers.
    """
    p0 = told_break_even(enriched) if break_even is None else break_even
    told = getattr(enriched, "expected_return", None)
    factors = sizer.factors(
        enriched,
        enriched.meta_confidence,
        enriched.regime_weight,
        enriched.toxicity,
        break_even=p0,
        expected_return=told,
        volatility=getattr(enriched, "volatility", None),
    )
    p0 = sizer.break_even if p0 is None else p0
    if factors.size == 0.0:
        cause, why = _why_zero(enriched, factors, p0)
        raise RefusedError(f"{why}; size is 0: {_inputs(enriched, sizer, p0)}", cause)
    return factors.size, (
        f"size {abs(factors.size):.4g}: strength {factors.strength:.4g}, ramp {factors.ramp:.4g} of edge "
        f"{factors.edge:.4g}, regime {factors.regime:.4g}, toxicity {factors.toxicity:.4g}, fraction "
        f"{factors.fraction:.4g}"
    )


def _why_zero(enriched: Enriched, factors: SizeFactors, break_even: float) -> tuple[Cause, str]:
    status, told = getattr(enriched, "status", None), as_number(getattr(enriched, "expected_return", None))
    if factors.side == 0.0 or factors.strength == 0.0:
        return "signal", "no strength"
    if status not in _SCORED:
        return "status", f"status {status}"
    if factors.ramp == 0.0:
        if as_number(break_even) >= 1.0:
            return "odds", "no odds: the trade cannot pay for its costs"
        if math.isnan(told):
            return "model", "no expected return: the confidence is not above break-even"
        return "model", f"no expected return: {told:.4g} basis points"
    if factors.regime == 0.0:
        return "regime", "regime: its weight is none"
    if factors.toxicity == 0.0:
        return "toxicity", "toxicity: the highest, or not known"
    return "limits", "fraction: too small for a size"


def _inputs(enriched: Enriched, sizer: IntegratedSizer, break_even: float) -> str:
    return (
        f"meta_confidence {enriched.meta_confidence} (break-even {break_even}), strength {enriched.strength}, "
        f"regime_weight {enriched.regime_weight}, toxicity {enriched.toxicity}, fraction {sizer.fraction}, "
        f"status {getattr(enriched, 'status', 'not given')}"
    )
