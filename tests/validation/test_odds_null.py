"""AUC's null: over every outcome that odds allow where labels are independent, and its spread where they overlap."""

from itertools import product

import msgspec
import numpy as np
import pytest
from scipy import stats

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation import (
    Interval,
    OddsComparison,
    Scores,
    Verdict,
    auc_null,
    auc_within_side,
    evaluate,
    log_loss,
    skill,
    verdict,
)


def apart(n):
    """Windows that do not overlap."""
    start = np.arange(n) * 10
    return {"label_start": start, "label_end": start + 5}


def test_mean_is_that_over_every_outcome_of_independent_labels():
    odds = np.array([0.1, 0.5, 0.8, 0.3, 0.0, 1.0, 0.6])
    p = np.array([0.2, 0.4, 0.9, 0.4, 0.1, 0.7, 0.3])
    side = np.array([1, 1, 1, -1, -1, 1, -1])
    values, chances = [], []
    for outcome in product([0.0, 1.0], repeat=len(odds)):
        y = np.array(outcome)
        chance = np.prod(np.where(y == 1.0, odds, 1.0 - odds))
        value = auc_within_side(y, p, side).within
        if chance > 0.0 and np.isfinite(value):
            values.append(value)
            chances.append(chance)
    found = [auc_null(p, odds, side, seed=seed, **apart(len(odds))).mean for seed in range(20)]
    assert np.mean(found) == pytest.approx(np.average(values, weights=chances), abs=0.01)


def test_predictions_that_are_the_odds_rank_though_nothing_else_is_known():
    rng = np.random.default_rng(0)
    odds, side = rng.uniform(0.1, 0.7, 3_000), rng.choice([-1, 1], 3_000)
    y = (rng.random(3_000) < odds).astype(float)
    null = auc_null(odds, odds, side, **apart(3_000))
    assert null.mean > 0.6
    assert null.interval.low < auc_within_side(y, odds, side).within < null.interval.high
    assert auc_null(rng.random(3_000), odds, side, **apart(3_000)).mean == pytest.approx(0.5, abs=0.005)


def test_labels_of_shared_windows_go_together_by_side():
    # Two hundred windows of ten rows each: as many independent outcomes per side, not two thousand.
    window = np.repeat(np.arange(200), 10)
    times = {"label_start": window * 10, "label_end": window * 10 + 5}
    p = np.repeat(np.random.default_rng(1).random(200), 10)
    longs, half = np.ones(2_000, np.int64), np.full(2_000, 0.5)
    shared = auc_null(p, half, longs, **times).interval
    alone = auc_null(p, half, longs, **apart(2_000)).interval
    n = 200
    expected = 2 * 1.96 * np.sqrt((n + 1) / (12 * n / 2 * n / 2))  # Mann and Whitney's variance
    assert shared.high - shared.low == pytest.approx(expected, rel=0.25)
    assert shared.high - shared.low > 2.5 * (alone.high - alone.low)
    # A long and a short of one window cannot both have luck: predictions that follow the sides' sum rank nothing.
    mixed = np.tile([1, -1], 1_000)
    both = auc_null(p, half, mixed, **times)
    opposed = auc_null(np.where(mixed == 1, p, 1.0 - p), half, mixed, **times)
    assert both.interval.high - both.interval.low < 0.2 * (opposed.interval.high - opposed.interval.low)


def test_is_decided_by_its_seed_and_refuses_windows_without_length():
    rng = np.random.default_rng(2)
    p, side = rng.random(50), rng.choice([-1, 1], 50)
    assert auc_null(p, p, side, seed=1, **apart(50)) == auc_null(p, p, side, seed=1, **apart(50))
    with pytest.raises(ValueError, match="row 0 runs from 3"):
        auc_null(p, p, side, label_start=np.full(50, 3), label_end=np.full(50, 3))
    with pytest.raises(ValueError, match="each row needs one window"):
        auc_null(p, p, side, label_start=np.arange(49), label_end=np.arange(49) + 1)
    assert np.isnan(auc_null(p, np.zeros(50), side, **apart(50)).mean)


RULE = ValidationSettings(bootstrap_samples=200)


def market(seed, n=4_000, edge=0.0, spread=0.6):
    """Independent labels by odds that vary, and an edge beyond them that is known."""
    rng = np.random.default_rng(seed)
    logit = -0.4 + spread * rng.normal(size=n)
    known = edge * rng.normal(size=n)
    odds, p = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-logit - known))
    return (rng.random(n) < p).astype(float), p, rng.choice([-1, 1], n), odds


def scored(y, p, side, odds):
    rate = np.full(len(y), y.mean())
    return evaluate(y, p, side, rate, base_odds=odds, block=5, settings=RULE)


def test_a_model_that_knows_the_odds_alone_is_not_called_better():
    y, _, side, odds = market(0)
    scores = scored(y, odds, side, odds)
    assert scores.verdict is Verdict.VOLATILITY_ONLY
    assert not scores.better_than_chance
    assert scores.log_loss_skill_interval.low > 0.0  # though it beats the base rate, and ranks
    assert scores.auc_within_side_interval.low > 0.5
    assert scores.auc_null_interval.low < scores.auc_within_side < scores.auc_null_interval.high
    assert scores.odds_skill == pytest.approx(0.0)


def test_a_model_that_adds_to_the_odds_is_called_better_and_its_figures_are_those_of_their_functions():
    y, p, side, odds = market(1, edge=0.5)
    scores = scored(y, p, side, odds)
    assert scores.verdict is Verdict.BETTER
    assert scores.log_loss_odds == log_loss(y, odds)
    assert scores.odds_skill == skill(log_loss(y, p), log_loss(y, odds))
    assert scores.odds_skill_interval.low < scores.odds_skill_low < scores.odds_skill
    assert scores.bias == pytest.approx(p.mean() - y.mean())
    assert scores.bias_interval.low < 0.0 < scores.bias_interval.high
    assert scores.auc_within_side_interval.low > scores.auc_null


def test_scores_of_before_there_were_odds_are_read():
    y, p, side, odds = market(1)
    stored = msgspec.to_builtins(scored(y, p, side, odds))
    first_new = Scores.__struct_fields__.index("verdict") + 1
    for name in Scores.__struct_fields__[first_new:]:
        del stored[name]
    read = msgspec.convert(stored, Scores)
    assert read.log_loss == stored["log_loss"]
    assert np.isnan([read.odds_skill, read.bias, *read.odds_skill_interval]).all()


def test_noise_on_top_of_the_odds_is_called_harmful():
    y, _, side, odds = market(2, spread=0.1)
    noise = 1 / (1 + np.exp(-np.log(odds / (1 - odds)) - np.random.default_rng(3).normal(size=len(y))))
    assert scored(y, noise, side, odds).verdict is Verdict.ODDS_WORSE


def test_a_trade_that_cannot_pay_is_scored_by_a_floor():
    y, p, side, odds = market(4, edge=0.5)
    p[:500] = odds[:500] = 0.0
    y[:500] = 0.0
    y[0] = 1.0  # which cannot happen, and happens
    scores = scored(y, p, side, odds)
    floored = np.maximum(p, 1e-4)
    assert scores.log_loss == log_loss(y, floored)
    assert scores.log_loss_odds == log_loss(y, np.maximum(odds, 1e-4))


def test_one_in_twenty_of_those_that_are_as_good_as_the_odds_is_called_better():
    better, rng = 0, np.random.default_rng(5)
    for _ in range(200):
        # Model and odds miss the truth by equally much, so that neither is better.
        truth = rng.normal(-0.3, 0.7, 1_000)
        odds, p = (1 / (1 + np.exp(-truth - 0.3 * rng.normal(size=1_000))) for _ in range(2))
        y = (rng.random(1_000) < 1 / (1 + np.exp(-truth))).astype(float)
        better += scored(y, p, rng.choice([-1, 1], 1_000), odds).better_than_chance
    assert stats.binom.ppf(0.0005, 200, 0.05) <= better <= stats.binom.ppf(0.9995, 200, 0.05)


@pytest.mark.parametrize(
    ("auc", "rate", "odds", "low", "null", "expected"),
    [
        ((0.51, 0.6), (0.001, 0.1), (0.001, 0.1), 0.002, (0.49, 0.52), Verdict.BETTER),
        ((0.46, 0.55), (-0.01, 0.1), (-0.001, 0.1), 0.001, (0.49, 0.52), Verdict.BETTER),
        ((0.51, 0.6), (-0.1, -0.01), (0.001, 0.1), 0.002, (0.49, 0.52), Verdict.CHANCE),
        ((0.42, 0.55), (-0.01, 0.1), (0.001, 0.1), 0.002, (0.49, 0.52), Verdict.CHANCE),
        ((0.53, 0.6), (0.001, 0.1), (-0.01, 0.01), -0.002, (0.49, 0.62), Verdict.VOLATILITY_ONLY),
        ((0.53, 0.6), (-0.01, 0.1), (-0.1, -0.01), -0.09, (0.49, 0.52), Verdict.ODDS_WORSE),
        ((0.53, 0.6), (-0.01, 0.1), (-0.1, 0.01), -0.09, (0.49, 0.52), Verdict.RANKS_BETTER),
        ((0.53, 0.6), (-0.01, 0.1), (-0.1, 0.01), -0.09, (0.49, 0.54), Verdict.CHANCE),
        ((0.4, 0.48), (-0.01, 0.1), (-0.1, 0.01), -0.09, (0.49, 0.54), Verdict.RANKS_WORSE),
        ((0.53, 0.6), (-0.01, 0.1), (-0.1, 0.01), np.nan, (0.49, 0.54), Verdict.NO_INTERVAL),
    ],
)
def test_claims_only_what_the_bounds_against_the_odds_allow(auc, rate, odds, low, null, expected):
    comparison = OddsComparison(Interval(*odds), low, Interval(*null), sum(rate) / 2, sum(auc) / 2 - 0.5)
    assert verdict(Interval(*auc), Interval(*rate), comparison) is expected
