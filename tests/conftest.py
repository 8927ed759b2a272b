"""Data and settings that several test files share: real data where there are some, else synthetic."""

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from backtests.market import Market
    from ml4t_actor.market_data import Bars

# What takes longest goes first, lest one worker is busy with it when the others have nothing left to do.
LONGEST = (
    "tests/test_readme.py",
    "tests/integration/test_end_to_end.py::TestFrozenFeed",  # which waits for most of its time
    "tests/strategy/test_strategy_live.py",
    "tests/backtests/test_backtests.py::TestCommand",
    "tests/integration",
    "tests/backtests",
    "tests/node",
    "tests/examples",
    "tests/streams",
    "tests/lifecycle",
    "tests/actor",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is `long` unless it is asked for, and begin with what takes longest.

    What is `slow`, real processes on a busy machine mostly, is tried again once if it fails, and then named at the end
    (`RERUN`): one that needs it more than once is to be mended.
    """
    if "long" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]

    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=1))

    def rank(item: pytest.Item) -> int:
        places = (i for i, place in enumerate(LONGEST) if item.nodeid.startswith(place))
        return next(places, len(LONGEST))

    items.sort(key=rank)


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
