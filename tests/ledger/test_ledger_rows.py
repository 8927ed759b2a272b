"""What a model learns from: the rows that a ledger gives."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from ml4t_actor.ledger import (
    Ledger,
    training_rows,
)
from ml4t_actor.ledger.rows import NO_SIGNAL
from ml4t_actor.ledger.schema import open_read_only
from tests.support.ledgers import FAST, HOUR, START, outcome_row, random_ledger, signal_row
from tests.support.paths import ROOT


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("max_rows", [0, 37, 10_000])
def test_training_rows_are_those_of_a_plain_loop(tmp_path, monkeypatch, in_memory, max_rows):
    monkeypatch.setattr("ml4t_actor.ledger.rows.CHUNK_ROWS", 50)
    ledger = Ledger(None if in_memory else tmp_path / "ledger.sqlite", "actor", FAST)
    written = random_ledger(ledger, 600)
    zero = signal_row(
        700, side=0, entry=None, source="trend", instrument_id="ETH2.X", ts_event=START + 100 * HOUR
    )
    ledger.record_signal(zero)
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
    wanted["exit_signal"] = [
        min(
            other["ts_event"]
            for other in (*written, zero._asdict(), {"ts_event": NO_SIGNAL})
            if other["ts_event"] == NO_SIGNAL
            or (
                other["ts_event"] > row["ts_event"]
                and other["side"] != row["side"]
                and (other["source"], other["instrument_id"]) == (row["source"], row["instrument_id"])
            )
        )
        for row in expected
    ]
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
