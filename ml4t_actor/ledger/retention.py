"""What a ledger forgets: rows that are too old, and the oldest where the file is too large."""

import sqlite3

from ml4t_actor.market_data import DAY_NS
from ml4t_actor.settings import LedgerSettings

CHUNK_ROWS = 2_000
CHUNK_PAGES = 500

_MAX_AGE_NS = 2**62  # older than any row; SQLite has integers of 64 bits, with a sign

# A signal from the future is no clock: its timestamp is a mistake, and would make all others look old.
_NEWEST = "SELECT ts_event FROM signals WHERE status <> 'future_signal' ORDER BY ts_event DESC LIMIT 1"
_DELETE_OLD = (
    "DELETE FROM signals WHERE id IN (SELECT id FROM signals WHERE ts_event < ? ORDER BY ts_event LIMIT ?)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE ts < ? LIMIT ?)",
    "DELETE FROM snapshots WHERE rowid IN (SELECT rowid FROM snapshots WHERE ts < ? LIMIT ?)",
)
_DELETE_OLDEST = """
    DELETE FROM signals WHERE id IN (
        SELECT id FROM signals WHERE entry IS NULL OR label IS NOT NULL ORDER BY id LIMIT ?
    )
"""


def delete_chunk(connection: sqlite3.Connection, settings: LedgerSettings) -> bool:
    """Delete one chunk of what is to be forgotten; return whether there was any, so that more may be left.

    Age is measured from the newest `ts_event` in the file and not from the clock of the machine. For size, signals
    that are still followed are kept.

    Raises
    ------
    sqlite3.Error
        If the file cannot be written now; nothing of the chunk is deleted then.
    """
    newest = connection.execute(_NEWEST).fetchone()
    if newest is None:
        return False
    cutoff = newest[0] - int(min(settings.max_age_days * DAY_NS, _MAX_AGE_NS))
    for statement in _DELETE_OLD:
        if connection.execute(statement, (cutoff, CHUNK_ROWS)).rowcount > 0:
            return True
    used, free, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    too_large = (used - free) * page_size > settings.max_megabytes * 1e6
    if too_large and connection.execute(_DELETE_OLDEST, (CHUNK_ROWS,)).rowcount > 0:
        return True
    if free > 0:
        connection.execute(f"PRAGMA incremental_vacuum({CHUNK_PAGES})").fetchall()
        [left] = connection.execute("PRAGMA freelist_count").fetchone()
        return bool(left < free)
    return False
