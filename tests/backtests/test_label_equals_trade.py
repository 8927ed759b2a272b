"""What is labelled is what is traded: the strategy's trades, in an engine without frictions, return what labels say."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from backtests.costs import Exits, TradingCosts
from backtests.engine import NO_COSTS
from backtests.market import UNIVERSES, load_markets
from backtests.primaries import PRIMARIES
from ml4t_actor.labeling.triple_barrier import PROFIT, SIGNAL, STOP, VERTICAL
from ml4t_actor.settings import LabelSettings
from tests.support.label_trades import Comparison, compare, cut, trade_all

# Barriers so near, and a horizon so short, that trades end in every way.
NEAR = LabelSettings(horizon_bars=12, profit_barrier=0.6, stop_barrier=0.5, cost=0.0)
UNTIL_BARRIERS = LabelSettings(
    horizon_bars=12, profit_barrier=0.6, stop_barrier=0.5, cost=0.0, exit_on_signal=False
)


def compared(
    universe: str,
    primary: str,
    labels: LabelSettings,
    models: Path,
    n_bars: int,
    *,
    fees: bool = False,
    costs: TradingCosts = NO_COSTS,
) -> Comparison:
    """Return the comparison of a universe's last market, the least liquid one."""
    market = cut(load_markets(universe)[-1], n_bars, fees=fees)
    signals, positions = trade_all(market, primary, labels, models, costs)
    found = compare(market, labels, signals, positions)
    assert sum(found.aside.values()) + len(found.label) == sum(s.signal != 0 for s in signals)
    return found


def check(found: Comparison, least: int) -> None:
    np.testing.assert_allclose(found.trade, found.label, rtol=0.0, atol=1e-9)
    assert len(found.label) >= least
    # Signals without a trade came while one was held. Bars that touch both barriers are left aside, the simulator goes
    # its own way within them; once in hundreds of trades its quote is stale, and it refuses a stop that it should not.
    assert set(found.aside) <= {
        "held",
        "both touched",
        "stop refused",
        "after the last bar",
        "gap",
        "no barriers",
    }
    assert found.aside["both touched"] <= 0.1 * least
    assert found.aside["stop refused"] <= 0.01 * least
    assert found.aside["no barriers"] <= 0.1 * least


@pytest.mark.parametrize("labels", [NEAR, UNTIL_BARRIERS], ids=["by signals", "by barriers only"])
def test_a_trade_returns_what_its_label_says(labels, tmp_path):
    check(compared("bitfinex_1m", "trend", labels, tmp_path, 4_000), 100)


@pytest.mark.slow
@pytest.mark.parametrize("primary", PRIMARIES)
@pytest.mark.parametrize("universe", UNIVERSES)
def test_trades_return_what_labels_say_for_every_primary_and_universe(universe, primary, tmp_path):
    ways: Counter[int] = Counter()
    for labels in (NEAR, UNTIL_BARRIERS, LabelSettings(cost=0.0)):
        found = compared(universe, primary, labels, tmp_path, 8_000)
        check(found, 100)
        ways.update(found.barrier)
    assert min(ways[way] for way in (PROFIT, STOP, VERTICAL, SIGNAL)) >= 5


def test_with_frictions_trades_return_less_by_the_cost_that_is_modelled(tmp_path):
    """A target is a limit order, which pays a maker's fee and no spread."""
    costs = TradingCosts(spread_bp=2.0, stop_slippage_bp=5.0, latency_ms=0.0, funding_rate=0.0, entry="close")
    market = load_markets("bitfinex_1m")[-1]
    taker, maker = float(market.instrument.taker_fee), float(market.instrument.maker_fee)
    found = compared("bitfinex_1m", "trend", NEAR, tmp_path, 4_000, fees=True, costs=costs)
    assert len(found.label) >= 100
    stops, targets = (np.mean(np.array(found.barrier) == way) for way in (STOP, PROFIT))
    assert stops > 0.2
    assert targets > 0.2
    told = costs.round_trip(taker, maker, Exits(float(targets), float(stops)))
    lost = np.array(found.label) - np.array(found.trade) + np.array(found.cost)
    assert np.mean(lost) == pytest.approx(told, rel=0.02)
    # What labels count assumes that nothing is saved at targets, and a share of stops.
    assert costs.round_trip(taker, maker) == pytest.approx(
        told + targets * (taker - maker + 1e-4 * costs.spread_bp / 2.0) + (0.25 - stops) * 5e-4
    )
    # And each by what its own end costs, to the tick of the prices.
    half, slip = 1e-4 * costs.spread_bp / 2.0, 1e-4 * costs.stop_slippage_bp
    own = {STOP: taker + half + slip, PROFIT: maker, VERTICAL: taker + half, SIGNAL: taker + half}
    expected = taker + half + np.array([own[way] for way in found.barrier])
    np.testing.assert_allclose(lost, expected, rtol=0.0, atol=1e-4)
