"""How long a backtest's labels last and what they cost, by the bars before the split and nothing after it."""

import argparse
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtests.costs import ASSUMED_EXITS, Exits, TradingCosts, add_cost_options, costs_of
from backtests.market import Market, load_markets
from backtests.training import COST_SHARE, MAX_DOUBLINGS, choose_labels
from ml4t_actor.settings import LabelSettings

FREE = TradingCosts.none()
BARS = 3_000


@pytest.fixture(scope="module")
def market() -> Market:
    listed = load_markets("binance_1m", synthetic=True)[0]
    return dataclasses.replace(listed, bars=listed.bars[:BARS])


def with_volatility(market: Market, per_bar: float, seed: int = 1) -> Market:
    """A driftless walk of that volatility."""
    log_close = np.cumsum(np.random.default_rng(seed).normal(0.0, per_bar, BARS))
    close = 1e5 * np.exp(log_close)
    opened = np.concatenate([close[:1], close[:-1]])
    bars = dataclasses.replace(
        market.bars, open=opened, close=close, high=np.maximum(opened, close), low=np.minimum(opened, close)
    )
    return dataclasses.replace(market, bars=bars)


def charging(bp: float) -> TradingCosts:
    """Costs that add up to so many basis points with the market's two fees of 5 bp."""
    return charged(spread_bp=bp - 10.0)


def charged(**changes: float) -> TradingCosts:
    return TradingCosts(
        **({"spread_bp": 0.0, "latency_ms": 0.0, "stop_slippage_bp": 0.0, "entry": "close"} | changes)
    )


class TestHorizon:
    @pytest.mark.parametrize("per_bar", [4e-3, 1e-3, 5e-4, 2.5e-4, 1e-4])
    def test_it_is_doubled_until_a_trade_can_pay(self, market, per_bar):
        walk = with_volatility(market, per_bar)
        split = int(walk.bars.ts_event[-1])
        labels = choose_labels(split, [walk], "mean_reversion", charging(12.0))
        assert labels.cost == pytest.approx(12e-4)
        # The volatility of a walk of so many bars is known: by that the shortest of the horizons that will do.
        doublings = (labels.horizon_bars // LabelSettings().horizon_bars).bit_length() - 1
        assert labels.horizon_bars == LabelSettings().horizon_bars * 2**doublings
        share = labels.cost / (per_bar * np.sqrt(labels.horizon_bars))
        assert share <= COST_SHARE * 1.1 or doublings == MAX_DOUBLINGS
        assert share * np.sqrt(2.0) > COST_SHARE * 0.9 or doublings == 0

    def test_the_calmest_market_and_the_dearest_decide(self, market):
        calm, wild = with_volatility(market, 3e-4), with_volatility(market, 4e-3, seed=2)
        split = int(market.bars.ts_event[-1])
        both = choose_labels(split, [wild, calm], "mean_reversion", charging(12.0))
        assert both == choose_labels(split, [calm], "mean_reversion", charging(12.0))
        assert both.horizon_bars > choose_labels(split, [wild], "mean_reversion", charging(12.0)).horizon_bars

    def test_nothing_after_the_split_is_looked_at(self, market):
        walk = with_volatility(market, 3e-4)
        cut = BARS // 2
        split = int(walk.bars.ts_event[cut])
        later = {name: getattr(walk.bars, name).copy() for name in ("open", "high", "low", "close")}
        for column in later.values():
            column[cut:] *= np.linspace(1.0, 3.0, BARS - cut)
        other = dataclasses.replace(walk, bars=dataclasses.replace(walk.bars, **later))
        chosen = [choose_labels(split, [m], "mean_reversion", TradingCosts()) for m in (walk, other)]
        assert chosen[0] == chosen[1]


@given(
    spread=st.floats(0.0, 50.0),
    slippage=st.floats(0.0, 50.0),
    fees=st.tuples(st.floats(0.0, 0.01), st.floats(0.0, 0.01)),
    ends=st.lists(st.sampled_from(["target", "stop", "other"]), min_size=1, max_size=50),
)
def test_the_cost_of_a_round_trip_is_the_mean_of_what_trades_pay(spread, slippage, fees, ends):
    taker, maker = fees
    half, slip = spread / 2e4, slippage / 1e4
    leaving = {"target": maker, "stop": taker + half + slip, "other": taker + half}
    mean = np.mean([taker + half + leaving[end] for end in ends])
    exits = Exits(ends.count("target") / len(ends), ends.count("stop") / len(ends))
    costs = charged(spread_bp=spread, stop_slippage_bp=slippage)
    assert costs.round_trip(taker, maker, exits) == pytest.approx(mean, rel=1e-9, abs=1e-15)


def test_labels_assume_that_nothing_is_saved():
    """Two taker's fees, the spread once, and the slippage of a quarter of trades."""
    costs = charged(spread_bp=1.0, stop_slippage_bp=5.0)
    assert costs.round_trip(0.00045, 0.00015) == pytest.approx(0.0009 + 0.0001 + 0.25 * 0.0005)
    assert ASSUMED_EXITS.target == 0.0


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], TradingCosts()),
            (["--frictionless"], FREE),
            (["--spread-bp", "3", "--latency-ms", "100"], TradingCosts(spread_bp=3.0, latency_ms=100.0)),
            (["--entry", "close"], TradingCosts(entry="close", latency_ms=0.0)),
            (["--frictionless", "--funding-rate", "0.0001"], charged(funding_rate=0.0001)),
        ],
    )
    def test_they_start_from_the_defaults_or_from_nothing(self, arguments, expected):
        parser = argparse.ArgumentParser()
        add_cost_options(parser)
        assert costs_of(parser.parse_args(arguments)) == expected

    def test_what_does_not_fit_is_refused(self):
        parser = argparse.ArgumentParser()
        add_cost_options(parser)
        with pytest.raises(ValueError, match=r"latency_ms` was 5\.0 with an entry at the close"):
            costs_of(parser.parse_args(["--entry", "close", "--latency-ms", "5"]))
