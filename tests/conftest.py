"""Data and settings that several test files share: real data where there are some, else synthetic."""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from backtests.market import Market
    from ml4t_actor.market_data import Bars

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def market_bars_1m() -> "Bars":
    """Return the first 30,000 one-minute bars of BTCUSDT."""
    from backtests.market import load_markets

    return load_markets("binance_1m")[0].bars[:30_000]


@pytest.fixture(scope="session")
def hyperliquid_market() -> "list[Market]":
    """Return the Hyperliquid markets: BTC, ETH, SOL and HYPE in five-minute bars."""
    from backtests.market import load_markets

    return load_markets("hyperliquid_5m")


@pytest.fixture(scope="session")
def synthetic_bars() -> "Bars":
    """Return 20,000 synthetic one-minute bars with taker volumes, rounded to ticks."""
    from backtests.market import load_markets

    return load_markets("binance_flow_1m", synthetic=True)[1].bars[:20_000]
