"""Rows of a ledger, and what troubles one: for the tests of `ml4t_actor.ledger`."""

import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ml4t_actor.ledger import (
    Ledger,
    OutcomeRow,
    SignalRow,
)
from ml4t_actor.settings import LedgerSettings

DAY = 86_400_000_000_000
HOUR = DAY // 24
START = 1_750_032_000_000_000_000  # Monday 2025-06-16
FAST = LedgerSettings(flush_ms=5)


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


def random_ledger(ledger: Ledger, n: int, seed: int = 3) -> list[dict[str, Any]]:
    """Record `n` signals of all kinds; return what each was, as a dict."""
    rng = np.random.default_rng(seed)
    odds_rng = np.random.default_rng((seed, 1))
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
            base_odds=None
            if odds_rng.random() < 0.2
            else float(odds_rng.choice([0.0, 0.3, odds_rng.random()])),
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
