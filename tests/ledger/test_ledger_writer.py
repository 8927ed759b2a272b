"""Writing never stops the actor, and loses nothing, whatever becomes of file, disk or process."""

import inspect
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ml4t_actor.ledger import (
    Ledger,
)
from ml4t_actor.settings import LedgerSettings
from tests.support.ledgers import (
    FAST,
    START,
    locked_by_another_process,
    outcome_row,
    signal_row,
    table,
)
from tests.support.paths import ROOT
from tests.support.waiting import FAR_S, join, until

# A fork starts in milliseconds where a new interpreter takes seconds.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forked = multiprocessing.get_context("fork")


def test_recording_only_appends(tmp_path):
    """No file, no JSON, no waking of a thread: what the calling thread runs in C are these few calls."""
    called = set()
    package = Path(inspect.getfile(Ledger)).parent

    def profile(frame: Any, event: str, argument: Any) -> None:
        # A garbage collection may run the callbacks of others, hypothesis's among them.
        if event == "c_call" and Path(frame.f_code.co_filename).parent == package:
            called.add(argument.__name__)

    with Ledger(tmp_path / "ledger.sqlite", "actor", FAST) as ledger:
        rows = [signal_row(i) for i in range(50)]
        sys.setprofile(profile)
        try:
            for row in rows:
                ledger.record_signal(row, ("ETH", 1, b"state"))
                ledger.record_outcomes([outcome_row(1)])
                ledger.record_event(1, "kind", "v1", {"a": 1})
        finally:
            sys.setprofile(None)
    assert called <= {"__enter__", "__exit__", "__new__", "extend", "len", "acquire", "release"}


def test_a_lock_of_another_process_costs_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST, busy_timeout_s=0.02) as ledger:
        ledger.record_signal(signal_row(0))
        assert ledger.flush()
        with locked_by_another_process(path):
            for i in range(1, 200):
                ledger.record_signal(signal_row(i), ("ETH", START + i, b"%d" % i))
            until(lambda: ledger.counts["write_errors"] >= 2, "writing failed")
            for i in range(200, 400):
                ledger.record_signal(signal_row(i), ("ETH", START + i, b"%d" % i))
            ledger.record_outcomes([outcome_row(i) for i in range(100)])
            assert not ledger.flush(0.1)
            assert ledger.failing
            assert "locked" in ledger.last_error
            assert len(ledger._pending) <= 499
            assert table(path, "SELECT count(*) FROM signals") == [(1,)]
        assert ledger.flush()
        assert not ledger.failing
        assert ledger.counts["dropped"] == 0
        assert ledger.recent_ids(1000) == [("trend", f"s{i}") for i in range(400)]
        assert len(ledger.outcomes_of("v000007-5f2c")) == 100
        assert ledger.snapshots() == {"ETH": (START + 399, b"399")}


def test_a_lock_within_the_time_to_wait_is_no_error(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST, busy_timeout_s=20.0) as ledger:
        with locked_by_another_process(path):
            ledger.record_signal(signal_row(0))
            assert not ledger.flush(0.1)
        assert ledger.flush()
        assert ledger.counts["write_errors"] == 0


def test_a_ledger_that_is_locked_at_the_start_is_opened_later(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("PRAGMA user_version = 0")
    with locked_by_another_process(path):
        ledger = Ledger(path, "actor", FAST, busy_timeout_s=0.02)
        ledger.record_signal(signal_row(0))
        assert ledger.failing
    assert ledger.flush()
    assert ledger.open_signals() == [signal_row(0)]
    ledger.close()


def test_beyond_the_buffer_the_oldest_rows_are_dropped_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("ml4t_actor.ledger.writer.BACKOFF_MAX_S", 0.02)
    path = tmp_path / "ledger.sqlite"
    bounded = LedgerSettings(flush_ms=5, buffer_rows=50)
    with Ledger(path, "actor", bounded, busy_timeout_s=0.02) as ledger:
        with locked_by_another_process(path):
            for i in range(1000):
                ledger.record_signal(signal_row(i), ("ETH" if i % 2 else "BTC", START + i, b"%d" % i))
                if i % 100 == 0:
                    errors = ledger.counts["write_errors"]
                    until(lambda seen=errors: ledger.counts["write_errors"] > seen, "writing failed again")
                assert len(ledger._pending) <= 50
            ledger.record_outcomes([outcome_row(990)])
            errors = ledger.counts["write_errors"]
            until(lambda: ledger.counts["write_errors"] > errors + 1, "what was on its way came back")
        assert ledger.flush()
        kept = [f"s{i}" for i in range(951, 1000)]
        assert ledger.recent_ids(1000) == [("trend", name) for name in kept]
        assert ledger.counts["dropped"] == 1001 - 50
        assert ledger.snapshots() == {"ETH": (START + 999, b"999"), "BTC": (START + 998, b"998")}
        assert len(ledger.open_signals()) == 48


def test_memory_drops_nothing_whatever_the_buffer():
    with Ledger(None, "actor", LedgerSettings(buffer_rows=10)) as ledger:
        ledger.record_event(1, "kind", "", {})
        for i in range(100):
            ledger.record_signal(signal_row(i))
        ledger.record_outcomes([outcome_row(i) for i in range(100)])
        assert len(ledger.outcomes_of("v000007-5f2c")) == 100


def test_a_deleted_folder_stops_nothing_and_a_new_one_is_used(tmp_path):
    folder = tmp_path / "models"
    path = folder / "ledger.sqlite"
    ledger = Ledger(path, "actor", FAST)
    number = ledger.feature_set(["x"])
    ledger.record_signal(signal_row(0, feature_set=number))
    assert ledger.flush()
    shutil.rmtree(folder)
    ledger.record_signal(signal_row(1, feature_set=number))
    assert not ledger.flush(0.2)
    assert ledger.failing
    ledger.record_signal(signal_row(2, feature_set=number))
    folder.mkdir()
    assert ledger.flush()
    assert ledger.recent_ids(9) == [("trend", "s1"), ("trend", "s2")]
    assert table(path, "SELECT id, names FROM feature_sets") == [(number, '["x"]')]
    assert ledger.close()


def test_a_file_that_was_replaced_is_not_written_unseen(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0))
        assert ledger.flush()
        path.rename(tmp_path / "old.sqlite")
        ledger.record_signal(signal_row(1))
        assert ledger.flush()
        assert ledger.recent_ids(9) == [("trend", "s1")]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ml4t_actor.ledger import Ledger
from tests.support.ledgers import FAST, START, outcome_row, signal_row
from tests.support.waiting import until

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]), "actor", FAST)
ledger.record_signal(signal_row(0, features=bytes(2000)), ("ETH", START, b"0"))
assert ledger.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
for i in range(1, 500):
    ledger.record_signal(signal_row(i, features=bytes(2000)), ("ETH", START + i, b"%d" % i))
until(lambda: ledger.counts["write_errors"] >= 2, "the disk was full")
assert not ledger.flush(0.1)
assert len(ledger.snapshots()) == 1
seen = len(ledger.recent_ids(1000))
assert seen == ledger.snapshots()["ETH"][0] - START + 1 < 500, seen
print(ledger.last_error)
ledger.record_outcomes([outcome_row(7)])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert ledger.flush()
assert ledger.counts["dropped"] == 0
assert ledger.close()
"""


def test_a_full_disk_stops_nothing_and_loses_nothing(tmp_path):
    """The kernel refuses to let the file grow, in a process of its own."""
    path = tmp_path / "ledger.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(ROOT)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OperationalError" in done.stdout
    rows = table(path, "SELECT signal_id, label FROM signals ORDER BY id")
    assert rows == [(f"s{i}", 1 if i == 7 else None) for i in range(500)]
    assert table(path, "SELECT ts FROM snapshots") == [(START + 499,)]
    assert table(path, "PRAGMA integrity_check") == [("ok",)]


def test_many_threads_and_two_ledgers_share_a_file(tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledgers = [Ledger(path, name, FAST) for name in ("a", "b")]

    def record(ledger: Ledger, first: int) -> None:
        for i in range(first, first + 100):
            ledger.record_signal(signal_row(i))
            ledger.record_outcomes([outcome_row(i)])

    threads = [
        threading.Thread(target=record, args=(ledger, first), daemon=True)
        for ledger in ledgers
        for first in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert all(ledger.close() for ledger in ledgers)
    counted = table(path, "SELECT actor, count(*), sum(label) FROM signals GROUP BY actor ORDER BY actor")
    assert counted == [("a", 300, 300), ("b", 300, 300)]


def test_after_closing_nothing_is_taken_and_much_is_still_known(tmp_path):
    for path in (None, tmp_path / "ledger.sqlite"):
        with Ledger(path, "actor", FAST) as ledger:
            ledger.record_signal(signal_row(0))
        ledger.record_signal(signal_row(1))
        assert ledger.counts["dropped"] == 1
        assert [file.name for file in tmp_path.iterdir()] == (
            [path.name] if path else []
        )  # no journal is left
        assert ledger.recent_ids(9) == [("trend", "s0")]
        assert ledger.flush(0.1)
        assert ledger.close()


def calls() -> Iterator[tuple[str, Any, tuple[str, int, bytes]]]:
    """Return what the process below does, one call after the other, each with a snapshot of its number."""
    rng = random.Random(5)
    opened: list[int] = []
    for number in range(1_000_000):
        snapshot = (f"I{number % 3}", START + number, b"%d" % number)
        if len(opened) > 20 or (opened and rng.random() < 0.3):
            chosen = [opened.pop(rng.randrange(len(opened))) for _ in range(min(3, len(opened)))]
            yield "outcomes", [outcome_row(i, i % 2) for i in chosen], snapshot
        else:
            opened.append(number)
            yield "signal", signal_row(number), snapshot


def record_calls(path: Path, first: int, started: Any) -> None:
    ledger = Ledger(path, "actor", LedgerSettings(flush_ms=1))
    for number, (kind, value, snapshot) in enumerate(calls()):
        if number < first:
            continue
        if kind == "signal":
            ledger.record_signal(value, snapshot)
        else:
            ledger.record_outcomes(value, snapshot)
        if number % 7 == 0:
            time.sleep(0.0005)
        if number == first + 20:
            started.set()


def test_a_killed_process_leaves_the_file_as_after_one_of_its_calls(tmp_path):
    path = tmp_path / "ledger.sqlite"
    rng = random.Random()
    last = 0
    for _ in range(6):
        started = forked.Event()
        # From a little before where it was killed, as an actor that replays bars after its snapshot.
        process = forked.Process(target=record_calls, args=(path, max(0, last - 10), started), daemon=True)
        process.start()
        assert started.wait(FAR_S)
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        join(process)
        if not table(path, "SELECT count(*) FROM snapshots")[0][0]:
            continue
        [(newest,)] = table(path, f"SELECT max(ts) - {START} FROM snapshots")
        # A snapshot may be replayed, but never be ahead of the rows or behind them.
        signals: dict[str, int | None] = {}
        snapshots: dict[str, bytes] = {}
        for number, (kind, value, snapshot) in enumerate(calls()):
            if number > newest:
                break
            snapshots[snapshot[0]] = snapshot[2]
            if kind == "signal":
                signals[value.signal_id] = None
            else:
                signals |= {row.signal_id: row.label for row in value}
        if newest >= last:
            assert dict(table(path, "SELECT signal_id, label FROM signals")) == signals
            assert dict(table(path, "SELECT instrument_id, state FROM snapshots")) == snapshots
            last = newest
        assert table(path, "SELECT count(*) - count(DISTINCT signal_id) FROM signals") == [(0,)]
    assert last > 100
