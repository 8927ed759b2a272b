"""What a ledger forgets, by age and by size."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml4t_actor.ledger import (
    Ledger,
)
from ml4t_actor.ledger.retention import CHUNK_ROWS, delete_chunk
from ml4t_actor.ledger.schema import open_ledger
from ml4t_actor.ledger.writer import MEMORY_RETENTION_BATCHES
from ml4t_actor.settings import LedgerSettings
from tests.support.ledgers import FAST, HOUR, START, signal_row, table
from tests.support.waiting import until


def forget_all(path: Path, retention: LedgerSettings) -> int:
    n = 0
    with closing(open_ledger(path, busy_timeout_s=5.0)) as connection:
        while delete_chunk(connection, retention):
            n += 1
    return n


@pytest.fixture(scope="module")
def ten_days(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a ledger of ten days: a signal, a snapshot and an event an hour."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        for i in range(241):
            ledger.record_signal(signal_row(i, ts_event=START + i * HOUR), (f"I{i}", START + i * HOUR, b""))
            ledger.record_event(START + i * HOUR, "kind", "", {})
    return path.read_bytes()


def test_what_is_old_by_the_newest_signal_is_forgotten(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        for i in range(241):
            ledger.record_signal(signal_row(i), (f"I{i}", START + i * HOUR, b""))
            ledger.record_event(START + i * HOUR, "kind", "", {})
        ledger.record_signal(signal_row(1_000_000, status="future_signal"))  # of a wrong clock
    forget_all(path, LedgerSettings(max_age_days=5.0))
    kept = [f"s{i}" for i in range(120, 241)]
    assert table(path, "SELECT signal_id FROM signals ORDER BY id") == [
        (name,) for name in [*kept, "s1000000"]
    ]
    assert table(path, "SELECT min(ts), count(*) FROM events") == [(START + 120 * HOUR, 121)]
    assert table(path, "SELECT min(ts), count(*) FROM snapshots") == [(START + 120 * HOUR, 121)]


@settings(max_examples=30)
@given(days=st.floats(0.0, exclude_min=True, allow_infinity=False, allow_nan=False) | st.floats(0.01, 12.0))
@example(days=1e6)
@example(days=1.7e308)
def test_any_age_forgets_what_is_older_and_nothing_else(days, ten_days):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        path.write_bytes(ten_days)
        forget_all(path, LedgerSettings(max_age_days=days))
        for query in ("SELECT ts_event FROM signals", "SELECT ts FROM events", "SELECT ts FROM snapshots"):
            kept = {START + 240 * HOUR - ts for (ts,) in table(path, query)}
            ages, limit = [i * HOUR for i in range(241)], Fraction(days) * 24 * HOUR
            assert {age for age in ages if age < limit - 1_000} <= kept  # to a microsecond: days are a float
            assert kept <= {age for age in ages if age < limit + 1_000}


def test_what_is_too_much_is_forgotten_but_for_what_is_followed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    n = 4 * CHUNK_ROWS
    with Ledger(path, "actor", FAST) as ledger:
        for i in range(n):
            followed = {} if i % 1000 == 0 else {"entry": None}
            ledger.record_signal(signal_row(i, features=bytes(200), **followed))
    before = path.stat().st_size
    chunks = forget_all(path, LedgerSettings(max_megabytes=before / 2e6, max_age_days=1e4))
    assert chunks >= 2
    assert before / 4 < path.stat().st_size <= before / 2
    kept = [int(name[1:]) for (name,) in table(path, "SELECT signal_id FROM signals ORDER BY id")]
    others = [i for i in kept if i % 1000]
    assert set(range(0, n, 1000)) <= set(kept)
    assert others == [i for i in range(others[0], n) if i % 1000]  # the newest, without a gap
    assert forget_all(path, LedgerSettings(max_megabytes=before / 2e6, max_age_days=1e4)) == 0


def test_the_writer_forgets_by_itself(tmp_path):
    path = tmp_path / "ledger.sqlite"
    retention = LedgerSettings(flush_ms=5, max_age_days=1.0)
    with Ledger(path, "actor", retention, retention_s=0.01) as ledger:
        for i in range(100):
            ledger.record_signal(signal_row(i))
        until(lambda: len(ledger.recent_ids(1000)) == 25, "old rows were gone")
    assert ledger.counts["write_errors"] == 0


def test_a_ledger_in_memory_forgets_too(monkeypatch):
    monkeypatch.setattr("ml4t_actor.ledger.writer.MEMORY_BATCH_ROWS", 50)
    with Ledger(None, "actor", LedgerSettings(max_age_days=1.0)) as ledger:
        for i in range(50 * MEMORY_RETENTION_BATCHES):
            ledger.record_signal(signal_row(i))
        assert len(ledger.recent_ids(1000)) == 25
