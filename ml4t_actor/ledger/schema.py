"""The tables of a ledger, their rows, and how the file is opened."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

SCHEMA_VERSION = 4
WAL_BYTES_MAX = 64 * 1024 * 1024
READ_TIMEOUT_S = 2.0  # for recovery after a crash: a writer blocks no reader

_POSITIONS = """
    CREATE TABLE positions (
        actor TEXT NOT NULL,
        stream TEXT NOT NULL,
        entry_id TEXT NOT NULL,
        source TEXT NOT NULL,
        signal_id TEXT NOT NULL,
        row_id INTEGER NOT NULL,
        PRIMARY KEY (actor, stream)
    )
    """
# To the signals, by versions 3 and 4.
_ADDED = ("base_odds", "confidence_low", "confidence_high", "expected_return", "break_even")
# A CHECK of a column that is added would read the whole table.
_CHECK_ADDED = f"""
    CREATE TRIGGER signals_added BEFORE INSERT ON signals
    WHEN 'blob' IN ({", ".join(f"typeof(NEW.{name})" for name in _ADDED)})
    BEGIN SELECT raise(ABORT, 'a number was given as bytes'); END
    """
# Hides the table, so that a file of an earlier version is read by the same queries. What it has already comes first in
# the view, and is what a name finds.
_AS_IF_ADDED = f"""
    CREATE TEMP VIEW signals AS SELECT *, {", ".join(f"NULL AS {name}" for name in _ADDED)} FROM main.signals
    """
_TABLES = (
    """
    CREATE TABLE signals (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- a position must not take a later row for one that is gone
        actor TEXT NOT NULL,
        source TEXT NOT NULL,
        signal_id TEXT NOT NULL,
        instrument_id TEXT NOT NULL,
        side INTEGER,
        strength REAL,
        ts_event INTEGER NOT NULL,
        ts_init INTEGER,
        confidence REAL,
        toxicity REAL,
        vpin REAL,
        regime INTEGER,
        regime_weight REAL,
        volatility REAL,
        model_version TEXT NOT NULL,
        status TEXT NOT NULL,
        latency_ns INTEGER,
        feature_set INTEGER REFERENCES feature_sets(id),
        features BLOB,
        regime_probabilities BLOB,
        regime_model TEXT NOT NULL,
        entry_ts INTEGER,
        entry REAL,
        profit REAL,
        stop REAL,
        entry_bar INTEGER,
        entry_share REAL,
        window_end_ns INTEGER,
        barrier INTEGER,
        label INTEGER,
        ret REAL,
        ts_outcome INTEGER,
        bars INTEGER,
        weight REAL,
        base_odds REAL,
        confidence_low REAL,
        confidence_high REAL,
        expected_return REAL,
        break_even REAL,
        UNIQUE (actor, source, signal_id),
        -- Numpy's integers and short floats would be stored as their bytes.
        CHECK ('blob' NOT IN (
            typeof(side), typeof(strength), typeof(ts_event), typeof(ts_init), typeof(confidence),
            typeof(toxicity), typeof(vpin), typeof(regime), typeof(regime_weight), typeof(volatility),
            typeof(latency_ns), typeof(feature_set), typeof(entry_ts), typeof(entry), typeof(profit),
            typeof(stop), typeof(entry_bar), typeof(entry_share), typeof(window_end_ns),
            typeof(barrier), typeof(label), typeof(ret), typeof(ts_outcome), typeof(bars), typeof(weight)
        ))
    )
    """,
    _CHECK_ADDED,
    "CREATE INDEX signals_by_time ON signals(ts_event)",
    "CREATE INDEX signals_open ON signals(actor) WHERE entry IS NOT NULL AND label IS NULL",
    "CREATE INDEX signals_resolved ON signals(actor, model_version, ts_outcome) WHERE label >= 0",
    "CREATE TABLE feature_sets (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        actor TEXT NOT NULL,
        ts INTEGER NOT NULL CHECK (typeof(ts) = 'integer'),
        kind TEXT NOT NULL,
        version TEXT NOT NULL,
        detail TEXT NOT NULL,
        UNIQUE (actor, ts, kind, version, detail)
    )
    """,
    """
    CREATE TABLE snapshots (
        actor TEXT NOT NULL,
        instrument_id TEXT NOT NULL,
        ts INTEGER NOT NULL CHECK (typeof(ts) = 'integer'),
        state BLOB NOT NULL,
        PRIMARY KEY (actor, instrument_id)
    )
    """,
    _POSITIONS,
)
_TABLE_NAMES = frozenset({"signals", "feature_sets", "events", "snapshots"})
_READABLE_VERSIONS = (
    1,
    2,
    3,
    SCHEMA_VERSION,
)  # 1 knew no positions, 2 no odds and no interval, 3 no expected return


class LedgerError(ValueError):
    """A file is no ledger, is one of another version, or cannot be read."""


class SignalRow(NamedTuple):
    """One signal as it was answered, and the barrier that it opened.

    A NaN is stored as NULL and comes back as None.

    Attributes
    ----------
    source, signal_id, instrument_id : str
        What is signalled, and by whom.
    side : int
        -1, 0 or 1.
    strength : float
        Of the signal, in [0, 1].
    ts_event, ts_init : int
        When the signal arose and was answered, UNIX nanoseconds.
    confidence, toxicity, vpin, regime, regime_weight, volatility, model_version, status, latency_ns
        The answer, as in `EnrichedSignal`.
    base_odds, confidence_low, confidence_high : float, optional
        The answer too; None in what was recorded before there were any.
    expected_return, break_even : float, optional
        The answer too; the former is also None where it is not known.
    feature_set : int, optional
        What the features are called: the answer of `Ledger.feature_set`.
    features : bytes, optional
        The features as served, float64 little endian.
    regime_probabilities : bytes, optional
        Probability of each regime, float64 little endian.
    regime_model : str
        Digest of the regime model that they are of.
    entry_ts : int, optional
        Close of the bar of the entry. None, like the five that follow, if the signal is not followed.
    entry : float, optional
        Natural logarithm of the entry price.
    profit, stop : float, optional
        Distances of the barriers, positive log returns.
    entry_bar : int, optional
        Bars that the tracker had processed at the entry.
    entry_share : float, optional
        The tracker's running sum of shares at the entry.
    window_end_ns : int, optional
        When the whole horizon of the label has passed, UNIX nanoseconds.
    """

    source: str
    signal_id: str
    instrument_id: str
    side: int
    strength: float
    ts_event: int
    ts_init: int
    confidence: float
    toxicity: float
    vpin: float
    regime: int
    regime_weight: float
    volatility: float
    model_version: str
    status: str
    latency_ns: int
    base_odds: float | None = None
    confidence_low: float | None = None
    confidence_high: float | None = None
    expected_return: float | None = None
    break_even: float | None = None
    feature_set: int | None = None
    features: bytes | None = None
    regime_probabilities: bytes | None = None
    regime_model: str = ""
    entry_ts: int | None = None
    entry: float | None = None
    profit: float | None = None
    stop: float | None = None
    entry_bar: int | None = None
    entry_share: float | None = None
    window_end_ns: int | None = None


FIELD_OF_COLUMN = {
    column: {"side": "signal", "confidence": "meta_confidence"}.get(column, column)
    for column in SignalRow._fields[: SignalRow._fields.index("feature_set")]
}
"""The columns that hold the answer to a signal, and what `EnrichedSignal` calls them."""


class OutcomeRow(NamedTuple):
    """What became of a signal.

    Attributes
    ----------
    source, signal_id : str
        The signal.
    barrier : int
        `PROFIT` (1), `STOP` (-1), `VERTICAL` (0), `SIGNAL` (2) or `UNRESOLVED` (-2).
    label : int
        1 if the trade made more than its costs, 0 if not, -1 if unresolved.
    ret : float, optional
        Gross log return in the direction of the side; None or NaN if unresolved.
    ts_outcome : int
        When the outcome was known, UNIX nanoseconds.
    bars : int
        Bars that the signal was watched over.
    weight : float
        Average uniqueness of the label.
    """

    source: str
    signal_id: str
    barrier: int
    label: int
    ret: float | None
    ts_outcome: int
    bars: int
    weight: float


class StreamPosition(NamedTuple):
    """How far a Redis stream was read or written.

    Attributes
    ----------
    stream : str
        Its key.
    entry_id : str
        Of the last entry, "" if there was none.
    source, signal_id : str
        The signal that this entry answers; "" where signals are read.
    row_id : int
        Of the row of that signal, or of a later one that an earlier position was at; 0 for none. It is looked up when
        the position is written.
    """

    stream: str
    entry_id: str
    source: str = ""
    signal_id: str = ""
    row_id: int = 0


class Readable(Protocol):
    """What gives a connection to read from, as a `Ledger` does."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a context in which the connection may be read."""


type Source = sqlite3.Connection | str | os.PathLike[str] | Readable


def feature_set_names(names: Sequence[str]) -> str:
    """Return the names as they are stored."""
    return json.dumps(list(names), separators=(",", ":"))


def feature_set_id(names: Sequence[str]) -> int:
    """Return the id of a feature set: a digest of its names, so that no file need be read for it."""
    digest = hashlib.blake2b(feature_set_names(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def open_ledger(path: str | Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a ledger for writing; an absent or empty file becomes one.

    Raises
    ------
    LedgerError
        If the file holds something else.
    sqlite3.OperationalError
        If it cannot be opened now: it is locked, its folder is missing, the disk is full.
    """
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if _is_empty(connection):
            _create(connection)
        _check(connection, path)
        _migrate(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    except sqlite3.DatabaseError as e:
        connection.close()
        if type(e) is sqlite3.DatabaseError:
            raise LedgerError(_not_a_ledger(path, e)) from None
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def open_read_only(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open a ledger to read it, also while another process writes it.

    Raises
    ------
    LedgerError
        If there is no such file, or it is no ledger of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise LedgerError(
            f"there is no ledger {str(path)!r}; give the path of the file that the actor writes"
        )
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=READ_TIMEOUT_S, isolation_level=None
        )
    except sqlite3.Error as e:
        raise LedgerError(f"the ledger {str(path)!r} cannot be opened: {e}") from None
    try:
        if _check(connection, path) < SCHEMA_VERSION:
            connection.execute(_AS_IF_ADDED)
    except sqlite3.Error as e:
        connection.close()
        if type(e) is sqlite3.DatabaseError:
            raise LedgerError(_not_a_ledger(path, e)) from None
        raise LedgerError(f"the ledger {str(path)!r} cannot be read: {e}") from None
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def reading(source: Source) -> Iterator[sqlite3.Connection]:
    """Give a connection to `source` on which all that is read is of one moment.

    Raises
    ------
    LedgerError
        If the file is missing, no ledger, or unreadable.
    """
    if isinstance(source, str | os.PathLike):
        connection = open_read_only(source)
        try:
            with _one_snapshot(connection):
                yield connection
        finally:
            connection.close()
    elif isinstance(source, sqlite3.Connection):
        with _one_snapshot(source):
            yield source
    else:
        with source.reading() as connection:
            yield connection


@contextmanager
def _one_snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    if connection.in_transaction:
        yield
        return
    try:
        connection.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.OperationalError):  # an error may have ended it
                connection.execute("ROLLBACK")
    except sqlite3.Error as e:
        raise LedgerError(f"the ledger cannot be read: {e}") from e


def _is_empty(connection: sqlite3.Connection) -> bool:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [n_tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(version == 0 and n_tables == 0)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of effect only before the first page is written
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_empty(connection):  # another process may have been faster
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_POSITIONS.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        present = {row[1] for row in connection.execute("PRAGMA table_info(signals)")}
        if not present.issuperset(_ADDED):  # another process may have been faster
            for name in _ADDED:
                if name not in present:
                    connection.execute(f"ALTER TABLE signals ADD COLUMN {name} REAL")
            connection.execute("DROP TRIGGER IF EXISTS signals_added")  # that of version 3
            connection.execute(_CHECK_ADDED)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: str | Path) -> int:
    """Return the version of a file that is a ledger; raise `LedgerError` if it is none."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 or (version in _READABLE_VERSIONS and not tables >= _TABLE_NAMES):
        raise LedgerError(f"{str(path)!r} is an SQLite file but no ledger; give another path")
    if version not in _READABLE_VERSIONS:
        raise LedgerError(
            f"the ledger {str(path)!r} has version {version}, this release reads version {SCHEMA_VERSION}; "
            "give another path, or use the release that wrote it"
        )
    return int(version)


def _not_a_ledger(path: str | Path, error: sqlite3.Error) -> str:
    return f"{str(path)!r} is no ledger, or a damaged one ({error}); move it away or give another path"
