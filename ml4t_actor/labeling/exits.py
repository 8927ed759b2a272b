"""When a trade is ended by a later signal of its source, rather than by price or time."""

from typing import NamedTuple

import numpy as np

from ml4t_actor.market_data import Bars, IntArray, Signals

NO_EXIT = 2**62
"""The bar of a signal that no later one ends: beyond any horizon, and twice it is still an int64."""


class SignalExits(NamedTuple):
    """Where and when trades are ended by a later signal, one row per signal.

    Attributes
    ----------
    bar : int64 (n,)
        Index of the bar at whose close; `NO_EXIT` where none ends it.
    ts_event : int64 (n,)
        When the signal that ends it was given, UNIX nanoseconds; 0 where none does.
    """

    bar: IntArray
    ts_event: IntArray


def exit_bars(signals: Signals, bars: Bars, *, max_age_ns: int = NO_EXIT) -> IntArray:
    """Return the bars of `signal_exits`."""
    return signal_exits(signals, bars, max_age_ns=max_age_ns).bar


def signal_exits(signals: Signals, bars: Bars, *, max_age_ns: int = NO_EXIT) -> SignalExits:
    """Return the bar at whose close each signal's trade is ended by the next zero or opposite signal.

    A signal is given at the close of the last bar at or before it, where its trade is entered; so does the one that
    ends the trade act at that bar's close. Both may come within one bar: the exit then counts at the close of the next
    one, since a label ends after it starts. Signals of the same side end nothing. That a trade is ended by price or
    time before is not looked at here.

    Parameters
    ----------
    signals : Signals
        Of one source for one instrument, n rows; the zero signals among them.
    bars : Bars
        Those that the signals are given on.
    max_age_ns : int, optional
        A signal that comes longer after the last bar ends nothing: what price did meanwhile is not known.

    Returns
    -------
    SignalExits
        Zero signals are ended by none. Where the newest bar has both signals, the bar is the one that is still to come.

    Examples
    --------
    >>> closes = np.arange(1, 7) * 60
    >>> bars = Bars(closes, *np.ones((6, 6)))
    >>> signals = Signals(np.array([60, 120, 190, 190, 330]), np.array([1, 1, -1, 0, 1], np.int8), np.ones(5))
    >>> [int(bar) if bar < NO_EXIT else None for bar in signal_exits(signals, bars).bar]
    [2, 2, 3, None, None]
    """
    n = len(signals)
    at = np.searchsorted(bars.ts_event, signals.ts_event, side="right") - 1
    # Of a signal before all bars it is negative, and that ends nothing anyway.
    age_ns = signals.ts_event - bars.ts_event[at]
    ending = np.flatnonzero((at >= 0) & (age_ns <= max_age_ns))
    exits = SignalExits(np.full(n, NO_EXIT, dtype=np.int64), np.zeros(n, dtype=np.int64))
    if not len(ending):
        return exits
    side = signals.signal[ending]
    # Of equal signals in a row each is ended by the first one after them all.
    first_of_run = np.flatnonzero(np.diff(side)) + 1
    # In `ending`, the first one after each row.
    following = np.searchsorted(ending, np.arange(n), side="right")
    run_end = np.append(first_of_run, len(ending))[np.searchsorted(first_of_run, following, side="right")]
    same = (following < len(ending)) & (side[np.minimum(following, len(ending) - 1)] == signals.signal)
    ended_by = np.where(same, run_end, following)
    found = (ended_by < len(ending)) & (signals.signal != 0)
    enders = ending[ended_by[found]]
    exits.bar[found] = np.maximum(at[enders], at[found] + 1)
    exits.ts_event[found] = signals.ts_event[enders]
    return exits
