"""A planted market is what it says: its moments, its truth, and nothing where nothing is planted."""

import numpy as np
import pytest

from backtests.primaries import MeanReverter, TrendFollower, batch_signals
from benchmarks.planted import DRIFT_BARS, MU, Nature, oracle_auc, planted_market, two_states
from ml4t_actor.labeling.odds import random_walk_odds
from ml4t_actor.labeling.triple_barrier import triple_barrier_labels
from ml4t_actor.market_data import MINUTE_NS
from ml4t_actor.settings import LabelSettings, TrainingSettings

SHORT = Nature(n_bars=20_000)
PRIMARIES = {"trend_follower": TrendFollower, "mean_reverter": MeanReverter}


def log_returns(market):
    return np.diff(np.log(market.bars.close), prepend=np.log(100.0))


def drift_by_bar(market):
    """Restate the regime's drift in volatilities: after the last signal, with or against it by the state before."""
    by_time = dict(zip(market.signals.ts_event.tolist(), market.signals.signal.tolist(), strict=True))
    direction = np.zeros(len(market.bars))
    side, age = 0, DRIFT_BARS
    for i, ts in enumerate(market.bars.ts_event.tolist()):
        age += 1
        direction[i] = side if age <= DRIFT_BARS else 0
        if by_time.get(ts, 0):
            side, age = by_time[ts], 0
    return direction * np.concatenate([[0.0], market.truth[:-1]])


@pytest.mark.parametrize("form", ["regime", "flow", "walk"])
def test_its_bars_are_consistent_and_its_signals_those_of_the_primary_on_them(form):
    market = planted_market(form, TrendFollower(), 3, nature=SHORT)
    bars = market.bars
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.open[1:] == bars.close[:-1]).all()
    assert (np.diff(bars.ts_event) == MINUTE_NS).all()
    assert ((bars.buy_volume > 0.0) & (bars.buy_volume < bars.volume)).all()
    again = batch_signals(TrendFollower(), bars)
    assert again.ts_event.tolist() == market.signals.ts_event.tolist()
    assert again.signal.tolist() == market.signals.signal.tolist()


def test_a_seed_gives_the_same_market_again_and_another_seed_another():
    first, again, other = (planted_market("flow", MeanReverter(), s, nature=SHORT) for s in (1, 1, 2))
    assert (first.bars.close == again.bars.close).all()
    assert not np.allclose(first.bars.close, other.bars.close)


def test_without_an_edge_the_price_is_a_martingale_with_fat_tails():
    market = planted_market("walk", TrendFollower(), 0, nature=Nature(day_shape=1.0))
    z = log_returns(market) / market.volatility
    n = len(z)
    assert abs(z.mean()) < 3.0 / np.sqrt(n)
    assert z.std() == pytest.approx(1.0, abs=0.02)
    # of a Student t with five degrees of freedom in standard deviations: 1.2 % of draws lie beyond three
    assert (np.abs(z) > 3.0).mean() == pytest.approx(0.0117, abs=0.0015)
    signs = np.sign(z)
    for lag in (1, 2, 60):
        assert abs((signs[lag:] * signs[:-lag]).mean()) < 3.5 / np.sqrt(n)


def test_highs_and_lows_reach_as_far_as_those_of_a_brownian_motion():
    """Given its variance the range of a bar has a mean square of 4 log 2 variances (Parkinson 1980)."""
    bars = planted_market("walk", TrendFollower(), 5, nature=Nature(volatility_spread=0.0)).bars
    up = np.log(bars.high / bars.open)
    # E[max^2] of a Brownian motion over a time with variance v is v
    assert np.mean(up**2) / np.mean(np.log(bars.close / bars.open) ** 2) == pytest.approx(1.0, abs=0.03)


def test_days_are_u_shaped_where_they_shall_be():
    market = planted_market("walk", TrendFollower(), 0, nature=Nature(day_shape=1.0, volatility_spread=0.0))
    minute = market.bars.ts_event // MINUTE_NS % 1440
    size = np.abs(log_returns(market))
    noon, midnight = size[np.abs(minute - 720) < 120].mean(), size[np.abs(minute - 720) > 600].mean()
    assert midnight / noon == pytest.approx(np.exp(1.0), rel=0.15)


@pytest.mark.parametrize("primary", PRIMARIES)
def test_the_regime_drifts_the_price_after_signals_and_never_else(primary):
    market = planted_market("regime", PRIMARIES[primary](), 1)
    z, planted = log_returns(market) / market.volatility, drift_by_bar(market)
    moved = planted != 0.0
    assert moved.mean() > 0.8
    assert not moved.all()
    mean, error = (z * planted)[moved].mean(), 1.0 / np.sqrt(moved.sum())
    assert mean == pytest.approx(MU["regime", primary], abs=4 * error)
    assert abs(z[~moved].mean()) < 4.0 / np.sqrt((~moved).sum())


def test_the_regime_has_the_length_and_the_volatility_that_it_says():
    states = two_states(np.random.default_rng(4), 2_000_000, 1_500.0)
    assert len(states) / np.count_nonzero(np.diff(states)) == pytest.approx(1_500.0, rel=0.1)  # 3.6 errors
    assert abs(states.mean()) < 0.1
    market = planted_market("regime", TrendFollower(), 2, nature=Nature(volatility_spread=0.0, n_bars=20_000))
    up = market.truth > 0.0
    assert market.volatility[up] / market.volatility[~up][0] == pytest.approx(1.6)


def test_flow_drifts_the_price_and_takers_lean_with_it():
    market = planted_market("flow", MeanReverter(), 1)
    z, factor = log_returns(market)[1:] / market.volatility[1:], market.truth[:-1]
    assert (z * factor).mean() / (factor**2).mean() == pytest.approx(MU["flow", "mean_reverter"], abs=0.012)
    lag = 90
    assert np.corrcoef(market.truth[lag:], market.truth[:-lag])[0, 1] == pytest.approx(0.5, abs=0.08)
    share = market.bars.buy_volume / market.bars.volume
    assert np.corrcoef(np.log(share / (1.0 - share)), market.truth)[0, 1] > 0.4
    calm = planted_market("flow", MeanReverter(), 1, mu=0.0)
    pull = np.log(calm.bars.close[1:] / calm.bars.open[1:]) / calm.volatility[1:]
    assert abs((pull * calm.truth[:-1]).mean()) < 4.0 / np.sqrt(len(pull))


@pytest.mark.slow
@pytest.mark.parametrize(("form", "primary"), MU)
def test_an_oracle_ranks_as_well_as_promised_and_not_at_all_where_nothing_is_planted(form, primary):
    # What is planted was sized for labels that end at barriers and horizon.
    settings = TrainingSettings(labels=LabelSettings(exit_on_signal=False))
    areas = [
        oracle_auc(planted_market(form, PRIMARIES[primary](), 100 + seed), form, settings)[0]
        for seed in range(3)
    ]
    assert 0.59 <= np.mean(areas) <= 0.65
    # Costs alone make volatile signals pay more often.
    free = TrainingSettings(labels=LabelSettings(cost=0.0, exit_on_signal=False))
    nothing = [
        oracle_auc(planted_market(form, PRIMARIES[primary](), 100 + seed, mu=0.0), form, free)[0]
        for seed in range(3)
    ]
    assert abs(np.mean(nothing) - 0.5) < 0.02  # two to three standard errors of 5,500 overlapping signals


@pytest.mark.parametrize("cost", [0.0, 0.0009])
def test_on_a_walk_signals_pay_as_often_as_the_closed_form_says(cost):
    """Independent of primaries: every 60th bar is an event, with the volatility that truly comes."""
    nature = Nature(n_bars=300_000, volatility_spread=0.0)
    bars = planted_market("walk", TrendFollower(), 11, nature=nature).bars
    events = np.arange(0, nature.n_bars - 60, 60)
    side = np.where(np.arange(len(events)) % 2, 1, -1)
    sigma = np.full(nature.n_bars, 0.001 * np.sqrt(60.0))
    outcome = triple_barrier_labels(
        *(bars.high, bars.low, bars.close, events, side, sigma), horizon=60, pt=1.0, sl=1.0, cost=cost
    )
    odds = float(random_walk_odds(sigma[:1], pt=1.0, sl=1.0, cost=cost)[0])
    assert outcome.label.mean() == pytest.approx(odds, abs=3.0 * np.sqrt(0.25 / len(events)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "trend"}, "`form` was 'trend'"),
        ({"form": "walk", "mu": 0.1}, "a walk does not drift"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        planted_market(**{"form": "flow", "primary": TrendFollower(), "seed": 0, "nature": SHORT} | change)
