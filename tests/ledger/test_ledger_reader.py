"""Questions of people to a ledger, against plain loops."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml4t_actor.ledger import (
    Ledger,
    LedgerReader,
)
from ml4t_actor.ledger.__main__ import main
from ml4t_actor.validation import auc, brier, log_loss
from ml4t_actor.validation.scores import wilson_interval
from tests.support.ledgers import DAY, FAST, START, outcome_row, random_ledger, signal_row


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
        y, p = (np.array([row[name] for row in scored]) for name in ("label", "confidence"))
        rate = y.mean()
        assert found["base_rate"] == pytest.approx(rate)
        assert found["mean_confidence"] == pytest.approx(p.mean())
        assert found["mean_ret"] == pytest.approx(np.mean([row["ret"] for row in scored]))
        loss = -np.where(y == 1, np.log(p), np.log(1 - p)).mean()
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        assert found["log_loss"] == pytest.approx(loss)
        assert found["log_loss_baseline"] == pytest.approx(entropy)
        assert found["skill"] == pytest.approx(1 - loss / entropy)
        assert found["brier"] == pytest.approx(((p - y) ** 2).mean())
        pairs = [
            np.heaviside(a["confidence"] - b["confidence"], 0.5)
            for a in scored for b in scored
            if a["label"] == 1 and b["label"] == 0 and a["side"] == b["side"]
        ]  # fmt: skip
        assert found["auc_within_side"] == pytest.approx(np.mean(pairs))
        told = [row for row in scored if row["base_odds"] is not None]
        assert 0 < len(told) < len(scored)
        losses = {
            name: [-math.log(q if row["label"] else 1.0 - q) for row in told for q in (max(row[name], 1e-4),)]
            for name in ("confidence", "base_odds")
        }
        assert found["log_loss_odds"] == pytest.approx(np.mean(losses["base_odds"]))
        assert found["odds_skill"] == pytest.approx(1 - sum(losses["confidence"]) / sum(losses["base_odds"]))


def test_what_cannot_pay_is_scored_as_a_small_probability():
    ledger = Ledger(None, "actor", FAST)
    for i in range(10):
        ledger.record_signal(signal_row(i, confidence=0.0, base_odds=0.0))
        ledger.record_outcomes([outcome_row(i, int(i == 0))])
    [found] = LedgerReader(ledger).performance().to_dict("records")
    assert found["log_loss"] == pytest.approx(-(math.log(1e-4) + 9 * math.log(1 - 1e-4)) / 10)
    assert found["odds_skill"] == 0.0
    assert found["brier"] == pytest.approx(0.1)


def test_performance_by_other_groups(answered):
    ledger, written = answered
    reader = LedgerReader(ledger)
    whole = reader.performance(by=[])
    assert whole["n"].tolist() == [len(written)]
    scored = [row for row in written if row["label"] in (0, 1) and row["status"] in ("ok", "late")]
    y, p = (np.array([row[name] for row in scored]) for name in ("label", "confidence"))
    assert whole["log_loss"].item() == pytest.approx(log_loss(y, np.maximum(p, 1e-4)))
    assert whole["brier"].item() == pytest.approx(brier(y, p))
    by_status = reader.performance(by=["status"]).set_index("status")
    assert by_status["n"].sum() == len(written)
    assert by_status.loc["stale_data", "scored"] == 0
    assert math.isnan(by_status.loc["stale_data", "log_loss"])
    assert by_status.loc["stale_data", "resolved"] > 0
    assert reader.performance(version="none").empty
    with pytest.raises(ValueError, match=r"`by` has \['colour'\], must be some of"):
        reader.performance(by=["colour"])
    longs = [row for row in scored if row["side"] == 1]
    y, p = (np.array([row[name] for row in longs]) for name in ("label", "confidence"))
    by_side = reader.performance(by=["side"]).set_index("side")
    assert by_side.loc[1, "auc_within_side"] == pytest.approx(auc(y, p))


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
        assert found.n == len(rows)
        assert found.mean_p == pytest.approx(np.mean([row["confidence"] for row in rows]))
        assert found.rate == pytest.approx(np.mean([row["label"] for row in rows]))
        n_effective = sum(row["weight"] for row in scored) * len(rows) / len(scored)
        assert (found.rate_low, found.rate_high) == pytest.approx(wilson_interval(found.rate, n_effective))
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
