"""Walk-forward folds without leakage through overlapping labels, and the audit that proves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import IntArray
from ml4t_actor.settings import ValidationSettings


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One fold: row numbers of its training and its test rows, both ascending.

    Attributes
    ----------
    train : int64 (n_train,)
    test : int64 (n_test,)
    """

    train: IntArray
    test: IntArray


class LeakageError(ValueError):
    """Training rows know something of the test period.

    Attributes
    ----------
    fold : int
        Number of the offending fold, from 0.
    rows : int64 (n,)
        The training rows that offend.
    """

    def __init__(self, fold: int, rows: IntArray, why: str) -> None:
        self.fold = fold
        self.rows = rows
        shown = ", ".join(str(row) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        super().__init__(f"fold {fold} leaks: {len(rows)} training rows {why}: rows {shown}; purge them")


def walk_forward_splits(
    label_start: ArrayLike, label_end: ArrayLike, settings: ValidationSettings, embargo: int
) -> list[Split]:
    """Split rows into consecutive test folds, each trained on all that was known well before it.

    The folds tile the last `settings.test_fraction` of the rows evenly. A row trains for a fold exactly when
    its label's end is strictly before the fold's first event time minus `embargo` (López de Prado 2018,
    *Advances in Financial Machine Learning*, ch. 7). Rows at the very time of the first test row, of other
    instruments say, therefore never train for that fold, and rows of several instruments may be pooled.

    Parameters
    ----------
    label_start : int64 (n,)
        Event time of each row, UNIX nanoseconds, in order; ties are allowed.
    label_end : int64 (n,)
        When each row's label was known, UNIX nanoseconds.
    settings : ValidationSettings
        Number of folds and the share of rows that they tile.
    embargo : int
        Nanoseconds.

    Raises
    ------
    ValueError
        If times are unsorted, a label ends before it starts, or the rows are too few for the folds.
    """
    start, end = _label_times(label_start, label_end, embargo)
    n = len(start)
    test_size = int(n * settings.test_fraction) // settings.n_folds
    if test_size < 1:
        raise ValueError(
            f"{n} rows are too few for {settings.n_folds} folds over the last {settings.test_fraction:.0%} "
            "of them: use fewer folds or more data"
        )
    from purgedcv import WalkForwardSplit

    # The splitter's own embargo is for rows after the test fold, of which walk-forward has none: padding by
    # `purge_horizon` is what keeps a distance before it.
    splitter = WalkForwardSplit(
        n_splits=settings.n_folds,
        test_size=test_size,
        window="expanding",
        prediction_times=start.view("M8[ns]"),
        evaluation_times=_closed(end),
        purge_horizon=np.timedelta64(int(embargo), "ns"),
    )
    rows = np.empty((n, 1))
    splits = [
        Split(train.astype(np.int64, copy=False), test.astype(np.int64, copy=False))
        for train, test in splitter.split(rows)
    ]
    for fold, split in enumerate(splits):
        if not len(split.train):
            raise ValueError(
                f"fold {fold} of {settings.n_folds} has no training row whose label ends {embargo} ns before "
                "it: use fewer folds, a smaller `test_fraction`, a shorter embargo or more data"
            )
    audit_splits(splits, start, end, embargo)
    return splits


def audit_splits(splits: Sequence[Split], label_start: ArrayLike, label_end: ArrayLike, embargo: int) -> None:
    """Prove that no training row of any fold knows its test period; `purgedcv` gives a second opinion.

    Parameters
    ----------
    splits : sequence of Split
        The folds, whoever made them.
    label_start, label_end : int64 (n,)
        Event time and end of label of each row, UNIX nanoseconds.
    embargo : int
        Nanoseconds that must lie between them and the fold's first event.

    Raises
    ------
    LeakageError
        If a training row is a test row too, or its label ends at or after the first test event
        less `embargo`.
    """
    start, end = _label_times(label_start, label_end, embargo)
    from purgedcv.diagnostics import assert_no_temporal_leakage

    for fold, split in enumerate(splits):
        if not len(split.test):
            raise ValueError(f"fold {fold} has no test row")
        both = np.intersect1d(split.train, split.test)
        if len(both):
            raise LeakageError(fold, both, "are test rows too")
        first = int(start[split.test].min())
        late = split.train[end[split.train] >= first - embargo]
        if len(late):
            raise LeakageError(
                fold,
                late,
                f"have labels that end at or after {first - embargo} (first test event {first} less embargo)",
            )
        assert_no_temporal_leakage(
            split.train,
            split.test,
            start.view("M8[ns]"),
            _closed(end),
            purge_horizon=np.timedelta64(int(embargo), "ns"),
        )


def _closed(label_end: IntArray) -> Any:
    """Return `label_end` for purgedcv, whose intervals exclude their end, so that ours include it."""
    return (label_end + 1).view("M8[ns]")


def _label_times(label_start: ArrayLike, label_end: ArrayLike, embargo: int) -> tuple[IntArray, IntArray]:
    start, end = np.asarray(label_start), np.asarray(label_end)
    for name, times in (("label_start", start), ("label_end", end)):
        if times.ndim != 1 or times.dtype.kind != "i":
            raise ValueError(
                f"`{name}` must be one column of int64 nanoseconds, was {times.dtype} {times.shape}"
            )
    if len(start) != len(end):
        raise ValueError(
            f"`label_start` has {len(start)} rows and `label_end` {len(end)}: pass one of each per row"
        )
    if embargo < 0:
        raise ValueError(f"`embargo` was {embargo} ns, must not be negative")
    if len(bad := np.flatnonzero(np.diff(start) < 0)):
        i = int(bad[0])
        raise ValueError(
            f"rows must be in order of `label_start`: row {i + 1} has {start[i + 1]} after {start[i]}"
        )
    if len(bad := np.flatnonzero(end < start)):
        i = int(bad[0])
        raise ValueError(f"a label cannot end before it starts: row {i} runs from {start[i]} to {end[i]}")
    return np.ascontiguousarray(start, np.int64), np.ascontiguousarray(end, np.int64)
