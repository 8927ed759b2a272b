"""The backtest engine, and what it is set up with."""

from nautilus_trader.adapters.binance.common.types import BinanceBar
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model import instruments
from nautilus_trader.model.currencies import BTC, USD

__all__ = [
    "BTC",
    "USD",
    "BacktestEngine",
    "BacktestEngineConfig",
    "BinanceBar",
    "LoggingConfig",
    "instruments",
]
