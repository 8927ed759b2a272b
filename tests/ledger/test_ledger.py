"""A ledger gives back what was stored, counts nothing twice, and refuses what is none."""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.ledger import (
    Ledger,
    LedgerError,
    LedgerReader,
    SignalRow,
    StreamPosition,
    training_rows,
)
from ml4t_actor.ledger.schema import SCHEMA_VERSION, open_ledger, open_read_only
from ml4t_actor.settings import LedgerSettings
from tests.support.ledgers import (
    FAST,
    START,
    outcome_row,
    signal_row,
    table,
)

BY_VERSION_4 = ("expected_return", "break_even")
ADDED = ("base_odds", "confidence_low", "confidence_high", *BY_VERSION_4)
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
    base_odds=optional_float,
    confidence_low=optional_float,
    confidence_high=optional_float,
    expected_return=optional_float,
    break_even=optional_float,
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
        *ADDED,  # where an older file gets them
    ]
    assert set(SignalRow._fields) < set(columns)
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


@pytest.mark.parametrize("in_memory", [True, False])
def test_positions_in_streams_come_back(tmp_path, in_memory):
    path = None if in_memory else tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "actor", FAST)
    assert ledger.position("in") is None
    ledger.record_position(StreamPosition("in", "5-1"))
    ledger.record_position(StreamPosition("out", "7-0", "trend", "s3"))
    ledger.record_position(StreamPosition("in", "5-2"))
    assert ledger.position("in") == StreamPosition("in", "5-2")
    assert ledger.position("out") == StreamPosition("out", "7-0", "trend", "s3")
    if path is not None:
        assert Ledger(path, "another", FAST).position("in") is None
        ledger.close()
        assert Ledger(path, "actor", FAST).position("in") == StreamPosition("in", "5-2")


def test_a_position_is_never_in_the_file_before_what_led_to_it(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", LedgerSettings(flush_ms=1)) as ledger:
        for i in range(2_000):
            ledger.record_signal(signal_row(i))
            ledger.record_position(StreamPosition("in", f"{i}-0"))
            if i % 50 == 0:
                [(n, at)] = table(
                    path, "SELECT (SELECT count(*) FROM signals), (SELECT entry_id FROM positions)"
                )
                assert at is None or n >= int(at.split("-")[0]) + 1
        assert ledger.flush()
        assert ledger.position("in") == StreamPosition("in", "1999-0")


def test_signals_after_a_position_are_those_recorded_later(tmp_path):
    rows = [signal_row(i) for i in range(10)]
    with Ledger(tmp_path / "ledger.sqlite", "actor", FAST) as ledger:
        for row in rows:
            ledger.record_signal(row)
        ledger.record_position(StreamPosition("out", "4-0", "trend", "s3"))
        position = ledger.position("out")
        assert ledger.signals_after(position.row_id, 100) == rows[4:]
        assert ledger.signals_after(position.row_id, 2) == rows[-2:]
        assert ledger.signals_after(position.row_id, 0) == []
        assert ledger.signals_after(0, 100) == rows


def test_a_position_does_not_go_back_to_a_signal_that_came_again(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", "actor", FAST) as ledger:
        for i in range(10):
            ledger.record_signal(signal_row(i))
        ledger.record_position(StreamPosition("out", "4-0", "trend", "s7"))
        row_id = ledger.position("out").row_id
        ledger.record_signal(signal_row(2))
        ledger.record_position(StreamPosition("out", "5-0", "trend", "s2"))
        assert ledger.position("out") == StreamPosition("out", "5-0", "trend", "s2", row_id)
        assert ledger.signals_after(row_id, 100) == [signal_row(8), signal_row(9)]


def test_rows_after_one_that_was_forgotten_are_still_after_it(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0))
        ledger.record_signal(signal_row(1))
        ledger.record_position(StreamPosition("out", "4-0", "trend", "s1"))
        row_id = ledger.position("out").row_id
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM signals WHERE signal_id = 's1'")
        connection.commit()
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(2))
        assert ledger.position("out").row_id == row_id
        assert ledger.signals_after(row_id, 100) == [signal_row(2)]


def make_older(path, version):
    """Make a ledger what it was in that version: 1 knew no positions, and added columns came with 3 and 4."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER signals_added")
        for name in BY_VERSION_4 if version == 3 else ADDED:
            connection.execute(f"ALTER TABLE signals DROP COLUMN {name}")
        if version == 3:
            kept = ", ".join(f"typeof(NEW.{name})" for name in ADDED if name not in BY_VERSION_4)
            connection.execute(
                f"CREATE TRIGGER signals_added BEFORE INSERT ON signals WHEN 'blob' IN ({kept}) "
                "BEGIN SELECT raise(ABORT, 'a number was given as bytes'); END"
            )
        if version == 1:
            connection.execute("DROP TABLE positions")
        connection.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_ledger_of_an_earlier_version_gets_what_is_new(tmp_path, version):
    path, new = tmp_path / "ledger.sqlite", tmp_path / "new.sqlite"
    kept = {"base_odds": 0.3, "confidence_low": 0.2, "confidence_high": 0.9} if version == 3 else {}
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0, **kept))
        ledger.record_outcomes([outcome_row(0)])
        ledger.record_signal(signal_row(1, **kept))
    make_older(path, version)
    before = table(path, "SELECT * FROM signals")
    signals = LedgerReader(path).signals()  # which changes nothing
    assert list(signals["signal_id"]) == ["s0", "s1"]
    assert signals[[name for name in ADDED if name not in kept]].isna().all(axis=None)
    assert [signals[name].tolist() for name in kept] == [[value] * 2 for value in kept.values()]
    assert math.isnan(LedgerReader(path).performance()["odds_skill"].item()) == (not kept)
    assert len(training_rows(path, "actor", [], 0, 2**62, 10)) == 0
    assert table(path, "PRAGMA user_version") == [(version,)]
    answered = signal_row(
        2, base_odds=0.4, confidence_low=0.5, confidence_high=0.7, expected_return=-3.5, break_even=0.6
    )
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_position(StreamPosition("in", "1-0"))
        ledger.record_signal(answered)
        assert ledger.position("in") == StreamPosition("in", "1-0")
        assert ledger.open_signals() == [signal_row(1, **kept), answered]
        assert not +ledger.counts
    Ledger(new, "actor", FAST).close()
    assert [row[: len(before[0])] for row in table(path, "SELECT * FROM signals")][:2] == before
    assert table(path, f"SELECT {', '.join(ADDED)} FROM signals") == [
        tuple(kept.get(name) for name in ADDED),
        tuple(kept.get(name) for name in ADDED),
        (0.4, 0.5, 0.7, -3.5, 0.6),
    ]
    for query in (
        "PRAGMA user_version",
        "PRAGMA table_info(signals)",
        "SELECT name FROM sqlite_master ORDER BY 1",
    ):
        assert table(path, query) == table(new, query)


def test_a_ledger_can_be_read_while_it_gets_what_is_new(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0))
    make_older(path, 2)
    with closing(open_read_only(path)) as connection:
        query = "SELECT signal_id, base_odds FROM signals"
        assert connection.execute(query).fetchall() == [("s0", None)]
        with Ledger(path, "actor", FAST) as ledger:
            ledger.record_signal(signal_row(1, base_odds=0.4))
        assert connection.execute(query).fetchall() == [("s0", None), ("s1", 0.4)]


def test_what_is_new_costs_a_large_ledger_nothing(tmp_path):
    """Its rows are not written again: what the log of changes holds is a few pages."""
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        for i in range(3_000):
            ledger.record_signal(signal_row(i, features=bytes(2_000)))
    make_older(path, 2)
    [(n_pages,)] = table(path, "PRAGMA page_count")
    assert n_pages > 1_000
    with closing(open_ledger(path, busy_timeout_s=2.0)) as connection:
        wal = path.with_name(path.name + "-wal").stat().st_size
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert wal < 100_000


@pytest.mark.parametrize("name", ADDED)
def test_numbers_of_numpy_are_stored_as_numbers_in_what_is_new(tmp_path, name):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "actor", FAST) as ledger:
        ledger.record_signal(signal_row(0, **{name: np.float32(0.25)}))
        ledger.record_signal(signal_row(1, **{name: b"no number"}))
        ledger.flush()
        assert ledger.counts["refused"] == 1
    assert table(path, f"SELECT {name} FROM signals") == [(0.25,)]


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
