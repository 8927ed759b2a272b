"""What a meta-model is given to learn from, checked row by row."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.market_data import BoolArray, FloatArray, IntArray

Windows = tuple[IntArray, IntArray]

MIN_ROWS = 50
MIN_PART_ROWS = 10


class KnownOdds(NamedTuple):
    """What is known of each trade without the model.

    Attributes
    ----------
    payable : bool (n,)
        Whether the trade can pay at all: odds of 0 are a rule, not something to learn from.
    offset : float64 (n,)
        Log odds, -inf where the trade cannot pay.
    terms : float64 (n, 2)
        Log odds and log volatility, NaN where the latter is not known.
    """

    payable: BoolArray
    offset: FloatArray
    terms: FloatArray

    def at(self, rows: IntArray | BoolArray | slice) -> "KnownOdds":
        """Return some of the rows."""
        return KnownOdds(self.payable[rows], self.offset[rows], self.terms[rows])


def known_odds(odds: ArrayLike | None, volatility: ArrayLike | None, n: int) -> KnownOdds | None:
    """Return the log odds and terms of `n` rows, None where no odds are given.

    Raises
    ------
    ValueError
        If lengths differ, or the odds are not in [0, 1).
    """
    if odds is None:
        return None
    p = np.asarray(odds, dtype=np.float64)
    v = np.full(n, np.nan) if volatility is None else np.asarray(volatility, dtype=np.float64)
    for name, values in (("odds", p), ("volatility", v)):
        if values.shape != (n,):
            raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {values.shape}")
    if len(bad := np.flatnonzero(~((p >= 0.0) & (p < 1.0)))):
        raise ValueError(f"`odds` must be probabilities in [0, 1): row {bad[0]} is {p[bad[0]]}")
    with np.errstate(divide="ignore"):
        offset = np.log(p) - np.log1p(-p)
    log_volatility = np.log(np.where(np.isfinite(v) & (v > 0.0), v, np.nan))
    return KnownOdds(p > 0.0, offset, np.column_stack([offset, log_volatility]))


def check_rows(
    X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return features, labels and weights as float64, or raise `ValueError` with the row that does not fit."""
    features = np.ascontiguousarray(X, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"`X` must have shape (n, n_features), has {features.shape}")
    n = len(features)
    labels = np.asarray(y, dtype=np.float64)
    weight = check_weights(sample_weight, n)
    if labels.shape != (n,):
        raise ValueError(f"`y` must have shape ({n},), one per row of `X`, has {labels.shape}")
    if n < MIN_ROWS:
        raise ValueError(f"a meta-model needs at least {MIN_ROWS} rows, got {n}; give more signals")
    if len(not_finite := np.argwhere(~np.isfinite(features))):
        i, j = not_finite[0]
        columns = getattr(X, "columns", None)
        name = f"column {j}" if columns is None else f"column {columns[j]!r}"
        raise ValueError(
            f"`X` must be finite: {name} is {features[i, j]} in row {i} ({len(not_finite):,} such values); "
            "drop those rows"
        )
    if len(bad := np.flatnonzero(~np.isin(labels, (0.0, 1.0)))):
        raise ValueError(f"`y` must be 0 or 1: row {bad[0]} is {labels[bad[0]]}")
    return features, labels, weight


def check_weights(sample_weight: ArrayLike | None, n: int) -> FloatArray:
    """Return the weights of `n` rows, 1 by default; `ValueError` names the row that is not finite, or negative."""
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape != (n,):
        raise ValueError(f"`sample_weight` must have shape ({n},), one per row of `X`, has {weight.shape}")
    if len(bad := np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))):
        raise ValueError(f"`sample_weight` must be finite and not negative: row {bad[0]} is {weight[bad[0]]}")
    return weight


def check_groups(groups: ArrayLike | None, n_features: int) -> BoolArray:
    """Return which features are in the group of their own, none by default; `ValueError` if they are no such mask."""
    if groups is None:
        return np.zeros(n_features, np.bool_)
    mask = np.asarray(groups)
    if mask.shape != (n_features,) or mask.dtype != np.bool_:
        raise ValueError(
            f"`groups` must be bool with shape ({n_features},), one per feature, is {mask.dtype} {mask.shape}"
        )
    return mask


def check_windows(label_start: ArrayLike | None, label_end: ArrayLike | None, n: int) -> Windows | None:
    """Return starts and ends of the labels, None if there are none; `ValueError` names the row that does not fit."""
    if label_start is None and label_end is None:
        return None
    if label_start is None or label_end is None:
        raise ValueError("give both `label_start` and `label_end`, or neither")
    start, end = np.asarray(label_start), np.asarray(label_end)
    for name, values in (("label_start", start), ("label_end", end)):
        if values.shape != (n,):
            raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {values.shape}")
        if values.dtype.kind not in "iu":
            raise ValueError(f"`{name}` must be integers (nanoseconds or bar indices), is {values.dtype}")
    if len(bad := np.flatnonzero(start[1:] < start[:-1])):
        i = bad[0] + 1
        raise ValueError(
            f"rows must be in order of time: row {i} has label_start {start[i]} after {start[i - 1]}"
        )
    if len(bad := np.flatnonzero(end < start)):
        i = bad[0]
        raise ValueError(f"a label must not end before it starts: row {i} is [{start[i]}, {end[i]}]")
    return start.astype(np.int64), end.astype(np.int64)


def check_payable(n_payable: int, n: int) -> None:
    """Refuse rows of which too few can pay."""
    if n_payable < MIN_ROWS:
        raise ValueError(
            f"a meta-model needs at least {MIN_ROWS} rows that can pay: the odds are above 0 in {n_payable} of {n}; "
            "widen the profit barrier, or check the costs"
        )


def check_part(part: str, labels: FloatArray, weight: FloatArray, n_purged: int) -> None:
    """Refuse a part of the rows that has too few of positive weight, or one class only."""
    used = labels[weight > 0.0]
    if len(used) < MIN_PART_ROWS:
        raise ValueError(
            f"the {part} part has {len(used)} rows of positive weight, needs at least {MIN_PART_ROWS} "
            f"({n_purged} were purged for overlap with the calibration part); give more signals or change "
            "`calibration_fraction`"
        )
    if (used == used[0]).all():
        raise ValueError(
            f"all {len(used):,} rows of the {part} part have label {int(used[0])}: "
            "there is nothing to tell apart; give a longer history"
        )
