"""Numbers as text: the same in every output."""

import math

from ml4t_actor.report.backtest_result import TradedRun
from ml4t_actor.validation.power import MeanTest


def number(value: float, form: str) -> str:
    """Return a number, or n/a where there is none."""
    return format(value, form) if math.isfinite(value) else "n/a"


def interval(bounds: tuple[float, ...], form: str) -> str:
    """Return an interval in brackets, or say that there is none."""
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[no interval]"
    return f"[{low:{form}}, {high:{form}}]"


def sharpe_ratio(run: TradedRun) -> str:
    """Return the Sharpe ratio with its interval."""
    # Returns that hardly vary have a huge ratio, whose decimals mean nothing.
    largest = max((abs(value) for value in run.sharpe if math.isfinite(value)), default=0.0)
    form = ".2f" if largest < 100.0 else ".0f" if largest < 1e4 else ".0e"
    return f"{number(run.sharpe.sharpe, form)} {interval(run.sharpe[1:], form)}"


def basis_points(test: MeanTest) -> str:
    """Return a mean of returns in basis points with its interval."""
    mean, low, high = (1e4 * value for value in (test.mean, test.low, test.high))
    return f"{number(mean, '+.2f')} bp {interval((low, high), '+.2f')}"


def rounded(count: float) -> str:
    """Return a count to two significant digits, up if in doubt, and none beyond a million."""
    if not count < 1e6:
        return "over a million"
    step = 10.0 ** max(0, math.floor(math.log10(max(count, 1.0))) - 1)
    return f"{math.ceil(count / step) * step:,.0f}"
