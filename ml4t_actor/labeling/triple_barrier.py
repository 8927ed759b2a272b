"""Labels of signals: what became of each (triple barrier), and how much of it is its own (uniqueness)."""

import math
from operator import index
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml4t_actor.kernels.barriers import (
    PROFIT,
    SIGNAL,
    STOP,
    UNRESOLVED,
    VERTICAL,
    barrier_step,
    log_price,
    log_prices,
    resolve_barriers,
)
from ml4t_actor.labeling.exits import NO_EXIT
from ml4t_actor.market_data import FloatArray, IntArray

__all__ = [
    "PROFIT",
    "SIGNAL",
    "STOP",
    "UNRESOLVED",
    "VERTICAL",
    "BarrierLabels",
    "barrier_step",
    "log_price",
    "spans_gap",
    "triple_barrier_labels",
    "uniqueness_weights",
]


class BarrierLabels(NamedTuple):
    """Outcomes of events, one row each.

    Attributes
    ----------
    label : int8 (n,)
        1 if the trade made more than its costs, 0 if not, -1 if there is no label.
    ret : float64 (n,)
        Gross log return in the direction of the side; NaN without a label.
    end : int64 (n,)
        Index of the bar at whose close the outcome was known; -1 without a label.
    barrier : int8 (n,)
        `PROFIT` (1), `STOP` (-1), `VERTICAL` (0), `SIGNAL` (2) or `UNRESOLVED` (-2).
    """

    label: NDArray[np.int8]
    ret: FloatArray
    end: IntArray
    barrier: NDArray[np.int8]


def triple_barrier_labels(
    high: ArrayLike,
    low: ArrayLike,
    close: ArrayLike,
    events: ArrayLike,
    side: ArrayLike,
    volatility: ArrayLike,
    *,
    horizon: int,
    pt: float,
    sl: float,
    cost: float,
    exits: ArrayLike | None = None,
    open: ArrayLike | None = None,
) -> BarrierLabels:
    """Label events by the barrier that price touches first (Lopez de Prado 2018, ch. 3), over log returns.

    An event enters at the close of its bar and is watched over the next `horizon` bars. Their highs and lows
    touch the profit barrier at ``+pt * volatility`` or the stop at ``-sl * volatility`` in the direction of
    the side; reaching a barrier exactly touches it, and where one bar touches both the stop counts. Without a
    touch the trade ends at the close of the last watched bar, or of its bar in `exits` where that comes before; within
    that bar barriers come first. Long and short are exact mirrors.

    An event is `UNRESOLVED` if nothing was touched before the data ended inside its window, or if its
    volatility is not positive and finite.

    Parameters
    ----------
    high, low, close : float (n_bars,)
        Prices. A bar whose high or low is not positive and finite touches nothing.
    events : int (n,)
        Bar index of each event, in any order.
    side : (n,)
        1 or -1 for each event.
    volatility : float (n_bars,)
        Volatility known at each bar's close, as a log return already scaled to the horizon.
    horizon : int
        Bars to the vertical barrier, at least 1.
    pt, sl : float
        Distances of the barriers in volatilities, positive; inf disables a barrier.
    cost : float
        Round-trip cost as a log return. The label is 1 if the gross return is greater.
    exits : int (n,), optional
        Bar index, after that of the event, at whose close a later signal ends the trade (`exit_bars`); `NO_EXIT`, or
        any beyond the horizon, for none.
    open : float (n_bars,), optional
        Price at which each bar opened: a stop that it lies beyond is filled there, and returns what that gives. By
        default, and where it is not positive and finite, stops return their distance.

    Returns
    -------
    BarrierLabels

    Raises
    ------
    TypeError
        If `horizon` or `events` are not integers.
    ValueError
        If lengths differ, an event is out of range, a side is not 1 or -1, a close is not positive and
        finite, a low is above its high, an exit is not after its event, or a setting is out of range.

    Examples
    --------
    >>> close = [100.0, 101.0, 103.0, 99.0]
    >>> labels = triple_barrier_labels(
    ...     close, close, close, [0, 0], [1, -1], [0.02] * 4, horizon=3, pt=1.0, sl=1.0, cost=0.001
    ... )
    >>> labels.label.tolist(), labels.ret.tolist(), labels.end.tolist(), labels.barrier.tolist()
    ([1, 0], [0.02, -0.02], [2, 2], [1, -1])

    References
    ----------
    M. Lopez de Prado, *Advances in Financial Machine Learning*, Wiley, 2018, ch. 3.
    """
    horizon = _at_least_one("horizon", horizon)
    for name, value in (("pt", pt), ("sl", sl)):
        if not value > 0.0:
            raise ValueError(f"`{name}` was {value}, must be positive (inf disables the barrier)")
    if not (cost >= 0.0 and math.isfinite(cost)):
        raise ValueError(f"`cost` was {cost}, must be a finite log return, not negative")
    columns = {
        name: _column(name, values)
        for name, values in (("high", high), ("low", low), ("close", close), ("volatility", volatility))
    }
    columns["open"] = np.full_like(columns["close"], np.nan) if open is None else _column("open", open)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"prices and volatility need one value per bar each, their lengths were {lengths}")
    _check_prices(columns["high"], columns["low"], columns["close"])
    rows = _bar_indices("events", events, lengths["close"])
    directions = _column("side", side)
    if len(directions) != len(rows):
        raise ValueError(f"`side` needs one value per event: {len(directions)} for {len(rows)} events")
    if len(bad := np.flatnonzero(np.abs(directions) != 1.0)):
        raise ValueError(
            f"`side` of row {bad[0]} was {directions[bad[0]]:g}, must be 1 or -1; "
            "signals of 0 have no outcome, leave them out"
        )
    ends = np.full(len(rows), NO_EXIT, dtype=np.int64) if exits is None else _exits(exits, rows)
    ret, end, barrier = resolve_barriers(
        log_prices(columns["high"]),
        log_prices(columns["low"]),
        log_prices(columns["close"]),
        rows,
        directions,
        columns["volatility"],
        min(horizon, lengths["close"]),  # a window of all bars never completes, and its end cannot overflow
        float(pt),
        float(sl),
        ends,
        log_prices(columns["open"]),
    )
    label = np.where(barrier == UNRESOLVED, -1, ret > cost).astype(np.int8)
    return BarrierLabels(label, ret, end, barrier)


def uniqueness_weights(start: ArrayLike, end: ArrayLike, n_bars: int) -> FloatArray:
    """Return the average uniqueness of overlapping labels (Lopez de Prado 2018, ch. 4).

    A label is alive on the bars in ``(start, end]``. Its weight is the mean over these of one divided by the
    number of labels alive there: 1 for a label that overlaps with none, about ``1 / k`` for one of k that
    always overlap.

    Parameters
    ----------
    start : int (n,)
        Bar index of each event.
    end : int (n,)
        Bar index at which each outcome was known, after `start`; -1 for a row without a label, which weighs 0
        and does not count as alive.
    n_bars : int
        Number of bars that the indices refer to.

    Returns
    -------
    float64 (n,)
        In [0, 1].

    Raises
    ------
    TypeError
        If indices are not integers.
    ValueError
        If lengths differ, an index is out of range, or an end is not after its start.

    Examples
    --------
    >>> uniqueness_weights([0, 1, 5], [2, 3, 6], n_bars=8).tolist()
    [0.75, 0.75, 1.0]

    References
    ----------
    M. Lopez de Prado, *Advances in Financial Machine Learning*, Wiley, 2018, ch. 4.
    """
    n_bars = _at_least_one("n_bars", n_bars)
    starts, ends, labelled = _spans(start, end, n_bars)
    # Entry i of a running sum covers bars 0 to i, so a difference of two covers (start, end].
    births = np.bincount(starts[labelled] + 1, minlength=n_bars + 1)
    deaths = np.bincount(ends[labelled] + 1, minlength=n_bars + 1)
    alive = np.cumsum(births - deaths)[:n_bars]
    share = np.cumsum(1.0 / np.maximum(alive, 1))
    weights = np.zeros(len(starts))
    first, last = starts[labelled], ends[labelled]
    # A running sum rounds, which must not lift a weight above its bound.
    weights[labelled] = np.minimum((share[last] - share[first]) / (last - first), 1.0)
    return weights


def spans_gap(ts_event: ArrayLike, start: ArrayLike, end: ArrayLike, max_gap_ns: int) -> NDArray[np.bool_]:
    """Return which labels are open across a gap in the bars: what price did meanwhile is not known.

    Parameters
    ----------
    ts_event : int (n_bars,)
        Close of each bar, UNIX nanoseconds, increasing.
    start : int (n,)
        Bar index of each event.
    end : int (n,)
        Bar index at which each outcome was known, after `start`; -1 for a row without a label, which spans none.
    max_gap_ns : int
        A longer step from one bar to the next is a gap.

    Returns
    -------
    bool (n,)
        Whether one of the bars in ``(start, end]`` comes after a gap.

    Raises
    ------
    TypeError
        If indices are not integers.
    ValueError
        If lengths differ, an index is out of range, or an end is not after its start.

    Examples
    --------
    >>> spans_gap([0, 60, 120, 900, 960], [0, 1, 2, 3], [2, 3, 3, 4], max_gap_ns=600).tolist()
    [False, True, True, False]
    """
    times = np.asarray(ts_event)
    starts, ends, labelled = _spans(start, end, len(times))
    gaps_until = np.concatenate([[0], np.cumsum(np.diff(times) > max_gap_ns)])
    across: NDArray[np.bool_] = labelled & (gaps_until[ends] != gaps_until[starts])
    return across


def _spans(start: ArrayLike, end: ArrayLike, n_bars: int) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Check and return starts and ends of labels, and which rows have one."""
    starts = _bar_indices("start", start, n_bars)
    ends = _bar_indices("end", end, n_bars, lowest=-1)
    if len(starts) != len(ends):
        raise ValueError(f"`start` and `end` differ in length: {len(starts)} and {len(ends)}")
    labelled = ends >= 0
    if len(bad := np.flatnonzero(labelled & (ends <= starts))):
        raise ValueError(
            f"a label must end after it starts: row {bad[0]} starts at bar {starts[bad[0]]} and ends at "
            f"{ends[bad[0]]} (-1 marks a row without a label)"
        )
    return starts, ends, labelled


def _exits(exits: ArrayLike, events: IntArray) -> IntArray:
    """Check and return the bars at which trades are ended by a signal."""
    bars = _bar_indices("exits", exits, NO_EXIT + 1)
    if len(bars) != len(events):
        raise ValueError(f"`exits` needs one bar per event: {len(bars)} for {len(events)} events")
    if len(bad := np.flatnonzero(bars <= events)):
        raise ValueError(
            f"`exits` of row {bad[0]} was bar {bars[bad[0]]}, must be after its event, on bar {events[bad[0]]}: a "
            "signal within the bar of the entry counts at the next close"
        )
    return bars


def _at_least_one(name: str, value: int) -> int:
    try:
        whole = index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, was {value!r}") from None
    if whole < 1:
        raise ValueError(f"`{name}` was {value}, must be at least 1")
    return whole


def _column(name: str, values: ArrayLike) -> FloatArray:
    column = np.ascontiguousarray(values, dtype=np.float64)
    if np.ndim(values) != 1:
        raise ValueError(f"`{name}` must have one dimension, its shape was {np.shape(values)}")
    return column


def _bar_indices(name: str, values: ArrayLike, n_bars: int, *, lowest: int = 0) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"`{name}` must have one dimension, its shape was {array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"`{name}` must be integers (bar indices), their type was {array.dtype}")
    if len(bad := np.flatnonzero((array < lowest) | (array >= n_bars))):
        raise ValueError(
            f"`{name}` must be bar indices from {lowest} to {n_bars - 1}: row {bad[0]} was {array[bad[0]]}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _check_prices(high: FloatArray, low: FloatArray, close: FloatArray) -> None:
    if len(bad := np.flatnonzero(~(np.isfinite(close) & (close > 0.0)))):
        raise ValueError(
            f"`close` of bar {bad[0]} was {close[bad[0]]}, must be positive and finite; drop the bar"
        )
    usable = np.isfinite(high) & np.isfinite(low) & (high > 0.0) & (low > 0.0)
    if len(bad := np.flatnonzero(usable & (low > high))):
        raise ValueError(
            f"bar {bad[0]} has its low {low[bad[0]]} above its high {high[bad[0]]}; drop or repair it"
        )
