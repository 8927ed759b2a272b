"""Walk-forward folds without leakage through overlapping labels, and the audit that proves it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    splits: list[Split] = []
    for first in range(n - settings.n_folds * test_size, n, test_size):
        train = np.flatnonzero(_known_before(end[:first], start[first], embargo))
        if not len(train):
            raise ValueError(
                f"fold {len(splits)} of {settings.n_folds} has no training row whose label ends {embargo} ns before "
                "it: use fewer folds, a smaller `test_fraction`, a shorter embargo or more data"
            )
        splits.append(Split(train, np.arange(first, first + test_size)))
    return splits


def _known_before(label_end: IntArray, first: int, embargo: int) -> NDArray[np.bool_]:
    """Return which labels end strictly before `first` less `embargo`."""
    return label_end < first - embargo


def audit_splits(splits: Sequence[Split], label_start: ArrayLike, label_end: ArrayLike, embargo: int) -> None:
    """Prove that no training row of any fold knows its test period.

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
    for fold, split in enumerate(splits):
        if not len(split.test):
            raise ValueError(f"fold {fold} has no test row")
        both = np.intersect1d(split.train, split.test)
        if len(both):
            raise LeakageError(fold, both, "are test rows too")
        first = int(start[split.test].min())
        late = split.train[~_known_before(end[split.train], first, embargo)]
        if len(late):
            raise LeakageError(
                fold,
                late,
                f"have labels that end at or after {first - embargo} (first test event {first} less embargo)",
            )


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
