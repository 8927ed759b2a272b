"""What needs no model is traded at the same risk as the account, by the labels of the same signals."""

import numpy as np
import pytest

from ml4t_actor.market_data import DAY_NS
from ml4t_actor.report.baselines import (
    AT_RANDOM,
    BY_LABELS,
    BY_VOLATILITY,
    TURNOVER,
    accounts,
    label_accounts,
)
from ml4t_actor.report.signal_fates import EXIT, TRADED, SignalFates
from tests.support.backtest_results import DAY, DAYS, START, backtest_result, noise, run, signal_fates

ENDS = START + np.arange(1, DAYS + 1) * DAY


def by_name(lines):
    return {line.name: line for line in lines}


def test_accounts_at_equal_risk_have_the_volatility_of_the_flat_run():
    flat, enriched = noise(1, 3.0), 0.1 * noise(2, 2.0)
    result = backtest_result(
        runs=(run("flat", flat), run("enriched", enriched, fees=10.0)), fates=signal_fates()
    )
    lines = by_name(accounts(result))
    assert lines["flat"].at_equal_risk == lines["flat"].pnl == result.run("flat").pnl_fraction
    # ten times as large, at which its days vary as much as flat's
    assert lines["enriched"].at_equal_risk == pytest.approx(
        result.run("enriched").pnl_fraction * np.std(flat) / np.std(enriched), rel=1e-6
    )
    assert lines["flat"].volatility == pytest.approx(np.std(flat) * np.sqrt(365.0), rel=1e-6)
    assert lines[TURNOVER].pnl == pytest.approx(0.1 * lines["flat"].pnl)
    assert lines[TURNOVER].at_equal_risk == lines["flat"].at_equal_risk


def test_an_account_that_does_not_trade_returns_nothing_at_any_risk():
    idle = run("enriched", np.zeros(DAYS), trades=0)
    lines = by_name(
        accounts(
            backtest_result(runs=(run("flat", noise(1, 3.0)), idle), fates=signal_fates(fates=("model",)))
        )
    )
    for name in ("enriched", TURNOVER, BY_LABELS, AT_RANDOM):
        assert lines[name].at_equal_risk == lines[name].pnl == 0.0
    assert lines[BY_VOLATILITY].trades > 0


def test_without_a_flat_run_there_is_nothing_to_compare_with():
    assert accounts(backtest_result(runs=(run("enriched", noise(1, 3.0)),), fates=signal_fates())) == ()


def trades_by_hand(fates: SignalFates, wanted):
    """Restate: one trade an instrument at a time, of the signals that have a label."""
    free, chosen = {}, []
    for i in range(len(fates)):
        if fates.fate[i] == EXIT or not np.isfinite(fates.net[i]) or not wanted[i]:
            continue
        if fates.ts[i] >= free.get(fates.instrument[i], 0):
            chosen.append(i)
            free[fates.instrument[i]] = fates.end[i]
    return chosen


def test_the_volatility_filter_trades_what_is_above_the_median_of_the_training_signals():
    fates = signal_fates(400, seed=3)
    line = by_name(label_accounts(fates, ENDS, 1e-3))[BY_VOLATILITY]
    chosen = trades_by_hand(fates, fates.volatility > fates.filter_volatility)
    returns = [fates.unit_risk * fates.net[i] / fates.volatility[i] for i in chosen]
    assert line.trades == len(chosen) > 50
    assert line.pnl == pytest.approx(sum(returns))
    days = np.zeros(DAYS)
    for i, value in zip(chosen, returns, strict=True):
        days[(int(fates.end[i]) - START - 1) // DAY_NS] += value
    assert line.at_equal_risk == pytest.approx(sum(returns) * 1e-3 / days.std())


def test_the_random_filter_trades_as_many_as_the_account_and_its_interval_holds_most_choices():
    fates = signal_fates(800, seed=5)
    lines = by_name(label_accounts(fates, ENDS, 1e-3))
    random, own = lines[AT_RANDOM], lines[BY_LABELS]
    assert (
        random.trades
        == own.trades
        == sum(fate == TRADED and np.isfinite(net) for fate, net in zip(fates.fate, fates.net, strict=True))
    )
    every = trades_by_hand(fates, np.ones(len(fates), bool))
    rng, inside, repeats = np.random.default_rng(99), 0, 300
    for _ in range(repeats):
        days = np.zeros(DAYS)
        for i in rng.permutation(every)[: own.trades]:
            days[(int(fates.end[i]) - START - 1) // DAY_NS] += (
                fates.unit_risk * fates.net[i] / fates.volatility[i]
            )
        inside += random.low <= days.sum() * 1e-3 / days.std() <= random.high
    assert inside / repeats == pytest.approx(0.95, abs=0.04)
    expected = np.mean([fates.unit_risk * fates.net[i] / fates.volatility[i] for i in every]) * own.trades
    assert random.pnl == pytest.approx(expected, abs=3e-3)


def test_a_choice_of_the_winners_lies_beyond_every_random_one():
    fates = signal_fates(800, seed=6)
    won = tuple(TRADED if net > 0.0 else "model" for net in fates.net)
    columns = {name: getattr(fates, name) for name in SignalFates.__dataclass_fields__}
    lines = by_name(label_accounts(SignalFates(**{**columns, "fate": won}), ENDS, 1e-3))
    assert lines[BY_LABELS].at_equal_risk > lines[AT_RANDOM].high
