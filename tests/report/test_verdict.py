"""Did it help? The answer follows from the difference at equal turnover, and is wrong as rarely as is said."""

import math

import numpy as np
import pytest

from ml4t_actor.report import Answer, BacktestResult, TradedRun, assess
from ml4t_actor.validation import Verdict
from tests.support.backtest_results import (
    DAY,
    DAYS,
    START,
    backtest_result,
    noise,
    run,
    scores,
    signal_fates,
    traded,
)

RUNS = 400
COST = 0.0009


def test_helped_is_better_than_flat_at_equal_turnover_whatever_else():
    for runs in (traded(1.0, 12.0), traded(12.0, 11.0, fees=40.0), traded(-30.0, -12.0)):
        verdict = assess(backtest_result(runs=runs))
        assert verdict.answer is Answer.HELPED
        assert verdict.sentence.startswith("Helped: against flat at equal turnover it made +")
        assert "would tell" not in verdict.sentence
    lossy = assess(backtest_result(runs=traded(-30.0, -12.0)))
    assert "The enriched run lost" in " ".join(lossy.sentences)
    assert "in all it returned -" in lossy.sentence
    model = backtest_result(
        runs=traded(1.0, 12.0), test=scores(Verdict.BETTER), validation=scores(Verdict.BETTER)
    )
    assert assess(model).answer is Answer.HELPED


def test_losing_less_by_trading_less_is_not_called_help():
    # A fifth of a losing strategy, with noise of its own.
    losing = noise(1, -20.0)
    fifth = 0.2 * losing + 0.1 * noise(3, 0.0)
    less = backtest_result(runs=(run("flat", losing), run("enriched", fifth, fees=20.0)))
    assert less.sizing.per_day.direction == 1
    assert less.sizing.at_equal_turnover.direction == 0
    verdict = assess(less)
    assert verdict.answer is Answer.CANNOT_TELL
    assert any(
        "made more than flat sizing, beyond chance" in s and "at 20.0% of its" in s for s in verdict.sentences
    )


def test_worse_choices_than_flats_hurt():
    verdict = assess(backtest_result(runs=traded(12.0, -6.0)))
    assert verdict.answer is Answer.HURT
    assert verdict.sentence.startswith("Hurt: against flat at equal turnover it made -")
    assert "made less than flat sizing, beyond chance" in " ".join(verdict.sentences)


@pytest.mark.parametrize("gain_bp", [-1.5, 1.5])
def test_what_cannot_be_told_says_what_sample_would(gain_bp: float):
    near = backtest_result(runs=traded(0.0, gain_bp, trades=240))
    found = near.sizing.at_equal_turnover
    assert found.low < 0.0 < found.high
    verdict = assess(near)
    assert verdict.answer is Answer.CANNOT_TELL
    days = int(verdict.sentence.split("were that the truth, ")[1].split(" such days")[0].replace(",", ""))
    assert found.needed <= days <= 1.2 * found.needed
    trades = int(verdict.sentence.split("such days (")[1].split(" trades")[0].replace(",", ""))
    assert trades == pytest.approx(2.0 * found.needed, rel=0.15)  # two a day


def test_a_run_without_trades_is_said_to_tell_nothing_and_why():
    flat, idle = run("flat", noise(1, -20.0)), run("enriched", np.zeros(DAYS), trades=0)
    fates = signal_fates(fates=("model", "odds", "exit"))
    verdict = assess(backtest_result(runs=(flat, idle), fates=fates))
    assert verdict.answer is Answer.CANNOT_TELL
    n = {name: sum(fate == name for fate in fates.fate) for name in ("model", "odds")}
    assert f"of 1,000 signals none was traded (odds {n['odds']}, model {n['model']})" in verdict.sentence
    assert "as long as none is, no sample tells" in verdict.sentence
    assert f"saved the loss of flat, {flat.pnl_fraction:+.2%}" in verdict.sentence
    winning = assess(backtest_result(runs=(run("flat", noise(1, 20.0)), idle)))
    assert "gave up the gain of flat" in winning.sentence
    assert "none was traded, and" in winning.sentence


def test_a_few_trades_are_judged_by_the_few_days_that_they_made():
    quiet = np.zeros(DAYS)
    quiet[[10, 20, 30]] = 5e-3
    verdict = assess(
        backtest_result(runs=(run("flat", noise(1, -5.0)), run("enriched", quiet, trades=3, fees=2.0)))
    )
    assert verdict.answer is Answer.CANNOT_TELL


def test_trades_stand_in_where_there_are_no_fees():
    flat = run("flat", noise(1, -20.0), fees=0.0)
    half = backtest_result(runs=(flat, run("enriched", 0.5 * noise(1, -20.0), trades=50, fees=0.0)))
    assert half.sizing.turnover == 0.5
    assert abs(half.sizing.at_equal_turnover.mean) < 1e-12


def test_too_few_days_give_no_answer():
    short = backtest_result(runs=(run("flat", noise(1, -30.0, 9)), run("enriched", noise(2, 30.0, 9))))
    verdict = assess(short)
    assert verdict.answer is Answer.CANNOT_TELL
    assert "9 days are too few, 10 the least" in verdict.sentence
    assert "beyond chance" not in verdict.sentence


def test_identical_runs_cannot_be_told_apart():
    daily = noise(1, 5.0)
    same = backtest_result(runs=(run("flat", daily), run("enriched", daily)))
    assert assess(same).answer is Answer.CANNOT_TELL
    assert "too few days saw a difference" in assess(same).sentence


@pytest.mark.parametrize("names", [(), ("flat",), ("enriched",)])
def test_a_missing_run_is_no_comparison(names: tuple[str, ...]):
    alone = backtest_result(runs=tuple(run(name, noise(1, 30.0)) for name in names))
    assert assess(alone).sentence == "Cannot tell: flat and enriched size were not both traded."


def test_a_flat_run_without_trades_is_no_comparison():
    idle = backtest_result(
        runs=(run("flat", np.zeros(DAYS), trades=0), run("enriched", np.zeros(DAYS), trades=0))
    )
    assert assess(idle).answer is Answer.CANNOT_TELL
    assert "the flat run did not trade" in assess(idle).sentence
    assert "The flat run did not trade." in assess(idle).sentences


# Markets whose truth is known.


def simulated(rng: np.random.Generator, days: int, edge: float, choose) -> BacktestResult:
    """Flat and enriched accounts of the same trades: sized by volatility, with a planted edge in volatilities."""
    day = np.repeat(np.arange(days), rng.poisson(20, days))
    n = len(day)
    volatility = 0.007 * np.exp(0.5 * rng.normal(size=n))
    drift = edge * rng.choice([-1.0, 1.0], n)
    size = 0.002 / volatility
    net = volatility * (drift + np.clip(rng.standard_t(4, n) / math.sqrt(2.0), -1.5, 1.5)) - COST
    share = choose(rng, volatility, drift)
    runs = []
    for name, sizes in (("flat", size), ("enriched", size * share)):
        daily = np.bincount(day, sizes * net, minlength=days)
        ts = START + np.arange(days + 1) * DAY
        runs.append(
            TradedRun(
                name=name, ts=ts, equity=1.0 + np.concatenate(([0.0], np.cumsum(daily))), trades=int((sizes > 0).sum()),
                fees=float(sizes.sum()) * COST, starting_equity=1.0,
            )
        )  # fmt: skip
    return backtest_result(runs=tuple(runs))


CHOICES = {
    "at random": lambda rng, v, drift: (rng.random(len(v)) < 0.15).astype(float),
    "by volatility": lambda rng, v, drift: (v > 0.01).astype(float),
    "a few": lambda rng, v, drift: (rng.random(len(v)) < 0.01).astype(float),
    "sized by noise": lambda rng, v, drift: np.clip(rng.normal(-0.5, 0.5, len(v)) / 0.1, 0.0, 1.0),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_without_an_edge_help_and_harm_are_each_said_of_at_most_a_twentieth(choice: str):
    rng = np.random.default_rng(11)
    found = [simulated(rng, 45, 0.0, CHOICES[choice]).sizing.at_equal_turnover.direction for _ in range(RUNS)]
    limit = 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / RUNS)
    assert found.count(1) / RUNS <= limit
    assert found.count(-1) / RUNS <= limit


def test_an_edge_that_is_chosen_is_said_to_help_and_one_that_is_avoided_to_hurt():
    rng = np.random.default_rng(12)
    chosen, avoided = (
        [
            simulated(rng, 45, 0.3, lambda _rng, _v, drift, sign=sign: (sign * drift > 0.0).astype(float))
            for _ in range(40)
        ]
        for sign in (1.0, -1.0)
    )
    assert sum(each.sizing.at_equal_turnover.direction == 1 for each in chosen) >= 38
    assert sum(each.sizing.at_equal_turnover.direction == -1 for each in avoided) >= 38
    assert assess(chosen[0]).answer is Answer.HELPED
    assert assess(avoided[0]).answer is Answer.HURT


# Who made money.


@pytest.mark.parametrize(
    ("mean_bp", "said"),
    [
        (12.0, "made 15.4"),
        (0.5, "which cannot be told from luck"),
        (-0.5, "lost"),
        (-12.0, "beyond bad luck"),
    ],
)
def test_money_is_judged_by_the_interval_of_its_sharpe(mean_bp: float, said: str):
    of_flat = next(
        s for s in assess(backtest_result(runs=traded(mean_bp, 0.0))).sentences if s.startswith("The flat")
    )
    assert said in of_flat
    assert ("made" in of_flat) == (mean_bp > 0)
    assert (", beyond chance" in of_flat) == (mean_bp == 12.0)


def test_a_run_that_ends_where_it_began_made_nothing():
    back = run("flat", np.array([0.25, -0.2]))
    assert any("made nothing" in sentence for sentence in assess(backtest_result(runs=(back,))).sentences)
