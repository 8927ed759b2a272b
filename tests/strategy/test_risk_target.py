"""The strategy's risk, and what it says that kept signals from opening, inside a real `BacktestEngine`."""

import math
from decimal import Decimal

import pytest

from backtests.market import Market, load_markets
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.signal_policy import FullSizeSignal
from ml4t_actor.strategy.sizing import IntegratedSizer
from tests.support.risk_decisions import decide
from tests.support.strategy_runs import EQUITY, market_of, run


@pytest.fixture(scope="module")
def listed() -> Market:
    return load_markets("binance_1m", synthetic=True)[0]


def test_the_strategy_counts_what_kept_each_signal_from_opening(listed):
    told = {"signal": 1, "break_even": 0.6, "expected_return": 20.0}
    signals = {
        1: told | {"expected_return": -1.0},
        2: told | {"expected_return": -9.0, "break_even": 1.0},
        3: told | {"toxicity": 1.0},
        4: told | {"regime_weight": 0.0},
        5: told | {"status": "late"},
        6: told,
        7: told,
        8: {"signal": -1},  # too soon against the entry, but it closes
        9: told | {"signal": 0},
        10: told,  # too soon after it
        12: told | {"meta_confidence": 0.1},
        13: told | {"signal": 0},
    }
    labels = LabelSettings(horizon_bars=5, cost=0.0)
    result = run(market_of(listed, [100.0] * 20), signals, labels=labels, cooldown_bars=3)
    assert result.counts["open"] == 2
    assert result.strategy.causes == {
        "model": 1, "odds": 1, "toxicity": 1, "regime": 1, "status": 1, "position": 1, "cooldown": 2,
    }  # fmt: skip
    assert result.is_clean()
    result.strategy.reset()
    assert not result.strategy.causes


@pytest.mark.parametrize("n", [1, 2])
def test_flat_and_enriched_risk_the_same_at_full_size(listed, n):
    second = load_markets("binance_1m", synthetic=True)[1]
    calm, wild = 0.01, 0.03
    quantities = {}
    for sizing in ("flat", "enriched"):
        markets = [market_of(listed, [100.0] * 12), market_of(second, [100.0] * 12)][:n]
        signals = {1: {"signal": 1, "volatility": calm}, 3: 0, 6: {"signal": 1, "volatility": wild}}
        result = run(markets, signals, sizing=sizing, risk_target=0.4)
        quantities[sizing] = [fill.quantity for fill in result.fills if fill.bar in (1, 6)]
    assert quantities["flat"] == quantities["enriched"]
    # Five minutes of a year; fees are gone from the equity by the second entry.
    year = math.sqrt(365 * 24 * 12)
    first, later = quantities["flat"]
    assert first == pytest.approx(0.4 / n / (calm * year) * EQUITY / 100.0, abs=0.001)
    assert later * wild == pytest.approx(first * calm, rel=2e-3)


def test_a_target_that_asks_for_more_than_the_limits_is_cut_to_them(listed):
    market = market_of(listed, [100.0] * 8)
    result = run(market, {1: {"signal": 1, "volatility": 0.005}}, risk_target=5.0)
    assert result.fills[0].quantity == Decimal(EQUITY) / 100


@pytest.mark.parametrize("span", [0.001, 2.0, 20.0])
def test_a_flat_signal_is_of_full_size_whatever_the_barriers(span):
    flat = FullSizeSignal(-1, "no_model")
    sizer = IntegratedSizer(barrier_span=span, break_even=1.0)
    fields = {name: getattr(flat, name) for name in FullSizeSignal.__slots__}
    assert decide(**fields, sizer=sizer).reason.startswith("size 1: ")
