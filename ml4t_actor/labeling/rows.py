"""Labelled rows: what a model was trained on, kept with it so that its successor can learn from more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.market_data import AnyArray, FloatArray, IntArray

_DTYPES: dict[str, type] = {
    "X": np.float64,
    "y": np.int8,
    "side": np.int8,
    "ret": np.float64,
    "weight": np.float64,
    "odds": np.float64,
    "volatility": np.float64,
    "exit_time": np.float64,
    "label_start": np.int64,
    "label_end": np.int64,
    "regime": np.float64,
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LabelledRows:
    """Signals with the features that they were scored by and their outcomes, in order of time.

    Attributes
    ----------
    X : float64 (n, n_features)
        What each signal is scored by.
    y : int8 (n,)
        1 if acting on it paid after costs.
    side : int8 (n,)
        -1 or 1.
    ret : float64 (n,)
        Gross log return in the signal's direction; NaN where the user gave the labels.
    weight : float64 (n,)
        Average uniqueness of the label.
    odds : float64 (n,)
        Odds in a random walk without drift (`random_walk_odds`); NaN where the user gave the labels.
    volatility : float64 (n,)
        As a log return scaled to the horizon; NaN where it is not known.
    exit_time : float64 (n,)
        When a later signal or the vertical barrier ends the trade, whatever the price does until then: a share of the
        horizon, in (0, 1].
    label_start, label_end : int64 (n,)
        When the signal was given and its outcome known, UNIX nanoseconds.
    regime : float64 (n, n_regimes)
        Probability of each regime of the model's `RegimeModel` when the signal was given; no columns where there is
        none.

    Raises
    ------
    ValueError
        If an array does not have one row per signal, or rows are not in order of time.
    """

    X: FloatArray
    y: NDArray[np.int8]
    side: NDArray[np.int8]
    ret: FloatArray
    weight: FloatArray
    odds: FloatArray
    volatility: FloatArray
    exit_time: FloatArray
    label_start: IntArray
    label_end: IntArray
    regime: FloatArray

    def __post_init__(self) -> None:
        n = len(self.y)
        for name, dtype in _DTYPES.items():
            column = np.asarray(getattr(self, name), dtype=dtype)
            if len(column) != n or column.ndim != (2 if name in ("X", "regime") else 1):
                raise ValueError(f"`{name}` of {n} labelled rows has the shape {column.shape}")
            object.__setattr__(self, name, column)
        if len(late := np.flatnonzero(np.diff(self.label_start) < 0)):
            raise ValueError(
                f"labelled rows must be in order of time: row {late[0] + 1} is before row {late[0]}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: slice | IntArray | NDArray[np.bool_]) -> "LabelledRows":
        """Return some of the rows: a slice, a mask, or indices in order."""
        return LabelledRows(**{name: getattr(self, name)[rows] for name in _DTYPES})

    def replace(self, **columns: AnyArray) -> Self:
        """Return a copy with other columns."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**(values | columns))

    def to_arrays(self) -> dict[str, AnyArray]:
        """Return the columns by name."""
        return {name: getattr(self, name) for name in _DTYPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> "LabelledRows":
        """Return the rows whose `to_arrays` are given; `ValueError` if a column is missing or does not fit.

        Until 0.1.0 the odds were called ``prior``, the volatility was not kept, and no trade was ended by a signal.
        """
        arrays = dict(arrays)
        if "prior" in arrays and "odds" not in arrays:
            arrays["odds"] = arrays["prior"]
            arrays.setdefault("volatility", np.full(len(arrays["odds"]), np.nan))
        arrays.setdefault("exit_time", np.ones(len(arrays.get("y", ()))))
        if missing := sorted(_DTYPES.keys() - arrays.keys()):
            raise ValueError(f"labelled rows lack the columns {missing}")
        return LabelledRows(
            X=np.asarray(arrays["X"], np.float64),
            y=np.asarray(arrays["y"], np.int8),
            side=np.asarray(arrays["side"], np.int8),
            ret=np.asarray(arrays["ret"], np.float64),
            weight=np.asarray(arrays["weight"], np.float64),
            odds=np.asarray(arrays["odds"], np.float64),
            volatility=np.asarray(arrays["volatility"], np.float64),
            exit_time=np.asarray(arrays["exit_time"], np.float64),
            label_start=np.asarray(arrays["label_start"], np.int64),
            label_end=np.asarray(arrays["label_end"], np.int64),
            regime=np.asarray(arrays["regime"], np.float64),
        )


def join_rows(parts: Sequence[LabelledRows]) -> LabelledRows:
    """Return all rows of `parts` in order of time; of equal times, those of earlier parts first.

    Raises
    ------
    ValueError
        If they differ in their features or regimes.
    """
    for name in ("X", "regime"):
        widths = {getattr(part, name).shape[1] for part in parts}
        if len(widths) > 1:
            raise ValueError(f"rows to be joined differ in the columns of `{name}`: {sorted(widths)}")
    order = np.argsort(np.concatenate([part.label_start for part in parts]), kind="stable")
    return LabelledRows(
        **{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _DTYPES}
    )


__all__ = ["LabelledRows", "join_rows"]
