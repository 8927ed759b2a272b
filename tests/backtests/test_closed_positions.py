"""Positions that net and are purged leave the same account as positions that hedge, and no work that grows."""

import numpy as np
import pytest

from backtests.closed_positions import ClosedPositions
from backtests.costs import TradingCosts
from backtests.market import Market, load_markets
from ml4t_actor.settings import LabelSettings
from tests.support.strategy_runs import MINUTE, enriched, market_of, run

BARS, LABELS = 600, LabelSettings(horizon_bars=7, cost=0.0)


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    rng = np.random.default_rng(11)
    return [
        market_of(listed, np.round(1_000.0 * np.exp(np.cumsum(rng.normal(0.0, 0.003, BARS))), 1))
        for listed in load_markets("binance_1m", synthetic=True)[:2]
    ]


def traded(markets: list[Market], oms: str, costs: TradingCosts, *, purged: bool):
    sides = np.random.default_rng(3).integers(-1, 2, (2, BARS))
    numbers = {market.instrument.id: n for n, market in enumerate(markets)}

    def make(bar):
        n = numbers[bar.bar_type.instrument_id]
        i = (bar.ts_event - int(markets[n].bars.ts_event[0])) // MINUTE
        if i % 3:
            return []
        return [enriched(markets[n], bar.ts_event, int(sides[n, i]), signal_id=f"{n}/{i}")]

    closed: list[ClosedPositions] = []
    done = run(
        markets,
        make,
        labels=LABELS,
        costs=costs,
        oms_type=oms,
        fraction=0.2,
        built=lambda engine: closed.append(ClosedPositions(engine.kernel)) if purged else None,
    )
    account = done.engine.cache.accounts()[0]
    balances = [
        [balance.total.as_double() for balance in event.balances] for event in account.events
    ]  # after each fill
    fills = [
        (f.ts_event, str(f.instrument_id), f.last_px.as_double(), f.last_qty.as_double())
        for f in fill_events(done)
    ]
    return done, closed, balances, fills


def fill_events(done):
    events = [
        e for order in done.engine.cache.orders() for e in order.events if type(e).__name__ == "OrderFilled"
    ]
    return sorted(events, key=lambda e: (e.ts_event, str(e.trade_id)))


@pytest.mark.parametrize("costs", [TradingCosts.none(), TradingCosts()], ids=["none", "default"])
def test_the_account_is_that_of_positions_that_hedge(markets, costs):
    hedged, _, balances, fills = traded(markets, "HEDGING", costs, purged=False)
    netted, closed, netted_balances, netted_fills = traded(markets, "NETTING", costs, purged=True)
    assert netted_fills == fills
    assert netted_balances == balances
    assert netted.counts == hedged.counts
    assert len(fills) > 200
    opened = len(hedged.engine.cache.positions())
    assert closed[0].count + len(netted.engine.cache.positions_open()) == opened > 100


def test_no_snapshot_of_a_past_position_is_kept(markets):
    """They are what Nautilus reads again and again: without the purge one for each time it was opened again."""
    purged, _, _, _ = traded(markets, "NETTING", TradingCosts(), purged=True)
    kept, _, _, _ = traded(markets, "NETTING", TradingCosts(), purged=False)
    assert purged.engine.cache.position_snapshots() == []
    assert len(kept.engine.cache.position_snapshots()) > 100
