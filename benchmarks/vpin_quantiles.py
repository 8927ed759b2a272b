"""Quantiles of VPIN and toxicity on real trades and bars, and the time per trade.

Run ``python benchmarks/vpin_quantiles.py [--buckets-per-day 50 288 1000]``. Data: the folder in
``ML4T_DATA``, else ``../shared/data`` beside the checkout. Toxicity should spread over [0, 1] everywhere and
VPIN should neither stick to one value nor sit at 1. Values are taken after each trade or bar, so they weigh
time, not buckets: busy (often one-sided) spells fill many buckets in little time, and the median toxicity is
therefore below 0.5.
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ml4t_actor.indicators.vpin import HIGH_FROM, LOW_BELOW
from ml4t_actor.kernels import vpin as kernels
from ml4t_actor.market_data import DAY_NS, Bars, FloatArray, Trades
from ml4t_actor.settings import VPINSettings

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
LEAST_BUCKETS = 500
DEFAULT = VPINSettings()


def data_folder() -> Path:
    folder = Path(os.environ.get("ML4T_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "trades").is_dir():
        raise SystemExit(f"no folder `trades` in {folder}: set ML4T_DATA to the market data")
    return folder


def rule(days: float, buckets_per_day: int) -> int:
    """Return `buckets_per_day`, or what makes the file hold `LEAST_BUCKETS` if that is more."""
    return max(buckets_per_day, math.ceil(LEAST_BUCKETS / days))


def observed_days(ts_event: np.ndarray) -> float:
    """Return the days of trading, without gaps over five minutes (of the recorder or the venue)."""
    gaps = np.diff(ts_event)
    return float(gaps[gaps < 300_000_000_000].sum()) / DAY_NS


def row(name: str, how: str, buckets_per_day: int, vpin: FloatArray, toxicity: FloatArray) -> None:
    valid = ~np.isnan(vpin)
    cells = f"{name:<28} {how:<10} {buckets_per_day:>7} {valid.mean():>6.0%}"
    if valid.any():
        vpin, toxicity = vpin[valid], toxicity[valid]
        cells += "  " + " ".join(f"{q:.2f}" for q in np.quantile(vpin, QUANTILES))
        cells += "  " + " ".join(f"{q:.2f}" for q in np.quantile(toxicity, QUANTILES))
        shares = (np.mean(toxicity < LOW_BELOW), np.mean(toxicity >= HIGH_FROM), np.mean(vpin > 0.999))
        cells += "  " + " ".join(f"{share:>5.1%}" for share in shares)
    print(cells, flush=True)


def sampled(trades: Trades, buckets_per_day: int, side: np.ndarray) -> tuple[FloatArray, FloatArray]:
    return kernels.vpin_trades_sampled(
        kernels.vpin_params(VPINSettings(buckets_per_day=buckets_per_day)),
        trades.ts_event,
        trades.price,
        trades.size,
        side,
        trades.ts_event,
    )


def trade_rows(folder: Path, buckets_per_day: int, n_files: int | None) -> None:
    for path in sorted((folder / "trades").glob("*.parquet"))[:n_files]:
        trades = Trades.coerce(pq.read_table(path))
        chosen = rule(observed_days(trades.ts_event), buckets_per_day)
        name = path.stem.replace(".unsigned", "")[:28]
        unsigned = np.zeros_like(trades.side)
        if trades.side.any():
            row(name, "side", chosen, *sampled(trades, chosen, trades.side))
        row(name, "tick rule", chosen, *sampled(trades, chosen, unsigned))


def bar_rows(folder: Path, buckets_per_day: int, n_files: int | None) -> None:
    paths = [*(folder / "bars_1m").glob("*.parquet"), *(folder / "bars_5m").glob("*.parquet")]
    for path in sorted(paths)[:n_files]:
        bars = Bars.coerce(pq.read_table(path))
        params = kernels.vpin_params(VPINSettings(buckets_per_day=buckets_per_day))
        name = f"{path.parent.name.removeprefix('bars_')} {path.stem}"[:28]
        unknown = np.full(len(bars), np.nan)
        for how, buy_volume in (("taker", bars.buy_volume), ("bulk", unknown)):
            if how == "bulk" or not np.isnan(bars.buy_volume).all():
                values = kernels.vpin_bars_batch(params, bars.ts_event, bars.close, bars.volume, buy_volume)
                row(name, how, buckets_per_day, *values)


def timings(folder: Path) -> None:
    trades = Trades.coerce(
        pq.read_table(max((folder / "trades").glob("*.parquet"), key=lambda p: p.stat().st_size))
    )
    params = kernels.vpin_params(DEFAULT)
    state = kernels.vpin_new_state(params)
    columns = (trades.ts_event, trades.price, trades.size, trades.side)
    rows = list(zip(*(column[:100_000].tolist() for column in columns), strict=True))
    chunks = []
    for start in range(0, len(rows), 10_000):
        chunk = rows[start : start + 10_000]
        begin = time.thread_time_ns()
        for ts, price, size, side in chunk:
            kernels.vpin_trade_step(state, ts, price, size, side)
        chunks.append((time.thread_time_ns() - begin) / len(chunk))
    loops = []
    for _ in range(5):
        begin = time.thread_time_ns()
        kernels.vpin_trades_sampled(params, *columns, trades.ts_event[-1:])
        loops.append((time.thread_time_ns() - begin) / len(trades))
    print(
        f"\nCPU ns per trade: {min(chunks):.0f} called from Python (best of {len(chunks)} chunks, median "
        f"{np.median(chunks):.0f}), {min(loops):.0f} looped in a batch"
    )


def main(arguments: Sequence[str] = (), *, quick: bool = False) -> None:
    parser = argparse.ArgumentParser(description="Quantiles of VPIN and toxicity on real trades and bars.")
    parser.add_argument("--buckets-per-day", type=int, nargs="+", default=[DEFAULT.buckets_per_day])
    chosen = parser.parse_args(arguments).buckets_per_day
    folder = data_folder()
    heading = " ".join(f"{q:>4.0%}" for q in QUANTILES)
    print(f"window {DEFAULT.window_buckets} buckets, history {DEFAULT.history_buckets} values")
    print(
        f"buckets: per day; more than asked for where the trade file would not hold {LEAST_BUCKETS} otherwise"
    )
    print("valid: share of events after the cold start; at 1: share of VPIN above 0.999")
    for buckets_per_day in chosen:
        print(f"\n{'':<28} {'':<10} {'':>7} {'':>6}  {'VPIN':<34}  toxicity")
        print(
            f"{'file':<28} {'split by':<10} {'buckets':>7} {'valid':>6}  {heading}  {heading}"
            f"  {'LOW':>5} {'HIGH':>5} {'at 1':>5}"
        )
        trade_rows(folder, buckets_per_day, 1 if quick else None)
        bar_rows(folder, buckets_per_day, 1 if quick else None)
    if not quick:
        timings(folder)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
