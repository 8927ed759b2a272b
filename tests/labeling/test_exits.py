"""Which bar ends a trade by a later signal: the definition, signal by signal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.labeling.exits import NO_EXIT, exit_bars
from ml4t_actor.market_data import Bars, Signals


def plain_exits(closes, times, sides, max_age):
    """Restate: the first later signal of another side ends it, at its bar, but not on the bar of the entry."""
    last = [max((i for i, close in enumerate(closes) if close <= ts), default=-1) for ts in times]
    ends = []
    for k, side in enumerate(sides):
        enders = (
            j
            for j in range(k + 1, len(sides))
            if sides[j] != side and last[j] >= 0 and times[j] - closes[last[j]] <= max_age
        )
        j = next(enders, None)
        ends.append(NO_EXIT if side == 0 or j is None else max(last[j], last[k] + 1))
    return ends


def bars_of(closes):
    return Bars(np.array(closes, dtype=np.int64), *np.ones((6, len(closes))))


def signals_of(times, sides):
    return Signals(np.array(times, dtype=np.int64), np.array(sides, dtype=np.int8), np.ones(len(times)))


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=15),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([-1, 0, 1])), max_size=15),
    st.integers(0, 8),
)
def test_exits_are_those_of_the_definition(steps, given_signals, max_age):
    closes = np.cumsum(steps).tolist()
    ordered = sorted(given_signals, key=lambda pair: pair[0])
    times, sides = [ts for ts, _ in ordered], [side for _, side in ordered]
    found = exit_bars(signals_of(times, sides), bars_of(closes), max_age_ns=max_age)
    assert found.dtype == np.int64
    assert found.tolist() == plain_exits(closes, times, sides, max_age)


@pytest.mark.parametrize("later", [0, -1])
def test_a_signal_within_the_bar_of_the_entry_counts_at_the_next_close(later):
    bars = bars_of([10, 20, 30, 40])
    assert exit_bars(signals_of([21, 29], [1, later]), bars)[0] == 2
    assert exit_bars(signals_of([21, 30], [1, later]), bars)[0] == 2
    assert exit_bars(signals_of([21, 40], [1, later]), bars)[0] == 3
    # Of the newest bar: the close that it counts at is still to come.
    assert exit_bars(signals_of([41, 42], [1, later]), bars)[0] == 4


def test_what_comes_after_longer_than_the_longest_gap_ends_nothing():
    bars = bars_of([10, 20, 60])
    assert exit_bars(signals_of([10, 30], [1, 0]), bars, max_age_ns=10)[0] == 1
    assert exit_bars(signals_of([10, 31], [1, 0]), bars, max_age_ns=10)[0] == NO_EXIT
