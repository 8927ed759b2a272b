"""How much to trade: one number in [-1, 1] from a signal and how far to trust it."""

import math
from dataclasses import dataclass
from typing import Protocol, cast


class DirectedSignal(Protocol):
    """What the sizer reads of a signal: `SignalData` and `EnrichedSignal` fit."""

    @property
    def signal(self) -> float:
        """Side: its sign counts."""

    @property
    def strength(self) -> float:
        """Strength in [0, 1]."""


def break_even_probability(pt: float, sl: float, cost: float, volatility: float) -> float:
    """Return the probability of success at which a trade between two barriers earns nothing.

    Solves ``p * (pt * v - cost) = (1 - p) * (sl * v + cost)`` for p, with v the volatility.

    Parameters
    ----------
    pt, sl : float
        Distances of profit barrier and stop, in volatilities, positive and finite.
    cost : float
        Round-trip cost as a log return.
    volatility : float
        Volatility scaled to the horizon, as a log return.

    Returns
    -------
    float
        In (0, 1]; 1.0 where even a certain success would not pay for its costs, and where the volatility is
        not positive and finite.

    Raises
    ------
    ValueError
        If `pt`, `sl` or `cost` is out of range.

    Examples
    --------
    >>> break_even_probability(pt=1.0, sl=1.0, cost=0.0, volatility=0.01)
    0.5
    >>> break_even_probability(pt=1.0, sl=1.0, cost=0.001, volatility=0.01)
    0.55
    """
    for name, value in (("pt", pt), ("sl", sl)):
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(
                f"`{name}` was {value}, must be positive and finite: without both barriers there are no odds"
            )
    if not (cost >= 0.0 and math.isfinite(cost)):
        raise ValueError(f"`cost` was {cost}, must be a finite log return, not negative")
    # Divided by the volatility, so that its largest values do not overflow.
    if not (math.isfinite(volatility) and volatility > 0.0):
        return 1.0
    return min((sl + cost / volatility) / (pt + sl), 1.0)


@dataclass(frozen=True, slots=True)
class IntegratedSizer:
    """Size by signal strength, meta-confidence, regime and toxicity.

    ``size = sign(signal) * strength ** 0.5 * bet(confidence) * regime_weight * (1 - toxicity) * fraction``

    with ``bet(p) = max(0, (p - p0) / (1 - p0))``, the Kelly fraction of a bet whose break-even probability is
    p0: for net odds b, p0 is ``1 / (1 + b)`` and ``p - (1 - p) / b`` becomes that quotient (Kelly 1956).

    Parameters
    ----------
    break_even : float, default 0.5
        Break-even probability p0 where a call gives none. See `break_even_probability`.
    fraction : float, default 1.0
        Share of the Kelly bet to take, in [0, 1].

    Raises
    ------
    ValueError
        If a parameter is outside [0, 1].

    Examples
    --------
    >>> IntegratedSizer().calculate(-1.0, meta_confidence=0.75, regime_weight=0.8, toxicity=0.5)
    -0.2
    >>> IntegratedSizer().calculate(-1.0, meta_confidence=0.5, regime_weight=0.8, toxicity=0.5)
    0.0

    References
    ----------
    J. L. Kelly, "A New Interpretation of Information Rate", *Bell System Technical Journal* 35(4), 1956.
    """

    break_even: float = 0.5
    fraction: float = 1.0

    def __post_init__(self) -> None:
        for name in ("break_even", "fraction"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`IntegratedSizer.{name}` was {value}, must be in [0, 1]")

    def calculate(
        self,
        signal: float | DirectedSignal,
        meta_confidence: float,
        regime_weight: float,
        toxicity: float,
        *,
        break_even: float | None = None,
    ) -> float:
        """Return the size as a signed fraction of a full position.

        Parameters
        ----------
        signal : float or object
            A number in [-1, 1], whose sign is the side and whose magnitude the strength, or an object with
            `signal` (its sign counts) and `strength`.
        meta_confidence, regime_weight, toxicity : float
            In [0, 1].
        break_even : float, optional
            Break-even probability of this trade, in place of the sizer's own.

        Returns
        -------
        float
            In [-1, 1]. Inputs out of range count as their nearest bound; 0.0 if any is NaN, infinite or no
            number.
        """
        if hasattr(signal, "strength"):
            directed = cast("DirectedSignal", signal)
            side, strength = as_number(directed.signal), as_number(directed.strength)
        else:
            side = as_number(signal)
            strength = abs(side)
        inputs = (
            strength,
            as_number(meta_confidence),
            as_number(regime_weight),
            as_number(toxicity),
            self.break_even if break_even is None else as_number(break_even),
        )
        if side == 0.0 or not (math.isfinite(side) and all(map(math.isfinite, inputs))):
            return 0.0
        strength, p, weight, toxicity, p0 = (min(max(value, 0.0), 1.0) for value in inputs)
        if p <= p0:
            return 0.0
        size = math.sqrt(strength) * ((p - p0) / (1.0 - p0)) * weight * (1.0 - toxicity) * self.fraction
        # Zero has no side: no -0.0 for shorts.
        return math.copysign(size, side) if size > 0.0 else 0.0


def as_number(value: object) -> float:
    """Return `value` as a float, NaN where it is none: a model's output must not raise in a handler."""
    try:
        return float(cast("float", value))  # whatever it is: `float` decides
    except (TypeError, ValueError, OverflowError):
        return math.nan
