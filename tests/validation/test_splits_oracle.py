"""Folds and audit against purgedcv, which has its own splitter and its own assertion.

Its intervals exclude their end, ours include it, so it is given ends one nanosecond later. Its own embargo is for rows
after a test fold, of which walk-forward has none: `purge_horizon` is what keeps a distance before it.
"""

import contextlib

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from purgedcv import WalkForwardSplit
from purgedcv.diagnostics import assert_no_temporal_leakage
from purgedcv.exceptions import TemporalLeakageError

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation import LeakageError, Split, audit_splits, walk_forward_splits


@st.composite
def label_windows(draw):
    n = draw(st.integers(4, 60))
    start = np.sort(np.array(draw(st.lists(st.integers(0, 50), min_size=n, max_size=n)), np.int64))
    length = np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), np.int64)
    return start, start + length


def horizon(embargo):
    return np.timedelta64(embargo, "ns")


@settings(deadline=None, max_examples=150)
@given(label_windows(), st.integers(1, 4), st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 6))
def test_folds_are_those_of_purgedcv(windows, n_folds, test_fraction, embargo):
    start, end = windows
    try:
        splits = walk_forward_splits(
            start, end, ValidationSettings(n_folds=n_folds, test_fraction=test_fraction), embargo
        )
    except ValueError:
        assume(False)
    splitter = WalkForwardSplit(
        n_splits=n_folds,
        test_size=len(splits[0].test),
        window="expanding",
        prediction_times=start.view("M8[ns]"),
        evaluation_times=(end + 1).view("M8[ns]"),
        purge_horizon=horizon(embargo),
    )
    theirs = [(train.tolist(), test.tolist()) for train, test in splitter.split(np.empty((len(start), 1)))]
    assert [(split.train.tolist(), split.test.tolist()) for split in splits] == theirs


@settings(deadline=None, max_examples=150)
@given(label_windows(), st.data(), st.integers(0, 6))
def test_the_audit_finds_a_leak_where_purgedcv_does(windows, data, embargo):
    start, end = windows
    n = len(start)
    first = data.draw(st.integers(2, n - 1))
    train = np.array(sorted(data.draw(st.sets(st.integers(0, first - 1), min_size=1))))
    test = np.arange(first, n)

    try:
        audit_splits([Split(train, test)], start, end, embargo)
        leaks = False
    except LeakageError:
        leaks = True
    times = start.view("M8[ns]"), (end + 1).view("M8[ns]")
    with pytest.raises(TemporalLeakageError) if leaks else contextlib.nullcontext():
        assert_no_temporal_leakage(train, test, *times, purge_horizon=horizon(embargo))
    event("leak" if leaks else "clean")
