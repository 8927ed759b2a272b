"""Triple barriers in log prices: one bar at a time, and all events of a history at once.

Every comparison is made by `touched_barrier`, whether for one live bar, one bar of a batch or a block of
bars, so that their answers cannot differ.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray, IntArray

PROFIT = 1
SIGNAL = 2
VERTICAL = 0
STOP = -1
UNRESOLVED = -2

# Lengths of the blocks that are skipped whole where they cannot touch; powers of two, one dividing the other.
FINE = 16
COARSE = 256


@kernel
def log_price(price: float) -> float:
    """Return the natural logarithm of a price, NaN where it is not positive and finite."""
    if not (price > 0.0 and math.isfinite(price)):
        return math.nan
    return math.log(price)


@kernel
def log_prices(prices: FloatArray) -> FloatArray:
    """Return `log_price` of each price; NumPy's own logarithm may differ from it in the last bit."""
    out = np.empty_like(prices)
    for i in range(len(prices)):
        out[i] = log_price(prices[i])
    return out


@kernel
def touched_barrier(side: float, entry: float, profit: float, stop: float, high: float, low: float) -> int:
    """Return which barrier the range from `low` to `high` (log prices) touches: STOP, PROFIT or UNRESOLVED.

    The stop counts where both are touched. A range whose high or low is not finite touches nothing: with half
    of it unknown, a touch of the other barrier first cannot be excluded.
    """
    if not math.isfinite(high - low):
        return UNRESOLVED
    gain = high - entry if side > 0.0 else entry - low
    loss = entry - low if side > 0.0 else high - entry
    if loss >= stop:
        return STOP
    if gain >= profit:
        return PROFIT
    return UNRESOLVED


@kernel
def barrier_step(
    side: float,
    entry: float,
    profit: float,
    stop: float,
    high: float,
    low: float,
    close: float,
    opened: float,
    is_last: bool,
) -> tuple[int, float]:
    """Step one open triple barrier by one bar.

    Parameters
    ----------
    side : float
        1.0 long, -1.0 short.
    entry : float
        `log_price` of the entry.
    profit, stop : float
        Distances of the barriers as positive log returns (``pt * volatility``, ``sl * volatility``); inf
        disables.
    high, low, close : float
        `log_price` of the bar's prices. `close` must be finite on the last bar.
    opened : float
        `log_price` of its open, NaN where it is not known: a stop that the bar opens beyond is filled there.
    is_last : bool
        Whether this is bar number `horizon` after the entry, where the vertical barrier stands.

    Returns
    -------
    barrier : int
        PROFIT, STOP, VERTICAL, or UNRESOLVED while the trade is still open.
    ret : float
        Gross log return in the direction of `side`, NaN while the trade is still open.
    """
    barrier = touched_barrier(side, entry, profit, stop, high, low)
    if barrier == STOP:
        beyond = entry - opened if side > 0.0 else opened - entry
        return STOP, -(beyond if beyond > stop else stop)
    if barrier == PROFIT:
        return PROFIT, profit
    if is_last:
        return VERTICAL, side * (close - entry)
    return UNRESOLVED, math.nan


@kernel
def block_ranges(high: FloatArray, low: FloatArray, length: int) -> tuple[FloatArray, FloatArray]:
    """Return highest high and lowest low of each block of `length` bars, without bars that cannot touch."""
    n_blocks = (len(high) + length - 1) // length
    highest = np.full(n_blocks, -np.inf)
    lowest = np.full(n_blocks, np.inf)
    for i in range(len(high)):
        if math.isfinite(high[i] - low[i]):
            block = i // length
            highest[block] = max(highest[block], high[i])
            lowest[block] = min(lowest[block], low[i])
    return highest, lowest


@kernel
def resolve_barriers(
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    events: IntArray,
    side: FloatArray,
    volatility: FloatArray,
    horizon: int,
    pt: float,
    sl: float,
    exits: IntArray,
    opened: FloatArray,
) -> tuple[FloatArray, IntArray, NDArray[np.int8]]:
    """Return return, end and barrier of each event, from log prices of all bars and one volatility per bar.

    The close of the bar in `exits`, after its event, ends what no barrier has ended by then.

    Blocks are skipped exactly: rounding is monotone, so ``highest - entry`` reaches a barrier if and only if
    ``high[i] - entry`` does for one of the block's bars.
    """
    n_bars, n_events = len(close), len(events)
    ret = np.full(n_events, np.nan)
    end = np.full(n_events, -1, dtype=np.int64)
    barrier = np.full(n_events, UNRESOLVED, dtype=np.int8)
    fine_high, fine_low = block_ranges(high, low, FINE)
    coarse_high, coarse_low = block_ranges(high, low, COARSE)
    for k in range(n_events):
        event, s = events[k], side[k]
        if not (volatility[event] > 0.0 and math.isfinite(volatility[event])):
            continue
        entry, profit, stop = close[event], pt * volatility[event], sl * volatility[event]
        vertical = event + horizon
        last = min(vertical, exits[k])
        i = event + 1
        while i <= last and i < n_bars:
            # A block must end before the last bar, which has a vertical barrier, or an exit, to be stepped onto.
            if i & (FINE - 1) == 0 and i + FINE <= last:
                if i & (COARSE - 1) == 0 and i + COARSE <= last:
                    b = i // COARSE
                    if touched_barrier(s, entry, profit, stop, coarse_high[b], coarse_low[b]) == UNRESOLVED:
                        i += COARSE
                        continue
                b = i // FINE
                if touched_barrier(s, entry, profit, stop, fine_high[b], fine_low[b]) == UNRESOLVED:
                    i += FINE
                    continue
            outcome, r = barrier_step(s, entry, profit, stop, high[i], low[i], close[i], opened[i], i == last)
            if outcome == VERTICAL and i < vertical:
                outcome = SIGNAL
            if outcome != UNRESOLVED:
                ret[k], end[k], barrier[k] = r, i, outcome
                break
            i += 1
    return ret, end, barrier
