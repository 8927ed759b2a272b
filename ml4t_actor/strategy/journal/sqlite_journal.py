"""The journal of a live strategy: a file that a thread of its own writes, and whose commits it reports back."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from ml4t_actor.strategy.journal.order_journal import (
    DayRecord,
    EntryIntent,
    JournalError,
    MemoryJournal,
    UnsettledOpening,
)

_APPLICATION_ID = 0x4D4C344F  # "ML4O"
# By the version of a file, what makes it one of the next; an empty one is of version 0.
_MIGRATIONS = (
    """
CREATE TABLE entries (
    order_id TEXT PRIMARY KEY, source TEXT NOT NULL, signal_id TEXT NOT NULL, instrument_id TEXT NOT NULL,
    side INTEGER NOT NULL, quantity TEXT NOT NULL, ts INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE days (
    account TEXT PRIMARY KEY, day INTEGER NOT NULL, open_equity TEXT NOT NULL, halted INTEGER NOT NULL,
    transferred TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE exits (instrument_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE quantities (instrument_id TEXT PRIMARY KEY, quantity TEXT NOT NULL) WITHOUT ROWID
""",
    """
ALTER TABLE days ADD COLUMN funding TEXT NOT NULL DEFAULT '0';
ALTER TABLE days ADD COLUMN unexplained TEXT NOT NULL DEFAULT '0';
ALTER TABLE days ADD COLUMN counted_ms INTEGER NOT NULL DEFAULT 0
""",
    "ALTER TABLE days ADD COLUMN unsettled TEXT NOT NULL DEFAULT ''",
)
_VERSION = len(_MIGRATIONS)
_BEGIN_ENTRY = f"INSERT OR REPLACE INTO entries VALUES ({', '.join('?' * len(EntryIntent._fields))}, 0)"
_END_ENTRY = "UPDATE entries SET ended = 1 WHERE order_id = ?"
_RECORD_DAY = "INSERT OR REPLACE INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DAY_COLUMNS = "account, day, open_equity, halted, transferred, funding, unexplained, counted_ms, unsettled"
_READ_DAYS = f"SELECT {_DAY_COLUMNS} FROM days"
_WANT_EXIT = "INSERT OR IGNORE INTO exits VALUES (?)"
_END_EXIT = "DELETE FROM exits WHERE instrument_id = ?"
_RECORD_QUANTITY = "INSERT OR REPLACE INTO quantities VALUES (?, ?)"
_BACKOFF_S, _BACKOFF_MAX_S = 0.1, 2.0

_Value = str | int
_Change = tuple[str, tuple[_Value, ...]]


class SqliteJournal(MemoryJournal):
    """Remembers in a file, whatever kills the process; a power failure neither.

    What is asked is answered from memory. What changes is appended to a list, which a thread writes, each time all
    that waits in one transaction, in order: so that when an entry is durable all that was recorded before it is too.
    While the file cannot be written, changes wait and `then` is not called: nothing is entered, while what protects and
    closes, which waits for nothing here, goes on.

    Parameters
    ----------
    path : str or Path
        The file, made with its folder if absent. It is this process's alone until `close`.
    call_soon : callable
        Calls a function on the event thread, from any.
    report_problem : callable
        Called with a sentence, on the event thread, when the file cannot be written, and when it can be again.
    busy_timeout_s : float, default 2.0
        Seconds to wait at the start for another process to let go of the file.

    Raises
    ------
    JournalError
        If the file is in use, is no journal, or cannot be made.
    """

    def __init__(
        self,
        path: str | Path,
        call_soon: Callable[[Callable[[], None]], None],
        report_problem: Callable[[str], None],
        *,
        busy_timeout_s: float = 2.0,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self._call_soon, self._report_problem = call_soon, report_problem
        self._wake = threading.Condition()  # of what follows, and never held during I/O
        self._waiting: list[_Change] = []
        self._callbacks: list[Callable[[], None]] = []
        self._stop = False
        self._n_recorded = self._n_durable = 0
        try:
            self._connection = _open(self.path, busy_timeout_s)
            self._load()
        except (OSError, sqlite3.Error) as e:
            raise JournalError(_explain(self.path, e)) from e
        self._thread = threading.Thread(target=self._run, name=f"journal {self.path.name}", daemon=True)
        self._thread.start()

    def begin_entry(self, intent: EntryIntent, then: Callable[[], None]) -> None:
        """Remember an entry; when that is in the file call `then`, on the event thread."""
        self._remember_entry(intent)
        self._record(_BEGIN_ENTRY, (*intent[:5], str(intent.quantity), intent.ts), then)

    def end_entry(self, order_id: str) -> None:
        """Remember that what became of an entry is known."""
        if order_id in self._open:
            super().end_entry(order_id)
            self._record(_END_ENTRY, (order_id,))

    def record_day(self, record: DayRecord, then: Callable[[], None] | None = None) -> None:
        """Remember a day; when that is in the file call `then`, on the event thread."""
        super().record_day(record)
        merged = self._days[record.account]
        values = (
            merged.account,
            merged.day,
            str(merged.open_equity),
            int(merged.halted),
            str(merged.transferred),
            str(merged.funding),
            str(merged.unexplained),
            merged.counted_ms,
            "" if merged.unsettled is None else msgspec.json.encode(merged.unsettled).decode(),
        )
        self._record(_RECORD_DAY, values, then)

    def want_exit(self, instrument_id: str) -> None:
        """Remember that a position is to be closed, even by another life."""
        if instrument_id not in self._exits:
            super().want_exit(instrument_id)
            self._record(_WANT_EXIT, (instrument_id,))

    def end_exit(self, instrument_id: str) -> None:
        """Remember that no position is to be closed any more."""
        if instrument_id in self._exits:
            super().end_exit(instrument_id)
            self._record(_END_EXIT, (instrument_id,))

    def record_quantity(self, instrument_id: str, quantity: Decimal) -> None:
        """Remember the signed quantity that own orders were filled for."""
        if quantity != self.own_quantity(instrument_id):
            super().record_quantity(instrument_id, quantity)
            self._record(_RECORD_QUANTITY, (instrument_id, str(quantity)))

    def close(self, timeout_s: float) -> bool:
        """Write what waits, and let go of the file; whether all is in it."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._n_durable == self._n_recorded

    def _record(
        self, statement: str, values: tuple[_Value, ...], then: Callable[[], None] | None = None
    ) -> None:
        with self._wake:
            self._waiting.append((statement, values))
            if then is not None:
                self._callbacks.append(then)
            self._n_recorded += 1
            self._wake.notify_all()

    def _load(self) -> None:
        """Read what earlier lives have left."""
        rows = self._connection.execute(
            f"SELECT {', '.join(EntryIntent._fields)}, ended FROM entries ORDER BY ts, rowid"
        )
        for order_id, source, signal_id, instrument_id, side, quantity, ts, ended in rows:
            intent = EntryIntent(order_id, source, signal_id, instrument_id, side, Decimal(quantity), ts)
            self._remember_entry(intent)
            if ended:
                del self._open[order_id]
        for account, day, opening, halted, *amounts, counted_ms, text in self._connection.execute(_READ_DAYS):
            unsettled = msgspec.json.decode(text, type=UnsettledOpening) if text else None
            transferred, funding, unexplained = map(Decimal, amounts)
            self._days[account] = DayRecord(
                account,
                day,
                Decimal(opening),
                bool(halted),
                transferred,
                funding,
                unexplained,
                counted_ms,
                unsettled,
            )
        for instrument_id, quantity in self._connection.execute("SELECT * FROM quantities"):
            self._quantities[instrument_id] = Decimal(quantity)
        self._exits.update(name for (name,) in self._connection.execute("SELECT * FROM exits"))

    def _run(self) -> None:
        backoff_s = 0.0
        while True:
            with self._wake:
                if not self._waiting and not self._stop:
                    self._wake.wait()
                changes, self._waiting = self._waiting, []
                callbacks, self._callbacks = self._callbacks, []
                stop = self._stop
            error = self._write(changes)
            if error is None:
                self._n_durable += len(changes)
                for callback in callbacks:
                    self._call_soon(callback)
                if backoff_s:
                    self._report(f"the journal {self.path} is written again")
                backoff_s = 0.0
            else:
                with self._wake:
                    self._waiting, self._callbacks = changes + self._waiting, callbacks + self._callbacks
                if not backoff_s:
                    self._report(f"nothing is entered: {_explain(self.path, error)}")
                backoff_s = min(max(2.0 * backoff_s, _BACKOFF_S), _BACKOFF_MAX_S)
            if stop and (error is not None or not self._waiting):
                break
            if backoff_s:
                with self._wake:
                    self._wake.wait_for(lambda: self._stop, backoff_s)
        with suppress(sqlite3.Error):
            self._connection.close()

    def _write(self, changes: Sequence[_Change]) -> Exception | None:
        """Write changes as one transaction; return why that failed."""
        if not changes:
            return None
        try:
            with self._connection:
                for statement, values in changes:
                    self._connection.execute(statement, values)
        except Exception as e:  # whatever it is, the changes must not be lost
            return e
        return None

    def _report(self, message: str) -> None:
        self._call_soon(partial(self._report_problem, message))


class StoredOrders(NamedTuple):
    """What a journal's file has of own orders.

    Attributes
    ----------
    entries : list[EntryIntent]
        The newest, in the order in which they were begun.
    unsettled : frozenset[str]
        Order ids of all entries whose end is not known.
    quantities : dict[str, Decimal]
        The signed quantity that own orders were filled for, by instrument.
    """

    entries: list[EntryIntent]
    unsettled: frozenset[str]
    quantities: dict[str, Decimal]


def read_orders(path: Path, limit: int) -> StoredOrders:
    """Return what is in a journal that no process has open, with so many of its ended entries at the most.

    Raises
    ------
    JournalError
        If the file is in use, or is no journal.
    """
    columns = ", ".join(EntryIntent._fields)
    newest = f"SELECT rowid, ended, {columns} FROM entries ORDER BY ended, rowid DESC LIMIT ?"
    try:
        # Not `mode=ro`: after a kill what is in the WAL has to be recovered.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0.5)
        with closing(connection):
            if _version_of(connection, path) == 0:
                return StoredOrders([], frozenset(), {})
            (n_open,) = connection.execute("SELECT count(*) FROM entries WHERE NOT ended").fetchone()
            rows = sorted(connection.execute(newest, (n_open + limit,)))
            quantities = connection.execute("SELECT instrument_id, quantity FROM quantities").fetchall()
    except (OSError, sqlite3.Error) as e:
        raise JournalError(_explain(path, e)) from e
    return StoredOrders(
        [
            EntryIntent(order_id, source, signal_id, instrument_id, side, Decimal(quantity), ts)
            for _, _, order_id, source, signal_id, instrument_id, side, quantity, ts in rows
        ],
        frozenset(order_id for _, ended, order_id, *_ in rows if not ended),
        {instrument_id: Decimal(quantity) for instrument_id, quantity in quantities},
    )


def _open(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, check_same_thread=False)
    try:
        # The lock, which the system takes back from a process that is killed, stays until the connection is closed.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = _version_of(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        for statement in ";".join(_MIGRATIONS[version:]).split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the file, 0 if it is empty; `JournalError` if it is another's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0 and application == 0:
        return 0
    if application != _APPLICATION_ID:
        raise JournalError(f"{path} is no journal of orders: give `journal_path` another file")
    if not 1 <= version <= _VERSION:
        raise JournalError(
            f"the journal {path} is of version {version}, not 1 to {_VERSION}: use the release that wrote it"
        )
    return int(version)


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return (
            f"the journal {path} is in use: another process or strategy trades with it; stop that one, "
            "or give each its own `journal_path`"
        )
    return f"the journal {path} cannot be used: {error}; see to the disk, or give `journal_path` another file"
