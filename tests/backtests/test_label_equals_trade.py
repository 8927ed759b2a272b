"""What is labelled is what is traded: the strategy's trades, in an engine without frictions, return what labels say."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

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
    universe: str, primary: str, labels: LabelSettings, models: Path, n_bars: int, *, fees: bool = False
) -> Comparison:
    """Return the comparison of a universe's last market, the least liquid one."""
    market = cut(load_markets(universe)[-1], n_bars, fees=fees)
    signals, positions = trade_all(market, primary, labels, models)
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


def test_with_fees_a_trade_returns_less_by_the_fees_that_are_modelled(tmp_path):
    """Those of a taker both ways, and of a maker where the target, a limit order, was filled."""
    market = load_markets("bitfinex_1m")[-1]
    taker, maker = float(market.instrument.taker_fee), float(market.instrument.maker_fee)
    found = compared("bitfinex_1m", "trend", NEAR, tmp_path, 4_000, fees=True)
    check(found, 100)
    exits = np.where(np.array(found.barrier) == PROFIT, maker, taker)
    modelled = taker + exits * np.exp(found.trade)  # as a share of the notional at the entry, long or short
    assert np.mean(found.cost) == pytest.approx(np.mean(modelled), rel=0.02)
