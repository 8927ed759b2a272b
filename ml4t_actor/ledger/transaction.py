"""What was recorded until some moment, written as one transaction."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

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
    detail: dict[str, Any]


class Snapshot(NamedTuple):
    """State of an instrument, to go on from after a restart."""

    instrument_id: str
    ts: int
    state: bytes


type Row = SignalRow | OutcomeRow | EventRow
type _Values = tuple[Any, ...]
type _Statement = tuple[str, Callable[[Any], _Values], list[Any]]


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
    statements: list[_Statement] = [
        (_INSERT_FEATURE_SET, tuple, list(feature_sets.items())),
        (_INSERT_SIGNAL, lambda row: (actor, *row), signals),
        (_UPDATE_OUTCOME, lambda row: (*row[2:], actor, *row[:2]), outcomes),
        (_INSERT_EVENT, lambda row: (actor, row.ts, row.kind, row.version, _json(row.detail)), events),
        (_REPLACE_SNAPSHOT, lambda row: (actor, *row), list(snapshots.values())),
        (_MOVE_POSITION, lambda row: (actor, *row[:4], actor, *row[2:4]), list(positions.values())),
    ]
    try:
        return _in_transaction(connection, statements, _write_all)
    except Exception as e:
        if not _is_of_a_row(e):
            raise
        return _in_transaction(connection, statements, _write_each)


def _in_transaction(
    connection: sqlite3.Connection,
    statements: list[_Statement],
    write: Callable[[sqlite3.Connection, _Statement], int],
) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        refused = sum(write(connection, statement) for statement in statements)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    return refused


def _write_all(connection: sqlite3.Connection, statement: _Statement) -> int:
    sql, values_of, rows = statement
    connection.executemany(sql, map(values_of, rows))  # which lets other threads run at every row
    return 0


def _write_each(connection: sqlite3.Connection, statement: _Statement) -> int:
    """Write the rows that can be written, numpy's numbers as Python's; return how many cannot."""
    sql, values_of, rows = statement
    refused = 0
    for row in rows:
        try:
            connection.execute(sql, tuple(_plain(value) for value in values_of(row)))
        except Exception as e:
            if not _is_of_a_row(e):
                raise
            refused += 1
    return refused


def _is_of_a_row(error: Exception) -> bool:
    return isinstance(error, _ROW_ERRORS) or not isinstance(error, sqlite3.Error | MemoryError)


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _json(detail: dict[str, Any]) -> str:
    return msgspec.json.encode(detail, enc_hook=_as_json).decode()


def _as_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
