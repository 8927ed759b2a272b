"""How much to trade: one number in [-1, 1] from a signal and how far to trust it."""

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from ml4t_actor.market_data import DAY_NS

YEAR_NS = 365 * DAY_NS


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


class SizeFactors(NamedTuple):
    """What a size is made of; the size is their product.

    Attributes
    ----------
    side : float
        1.0, -1.0 or 0.0.
    strength : float
        Square root of the signal's strength.
    edge : float
        In volatilities, what the trade is expected to earn after costs; NaN where nothing is known of it.
    ramp : float
        Share of a full size for that edge.
    regime, toxicity : float
        Shares that the caps on regime weight and toxicity leave.
    fraction : float
        The sizer's.
    """

    side: float
    strength: float
    edge: float
    ramp: float
    regime: float
    toxicity: float
    fraction: float

    @property
    def size(self) -> float:
        """In [-1, 1]. Zero has no side: it is never -0.0."""
        size = self.strength * self.ramp * self.regime * self.toxicity * self.fraction
        return math.copysign(size, self.side) if size > 0.0 and self.side != 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class IntegratedSizer:
    """Size by what a trade is expected to earn, in full as soon as that is clearly more than nothing.

    ``size = sign(signal) * sqrt(strength) * clip(m / ramp, 0, 1) * caps * fraction``

    with m the expected net return in volatilities: ``expected_return / 1e4 / volatility`` where that is known, else
    ``(p - p0) * barrier_span`` with p the meta-confidence and p0 the break-even probability, which is what a trade
    earns that ends at one of its two barriers. Where both are known and differ, so that one is above its zero and the
    other is not, the expected return decides: it counts what exits at the horizon and by signals earn, too.

    The ramp is short, since an estimate of m is mostly noise, and an edge that saturates is worth the same wherever it
    is: there a size in proportion to m gives up profit at equal risk. Where an edge grows with a feature without end it
    is the other way round. The default keeps four fifths of the better of the two (`python -m benchmarks.sizing`).

    Regime weight and toxicity are features of the model already and not counted again. They cap at the far end only:
    ``min(1, regime_weight / regime_limit) * min(1, (1 - toxicity) / (1 - toxicity_limit))``, continuous, 1 within
    the limits and 0 at a regime weight of 0 and a toxicity of 1, which are also what an unknown one is given as.

    Parameters
    ----------
    break_even : float, default 0.5
        Break-even probability p0 where a call gives none, in [0, 1].
    fraction : float, default 1.0
        Scale of the size, in [0, 1].
    barrier_span : float, default 2.0
        Distance from stop to profit barrier, in volatilities (``pt + sl``).
    ramp : float, default 0.1
        Expected net return, in volatilities, from which on the size is full.
    toxicity_limit : float, default 0.999
        Toxicity up to which the size is full, in [0, 1): takers' one-sided flow often is what an edge is made of,
        and a percentile beyond this is the highest of the last thousand.
    regime_limit : float, default 0.05
        Regime weight from which on the size is full, in (0, 1]: below, less than a signal in twenty has paid.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> sizer = IntegratedSizer()
    >>> sizer.calculate(-1.0, meta_confidence=0.75, regime_weight=0.4, toxicity=0.5)
    -1.0
    >>> sizer.calculate(-1.0, meta_confidence=0.5, regime_weight=0.4, toxicity=0.5)
    0.0
    >>> sizer.calculate(1.0, 0.6, 0.4, 0.5, break_even=0.55, expected_return=5.0, volatility=0.01)
    0.5
    """

    break_even: float = 0.5
    fraction: float = 1.0
    barrier_span: float = 2.0
    ramp: float = 0.1
    toxicity_limit: float = 0.999
    regime_limit: float = 0.05

    def __post_init__(self) -> None:
        for name, low, high, rule in (
            ("break_even", 0.0, 1.0, "in [0, 1]"),
            ("fraction", 0.0, 1.0, "in [0, 1]"),
            ("barrier_span", sys.float_info.min, sys.float_info.max, "positive and finite"),
            ("ramp", sys.float_info.min, sys.float_info.max, "positive and finite"),
            ("toxicity_limit", 0.0, math.nextafter(1.0, 0.0), "in [0, 1)"),
            ("regime_limit", sys.float_info.min, 1.0, "in (0, 1]"),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"`IntegratedSizer.{name}` was {value}, must be {rule}")

    def calculate(
        self,
        signal: float | DirectedSignal,
        meta_confidence: float,
        regime_weight: float,
        toxicity: float,
        *,
        break_even: float | None = None,
        expected_return: float | None = None,
        volatility: float | None = None,
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
        expected_return : float, optional
            What the trade is expected to earn after costs, basis points; None or NaN where that is not known.
        volatility : float, optional
            Of log returns over the trade's horizon. An expected return without one gives 0.0.

        Returns
        -------
        float
            In [-1, 1]. Inputs out of range count as their nearest bound; 0.0 if one that is needed is NaN, infinite
            or no number.
        """
        return self.factors(
            signal,
            meta_confidence,
            regime_weight,
            toxicity,
            break_even=break_even,
            expected_return=expected_return,
            volatility=volatility,
        ).size

    def factors(
        self,
        signal: float | DirectedSignal,
        meta_confidence: float,
        regime_weight: float,
        toxicity: float,
        *,
        break_even: float | None = None,
        expected_return: float | None = None,
        volatility: float | None = None,
    ) -> SizeFactors:
        """Return what `calculate` multiplies, of the same parameters. What is no number makes its own factor 0."""
        if hasattr(signal, "strength"):
            directed = cast("DirectedSignal", signal)
            side, strength = as_number(directed.signal), as_number(directed.strength)
        else:
            side = as_number(signal)
            strength = abs(side)
        p, weight, tox = _unit(meta_confidence), _unit(regime_weight), _unit(toxicity)
        edge = self._edge(p, break_even, expected_return, volatility)
        return SizeFactors(
            side=math.copysign(1.0, side) if math.isfinite(side) and side != 0.0 else 0.0,
            strength=math.sqrt(_unit(strength) or 0.0),
            edge=edge,
            ramp=0.0 if p is None or math.isnan(edge) else min(max(edge / self.ramp, 0.0), 1.0),
            regime=min((weight or 0.0) / self.regime_limit, 1.0),
            toxicity=0.0 if tox is None else min((1.0 - tox) / (1.0 - self.toxicity_limit), 1.0),
            fraction=self.fraction,
        )

    def _edge(
        self, p: float | None, break_even: float | None, expected_return: object, volatility: object
    ) -> float:
        """Return the expected net return in volatilities, NaN where it is not known."""
        told, v = as_number(expected_return), as_number(volatility)
        if not math.isnan(told):
            # Divided twice, so that the largest volatilities do not overflow.
            return told / 1e4 / v if math.isfinite(told) and math.isfinite(v) and v > 0.0 else math.nan
        p0 = _unit(self.break_even if break_even is None else break_even)
        return math.nan if p is None or p0 is None else (p - p0) * self.barrier_span


def full_size(risk_target: float, n_instruments: int, volatility: float, horizon_ns: int) -> float:
    """Return what a size of 1.0 is in notional, as a multiple of equity, so that risk is what was asked for.

    ``risk_target / n_instruments / (volatility * sqrt(year / horizon))``: were all instruments held in full all year
    long and fully correlated, equity would have the annual volatility `risk_target`. It has less whenever one is not
    held, or they differ. The share of an instrument does not depend on what is open, so that an entry is as large as
    its label's trade and no position changes when another opens.

    Parameters
    ----------
    risk_target : float
        Annual volatility of equity, positive.
    n_instruments : int
        How many share it.
    volatility : float
        Of log returns over the horizon, positive.
    horizon_ns : int
        Length of the horizon, nanoseconds, of a year of 365 days around the clock: a market that closes moves less in
        a year than is reckoned here, and is traded smaller.

    Returns
    -------
    float
        Infinite where the volatility is too small to divide by.

    Raises
    ------
    ValueError
        If a number is not positive.

    Examples
    --------
    An annual volatility of 0.5, a quarter of a risk of 0.2:

    >>> year = 365 * 86_400_000_000_000
    >>> round(full_size(0.2, 4, volatility=0.05, horizon_ns=year // 100), 12)
    0.1
    """
    if not (risk_target > 0.0 and n_instruments > 0 and volatility > 0.0 and horizon_ns > 0):
        raise ValueError(
            f"`risk_target` was {risk_target}, `n_instruments` {n_instruments}, `volatility` {volatility} and "
            f"`horizon_ns` {horizon_ns}; all must be positive"
        )
    return risk_target / n_instruments * math.sqrt(horizon_ns / YEAR_NS) / volatility


def as_number(value: object) -> float:
    """Return `value` as a float, NaN where it is none: a model's output must not raise in a handler."""
    try:
        return float(cast("float", value))  # whatever it is: `float` decides
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _unit(value: object) -> float | None:
    """Return the number, or its nearest bound in [0, 1]; None where it is not finite."""
    number = as_number(value)
    return min(max(number, 0.0), 1.0) if math.isfinite(number) else None
