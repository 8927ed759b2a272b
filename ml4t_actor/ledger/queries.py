"""An actor's queries of its own ledger."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypedDict

import msgspec

from ml4t_actor.ledger.schema import SignalRow, StreamPosition

_SIGNAL_COLUMNS = ", ".join(SignalRow._fields)


class LedgerEvent(TypedDict):
    """Something that happened to models, as it was recorded."""

    ts: int
    kind: str
    version: str
    detail: dict[str, object]


class LedgerQueries:
    """The queries; `LedgerError` where the file cannot be read now."""

    actor: str

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give a connection to read from, with a view of one moment."""
        raise NotImplementedError

    def open_signals(self) -> list[SignalRow]:
        """Return the signals that are followed and have no outcome yet, in the order in which they were recorded."""
        query = (
            f"SELECT {_SIGNAL_COLUMNS} FROM signals "
            "WHERE actor = ? AND entry IS NOT NULL AND label IS NULL ORDER BY id"
        )
        with self.reading() as connection:
            return [SignalRow(*row) for row in connection.execute(query, (self.actor,))]

    def recent_ids(self, n: int) -> list[tuple[str, str]]:
        """Return source and id of the newest `n` signals, oldest first."""
        query = "SELECT source, signal_id FROM signals WHERE actor = ? ORDER BY id DESC LIMIT ?"
        with self.reading() as connection:
            return connection.execute(query, (self.actor, max(n, 0))).fetchall()[::-1]

    def snapshots(self) -> dict[str, tuple[int, bytes]]:
        """Return time and state of each instrument's newest snapshot."""
        query = "SELECT instrument_id, ts, state FROM snapshots WHERE actor = ?"
        with self.reading() as connection:
            return {name: (ts, state) for name, ts, state in connection.execute(query, (self.actor,))}

    def position(self, stream: str) -> StreamPosition | None:
        """Return how far a stream was read or written; None if it never was."""
        query = f"SELECT {', '.join(StreamPosition._fields)} FROM positions WHERE actor = ? AND stream = ?"
        with self.reading() as connection:
            row = connection.execute(query, (self.actor, stream)).fetchone()
            return None if row is None else StreamPosition(*row)

    def signals_after(self, row_id: int, limit: int) -> list[SignalRow]:
        """Return what was recorded after a row (`StreamPosition.row_id`), in order, at most the newest `limit`."""
        query = (
            f"SELECT * FROM (SELECT id, {_SIGNAL_COLUMNS} FROM signals WHERE actor = ? AND id > ? "
            "ORDER BY id DESC LIMIT ?) ORDER BY id"
        )
        with self.reading() as connection:
            rows = connection.execute(query, (self.actor, row_id, max(limit, 0)))
            return [SignalRow(*row[1:]) for row in rows]

    def outcomes_of(
        self, version: str, since_ns: int = 0, statuses: Sequence[str] = ("ok", "late")
    ) -> list[tuple[float, int, float]]:
        """Return confidence, label and weight of what one model answered, in the order in which it was resolved.

        Parameters
        ----------
        version : str
            Of the model, exactly; "" for none.
        since_ns : int, default 0
            Only outcomes known after this time, UNIX nanoseconds.
        statuses : sequence of str
            Of the answers; by default those that are the model's own.
        """
        query = (
            "SELECT confidence, label, weight FROM signals WHERE actor = ? AND model_version = ? AND ts_outcome > ? "
            f"AND label >= 0 AND status IN ({', '.join('?' * len(statuses))}) ORDER BY ts_outcome, id"
        )
        with self.reading() as connection:
            return connection.execute(query, (self.actor, version, since_ns, *statuses)).fetchall()

    def window_ends(self, since_ns: int, statuses: Sequence[str]) -> list[int]:
        """Return when the label windows end of the resolved signals given after `since_ns` with one of the statuses."""
        query = (
            "SELECT window_end_ns FROM signals WHERE actor = ? AND ts_event > ? AND label >= 0 "
            f"AND window_end_ns IS NOT NULL AND status IN ({', '.join('?' * len(statuses))})"
        )
        with self.reading() as connection:
            return [end for (end,) in connection.execute(query, (self.actor, since_ns, *statuses))]

    def events(self, kind: str | None = None) -> list[LedgerEvent]:
        """Return the events, of one kind or all, in the order in which they were recorded."""
        query = "SELECT ts, kind, version, detail FROM events WHERE actor = ? AND (? IS NULL OR kind = ?) ORDER BY id"
        with self.reading() as connection:
            rows = connection.execute(query, (self.actor, kind, kind)).fetchall()
        return [
            {"ts": ts, "kind": name, "version": version, "detail": msgspec.json.decode(detail)}
            for ts, name, version, detail in rows
        ]
