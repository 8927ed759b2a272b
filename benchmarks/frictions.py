"""What recorded books and trades say of the frictions that backtests assume: ``python -m benchmarks.frictions``.

The spread of Hyperliquid's books, and what entering and leaving with a notional costs against them; how far beyond its
trigger a stop is filled that reaches the venue's book a latency after it is touched. Both are of calm hours.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backtests.market import data_root, load_trades
from ml4t_actor.market_data import SECOND_NS, FloatArray, Trades

Side = list[tuple[float, float]]  # price and size of each level, the best first

BOOKS = "hyperliquid/ws_replay_BTC_ETH_SOL_20250904.jsonl.gz"
TRADES = tuple(f"{coin}-USD-PERP.HYPERLIQUID.2025-09-04" for coin in ("BTC", "ETH", "SOL"))
NOTIONAL = 25_000.0
EVERY_S, WATCHED_S = 20, 3_600


def books(file: Path) -> Iterator[tuple[str, Side, Side]]:
    """Yield coin, bids and asks of each message of a recording."""
    with gzip.open(file, "rt") as lines:
        for line in lines:
            message = json.loads(line)["message"]
            if message["channel"] == "l2Book":
                bids, asks = (
                    [(float(level["px"]), float(level["sz"])) for level in side]
                    for side in message["data"]["levels"]
                )
                yield message["data"]["coin"], bids, asks


def mean_price(side: Side, notional: float) -> float:
    """Return the mean price of a market order of this notional, or of all that there is."""
    spent = bought = 0.0
    for price, size in side:
        taken = min(price * size, notional - spent)
        spent, bought = spent + taken, bought + taken / price
    return spent / bought


def stop_slippage(trades: Trades, distance_bp: float, latency_ns: int) -> FloatArray:
    """Return how far beyond its trigger each stop is filled, basis points.

    A long and a short begin each 20 seconds at the last price; their stops lie `distance_bp` away. What touches one
    within an hour sends a market order, which is filled by the first trade a latency later.
    """
    ts, price = trades.ts_event, trades.price
    found: list[float] = []
    for start in range(int(ts[0]), int(ts[-1]), EVERY_S * SECOND_NS):
        first = int(np.searchsorted(ts, start, side="right")) - 1
        last = int(np.searchsorted(ts, start + WATCHED_S * SECOND_NS))
        for side in (1, -1):
            trigger = price[first] * (1.0 - side * distance_bp * 1e-4)
            touched = np.flatnonzero(side * (price[first:last] - trigger) <= 0.0)
            if len(touched):
                filled = int(np.searchsorted(ts, ts[first + touched[0]] + latency_ns))
                if filled < len(ts):
                    found.append(1e4 * side * (trigger - price[filled]) / trigger)
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frictions", description="Measure spreads and the slippage of stops."
    )
    parser.add_argument("--latency-ms", type=float, default=500.0, help="of the stop's market order")
    arguments = parser.parse_args()
    root = data_root()
    if root is None:
        raise SystemExit("there are no recorded books: set ML4T_DATA")
    spreads: dict[str, list[tuple[float, float]]] = {}
    for coin, bids, asks in books(root / BOOKS):
        middle = (bids[0][0] + asks[0][0]) / 2.0
        swept = mean_price(asks, NOTIONAL) - mean_price(bids, NOTIONAL)
        spreads.setdefault(coin, []).append((1e4 * (asks[0][0] - bids[0][0]) / middle, 1e4 * swept / middle))
    print(f"spread, and what a round trip of {NOTIONAL:,.0f} pays of the book, basis points:")
    for coin, pairs in spreads.items():
        (spread, swept), worst = np.mean(pairs, axis=0), np.quantile(pairs, 0.95, axis=0)
        print(
            f"  {coin}  {len(pairs):,} books: {spread:.2f} (95 %: {worst[0]:.2f}), {swept:.2f} (95 %: {worst[1]:.2f})"
        )
    print(f"stops, filled {arguments.latency_ms:g} ms after they were touched, basis points beyond:")
    for name in TRADES:
        for distance_bp in (10.0, 25.0):
            slipped = stop_slippage(load_trades(name), distance_bp, round(1e6 * arguments.latency_ms))
            print(
                f"  {name}, {distance_bp:g} bp away: mean {slipped.mean():+.2f}, 90 % below "
                f"{np.quantile(slipped, 0.9):+.2f}, of {len(slipped)}"
            )


if __name__ == "__main__":
    main()
