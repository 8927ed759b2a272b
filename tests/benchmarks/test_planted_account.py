"""The account of planted markets counts trades one at a time, markets at equal volatility, and idle ones too."""

import numpy as np
import pytest

from backtests.primaries import PRIMARIES
from benchmarks import planted_account
from benchmarks.planted import MU, Nature, planted_market
from benchmarks.planted_account import AccountTask, LaterSignals, Traded, account, share, shipped_size, traded
from benchmarks.planted_forecasts import Nothing, best_forecast, labelled, sample_of
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.settings import TrainingSettings, ValidationSettings

QUICK = TrainingSettings(validation=ValidationSettings(bootstrap_samples=20))


def rows_of(start, end, ret, volatility=0.01) -> LabelledRows:
    n = len(start)
    column = np.zeros(n)
    return LabelledRows(
        X=np.zeros((n, 1)), y=column, side=np.ones(n), ret=ret, weight=np.ones(n), odds=column + 0.5,
        volatility=column + volatility, exit_time=column + 1.0, label_start=start, label_end=end,
        regime=np.empty((n, 0)),
    )  # fmt: skip


def test_trades_are_taken_one_at_a_time_and_pay_their_costs():
    rows = rows_of([0, 1, 5, 9], [5, 3, 12, 10], [0.01, 0.5, -0.02, 0.7])
    found = traded(rows, np.array([2.0, 1.0, 1.0, 1.0]), 0.001, np.array([0.5, 9.0, -0.1, 9.0]))
    assert found.trades == 2  # the second and the last come while another is open
    assert found.pnl == pytest.approx(2.0 * 0.009 - 0.021)
    assert found.volatility == pytest.approx(np.hypot(0.018, 0.021))
    assert found.scaled == pytest.approx(found.pnl / found.volatility)
    # in volatilities of 1 %
    assert found.expected == pytest.approx(2.0 * 0.01 * 0.5 - 0.01 * 0.1)
    refused = traded(rows, np.array([0.0, 1.0, 1.0, 1.0]), 0.001, np.zeros(4))
    assert refused.pnl == pytest.approx(0.499 - 0.021)


def test_a_market_in_which_nothing_is_traded_counts_as_nothing():
    idle = traded(rows_of([0], [1], [0.3]), np.zeros(1), 0.001, np.zeros(1))
    assert (idle.pnl, idle.trades, idle.scaled) == (0.0, 0, 0.0)
    results = [
        {"model": idle, "oracle": Traded(4.0, 2.0, 3, 2.0)},
        {"model": Traded(10.0, 10.0, 5, 5.0), "oracle": Traded(1.0, 1.0, 1, 1.0)},
    ]
    assert share(results, "model", "oracle") == pytest.approx(1.0 / 3.0)
    assert share(results, "model", "oracle", expected=True) == pytest.approx(0.5 / 2.0)


def test_sizes_are_those_of_the_shipped_rule():
    n = 4
    found = LaterSignals(
        rows=rows_of(range(n), range(1, n + 1), np.zeros(n), volatility=0.02),
        strength=np.array([1.0, 0.25, 1.0, 1.0]), regime_weight=np.full(n, 0.5), toxicity=np.full(n, 0.5),
        confidence=np.full(n, 0.5), net=np.zeros(n),
    )  # fmt: skip
    size = shipped_size(found, np.array([1.0, 1.0, 0.0, -np.inf]))
    # in full and at half the strength's root, over the volatility; nothing where nothing is expected
    assert size == pytest.approx([50.0, 25.0, 0.0, 0.0])


def test_kinds_take_turns_and_mixed_edges_have_markets_without_one():
    strong, mixed = planted_account.kinds_of("strong", 16), planted_account.kinds_of("mixed", 16)
    assert {(form, primary) for form, primary, _ in strong[:4]} == set(planted_account.KINDS)
    assert {mu for form, primary, mu in strong if (form, primary) == ("flow", "trend")} == {
        2.0 * MU["flow", "trend_follower"]
    }
    assert sum(mu == 0.0 for *_, mu in mixed) == 4


def test_the_best_forecast_is_the_one_that_forecasts_other_markets_better():
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(4_000, 3)) for _ in range(8)]
    linear = [0.3 * x[:, 0] - 0.2 * x[:, 2] + 0.1 * rng.normal(size=len(x)) for x in inputs]
    bent = [np.abs(x[:, 1]) + 0.1 * rng.normal(size=len(x)) for x in inputs]
    new = rng.normal(size=(2_000, 3))
    assert best_forecast(inputs, linear).predict(new) == pytest.approx(
        0.3 * new[:, 0] - 0.2 * new[:, 2], abs=0.15
    )
    assert np.mean((best_forecast(inputs, bent).predict(new) - np.abs(new[:, 1])) ** 2) < 0.05
    assert Nothing().predict(new).tolist() == [0.0] * 2_000


def test_the_oracle_sees_the_truth_in_the_signals_direction_and_more_of_it_than_the_features_tell():
    primary = PRIMARIES["trend"]()
    market = planted_market("flow", primary, 0, nature=Nature(n_bars=40_000))
    rows = labelled(market, QUICK)
    seen = sample_of(market, "flow", rows, QUICK)
    at = np.searchsorted(market.bars.ts_event, rows.label_start)
    column = seen.features.shape[1]
    assert seen.truth[:, column] == pytest.approx(market.truth[at] * rows.side)
    assert seen.gross == pytest.approx(rows.ret / rows.volatility)
    correlations = [abs(np.corrcoef(seen.features[:, j], seen.gross)[0, 1]) for j in range(column)]
    assert np.corrcoef(seen.truth[:, column], seen.gross)[0, 1] > np.nanmax(correlations)


@pytest.mark.slow
def test_a_strong_edge_is_kept_and_none_costs_nothing():
    nature = Nature(n_bars=40_000)
    task = AccountTask(
        form="flow", primary="trend", seed=3, mu=0.12, nature=nature, settings=QUICK,
        forecasts={"attainable": Nothing(), "oracle": Nothing()},
    )  # fmt: skip
    found = account(task)
    assert found["attainable"].trades == found["oracle"].trades == 0
    assert found["model"].pnl > 0.0 > found["flat"].pnl - found["model"].pnl
    walk = account(
        AccountTask(form="walk", primary="trend", seed=3, mu=0.0, nature=nature, settings=QUICK, forecasts={})
    )
    assert -walk["model"].pnl <= 0.2 * -walk["flat"].pnl
