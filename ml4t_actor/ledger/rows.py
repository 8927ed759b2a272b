"""From a ledger to the rows that a model learns from."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.ledger.schema import Source, reading
from ml4t_actor.market_data import AnyArray, FloatArray, IntArray

CHUNK_ROWS = 20_000
_FLOAT64 = np.dtype("<f8")
_DTYPES: dict[str, type] = {
    "label": np.int8,
    "side": np.int8,
    "ret": np.float64,
    "weight": np.float64,
    "volatility": np.float64,
    "ts_event": np.int64,
    "ts_outcome": np.int64,
    "confidence": np.float64,
    "model_version": np.object_,
    "regime_probabilities": np.object_,
    "regime_model": np.object_,
    "instrument_id": np.object_,
    "source": np.object_,
}
NO_SIGNAL = 2**62
"""When a signal comes that does not."""
# By the index in which they are in order already: sorting would move every blob.
_IN_SPAN = "FROM main.signals INDEXED BY signals_by_time WHERE actor = ? AND ts_event > ? AND side <> 0"
_STATUS_FITS = "status IN ('ok', 'late', 'no_model', 'novel_input')"
_ROWS = f"""
    SELECT {", ".join(_DTYPES)}, feature_set, features {_IN_SPAN}
    AND {_STATUS_FITS} AND window_end_ns <= ? AND label >= 0
    ORDER BY ts_event DESC, id DESC
"""
# Zero signals too.
_SIGNALS = """
    SELECT instrument_id, source, ts_event, coalesce(side, 0) FROM main.signals INDEXED BY signals_by_time
    WHERE actor = ? AND ts_event > ? ORDER BY ts_event
"""
_UNUSABLE = f"""
    SELECT
        sum(NOT fits),
        sum(fits AND coalesce(window_end_ns > ?, 1)),
        sum(fits AND coalesce(window_end_ns <= ?, 0) AND coalesce(label < 0, 1))
    FROM (SELECT {_STATUS_FITS} AS fits, window_end_ns, label {_IN_SPAN} AND ts_event <= ?)
"""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """Signals as they were served, with what became of them, in order of time.

    Attributes
    ----------
    X : float64 (n, n_features)
        Features as served, in the order asked for.
    y : int8 (n,)
        1 if acting on it paid after costs.
    side : int8 (n,)
        -1 or 1.
    ret : float64 (n,)
        Gross log return in the direction of the side.
    weight : float64 (n,)
        Average uniqueness of the label.
    volatility : float64 (n,)
        Standard deviation of log returns scaled to the label horizon, as served.
    label_start, label_end : int64 (n,)
        When the signal arose and its outcome was known, UNIX nanoseconds.
    exit_signal : int64 (n,)
        When the next zero or opposite signal of the same source for the same instrument arose, UNIX nanoseconds;
        `NO_SIGNAL` where none did.
    confidence : float64 (n,)
        What was answered.
    model_version : object (n,)
        Which model answered, "" for none.
    regime_probabilities : float64 (n, n_regimes)
        Of the row with the most regimes; NaN where a row has fewer or none.
    regime_model : object (n,)
        Digest of the regime model that the probabilities are of, "" for none.
    dropped : dict
        Why signals given in the time span did not become rows, with counts: ``status``, ``window_incomplete``,
        ``no_label``, ``missing_feature``, ``bad_features``. Signals of 0 are not counted, and those older than the
        newest `max_rows` were not looked at for the last two.
    """

    X: FloatArray
    y: NDArray[np.int8]
    side: NDArray[np.int8]
    ret: FloatArray
    weight: FloatArray
    volatility: FloatArray
    label_start: IntArray
    label_end: IntArray
    exit_signal: IntArray
    confidence: FloatArray
    model_version: NDArray[np.object_]
    regime_probabilities: FloatArray
    regime_model: NDArray[np.object_]
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.y)


def training_rows(
    source: Source,
    actor: str,
    feature_names: Sequence[str],
    since_ns: int,
    until_ns: int,
    max_rows: int,
) -> TrainingRows:
    """Read the newest rows that a model may learn from, also while the file is written.

    A row's whole horizon has passed at `until_ns`. (Of the newest signals only those have an outcome that met a
    barrier early: with these the rows would be biased towards quick outcomes.)

    Parameters
    ----------
    source : str, Path, Ledger or sqlite3.Connection
        The ledger.
    actor : str
        Whose signals.
    feature_names : sequence of str
        The columns of `X`. Rows that were served without one of them are left out.
    since_ns, until_ns : int
        Signals after the one, whose label's window ended at or before the other; UNIX nanoseconds.
    max_rows : int
        Most rows.

    Raises
    ------
    LedgerError
        If the file is missing, no ledger, or unreadable.
    """
    parts: list[list[AnyArray]] = []
    dropped: Counter[str] = Counter()
    wanted = max(max_rows, 0)
    with reading(source) as connection:
        columns_of = _columns_of(connection, feature_names)
        unusable = connection.execute(_UNUSABLE, (until_ns, until_ns, actor, since_ns, until_ns)).fetchone()
        cursor = connection.execute(_ROWS, (actor, since_ns, until_ns))
        while wanted > 0 and (chunk := cursor.fetchmany(CHUNK_ROWS)):
            *values, sets, blobs = zip(*chunk, strict=True)
            X, known = _feature_rows(sets, blobs, columns_of, len(feature_names))
            finite = known & np.isfinite(X).all(axis=1)
            kept = np.flatnonzero(finite)[:wanted]
            looked_at = len(chunk) if len(kept) < wanted else int(kept[-1]) + 1
            dropped["missing_feature"] += int((~known[:looked_at]).sum())
            dropped["bad_features"] += int((known & ~finite)[:looked_at].sum())
            wanted -= len(kept)
            columns = zip(values, _DTYPES.values(), strict=True)
            parts.append([X[kept], *(np.array(column, dtype=dtype)[kept] for column, dtype in columns)])
        signals = connection.execute(_SIGNALS, (actor, since_ns)).fetchall()
    reasons = ("status", "window_incomplete", "no_label")
    dropped.update({reason: n or 0 for reason, n in zip(reasons, unusable, strict=True)})
    if parts:
        X, *arrays = (np.concatenate(column)[::-1] for column in zip(*parts, strict=True))
    else:
        X, *arrays = np.empty((0, len(feature_names))), *(np.empty(0, dtype) for dtype in _DTYPES.values())
    of = dict(zip(_DTYPES, arrays, strict=True))
    return TrainingRows(
        X=np.ascontiguousarray(X),
        y=of["label"],
        side=of["side"],
        ret=of["ret"],
        weight=of["weight"],
        volatility=of["volatility"],
        label_start=of["ts_event"],
        label_end=of["ts_outcome"],
        exit_signal=_exit_signals(signals, of["instrument_id"], of["source"], of["side"], of["ts_event"]),
        confidence=of["confidence"],
        model_version=of["model_version"],
        regime_probabilities=_padded(of["regime_probabilities"]),
        regime_model=of["regime_model"],
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def stored_feature_sets(connection: sqlite3.Connection) -> dict[int, list[str]]:
    """Return the feature names of each set."""
    return {
        number: json.loads(names)
        for number, names in connection.execute("SELECT id, names FROM feature_sets")
    }


def feature_values(blobs: Sequence[bytes | None], n_features: int) -> tuple[IntArray, FloatArray]:
    """Return which of the blobs hold `n_features` numbers, and these: one row each."""
    size = n_features * _FLOAT64.itemsize
    whole = [i for i, blob in enumerate(blobs) if blob is not None and len(blob) == size]
    joined = b"".join([blobs[i] or b"" for i in whole])
    values = np.frombuffer(joined, _FLOAT64).reshape(len(whole), n_features)
    return np.array(whole, dtype=np.int64), values.astype(np.float64, copy=False)


def _columns_of(
    connection: sqlite3.Connection, feature_names: Sequence[str]
) -> dict[int, tuple[int, list[int]]]:
    """Return, for each set that has all names, how many features are in it and where these are."""
    return {
        number: (len(names), [names.index(name) for name in feature_names])
        for number, names in stored_feature_sets(connection).items()
        if set(feature_names) <= set(names)
    }


def _feature_rows(
    sets: tuple[int | None, ...],
    blobs: tuple[bytes | None, ...],
    columns_of: dict[int, tuple[int, list[int]]],
    n_features: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the features by name, NaN where there are none, and which rows were served with all of them."""
    X = np.full((len(sets), n_features), np.nan)
    numbers = np.array([-1 if number is None else number for number in sets], dtype=np.int64)
    for number, (width, columns) in columns_of.items():
        rows = np.flatnonzero(numbers == number)
        whole, values = feature_values([blobs[i] for i in rows], width)
        X[rows[whole]] = values[:, columns]
    return X, np.isin(numbers, list(columns_of))


def _exit_signals(
    signals: Sequence[tuple[str, str, int, int]],
    instruments: NDArray[np.object_],
    sources: NDArray[np.object_],
    sides: NDArray[np.int8],
    times: IntArray,
) -> IntArray:
    """Return when the first later signal of another side came that has the same instrument and source."""
    by_origin: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for instrument, source, time, side in signals:
        by_origin.setdefault((instrument, source), []).append((time, side))
    exits = np.full(len(times), NO_SIGNAL, dtype=np.int64)
    for (instrument, source), given in by_origin.items():
        own = (instruments == instrument) & (sources == source)
        time, side = np.array(given, dtype=np.int64).T
        for one in (-1, 1):
            rows = np.flatnonzero(own & (sides == one))
            others = np.append(time[side != one], NO_SIGNAL)
            exits[rows] = others[np.searchsorted(others, times[rows], side="right")]
    return exits


def _padded(blobs: NDArray[np.object_]) -> FloatArray:
    """Return the numbers of each blob as a row, NaN after its last."""
    lengths = np.array([len(blob) // _FLOAT64.itemsize if blob else 0 for blob in blobs], dtype=np.int64)
    padded = np.full((len(blobs), int(lengths.max(initial=0))), np.nan)
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        whole, values = feature_values([blobs[i] for i in rows], int(length))
        padded[rows[whole], :length] = values
    return padded
