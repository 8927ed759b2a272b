"""What the risk stage reads of a signal, whichever object carries it."""

import math
from typing import Protocol, cast

from ml4t_actor.strategy.sizing import DirectedSignal, as_number

# What a meta-model says of a trade: an alpha's own fields of these names may be something else.
_TOLD = ("expected_return", "volatility", "break_even")


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


class AlphaOutput(Protocol):
    """What an alpha has put out, with what its meta-model says of it."""

    @property
    def meta_output(self) -> object:
        """An object with the fields of `Enriched`, or some of them; the others are the alpha's own."""


class _Joined:
    """The fields of a meta-output, and of the alpha's output where it lacks one."""

    def __init__(self, meta_output: object, alpha_output: object) -> None:
        self._sources = (meta_output, alpha_output)

    def __getattr__(self, name: str) -> object:
        for source in self._sources[: 1 if name in _TOLD else None]:
            if hasattr(source, name):
                value: object = getattr(source, name)
                return value
        kinds = " and ".join(type(source).__name__ for source in self._sources)
        raise AttributeError(f"`{name}` was missing, must be an attribute of {kinds}")


def meta_output_of(output: Enriched | AlphaOutput) -> Enriched:
    """Return the enriched signal that an alpha's output carries, or the object itself if it is one.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> alpha_output = SimpleNamespace(
    ...     signal=1, strength=0.5, meta_output=SimpleNamespace(meta_confidence=0.7, toxicity=0.1, regime_weight=1.0)
    ... )
    >>> enriched = meta_output_of(alpha_output)
    >>> enriched.signal, enriched.meta_confidence
    (1, 0.7)
    """
    meta_output = getattr(output, "meta_output", None)
    return cast("Enriched", output if meta_output is None else _Joined(meta_output, output))


def told_break_even(enriched: object) -> float | None:
    """Return the break-even probability that a signal tells, None where it tells none.

    Of an `EnrichedSignal` 1.0 is what stands where it is not known, unless its expected return is: then no
    probability would pay.
    """
    told = as_number(getattr(enriched, "break_even", None))
    known = told < 1.0 or not math.isnan(as_number(getattr(enriched, "expected_return", None)))
    return told if known and not math.isnan(told) else None
