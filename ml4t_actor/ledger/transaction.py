"""What was recorded until some moment, written as one transaction."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from ml4t_actor.ledger.schema import OutcomeRow, SignalRow, StreamPosition

_INSERT_SIGNAL = (
    f"INSERT INTO signals (actor, {', '.join(SignalRow._fields)}) "
    f"VALUES (?{', ?' * len(SignalRow._fields)}) ON CONFLICT DO NOTHING"
)
_UPDATE_OUTCOME = (
    "UPDATE signals SET barrier = ?, label = ?, ret = ?, ts_outcome = ?, bars = ?, weight = ? "
    "WHERE actor = ? AND source = ? AND signal_id = ? AND label IS NULL"
)
_INSERT_EVENT = (
    "INSERT INTO events (actor, ts, kind, version, detail) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_REPLACE_SNAPSHOT = "INSERT OR REPLACE INTO snapshots (actor, instrument_id, ts, state) VALUES (?, ?, ?, ?)"
_MOVE_POSITION = (
    "INSERT INTO positions (actor, stream, entry_id, source, signal_id, row_id) VALUES (?, ?, ?, ?, ?, "
    "coalesce((SELECT id FROM signals WHERE actor = ? AND source = ? AND signal_id = ?), 0)) "
    "ON CONFLICT DO UPDATE SET entry_id = excluded.entry_id, source = excluded.source, "
    "signal_id = excluded.signal_id, row_id = max(row_id, excluded.row_id)"
)
_INSERT_FEATURE_SET = "INSERT INTO feature_sets (id, names) VALUES (?, ?) ON CONFLICT DO NOTHING"
# Of one row: they would come again however often its batch is retried.
_ROW_ERRORS = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class EventRow(NamedTuple):
    """Something about models."""

    ts: int
    kind: str
    version: str
    detail: Mapping[str, object]


class Snapshot(NamedTuple):
    """State of an instrument, to go on from after a restart."""

    instrument_id: str
    ts: int
    state: bytes


type Row = SignalRow | OutcomeRow | EventRow


class _Writable(Protocol):
    def write_all(self, connection: sqlite3.Connection) -> int:
        """Write every row, or raise; return 0, the number of rows that were refused."""
        ...

    def write_each(self, connection: sqlite3.Connection) -> int:
        """Write the rows that can be written, numpy's numbers as Python's; return how many cannot."""
        ...


@dataclass(frozen=True, slots=True)
class _Statement[R]:
    """One SQL statement for each of some rows."""

    sql: str
    values_of: Callable[[R], tuple[object, ...]]
    rows: Sequence[R]

    def write_all(self, connection: sqlite3.Connection) -> int:
        connection.executemany(
            self.sql, map(self.values_of, self.rows)
        )  # lets other threads run at every row
        return 0

    def write_each(self, connection: sqlite3.Connection) -> int:
        refused = 0
        for row in self.rows:
            try:
                connection.execute(self.sql, tuple(_plain(value) for value in self.values_of(row)))
            except Exception as e:
                if not _is_of_a_row(e):
                    raise
                refused += 1
        return refused


def write_together(
    connection: sqlite3.Connection,
    actor: str,
    feature_sets: Mapping[int, str],
    rows: Iterable[Row],
    snapshots: Mapping[str, Snapshot],
    positions: Mapping[str, StreamPosition],
) -> int:
    """Write all of it or, if an error is raised, nothing; return how many rows were refused.

    Refused is what SQLite cannot store, such as an integer beyond 64 bits: trying again would not help, and the
    others shall not wait for it. What is there already stays as it is, but for snapshots and positions.

    Raises
    ------
    sqlite3.Error
        If the file cannot be written now.
    """
    signals: list[SignalRow] = []
    outcomes: list[OutcomeRow] = []
    events: list[EventRow] = []
    for row in rows:
        if isinstance(row, SignalRow):
            signals.append(row)
        elif isinstance(row, OutcomeRow):
            outcomes.append(row)
        else:
            events.append(row)
    statements: list[_Writable] = [
        _Statement(_INSERT_FEATURE_SET, lambda row: row, list(feature_sets.items())),
        _Statement(_INSERT_SIGNAL, lambda row: (actor, *row), signals),
        _Statement(_UPDATE_OUTCOME, lambda row: (*row[2:], actor, *row[:2]), outcomes),
        _Statement(
            _INSERT_EVENT, lambda row: (actor, row.ts, row.kind, row.version, _json(row.detail)), events
        ),
        _Statement(_REPLACE_SNAPSHOT, lambda row: (actor, *row), list(snapshots.values())),
        _Statement(_MOVE_POSITION, lambda row: (actor, *row[:4], actor, *row[2:4]), list(positions.values())),
    ]
    try:
        return _in_transaction(connection, [statement.write_all for statement in statements])
    except Exception as e:
        if not _is_of_a_row(e):
            raise
        return _in_transaction(connection, [statement.write_each for statement in statements])


def _in_transaction(
    connection: sqlite3.Connection, writes: Iterable[Callable[[sqlite3.Connection], int]]
) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        refused = sum(write(connection) for write in writes)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return refused


def _is_of_a_row(error: Exception) -> bool:
    return isinstance(error, _ROW_ERRORS) or not isinstance(error, sqlite3.Error | MemoryError)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value


def _json(detail: Mapping[str, object]) -> str:
    return msgspec.json.encode(detail, enc_hook=_as_json).decode()


def _as_json(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)
