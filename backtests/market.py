"""Where the market data of backtests, tests and benchmarks comes from.

Recorded exchange data is read from the folder that `data_root` finds; without one, seeded random bars of
about the same size stand in, and their label says SYNTHETIC.
"""

import os
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nautilus_trader.adapters.binance.common.types import BinanceBar
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair
from nautilus_trader.model.objects import FIXED_PRECISION, Currency, Money, Price, Quantity

from backtests.synthetic import synthetic_bars, synthetic_trades
from ml4t_actor.market_data import Bars, FloatArray, Trades

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "UNIVERSES",
    "Market",
    "data_root",
    "load_markets",
    "load_trades",
    "nautilus_bars",
    "nautilus_floats",
    "synthetic_bars",
    "synthetic_trades",
]

_PRICE_COLUMNS = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class _Exchange:
    venue: str
    title: str
    quote: str
    perpetual: bool
    taker_fee: str
    maker_fee: str
    margin_init: str
    min_notional: float | None


@dataclass(frozen=True, slots=True)
class _Listing:
    symbol: str
    base: str
    price_precision: int
    size_precision: int
    # Of the synthetic stand-in:
    n_bars: int
    price: float
    volume: float


@dataclass(frozen=True, slots=True)
class _Universe:
    exchange: _Exchange
    bar_minutes: int
    listings: tuple[_Listing, ...]
    taker_volume: bool = False


# Base-tier fees. Initial margins leave room below the venues' leverage limits; maintenance is half of them.
_HYPERLIQUID = _Exchange("HYPERLIQUID", "Hyperliquid", "USDC", True, "0.00045", "0.00015", "0.05", 10.0)
_BINANCE = _Exchange("BINANCE", "Binance USDT-M", "USDT", True, "0.0005", "0.0002", "0.05", 5.0)
_BITFINEX = _Exchange("BITFINEX", "Bitfinex", "USD", False, "0.002", "0.001", "0.30", None)

# Hyperliquid's price precision is 6 less the size precision. Bitfinex quotes five significant digits; a few
# candles carry more and are rounded.
UNIVERSES: dict[str, _Universe] = {
    "hyperliquid_5m": _Universe(
        _HYPERLIQUID,
        5,
        (
            _Listing("BTC-USD-PERP", "BTC", 1, 5, 38_531, 95_000.0, 59.0),
            _Listing("ETH-USD-PERP", "ETH", 2, 4, 38_531, 2_400.0, 1_270.0),
            _Listing("SOL-USD-PERP", "SOL", 4, 2, 38_529, 150.0, 7_600.0),
            _Listing("HYPE-USD-PERP", "HYPE", 4, 2, 38_455, 25.0, 26_000.0),
        ),
    ),
    "binance_1m": _Universe(
        _BINANCE,
        1,
        (
            _Listing("BTCUSDT-PERP", "BTC", 1, 3, 73_139, 100_000.0, 65.0),
            _Listing("ETHUSDT-PERP", "ETH", 2, 3, 73_140, 2_500.0, 2_550.0),
            _Listing("SOLUSDT-PERP", "SOL", 2, 2, 73_141, 160.0, 9_600.0),
            _Listing("XRPUSDT-PERP", "XRP", 4, 1, 73_138, 2.2, 265_000.0),
        ),
    ),
    "binance_flow_1m": _Universe(
        _BINANCE,
        1,
        (
            _Listing("FILUSDT-PERP", "FIL", 3, 1, 306_720, 4.1, 10_300.0),
            _Listing("NEARUSDT-PERP", "NEAR", 3, 0, 132_480, 1.1, 14_000.0),
        ),
        taker_volume=True,
    ),
    "bitfinex_1m": _Universe(
        _BITFINEX,
        1,
        (
            _Listing("BTCUSD", "BTC", 1, 8, 348_286, 8_100.0, 10.0),
            _Listing("ETHUSD", "ETH", 2, 8, 343_466, 580.0, 58.0),
            _Listing("EOSUSD", "EOS", 4, 8, 290_122, 9.1, 1_930.0),
        ),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """One instrument with its bars.

    Attributes
    ----------
    name : str
        The instrument's ID, such as ``BTCUSDT-PERP.BINANCE``.
    label : str
        What the bars are, for every output: starts with ``real:`` or ``SYNTHETIC:``.
    synthetic : bool
        Whether the bars are made up.
    instrument : CryptoPerpetual or CurrencyPair
        With the venue's base-tier fees.
    bar_type : BarType
        Of the bars, external.
    bars : Bars
        Times are closes. Values are those that `nautilus_bars` objects give as floats, bit for bit.
    """

    name: str
    label: str
    synthetic: bool
    instrument: CryptoPerpetual | CurrencyPair
    bar_type: BarType
    bars: Bars

    @property
    def has_taker_volume(self) -> bool:
        """Whether it is known how much of each bar's volume takers bought."""
        return not bool(np.isnan(self.bars.buy_volume).all())


def data_root() -> Path | None:
    """Return the data folder: `ML4T_DATA`, else ``../shared/data`` beside the checkout, else None.

    Raises
    ------
    FileNotFoundError
        If `ML4T_DATA` names a folder that does not exist.
    """
    if named := os.environ.get("ML4T_DATA"):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"ML4T_DATA is {named!r}, which is no folder: correct it, or unset it for synthetic data"
            )
        return folder
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return beside if beside.is_dir() else None


def load_markets(universe: str, *, synthetic: bool = False) -> list[Market]:
    """Return the markets of a universe, real where a data folder exists, else SYNTHETIC.

    Parameters
    ----------
    universe : {'hyperliquid_5m', 'binance_1m', 'binance_flow_1m', 'bitfinex_1m'}
        Hyperliquid perpetuals in 5-minute bars; Binance USDT-M perpetuals in 1-minute bars, without and with
        taker volumes; Bitfinex spot in 1-minute bars.
    synthetic : bool, default False
        Take the synthetic stand-in even where recorded data exist.

    Raises
    ------
    ValueError
        If there is no such universe.
    FileNotFoundError
        If the data folder lacks a file of the universe.
    """
    if universe not in UNIVERSES:
        raise ValueError(f"no universe is called {universe!r}; there are {', '.join(sorted(UNIVERSES))}")
    described = UNIVERSES[universe]
    root = None if synthetic else data_root()
    return [_load_market(described, listing, root) for listing in described.listings]


def _load_market(universe: _Universe, listing: _Listing, root: Path | None) -> Market:
    exchange = universe.exchange
    name = f"{listing.symbol}.{exchange.venue}"
    if root is None:
        bars = synthetic_bars(
            zlib.crc32(name.encode()),
            listing.n_bars,
            bar_minutes=universe.bar_minutes,
            price=listing.price,
            volume=listing.volume,
            taker_volume=universe.taker_volume,
        )
    else:
        bars = Bars.coerce(_read_parquet(_only_file(root / f"bars_{universe.bar_minutes}m", name)))
    bars = _rounded(bars, listing)
    kind = "real:" if root is not None else "SYNTHETIC: seeded random bars in place of"
    first, last = (_day(int(bars.ts_event[row])) for row in (0, -1))
    return Market(
        name=name,
        label=f"{kind} {exchange.title} {universe.bar_minutes}-minute bars of {listing.symbol}, "
        f"{first} to {last}, {len(bars):,} bars",
        synthetic=root is None,
        instrument=_instrument(exchange, listing),
        bar_type=BarType.from_str(f"{name}-{universe.bar_minutes}-MINUTE-LAST-EXTERNAL"),
        bars=bars,
    )


def _day(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).date().isoformat()


def _only_file(folder: Path, name: str) -> Path:
    """Return the one Parquet file in `folder` that is called `name`, or starts with it and a dot."""
    exact = folder / f"{name}.parquet"
    matches = [exact] if exact.is_file() else sorted(folder.glob(f"{name}.*.parquet"))
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(
            f"{name!r} fits several files in {folder}: name one of {[path.stem for path in matches]}"
        )
    existing = sorted(path.stem for path in folder.glob("*.parquet"))
    raise FileNotFoundError(f"{folder} has no file {name}.*.parquet (it has {existing}); correct ML4T_DATA")


def _read_parquet(path: Path) -> "pyarrow.Table":
    import pyarrow.parquet  # slow to import

    return pyarrow.parquet.read_table(path)


def nautilus_floats(values: FloatArray, precision: int) -> FloatArray:
    """Round to `precision` decimals and return what `float(Price)` or `float(Quantity)` of each would be.

    Nautilus keeps an integer of 10^-16 units and divides it as a double. That is not always the double
    nearest to the decimal number (one close in five of BTCUSDT differs in its last bit), so that columns
    straight from a file would not equal what a live feature reads from a bar.
    """
    steps = np.rint(values * 10.0**precision)
    floats: FloatArray = steps * 10.0 ** (FIXED_PRECISION - precision) / 10.0**FIXED_PRECISION
    return floats


def _rounded(bars: Bars, listing: _Listing) -> Bars:
    # `BinanceBar` carries the taker volume as a Decimal, whose float is the nearest double.
    scale = 10.0**listing.size_precision
    open_, high, low, close = (
        nautilus_floats(getattr(bars, name), listing.price_precision) for name in _PRICE_COLUMNS
    )
    volume = nautilus_floats(bars.volume, listing.size_precision)
    return Bars(bars.ts_event, open_, high, low, close, volume, np.rint(bars.buy_volume * scale) / scale)


def _instrument(exchange: _Exchange, listing: _Listing) -> CryptoPerpetual | CurrencyPair:
    quote = Currency.from_str(exchange.quote)
    size_increment = Quantity(10.0**-listing.size_precision, listing.size_precision)
    common: dict[str, object] = {
        "instrument_id": InstrumentId(Symbol(listing.symbol), Venue(exchange.venue)),
        "raw_symbol": Symbol(listing.symbol),
        "base_currency": Currency.from_str(listing.base),
        "quote_currency": quote,
        "price_precision": listing.price_precision,
        "size_precision": listing.size_precision,
        "price_increment": Price(10.0**-listing.price_precision, listing.price_precision),
        "size_increment": size_increment,
        "lot_size": size_increment,
        "min_quantity": size_increment,
        "min_notional": None if exchange.min_notional is None else Money(exchange.min_notional, quote),
        "margin_init": Decimal(exchange.margin_init),
        "margin_maint": Decimal(exchange.margin_init) / 2,
        "maker_fee": Decimal(exchange.maker_fee),
        "taker_fee": Decimal(exchange.taker_fee),
        "ts_event": 0,
        "ts_init": 0,
    }
    if exchange.perpetual:
        return CryptoPerpetual(settlement_currency=quote, is_inverse=False, **common)
    return CurrencyPair(**common)


def nautilus_bars(market: Market, start: int | None = None, end: int | None = None) -> list[Bar]:
    """Return a market's bars as Nautilus objects, `ts_event` and `ts_init` both the close.

    Where taker volumes are known they are `BinanceBar` objects; of those, the quote volumes and the number of
    trades are not in the files and stand at zero.

    Parameters
    ----------
    market : Market
        The market.
    start, end : int, optional
        UNIX nanoseconds; bars with ``start <= ts_event < end``.
    """
    times = market.bars.ts_event
    first = 0 if start is None else int(np.searchsorted(times, start))
    last = len(times) if end is None else int(np.searchsorted(times, end))
    bars = market.bars[first:last]
    price_precision, size_precision = market.instrument.price_precision, market.instrument.size_precision
    prices = [getattr(bars, name) for name in _PRICE_COLUMNS]
    if not market.has_taker_volume:
        ts = bars.ts_event.astype(np.uint64)  # a copy: Nautilus takes no read-only columns, as Arrow gives
        built: list[Bar] = Bar.from_raw_arrays_to_list(
            market.bar_type, price_precision, size_precision, *prices, bars.volume, ts, ts
        )
        return built
    unknown = Decimal(0)
    rows = zip(
        *(column.tolist() for column in (*prices, bars.volume)),
        np.rint(bars.buy_volume * 10.0**size_precision).astype(np.int64).tolist(),
        bars.ts_event.tolist(),
        strict=True,
    )
    return [
        BinanceBar(
            market.bar_type,
            Price(open_, price_precision),
            Price(high, price_precision),
            Price(low, price_precision),
            Price(close, price_precision),
            Quantity(volume, size_precision),
            unknown,
            0,
            Decimal(bought).scaleb(-size_precision),
            unknown,
            ts,
            ts,
        )
        for open_, high, low, close, volume, bought, ts in rows
    ]


def load_trades(name: str) -> Trades:
    """Return the recorded trades of a file in the data folder's ``trades``.

    Parameters
    ----------
    name : str
        The file's name without its ending, or so much of it, up to a dot, as fits one file only:
        ``APEUSDT-PERP``.

    Raises
    ------
    FileNotFoundError
        If there is no data folder or no such file. Random trades are never returned in place of recorded
        ones; `synthetic_trades` makes some.
    ValueError
        If `name` fits several files.
    """
    root = data_root()
    if root is None:
        raise FileNotFoundError(
            f"there are no recorded trades of {name!r}: set ML4T_DATA, or use synthetic_trades"
        )
    return Trades.coerce(_read_parquet(_only_file(root / "trades", name)))
