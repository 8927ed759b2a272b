"""The timeline of a ledger: what is read, printed and drawn."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
from ml4t_actor.messages import ModelUpdate
from ml4t_actor.report import read_timeline, timeline_text, write_timeline
from ml4t_actor.settings import LedgerSettings

MINUTE_NS = 60_000_000_000
START_NS = 1_750_000_000_000_000_000
ID = "ETH-USD-PERP.HYPERLIQUID"
OLD, NEW = "v000001-0123456789ab", "v000002-ba9876543210"


def fill(ledger, n=1_200, confidences=(0.6, 0.4)) -> dict[str, np.ndarray]:
    """Record `n` signals of two models; some without outcome or answer; return what the timeline must hold."""
    rng = np.random.default_rng(1)
    kept: dict[str, list] = {name: [] for name in ("ts", "start", "confidence", "label", "weight", "version")}
    for i in range(n):
        ts = START_NS + i * MINUTE_NS
        version = OLD if i < n // 2 else NEW
        confidence = confidences[0] if i < n // 2 else confidences[1]
        status = "novel_input" if i % 10 == 0 else "ok"
        row = SignalRow(
            "s", f"{i}", ID, 1, 1.0, ts, ts, confidence, 0.1, 0.2, 0, 0.9, 0.01, version, status, 50_000
        )
        ledger.record_signal(row)
        if i % 7 == 0:
            continue
        label, bars, weight = int(rng.random() < 0.5), int(rng.integers(1, 90)), float(rng.uniform(0.1, 1.0))
        end = ts + bars * MINUTE_NS
        unresolved = i % 11 == 0
        ledger.record_outcomes(
            [
                OutcomeRow("s", f"{i}", -2, -1, None, end, bars, 0.0)
                if unresolved
                else OutcomeRow("s", f"{i}", 1 if label else -1, label, 0.01, end, bars, weight)
            ]
        )
        if status == "ok" and not unresolved:
            for name, value in zip(kept, (end, ts, confidence, label, weight, version), strict=True):
                kept[name].append(value)
    order = np.argsort(kept["ts"], kind="stable")
    return {
        name: np.array(values, dtype=object if name == "version" else None)[order]
        for name, values in kept.items()
    }


def update(ts, action, **figures) -> ModelUpdate:
    return ModelUpdate(
        action=action,
        version=NEW,
        previous_version=OLD,
        trigger="accuracy",
        reason="accuracy fell; better <beyond> chance",
        ts_event=ts,
        ts_init=ts,
        **figures,
    )


@pytest.fixture
def ledger():
    ledger = Ledger(None, "ML4TActor", LedgerSettings())
    for ts, action, figures in (
        (START_NS + 300 * MINUTE_NS, "failed", {}),
        (
            START_NS + 600 * MINUTE_NS,
            "promoted",
            {
                "n": 500,
                "champion_log_loss": 0.7,
                "challenger_log_loss": 0.68,
                "improvement": 0.02,
                "improvement_low": 0.004,
            },
        ),
    ):
        u = update(ts, action, **figures)
        ledger.record_event(ts, "trigger", OLD, {"kind": "accuracy"})
        ledger.record_event(ts, action, NEW, u.to_dict())
    return ledger


def test_a_timeline_holds_answered_outcomes_in_the_order_in_which_they_were_known(ledger):
    expected = fill(ledger)
    timeline = read_timeline(ledger)
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(timeline, name), values, err_msg=name)
    assert [d.action for d in timeline.decisions] == ["failed", "promoted"]
    assert timeline.decisions[1].improvement_low == 0.004


def test_text_shows_decisions_and_calibration_piece_by_piece(ledger):
    expected = fill(ledger)
    text = timeline_text(read_timeline(ledger), rows=2)
    assert "Decisions: 1 promoted, 1 failed" in text
    assert "+0.0200   +0.0040" in text
    half = len(expected["ts"]) // 2
    y, p, w = (expected[name][:half].astype(float) for name in ("label", "confidence", "weight"))
    rate, mean_p = np.average(y, weights=w), np.average(p, weights=w)
    loss = -np.average(np.log(np.where(y > 0.5, p, 1.0 - p)), weights=w)
    row = next(line for line in text.splitlines() if f"{half:>6,} {rate:>6.3f}" in line)
    assert f"{mean_p:>6.3f} {mean_p - rate:>+7.3f} {loss:>9.4f}" in row
    assert row.endswith("v000001, v000002") or row.endswith("v000001")


def test_beside_stands_a_frozen_model_on_the_signals_that_it_answered_too(ledger):
    fill(ledger)
    other = Ledger(None, "ML4TActor", LedgerSettings())
    fill(other, n=600, confidences=(0.5, 0.5))
    learned, frozen = read_timeline(ledger), read_timeline(other)
    beside = learned.confidence_in(frozen)
    numbers = np.array([int(signal.split("/")[1]) for signal in learned.signal])
    assert np.isnan(beside[numbers >= 600]).all()
    assert (beside[numbers < 600] == 0.5).all()
    assert f"{np.log(2.0):.4f}" in timeline_text(learned, frozen, rows=4)


def test_an_empty_ledger_has_an_empty_timeline(tmp_path):
    timeline = read_timeline(Ledger(None, "ML4TActor", LedgerSettings()))
    assert timeline_text(timeline) == "Decisions: none\nOutcomes of scored signals: 0"
    assert "Decisions: none" in write_timeline(timeline, tmp_path / "t.html", title="t").read_text()


def test_a_page_shows_the_decisions_and_needs_no_network(ledger, tmp_path):
    fill(ledger)
    page = write_timeline(
        read_timeline(ledger), tmp_path / "deep" / "t.html", title="ETH <1>", note="SYNTHETIC"
    )
    html = page.read_text()
    assert "<h1>ETH &lt;1&gt;</h1><p>SYNTHETIC</p>" in html
    assert all(f'id="{name}"' in html for name in ("calibration", "loss", "gate"))
    # A mark in each of the two charts over time, in the colour of its decision.
    shapes = [
        json.loads(part.split("]", 1)[0] + "]")
        for part in html.split('"shapes":')[1:]
        if part.startswith("[{")
    ]
    assert [[mark["line"]["color"] for mark in marks] for marks in shapes] == [["#d9822b", "#1a7f37"]] * 2
    assert "better &lt;beyond&gt; chance" in html
    assert "<beyond>" not in html
    assert "<script src" not in html


def test_a_ledger_is_drawn_from_the_command_line(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "ML4TActor", LedgerSettings()) as ledger:
        fill(ledger, n=200)
    command = [sys.executable, "-m", "ml4t_actor.report", str(path), "--out", str(tmp_path / "t.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Outcomes of scored signals: " in done.stdout
    assert (tmp_path / "t.html").exists()
    missing = subprocess.run(
        [*command[:3], str(tmp_path / "none.sqlite")], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1
    assert "there is no ledger" in missing.stderr
