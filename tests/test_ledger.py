"""What the ledger promises: it never stops the actor, loses nothing, counts nothing twice, and answers questions."""

import inspect
import json
import math
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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.ledger import (
    Ledger,
    LedgerError,
    LedgerReader,
    OutcomeRow,
    SignalRow,
    training_rows,
)
from ml4t_actor.ledger.__main__ import main
from ml4t_actor.ledger.retention import CHUNK_ROWS, forget_chunk
from ml4t_actor.ledger.schema import SCHEMA_VERSION, open_ledger, open_read_only
from ml4t_actor.ledger.writer import MEMORY_RETENTION_BATCHES
from ml4t_actor.settings import LedgerSettings
from ml4t_actor.validation import auc, brier, log_loss

DAY = 86_400_000_000_000
HOUR = DAY // 24
START = 1_750_032_000_000_000_000  # Monday 2025-06-16
FAST = LedgerSettings(flush_ms=5)
ROOT = Path(__file__).parent.parent
# A fork starts in milliseconds where a new interpreter takes seconds.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forked = multiprocessing.get_context("fork")


def signal_row(i: int, **changes: Any) -> SignalRow:
    row = SignalRow(
        source="trend",
        signal_id=f"s{i}",
        instrument_id="ETH-USD-PERP.HYPERLIQUID",
        side=1,
        strength=0.5,
        ts_event=START + i * HOUR,
        ts_init=START + i * HOUR + 1,
        confidence=0.6,
        toxicity=0.1,
        vpin=0.2,
        regime=1,
        regime_weight=0.9,
        volatility=0.01,
        model_version="v000007-5f2c",
        status="ok",
        latency_ns=50_000,
        entry_ts=START + i * HOUR,
        entry=8.1,
        profit=0.01,
        stop=math.inf,
        entry_bar=i,
        entry_share=0.25,
        window_end_ns=START + (i + 12) * HOUR,
    )
    return row._replace(**changes)


def outcome_row(i: int, label: int = 1, **changes: Any) -> OutcomeRow:
    row = OutcomeRow("trend", f"s{i}", 1 if label else -1, label, 0.01, START + (i + 2) * HOUR, 2, 0.5)
    return row._replace(**changes)


def table(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def wait_until(holds: Any, what: str) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    # Not a fork: SQLite's locks do not survive one while a connection to the file is open.
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield
        finally:
            process.stdin.close()
    assert process.returncode == 0


# What is stored comes back.


finite = st.floats(allow_nan=False, width=64)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
int64 = st.integers(-(2**63), 2**63 - 1)
optional_float = st.none() | finite
doubles = st.none() | st.lists(st.floats(width=64), max_size=5).map(lambda x: np.array(x, "<f8").tobytes())
signal_rows = st.builds(
    SignalRow,
    source=text,
    signal_id=text,
    instrument_id=text,
    side=st.sampled_from([-1, 0, 1]),
    strength=finite,
    ts_event=int64,
    ts_init=int64,
    confidence=finite,
    toxicity=finite,
    vpin=finite,
    regime=int64,
    regime_weight=finite,
    volatility=finite,
    model_version=text,
    status=text,
    latency_ns=int64,
    feature_set=st.none(),
    features=doubles,
    regime_probabilities=doubles,
    regime_model=text,
    entry_ts=st.none() | int64,
    entry=optional_float,
    profit=optional_float,
    stop=optional_float,
    entry_bar=st.none() | int64,
    entry_share=optional_float,
    window_end_ns=st.none() | int64,
)


@given(st.lists(signal_rows, max_size=8, unique_by=lambda row: row[:2]))
@settings(max_examples=100)
def test_signals_come_back_as_they_were(rows):
    with Ledger(None, "actor", LedgerSettings()) as ledger:
        for row in rows:
            ledger.record_signal(row)
        assert ledger.open_signals() == [row for row in rows if row.entry is not None]
        assert ledger.recent_ids(100) == [row[:2] for row in rows]
        assert ledger.counts["refused"] == 0


def test_columns_of_the_file_are_in_the_documented_order(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path, "actor", FAST).close()
    columns = [name for _, name, *_ in table(path, "PRAGMA table_info(signals)")]
    assert columns == [
        *("id", "actor", "source", "signal_id", "instrument_id", "side", "strength", "ts_event", "ts_init"),
        *(
            "confidence",
            "toxicity",
            "vpin",
            "regime",
            "regime_weight",
            "volatility",
            "model_version",
            "status",
        ),
        *("latency_ns", "feature_set", "features", "regime_probabilities", "regime_model"),
        *("entry_ts", "entry", "profit", "stop", "entry_bar", "entry_share", "window_end_ns"),
        *("barrier", "label", "ret", "ts_outcome", "bars", "weight"),
    ]
    assert tuple(columns[2 : 2 + len(SignalRow._fields)]) == SignalRow._fields
    assert table(path, "PRAGMA auto_vacuum") == [(2,)]
    assert table(path, "PRAGMA journal_mode") == [("wal",)]
    assert table(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_actor_finds_what_it_left(tmp_path, in_memory):
    path = None if in_memory else tmp_path / "of" / "the actor?" / "100%#.sqlite"
    ledger = Ledger(path, "actor", FAST)
    for i in range(5):
        ledger.record_signal(signal_row(i), ("ETH", START + i, b"eth %d" % i))
    ledger.record_signal(signal_row(5, side=0, entry=None), ("BTC", START + 5, b"btc"))
    ledger.record_outcomes(
        [outcome_row(3), outcome_row(1, 0, ts_outcome=START)], ("ETH", START + 9, b"\x00last")
    )
    ledger.record_outcomes([outcome_row(2, -1, ret=math.nan, weight=0.0)])
    ledger.record_event(
        START + 7, "model_update", "v1", {"loss": np.float64(0.5), "n": np.int64(3), "nan": math.nan}
    )
    ledger.record_event(START + 8, "retrain", "", {"settings": LedgerSettings(), "path": Path("x")})
    other = Ledger(path, "other", FAST)
    other.record_signal(signal_row(0))
    assert other.open_signals() == [signal_row(0)]
    other.close()
    if not in_memory:
        assert ledger.close()
        ledger = Ledger(path, "actor", FAST)
    assert ledger.open_signals() == [signal_row(0), signal_row(4)]
    assert ledger.recent_ids(2) == [("trend", "s4"), ("trend", "s5")]
    assert ledger.snapshots() == {"ETH": (START + 9, b"\x00last"), "BTC": (START + 5, b"btc")}
    assert ledger.outcomes_of("v000007-5f2c") == [(0.6, 0, 0.5), (0.6, 1, 0.5)]
    assert ledger.outcomes_of("v000007-5f2c", since_ns=START) == [(0.6, 1, 0.5)]
    assert ledger.outcomes_of("v000007") == []
    assert ledger.events("model_update") == [
        {
            "ts": START + 7,
            "kind": "model_update",
            "version": "v1",
            "detail": {"loss": 0.5, "n": 3, "nan": None},
        }
    ]
    [_, retrain] = ledger.events()
    assert retrain["detail"] == {"settings": msgspec.to_builtins(LedgerSettings()), "path": "x"}
    assert ledger.close()


def test_only_answers_of_a_model_count_as_its_outcomes():
    ledger = Ledger(None, "actor", LedgerSettings())
    for i, status in enumerate(["ok", "late", "no_model", "stale_data", "error"]):
        ledger.record_signal(signal_row(i, status=status, confidence=i / 10))
        ledger.record_outcomes([outcome_row(i)])
    assert [confidence for confidence, _, _ in ledger.outcomes_of("v000007-5f2c")] == [0.0, 0.1]


def test_feature_sets_have_a_number_that_depends_on_names_and_order_only(tmp_path):
    one, other = Ledger(None, "a", FAST), Ledger(tmp_path / "ledger.sqlite", "b", FAST)
    sets = [["x", "y"], ["y", "x"], ["x,y"], [], ['x"']]
    numbers = [one.feature_set(names) for names in sets]
    assert [other.feature_set(names) for names in sets] == numbers
    assert len(set(numbers)) == len(sets)
    assert all(0 <= number < 2**63 for number in numbers)
    other.record_signal(signal_row(0, feature_set=numbers[0]))
    assert other.close()
    stored = table(tmp_path / "ledger.sqlite", "SELECT id, names FROM feature_sets")
    assert {number: json.loads(names) for number, names in stored} == dict(zip(numbers, sets, strict=True))


# Nothing counts twice.


def test_recording_again_changes_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for changed in (0.0, 0.3):
        with Ledger(path, "actor", FAST) as ledger:
            for _ in range(2):
                for i in range(20):
                    ledger.record_signal(signal_row(i, confidence=0.6 + changed))
                ledger.record_outcomes([outcome_row(i, int(changed == 0.0)) for i in range(0, 20, 2)])
                ledger.record_event(START, "model_update", "v1", {"a": 1})
                assert ledger.flush()
    assert table(path, "SELECT count(*), sum(label), sum(label IS NULL) FROM signals") == [(20, 10, 10)]
    assert table(path, "SELECT DISTINCT confidence FROM signals") == [(0.6,)]
    assert table(path, "SELECT count(*) FROM events") == [(1,)]


def test_an_unresolved_outcome_is_final(tmp_path):
    ledger = Ledger(None, "actor", FAST)
    ledger.record_signal(signal_row(0))
    ledger.record_outcomes([outcome_row(0, -1)])
    ledger.record_outcomes([outcome_row(0, 1)])
    assert ledger.open_signals() == []
    assert ledger.outcomes_of("v000007-5f2c") == []


def test_rows_that_cannot_be_stored_do_not_keep_the_others(tmp_path):
    path = tmp_path / "ledger.sqlite"
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0))
        ledger.record_signal(signal_row(1, latency_ns=2**63))
        ledger.record_signal(signal_row(2, source="\ud800"))
        ledger.record_signal(signal_row(3, signal_id=None))
        ledger.record_event(1, "bad", "", cyclic)
        ledger.record_outcomes([outcome_row(0)], ("ETH", START, b"state"))
        assert ledger.flush()
        assert ledger.counts["refused"] == 4
        assert ledger.counts["write_errors"] == 0
        assert ledger.recent_ids(9) == [("trend", "s0")]
        assert ledger.open_signals() == []
        assert ledger.snapshots() == {"ETH": (START, b"state")}


def test_numbers_of_numpy_are_stored_as_numbers():
    ledger = Ledger(None, "actor", FAST)
    plain = signal_row(0)
    ledger.record_signal(
        plain._replace(
            side=np.int8(1),
            ts_event=np.int64(plain.ts_event),
            confidence=np.float32(0.5),
            vpin=np.float64(0.2),
        )
    )
    assert ledger.open_signals() == [plain._replace(confidence=0.5)]
    ledger.record_outcomes([outcome_row(0, np.int8(1), weight=np.float32(0.5))])
    assert ledger.outcomes_of(plain.model_version) == [(0.5, 1, 0.5)]
    assert ledger.counts["refused"] == 0


# The event thread.


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
            wait_until(lambda: ledger.counts["write_errors"] >= 2, "writing failed")
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
                    wait_until(
                        lambda seen=errors: ledger.counts["write_errors"] > seen, "writing failed again"
                    )
                assert len(ledger._pending) <= 50
            ledger.record_outcomes([outcome_row(990)])
            errors = ledger.counts["write_errors"]
            wait_until(lambda: ledger.counts["write_errors"] > errors + 1, "what was on its way came back")
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
from test_ledger import FAST, START, Ledger, outcome_row, signal_row, wait_until

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]), "actor", FAST)
ledger.record_signal(signal_row(0, features=bytes(2000)), ("ETH", START, b"0"))
assert ledger.flush()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
for i in range(1, 500):
    ledger.record_signal(signal_row(i, features=bytes(2000)), ("ETH", START + i, b"%d" % i))
wait_until(lambda: ledger.counts["write_errors"] >= 2, "the disk was full")
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
        [sys.executable, "-c", FULL_DISK, str(path), str(Path(__file__).parent)],
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
        threading.Thread(target=record, args=(ledger, first)) for ledger in ledgers for first in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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


# Whatever kills the process.


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
        process = forked.Process(target=record_calls, args=(path, max(0, last - 10), started))
        process.start()
        assert started.wait(20.0)
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
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


# What is forgotten.


def forget_all(path: Path, retention: LedgerSettings) -> int:
    n = 0
    with closing(open_ledger(path, busy_timeout_s=5.0)) as connection:
        while forget_chunk(connection, retention):
            n += 1
    return n


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
        wait_until(lambda: len(ledger.recent_ids(1000)) == 25, "old rows were gone")
    assert ledger.counts["write_errors"] == 0


def test_a_ledger_in_memory_forgets_too(monkeypatch):
    monkeypatch.setattr("ml4t_actor.ledger.writer.MEMORY_BATCH_ROWS", 50)
    with Ledger(None, "actor", LedgerSettings(max_age_days=1.0)) as ledger:
        for i in range(50 * MEMORY_RETENTION_BATCHES):
            ledger.record_signal(signal_row(i))
        assert len(ledger.recent_ids(1000)) == 25


# Files that are no ledger.


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    text_file, foreign, newer = (tmp_path / name for name in ("a.txt", "b.sqlite", "c.sqlite"))
    text_file.write_text("no database, and long enough to be taken for one " * 50)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE cats (name)")
    Ledger(newer, "actor", FAST).close()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for path, message in (
        (text_file, "is no ledger"),
        (foreign, "is an SQLite file but no ledger"),
        (newer, f"has version {SCHEMA_VERSION + 1}, this release reads version {SCHEMA_VERSION}"),
    ):
        before = path.read_bytes()
        for opened in (lambda path=path: Ledger(path, "actor", FAST), lambda path=path: LedgerReader(path)):
            with pytest.raises(LedgerError, match=message) as caught:
                opened()
            assert path.name in str(caught.value)
        assert path.read_bytes() == before
    with pytest.raises(LedgerError, match="is a folder"):
        Ledger(tmp_path, "actor", FAST)
    with pytest.raises(LedgerError, match="there is no ledger"):
        LedgerReader(tmp_path / "absent.sqlite")
    assert issubclass(LedgerError, ValueError)


# What a model learns from.


def random_ledger(ledger: Ledger, n: int, seed: int = 3) -> list[dict[str, Any]]:
    """Record `n` signals of all kinds; return what each was, as a dict."""
    rng = np.random.default_rng(seed)
    sets = [["x", "y", "z"], ["z", "x"], ["y", "z", "x", "w"], ["w"]]
    numbers = [ledger.feature_set(names) for names in sets]
    written = []
    for i in range(n):
        k = int(rng.integers(len(sets)))
        values = rng.normal(size=len(sets[k]))
        if rng.random() < 0.05:
            values[rng.integers(len(values))] = rng.choice([np.nan, np.inf])
        probabilities = rng.random(int(rng.integers(0, 4)))
        row = signal_row(
            i,
            source=str(rng.choice(["trend", "reversal"])),
            instrument_id=str(rng.choice(["ETH-USD-PERP.HYPERLIQUID", "BTC-USD-PERP.HYPERLIQUID", "ETH2.X"])),
            side=int(rng.choice([-1, 1])),
            ts_event=START + int(rng.integers(n // 2)) * HOUR,
            confidence=float(rng.random()),
            model_version=str(rng.choice(["v000006-aaaa", "v000007-bbbb", ""])),
            status=str(
                rng.choice(["ok", "late", "no_model", "novel_input", "stale_data"], p=[0.6, *[0.1] * 4])
            ),
            feature_set=numbers[k],
            features=None if rng.random() < 0.03 else values.astype("<f8").tobytes(),
            regime_probabilities=probabilities.astype("<f8").tobytes() if len(probabilities) else None,
            regime_model="digest" if len(probabilities) else "",
        )
        row = row._replace(window_end_ns=row.ts_event + 12 * HOUR if rng.random() < 0.95 else None)
        ledger.record_signal(row)
        known = row._asdict() | {"served": dict(zip(sets[k], values, strict=True)), "label": None}
        if rng.random() < 0.9:
            label = int(rng.choice([-1, 0, 1], p=[0.1, 0.5, 0.4]))
            ret = math.nan if label < 0 else float(rng.normal())
            weight = float(rng.random())
            ts = row.ts_event + int(rng.integers(1, 13)) * HOUR
            ledger.record_outcomes([OutcomeRow(row.source, row.signal_id, 0, label, ret, ts, 3, weight)])
            known |= {"label": label, "ret": ret, "weight": weight, "ts_outcome": ts}
        written.append(known)
    return written


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("max_rows", [0, 37, 10_000])
def test_training_rows_are_those_of_a_plain_loop(tmp_path, monkeypatch, in_memory, max_rows):
    monkeypatch.setattr("ml4t_actor.ledger.rows.CHUNK_ROWS", 50)
    ledger = Ledger(None if in_memory else tmp_path / "ledger.sqlite", "actor", FAST)
    written = random_ledger(ledger, 600)
    ledger.record_signal(signal_row(700, side=0, entry=None))
    ledger.flush()
    since, until = START + 20 * HOUR, START + 250 * HOUR
    expected, dropped = [], dict.fromkeys(("status", "window_incomplete", "no_label"), 0)
    missing, bad = 0, 0
    for row in sorted(enumerate(written), key=lambda pair: (pair[1]["ts_event"], pair[0]), reverse=True):
        row = row[1]
        if not since < row["ts_event"] <= until:
            continue
        if row["status"] == "stale_data":
            dropped["status"] += 1
        elif row["window_end_ns"] is None or row["window_end_ns"] > until:
            dropped["window_incomplete"] += 1
        elif row["label"] not in (0, 1):
            dropped["no_label"] += 1
        elif len(expected) < max_rows:
            if not {"z", "x"} <= row["served"].keys():
                missing += 1
            elif row["features"] is None or not np.isfinite([row["served"]["z"], row["served"]["x"]]).all():
                bad += 1
            else:
                expected.append(row)
    expected.reverse()
    rows = training_rows(ledger if in_memory else ledger.path, "actor", ["z", "x"], since, until, max_rows)
    assert len(rows) == len(expected) == min(max_rows, len(expected))
    reasons = dropped | {"missing_feature": missing, "bad_features": bad}
    assert rows.dropped == {reason: n for reason, n in reasons.items() if n}
    wanted = {
        "X": np.array([[row["served"]["z"], row["served"]["x"]] for row in expected]).reshape(-1, 2),
        "y": [row["label"] for row in expected],
        "volatility": [row["volatility"] for row in expected],
        "label_start": [row["ts_event"] for row in expected],
        "label_end": [row["ts_outcome"] for row in expected],
    }
    for name in ("side", "ret", "weight", "confidence", "model_version", "regime_model"):
        wanted[name] = [row[name] for row in expected]
    for name, values in wanted.items():
        np.testing.assert_array_equal(getattr(rows, name), values, err_msg=name)
    assert [rows.X.dtype, rows.y.dtype, rows.side.dtype, rows.label_start.dtype] == ["f8", "i1", "i1", "i8"]
    for row, probabilities in zip(expected, rows.regime_probabilities, strict=True):
        served = np.frombuffer(row["regime_probabilities"] or b"", "<f8")
        np.testing.assert_array_equal(probabilities[: len(served)], served)
        assert np.isnan(probabilities[len(served) :]).all()
    ledger.close()


def test_training_rows_of_nothing():
    ledger = Ledger(None, "actor", FAST)
    ledger.record_signal(signal_row(0))
    rows = training_rows(ledger, "actor", ["x", "y"], 0, START, 10)
    assert (len(rows), rows.X.shape, rows.dropped) == (0, (0, 2), {"window_incomplete": 1})
    assert len(training_rows(ledger, "nobody", ["x"], 0, START, 10)) == 0


READ = """
import sys
from ml4t_actor.ledger import LedgerReader, training_rows
rows = training_rows(sys.argv[1], "actor", ["x"], 0, 2**62, 10**6)
print(len(rows), rows.X.sum(), len(LedgerReader(sys.argv[1]).signals()))
"""


def test_another_process_reads_while_this_one_writes(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST, busy_timeout_s=0.0) as ledger:
        number = ledger.feature_set(["x"])
        for i in range(50):
            ledger.record_signal(signal_row(i, feature_set=number, features=np.array([1.0], "<f8").tobytes()))
        ledger.record_outcomes([outcome_row(i) for i in range(50)])
        assert ledger.flush()
        with closing(open_read_only(path)) as slow:
            slow.execute("BEGIN")
            slow.execute("SELECT count(*) FROM signals").fetchone()
            ledger.record_signal(signal_row(50))
            assert ledger.flush()  # a reader in the middle of its work does not block the writer
            done = subprocess.run(
                [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
            )
            assert done.stdout.split() == ["50", "50.0", "51"]
            assert slow.execute("SELECT count(*) FROM signals").fetchone() == (50,)
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                slow.execute("DELETE FROM signals")
        assert ledger.counts["write_errors"] == 0


# Questions of people.


@pytest.fixture(scope="module")
def answered() -> tuple[Ledger, list[dict[str, Any]]]:
    ledger = Ledger(None, "actor", FAST)
    return ledger, random_ledger(ledger, 800, seed=8)


def test_signals_are_found_by_name_beginning_and_time(answered):
    ledger, written = answered
    reader = LedgerReader(ledger)
    for filters, holds in (
        ({}, lambda row: True),
        ({"version": "v000007"}, lambda row: row["model_version"] == "v000007-bbbb"),
        ({"version": "v000007-bbbb"}, lambda row: row["model_version"] == "v000007-bbbb"),
        ({"version": ""}, lambda row: row["model_version"] == ""),
        ({"version": "v0000%"}, lambda row: False),
        ({"instrument": "ETH"}, lambda row: row["instrument_id"].startswith("ETH")),
        ({"instrument": "ETH2.X", "source": "rev"},
         lambda row: (row["instrument_id"], row["source"]) == ("ETH2.X", "reversal")),
        ({"start": "2025-06-17", "end": pd.Timestamp("2025-06-18 02:00", tz="Europe/Berlin")},
         lambda row: START + DAY <= row["ts_event"] < START + 2 * DAY),
        ({"start": START + DAY}, lambda row: row["ts_event"] >= START + DAY),
    ):  # fmt: skip
        frame = reader.signals(**filters)
        ids = [row["signal_id"] for row in sorted(written, key=lambda row: row["ts_event"]) if holds(row)]
        assert frame["signal_id"].tolist() == ids, filters
    with pytest.raises(ValueError, match="is no time"):
        reader.signals(start="NaT")


def test_signals_come_as_typed_columns(answered):
    ledger, written = answered
    frame = LedgerReader(ledger).signals(features=True).set_index("signal_id")
    row = written[17]
    found = frame.loc["s17"]
    assert found["ts_event"] == pd.Timestamp(row["ts_event"], unit="ns", tz="UTC")
    assert found["confidence"] == row["confidence"]
    assert {str(frame[name].dtype) for name in ("ts_event", "ts_init", "ts_outcome", "window_end_ns")} == {
        "datetime64[ns, UTC]"
    }
    for row in written:
        found = frame.loc[row["signal_id"]]
        if row["label"] is None:
            assert found[["label", "ts_outcome", "ret"]].isna().all()
        else:
            assert found["label"] == row["label"]
        served = row["served"] if row["features"] is not None else {}
        for name in "wxyz":
            np.testing.assert_equal(found[f"feature_{name}"], served.get(name, math.nan))
    empty = LedgerReader(ledger).signals(version="none", features=True)
    assert empty.empty
    assert set(LedgerReader(ledger).signals().columns) == set(empty.columns)


def test_performance_is_that_of_a_plain_loop(answered):
    ledger, written = answered
    table_ = LedgerReader(ledger).performance(start="2025-06-17", source="trend")
    rows = [row for row in written if row["source"] == "trend" and row["ts_event"] >= START + DAY]
    groups = sorted({(row["model_version"], row["instrument_id"]) for row in rows})
    assert list(zip(table_["model_version"], table_["instrument_id"], strict=True)) == groups
    for (version, instrument), found in zip(groups, table_.to_dict("records"), strict=True):
        group = [row for row in rows if (row["model_version"], row["instrument_id"]) == (version, instrument)]
        scored = [row for row in group if row["label"] in (0, 1) and row["status"] in ("ok", "late")]
        assert found["n"] == len(group)
        assert found["resolved"] == sum(row["label"] in (0, 1) for row in group)
        assert found["scored"] == len(scored) > 5
        y, p, w = (np.array([row[name] for row in scored]) for name in ("label", "confidence", "weight"))
        rate = (w * y).sum() / w.sum()
        assert found["base_rate"] == pytest.approx(rate)
        assert found["mean_confidence"] == pytest.approx((w * p).sum() / w.sum())
        assert found["mean_ret"] == pytest.approx(sum(row["weight"] * row["ret"] for row in scored) / w.sum())
        loss = -(w * np.where(y == 1, np.log(p), np.log(1 - p))).sum() / w.sum()
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        assert found["log_loss"] == pytest.approx(loss)
        assert found["log_loss_baseline"] == pytest.approx(entropy)
        assert found["skill"] == pytest.approx(1 - loss / entropy)
        assert found["brier"] == pytest.approx((w * (p - y) ** 2).sum() / w.sum())
        pairs = [
            (a["weight"] * b["weight"], np.heaviside(a["confidence"] - b["confidence"], 0.5))
            for a in scored for b in scored
            if a["label"] == 1 and b["label"] == 0 and a["side"] == b["side"]
        ]  # fmt: skip
        within = sum(w * c for w, c in pairs) / sum(w for w, _ in pairs)
        assert found["auc_within_side"] == pytest.approx(within)


def test_performance_by_other_groups(answered):
    ledger, written = answered
    reader = LedgerReader(ledger)
    whole = reader.performance(by=[])
    assert whole["n"].tolist() == [len(written)]
    scored = [row for row in written if row["label"] in (0, 1) and row["status"] in ("ok", "late")]
    y, p, w = (np.array([row[name] for row in scored]) for name in ("label", "confidence", "weight"))
    assert whole["log_loss"].item() == pytest.approx(log_loss(y, p, w))
    assert whole["brier"].item() == pytest.approx(brier(y, p, w))
    by_status = reader.performance(by=["status"]).set_index("status")
    assert by_status["n"].sum() == len(written)
    assert by_status.loc["stale_data", "scored"] == 0
    assert math.isnan(by_status.loc["stale_data", "log_loss"])
    assert by_status.loc["stale_data", "resolved"] > 0
    assert reader.performance(version="none").empty
    with pytest.raises(ValueError, match=r"`by` has \['colour'\], must be some of"):
        reader.performance(by=["colour"])
    longs = [row for row in scored if row["side"] == 1]
    y, p, w = (np.array([row[name] for row in longs]) for name in ("label", "confidence", "weight"))
    by_side = reader.performance(by=["side"]).set_index("side")
    assert by_side.loc[1, "auc_within_side"] == pytest.approx(auc(y, p, w))


def test_reliability_and_calibration_error_agree(answered):
    ledger, written = answered
    reader = LedgerReader(ledger)
    table_ = reader.reliability(version="v000007", n_bins=4)
    scored = [
        row
        for row in written
        if row["label"] in (0, 1)
        and row["status"] in ("ok", "late")
        and row["model_version"] == "v000007-bbbb"
    ]
    assert len(table_) == 4
    assert table_["n"].sum() == len(scored)
    for found in table_.itertuples():
        rows = [row for row in scored if found.p_low < row["confidence"] <= found.p_high]
        rows += [row for row in scored if row["confidence"] == found.p_low and found.Index == 0]
        weight = sum(row["weight"] for row in rows)
        assert found.n == len(rows)
        assert found.mean_p == pytest.approx(sum(row["weight"] * row["confidence"] for row in rows) / weight)
        assert found.rate == pytest.approx(sum(row["weight"] * row["label"] for row in rows) / weight)
    ten = reader.reliability(version="v000007")
    error = (ten["share"] * (ten["mean_p"] - ten["rate"]).abs()).sum()
    assert reader.performance(by=[], version="v000007")["expected_calibration_error"].item() == pytest.approx(
        error
    )
    assert reader.reliability(version="none").empty


def test_events_are_told_with_their_time():
    ledger = Ledger(None, "actor", FAST)
    reader = LedgerReader(ledger)
    assert reader.events().empty
    ledger.record_event(START, "trigger", "v1", {"reason": "age"})
    ledger.record_event(START + DAY, "model_update", "v2", {"loss": 0.6})
    frame = reader.events()
    assert frame["ts"].tolist() == [
        pd.Timestamp("2025-06-16", tz="UTC"),
        pd.Timestamp("2025-06-17", tz="UTC"),
    ]
    assert frame["detail"].tolist() == [{"reason": "age"}, {"loss": 0.6}]
    assert reader.events(kind="model_update")["version"].tolist() == ["v2"]
    assert reader.events(end="2025-06-17")["version"].tolist() == ["v1"]


def test_the_command_prints_the_table(tmp_path, capsys):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        written = random_ledger(ledger, 60)
    assert main([str(path), "--version", "v000007", "--instrument", "BTC", "--by", "model_version"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    chosen = [
        row for row in written if row["model_version"] == "v000007-bbbb" and row["instrument_id"][0] == "B"
    ]
    assert dict(zip(header.split(), line.split(), strict=True))["n"] == str(len(chosen))
    assert main([str(path), "--version", "none"]) == 0
    assert capsys.readouterr().out == "no signals\n"
    assert main([str(tmp_path / "absent.sqlite")]) == 2
    assert "there is no ledger" in capsys.readouterr().err
    assert main([str(path), "--start", "yesterday-ish"]) == 2
    assert "yesterday-ish" in capsys.readouterr().err


def test_the_writer_loads_no_pandas():
    code = "import ml4t_actor.ledger, sys; print('pandas' in sys.modules, 'nautilus_trader' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
