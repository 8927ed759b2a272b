"""The ledger as the actor sees it: rows are queued and written by another thread."""

import sqlite3
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from ml4t_actor.ledger.queries import LedgerQueries
from ml4t_actor.ledger.retention import delete_chunk
from ml4t_actor.ledger.schema import (
    LedgerError,
    OutcomeRow,
    SignalRow,
    StreamPosition,
    feature_set_id,
    feature_set_names,
    open_ledger,
    reading,
)
from ml4t_actor.ledger.transaction import EventRow, Row, Snapshot, write_together
from ml4t_actor.settings import LedgerSettings

BACKOFF_MAX_S = 10.0
FLUSH_TIMEOUT_S = 10.0
FORGET_PAUSE_S = 0.02
MEMORY_BATCH_ROWS = 4_096
MEMORY_RETENTION_BATCHES = 25


class Ledger(LedgerQueries):
    """Keep a row per signal, what became of it, model events, and the newest state of each instrument.

    The ``record_`` methods are for an event thread: they append to a list, never raise because of the file, and
    cost about a microsecond. A thread of its own writes what was recorded, at least each `settings.flush_ms`.

    Each commit holds all calls up to some moment and, per instrument, the snapshot of the last of them that had
    one: whatever kills the process, the file is as after one of its calls. Recording something again changes nothing,
    so that what followed the snapshot can be replayed. A power failure may undo the last commits, in reverse order.

    While the file cannot be written (locked, disk full, folder gone) rows wait in memory, at most
    `settings.buffer_rows` beside a batch on its way; the oldest beyond that are dropped.

    Parameters
    ----------
    path : str or Path, optional
        The SQLite file, made with its folder if absent; processes may share it. None keeps the ledger in memory,
        without a thread.
    actor : str
        Whose rows these are.
    settings : LedgerSettings
        Pace, bounds and retention.
    retention_s : float, default 3600.0
        Seconds between two deletions of old rows; the first is at the start.
    busy_timeout_s : float, default 2.0
        Seconds to wait for another process's lock before the attempt counts as failed.

    Attributes
    ----------
    counts : Counter
        ``dropped`` rows, ``refused`` rows (of a type or value that SQLite cannot store), ``write_errors``.
    last_error : str
        The last failure to write, "" if there was none.
    failing : bool
        Whether the last attempt to write failed.

    Raises
    ------
    LedgerError
        If the file is no ledger, or one of another version.

    Examples
    --------
    >>> ledger = Ledger(None, "actor", LedgerSettings())
    >>> ledger.record_event(1, "model_update", "v000001", {"reason": "first"})
    >>> ledger.events()
    [{'ts': 1, 'kind': 'model_update', 'version': 'v000001', 'detail': {'reason': 'first'}}]
    """

    def __init__(
        self,
        path: str | Path | None,
        actor: str,
        settings: LedgerSettings,
        *,
        retention_s: float = 3600.0,
        busy_timeout_s: float = 2.0,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.actor = actor
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.last_error = ""
        self.failing = False
        self._retention_s = retention_s
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.Lock()  # of what follows, and never held during I/O
        self._pending: deque[Row] = deque()
        self._snapshots: dict[str, Snapshot] = {}
        self._positions: dict[str, StreamPosition] = {}
        self._calls = 0
        self._closed = False
        self._stop = False
        self._feature_sets: dict[int, str] = {}
        self._written_calls = 0
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._writing = threading.RLock()  # of the connection; contended only where the ledger is in memory
        self._batches = 0
        self._file_id: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        if self.path is None:
            self._connection = open_ledger(":memory:", busy_timeout_s=busy_timeout_s)
            weakref.finalize(self, self._connection.close)
            return
        if self.path.is_dir():
            raise LedgerError(f"the ledger {str(path)!r} is a folder; give the path of a file in it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open(self.path)
        except (OSError, sqlite3.Error) as e:
            self._record_failure(e)  # not now, but perhaps later
        self._thread = threading.Thread(target=self._run, name=f"ledger of {actor}", daemon=True)
        self._thread.start()

    def feature_set(self, names: Sequence[str]) -> int:
        """Return the number that stands for these feature names, in this order, in `SignalRow.feature_set`."""
        number = feature_set_id(names)
        with self._lock:  # and not in place: the writer may be going through it
            self._feature_sets = {**self._feature_sets, number: feature_set_names(names)}
        return number

    def record_signal(self, row: SignalRow, snapshot: tuple[str, int, bytes] | None = None) -> None:
        """Record a signal, and with it the state (instrument, time, bytes) of which it is a part."""
        self._record((row,), snapshot)

    def record_outcomes(
        self, rows: Sequence[OutcomeRow], snapshot: tuple[str, int, bytes] | None = None
    ) -> None:
        """Record what became of signals, and with it the state of which they are no longer a part."""
        self._record(rows, snapshot)

    def record_event(self, ts: int, kind: str, version: str, detail: Mapping[str, object]) -> None:
        """Record something about models; `detail` may hold what JSON can, msgspec structs and numpy values.

        An event that equals one recorded before in all of this is the same one.
        """
        self._record((EventRow(ts, kind, version, dict(detail)),), None)

    def record_position(self, position: StreamPosition) -> None:
        """Record how far a stream was read or written; all that was recorded before is in the file with it.

        Callable from any thread.
        """
        with self._lock:
            if not self._closed:
                self._positions[position.stream] = position
                self._calls += 1

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until all that was recorded so far is in the file; return whether it is."""
        if self._thread is None:
            return self._write_pending()
        with self._lock:
            target = self._calls
        deadline = monotonic() + timeout_s
        with self._progress:
            while self._written_calls < target:
                left = deadline - monotonic()
                if left <= 0.0 or not self._thread.is_alive():
                    return False
                self._wake.set()  # repeatedly: a writer that has failed is to try again now
                self._progress.wait(min(left, 0.1))
        return True

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Flush and end the thread; return whether everything is in the file. What is recorded later is dropped.

        A ledger in memory can still be read.
        """
        with self._lock:
            self._closed = True
        deadline = monotonic() + timeout_s
        complete = self.flush(timeout_s)
        self._stop = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(max(0.1, deadline - monotonic()))
        return complete

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Flush, and give a connection to read from, with a view of one moment.

        What the file does not take now is not in it.

        Raises
        ------
        LedgerError
            If the file cannot be read now.
        """
        self.flush(0.0 if self.failing else FLUSH_TIMEOUT_S)
        if self.path is not None:
            with reading(self.path) as connection:
                yield connection
            return
        assert self._connection is not None
        with self._writing, reading(self._connection) as connection:
            yield connection

    @property
    def n_waiting(self) -> int:
        """Rows that are not in the file yet."""
        return len(self._pending)

    def _record(self, rows: Sequence[Row], snapshot: tuple[str, int, bytes] | None) -> None:
        with self._lock:
            if self._closed:
                self.counts["dropped"] += len(rows)
                return
            pending = self._pending
            pending.extend(rows)
            if snapshot is not None:
                self._snapshots[snapshot[0]] = Snapshot(*snapshot)
            self._calls += 1
            waiting = len(pending)
            if waiting > self.settings.buffer_rows and self.path is not None:
                self.counts["dropped"] += _drop_oldest(pending, self.settings.buffer_rows)
        if self.path is None and waiting >= MEMORY_BATCH_ROWS:
            self._write_pending()
            self._batches += 1
            if self._batches % MEMORY_RETENTION_BATCHES == 0:
                while self._forget():
                    pass

    def _run(self) -> None:
        flush_s = self.settings.flush_ms / 1e3
        retention_due = 0.0
        backoff_s = flush_s
        while True:
            started = monotonic()
            stop = self._stop
            written = self._write_pending()
            if stop:
                break
            # The next batch must be in the file, not on its way, when its first row is `flush_ms` old.
            wait_s = max(flush_s - 2.0 * (monotonic() - started), flush_s / 2.0)
            if not written:
                wait_s = backoff_s = min(2.0 * backoff_s, max(BACKOFF_MAX_S, flush_s))
            else:
                backoff_s = flush_s
                if monotonic() >= retention_due:
                    if self._forget():
                        wait_s = min(wait_s, FORGET_PAUSE_S)  # in which other processes have their turn
                    else:
                        retention_due = monotonic() + self._retention_s
            self._wake.wait(wait_s)
            self._wake.clear()
        self._disconnect()

    def _write_pending(self) -> bool:
        """Write what waits; if that fails keep it, in order and before what came since."""
        with self._writing:
            with self._lock:
                calls = self._calls
                if calls == self._written_calls:
                    return True
                rows, self._pending = self._pending, deque()
                snapshots, self._snapshots = self._snapshots, {}
                positions, self._positions = self._positions, {}
            try:
                refused = write_together(
                    self._connected(), self.actor, self._feature_sets, rows, snapshots, positions
                )
            except Exception as e:  # whatever it is, the actor must go on
                self._requeue(rows, snapshots, positions)
                self._record_failure(e)
                return False
            self.failing = False
            with self._lock:
                self.counts["refused"] += refused
            with self._progress:
                self._written_calls = calls
                self._progress.notify_all()
            return True

    def _requeue(
        self, rows: deque[Row], snapshots: dict[str, Snapshot], positions: dict[str, StreamPosition]
    ) -> None:
        # What is too much already goes without the lock, for which the event thread may wait.
        dropped = _drop_oldest(rows, max(self.settings.buffer_rows - len(self._pending), 0))
        with self._lock:
            rows.extend(self._pending)
            self._pending = rows
            self.counts["dropped"] += dropped + _drop_oldest(rows, self.settings.buffer_rows)
            self._snapshots = {**snapshots, **self._snapshots}
            self._positions = {**positions, **self._positions}

    def _record_failure(self, error: Exception) -> None:
        with self._lock:
            self.counts["write_errors"] += 1
        self.last_error = f"{type(error).__name__}: {error}"
        self.failing = True
        if self.path is not None:
            self._disconnect()

    def _forget(self) -> bool:
        try:
            return delete_chunk(self._connected(), self.settings)
        except Exception as e:
            self._record_failure(e)
            return False

    def _connected(self) -> sqlite3.Connection:
        if self.path is not None:
            if self._connection is not None and self._file_id != _file_id(self.path):
                self._disconnect()  # the file was deleted or moved: what is written to it now nobody would see
            if self._connection is None:
                self._open(self.path)
        assert self._connection is not None
        return self._connection

    def _open(self, path: Path) -> None:
        self._connection = open_ledger(path, busy_timeout_s=self._busy_timeout_s)
        self._file_id = _file_id(path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _drop_oldest(rows: deque[Row], most: int) -> int:
    """Leave at most so many rows; return how many were dropped."""
    excess = max(len(rows) - most, 0)
    for _ in range(excess):
        rows.popleft()
    return excess


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
