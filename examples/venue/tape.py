"""What the stub plays: recorded messages, or seeded synthetic ones where there is no recording."""

import gzip
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from examples.venue.payloads import Book, Level, Trade

SIZE_DECIMALS = {"BTC": 5, "ETH": 4, "SOL": 2}
"""Of each coin's sizes, in the order of the coins' numbers at the venue."""

_RECORDING = "hyperliquid/ws_replay_BTC_ETH_SOL_20250904.jsonl.gz"
_BARS = "bars_1m/{}-USD-PERP.HYPERLIQUID.2025-07-21_2025-07-26.parquet"
_START_PRICES = {"BTC": 110_000.0, "ETH": 4_300.0, "SOL": 203.0}
_SEED = 20_250_904
_SYNTHETIC_MINUTES = 30
_STEP_MS = 500
_NOBODY = "0x" + "0" * 40


@dataclass(frozen=True)
class Event:
    """A message, when it is played, and how old its content is then.

    `offset_ms` counts from the tape's start, `lag_ms` from the times in the message to its receipt.
    """

    offset_ms: float
    channel: str
    coin: str
    data: Book | list[Trade]
    lag_ms: float


class Tape:
    """Messages of the channels `trades` and `l2Book`, in order of receipt, as often as wanted."""

    def __init__(self, *, synthetic: bool = False) -> None:
        root = None if synthetic else _data_folder()
        path = None if root is None else root / _RECORDING
        self.root = root
        self._lines: list[bytes] = []
        if path is not None and path.is_file():
            self.label = f"real: {path.name}"
            self._lines = gzip.decompress(path.read_bytes()).splitlines()
            self._first_ns = _received_ns(self._lines[0])
            self.duration_ms = (_received_ns(self._lines[-1]) - self._first_ns) / 1e6 + 250.0
        else:
            self.label = f"SYNTHETIC: random walk, seed {_SEED}"
            self.duration_ms = _SYNTHETIC_MINUTES * 60_000.0

    def events(self) -> Iterator[Event]:
        """Return the events from the first to the last."""
        return self._recorded() if self._lines else self._synthetic()

    def first_prices(self) -> dict[str, float]:
        """Return each coin's mid price at the start."""
        prices: dict[str, float] = {}
        for event in self.events():
            if not isinstance(event.data, list) and event.coin not in prices:
                bids, asks = event.data["levels"]
                prices[event.coin] = (float(bids[0]["px"]) + float(asks[0]["px"])) / 2
            if len(prices) == len(SIZE_DECIMALS):
                break
        return prices

    def minute_bars(self, coin: str) -> list[tuple[float, float, float, float, float]]:
        """Return open, high, low, close and volume of past minutes, recorded where there are such."""
        path = None if self.root is None else self.root / _BARS.format(coin)
        if path is None or not path.is_file() or not self._lines:
            return _synthetic_bars(coin)
        import pyarrow.parquet as pq  # slow to import, and seldom asked for

        columns = pq.read_table(path, columns=["open", "high", "low", "close", "volume"]).to_pydict()
        return list(zip(*columns.values(), strict=True))

    def _recorded(self) -> Iterator[Event]:
        for line in self._lines:
            record = msgspec.json.decode(line)
            message, received = record["message"], record["recv_ns"]
            data = message["data"]
            newest = data[-1] if isinstance(data, list) else data
            offset = (received - self._first_ns) / 1e6
            yield Event(offset, message["channel"], newest["coin"], data, received / 1e6 - newest["time"])

    def _synthetic(self) -> Iterator[Event]:
        rng = random.Random(_SEED)
        prices = dict(_START_PRICES)
        tid = 10**14
        for step in range(int(self.duration_ms) // _STEP_MS):
            offset = float(step * _STEP_MS)
            for coin, start in _START_PRICES.items():
                pull = 0.001 * math.log(start / prices[coin])  # so that the end meets the start again
                prices[coin] *= math.exp(pull + rng.gauss(0.0, 5e-5))
                tick = price_tick(coin, prices[coin])
                bid = math.floor(prices[coin] / tick) * tick
                sides = [
                    [_level(coin, bid - i * tick, rng) for i in range(20)],
                    [_level(coin, bid + tick + i * tick, rng) for i in range(20)],
                ]
                book: Book = {"coin": coin, "time": 0, "levels": sides}
                yield Event(offset, "l2Book", coin, book, 100.0)
                trades: list[Trade] = []
                for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
                    side, tid = rng.choice("AB"), tid + 1
                    px = bid if side == "A" else bid + tick
                    trades.append(
                        {
                            "coin": coin,
                            "side": side,
                            "px": price_text(coin, px),
                            "sz": size_text(coin, max(rng.expovariate(px / 5_000.0), 11.0 / px)),
                            "time": 0,
                            "hash": "0x" + "0" * 64,
                            "tid": tid,
                            "users": [_NOBODY, _NOBODY],
                        }
                    )
                if trades:
                    yield Event(offset, "trades", coin, trades, 100.0)


def price_tick(coin: str, price: float) -> float:
    """Return the venue's tick there: five significant figures, at most 6 decimals less those of the size."""
    decimals = min(6 - SIZE_DECIMALS[coin], max(0, 4 - math.floor(math.log10(price))))
    return 10.0**-decimals


def price_text(coin: str, price: float) -> str:
    """Return the price as the venue writes it: on its tick, with at least one decimal and no other final zero."""
    decimals = min(6 - SIZE_DECIMALS[coin], max(0, 4 - math.floor(math.log10(price))))
    return _plain(f"{price:.{decimals}f}")


def size_text(coin: str, size: float) -> str:
    """Return the size as the venue writes it."""
    return _plain(f"{size:.{SIZE_DECIMALS[coin]}f}")


def _plain(text: str) -> str:
    if "." not in text:
        return f"{text}.0"
    text = text.rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _level(coin: str, price: float, rng: random.Random) -> Level:
    return {
        "px": price_text(coin, price),
        "sz": size_text(coin, rng.expovariate(price / 50_000.0)),
        "n": rng.randint(1, 5),
    }


def _synthetic_bars(coin: str) -> list[tuple[float, float, float, float, float]]:
    rng = random.Random(f"{_SEED}{coin}")
    price, bars = _START_PRICES[coin], []
    for _ in range(6_000):
        opened, close = price, price * math.exp(rng.gauss(0.0, 4e-4))
        high = max(opened, close) * math.exp(abs(rng.gauss(0.0, 2e-4)))
        low = min(opened, close) * math.exp(-abs(rng.gauss(0.0, 2e-4)))
        bars.append((opened, high, low, close, rng.expovariate(price / 1e6)))
        price = close
    return bars


def _received_ns(line: bytes) -> int:
    return int(line[line.index(b":") + 1 : line.index(b",")])


def _data_folder() -> Path | None:
    """Return the folder of market data, by the rule of `backtests.market.data_root`, whose import is slow."""
    if named := os.environ.get("ML4T_DATA"):
        return Path(named).expanduser()
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return beside if beside.is_dir() else None
