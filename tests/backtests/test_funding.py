"""Funding in a backtest, against what is held at each full hour."""

import pytest

from backtests.funding import HOUR_NS, Funding, FundingConfig
from backtests.market import load_markets
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.risk import RiskLimits
from tests.support.strategy_runs import BUY, SELL, market_of, run

CLOSES = [100.0 + 0.1 * (i // 50) for i in range(200)]  # of minutes, from the first after midnight
LONG_HELD = LabelSettings(horizon_bars=1_000, cost=0.0)


@pytest.fixture(scope="module")
def market():
    return market_of(load_markets("binance_1m", synthetic=True)[0], CLOSES)


def balance(done) -> float:
    account = done.engine.cache.accounts()[0]
    return sum(each.total.as_double() for each in account.balances().values())


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("rate", [0.0001, -0.0001])
def test_each_full_hour_what_is_held_pays_by_its_side(side, rate, market):
    """Entered within the first hour, and left within the third: two are full in between."""
    funding = Funding(FundingConfig(rate=rate))
    signals = {10: side, 150: 0}
    done = run(market, signals, labels=LONG_HELD, modules=[funding])
    without = run(market, signals, labels=LONG_HELD)
    quantity = done.fills[0].quantity
    held_at = [i for i in range(10, 150) if (int(market.bars.ts_event[i]) % HOUR_NS) == 0]
    assert len(held_at) == 2
    expected = sum(-side * rate * quantity * CLOSES[i] for i in held_at)
    assert funding.paid == pytest.approx(expected, rel=1e-6)
    assert balance(done) - balance(without) == pytest.approx(expected, rel=1e-6)


def test_a_flat_account_pays_nothing(market):
    funding = Funding(FundingConfig(rate=0.0001))
    run(market, {}, modules=[funding])
    assert funding.paid == 0.0


def test_a_gap_in_the_data_costs_each_of_its_hours(market):
    bars = market.bars
    gapped = market_of(market, [100.0] * 60, start=int(bars.ts_event[0]))
    later = bars.ts_event[0] + 5 * HOUR_NS
    ts = gapped.bars.ts_event.copy()
    ts[30:] += later - ts[30]
    object.__setattr__(gapped.bars, "ts_event", ts)
    funding = Funding(FundingConfig(rate=0.0001))
    done = run(gapped, {10: BUY}, labels=LONG_HELD, modules=[funding])
    assert funding.paid == pytest.approx(-5 * 0.0001 * done.fills[0].quantity * 100.0, rel=1e-6)


def test_what_is_paid_counts_against_the_daily_loss(market):
    """2 % of the notional in an hour, and the whole equity held: at a limit of 3 % nothing is entered after two."""
    funding = Funding(FundingConfig(rate=0.02))
    signals = {10: BUY, 130: 0, 140: BUY}
    limits = {"max_daily_loss": 0.03}
    done = run(market, signals, labels=LONG_HELD, modules=[funding], limits=RiskLimits(**limits))
    assert done.counts.get("refuse", 0) == 1
    assert len(done.fills) == 2
