"""What is said of a model follows from its scores, and from what it was held against."""

import json
import math

import msgspec
import pytest

from ml4t_actor.report import assess, result_json, result_text
from ml4t_actor.validation import Interval, Verdict
from tests.support.backtest_results import (
    against_odds,
    backtest_result,
    flat_in,
    scores,
    selection,
    trials,
)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_model_is_judged_by_its_verdict(verdict: Verdict):
    sentence = assess(backtest_result(test=scores(verdict))).sentences[0]
    assert sentence.startswith("On the test period the model")
    optimistic = {
        Verdict.BETTER: "beats chance",
        Verdict.RANKS_BETTER: "better than chance, but its probabilities are no better than the base rate",
        Verdict.PROBABILITIES_BETTER: "beat the base rate, but it ranks signals of one side no better than",
        Verdict.VOLATILITY_ONLY: "better than the base rate only by knowing when volatility pays the costs",
    }
    if verdict in optimistic:
        assert optimistic[verdict] in sentence
    else:
        assert "beat" not in sentence
        assert "better" not in sentence
    if verdict is Verdict.RANKS_WORSE:
        assert "WORSE than chance" in sentence


def test_a_model_beside_its_odds_is_judged_by_what_it_adds_to_them():
    sentence = assess(backtest_result(test=against_odds(Verdict.BETTER))).sentences[0]
    assert "what it adds to the odds of its trades makes its probabilities better" in sentence
    assert "log-loss skill against the odds +0.0123 [+0.0045, +0.0201]" in sentence
    assert "where the odds alone would give 0.534" in sentence
    ranks = assess(backtest_result(test=against_odds(Verdict.RANKS_BETTER))).sentences[0]
    assert "probabilities are no better than the odds, as far as can be told" in ranks
    text = flat_in(result_text(backtest_result(test=against_odds())))
    assert "skill on the odds +0.0123 [+0.0045, +0.0201] recalibrated odds 0; at least +0.0061" in text
    assert "by the odds alone 0.534 [0.521, 0.547]" in text


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((-2e-4, 3e-4), "no more than a filter by volatility, as far as can be told"),
        ((1e-4, 3e-4), "more than a filter by volatility, beyond chance"),
        ((-3e-4, -1e-4), "less than a filter by volatility, beyond chance"),
        ((math.nan, math.nan), "no more than a filter by volatility, as far as can be told"),
    ],
)
def test_the_choice_by_confidence_is_compared_with_a_filter_by_volatility(bounds, said):
    result = backtest_result(selection=selection(over_volatility_interval=Interval(*bounds)))
    sentences = " ".join(assess(result).sentences)
    assert f"confidence chose {said}" in sentences
    assert "earned -3.00 bp each after costs" in sentences
    assert "the highest volatility -3.50 bp" in sentences
    assert "40 of 900 signals: 55.0% of them paid, 6.0 % of all that paid; profit factor 0.90" in sentences
    none = assess(backtest_result(selection=selection(above_break_even=0, precision=math.nan)))
    assert "No confidence was above its signal's own break-even, of 900 signals." in none.sentences


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.01, "to the odds of its trades it adds skill, beyond chance"),
        (-0.001, 0.01, "to the odds of its trades it adds nothing that can be told from chance"),
        (-0.01, -0.001, "to the odds of its trades it does harm, beyond chance"),
    ],
)
def test_what_the_model_adds_is_said_in_plain_words(low: float, high: float, said: str):
    test = msgspec.structs.replace(
        against_odds(), odds_skill_interval=Interval(low, high), odds_skill_low=low
    )
    sentences = assess(backtest_result(test=test, selection=selection())).sentences
    assert (
        f"In plain words: {said}; beyond a filter by volatility, nothing that can be told from chance."
        in sentences
    )
    better = selection(over_volatility_interval=Interval(1e-4, 3e-4))
    without_odds = assess(backtest_result(selection=better)).sentences
    assert (
        "In plain words: beyond a filter by volatility, it chooses better signals, beyond chance."
        in without_odds
    )


def test_the_search_for_the_model_is_told():
    sentences = " ".join(
        assess(backtest_result(trials=trials(), path_skills=(-0.001, 0.002, 0.004))).sentences
    )
    assert "12 configurations were tried on the training data, by skill this is number 3" in sentences
    assert "is not more than luck of the best of so many (deflated: 0.31 that it is)" in sentences
    assert "overfits with probability 0.62" in sentences
    assert "Along 3 combinatorial purged paths" in sentences
    assert "-0.0010 to +0.0040, above zero on 2" in sentences
    alone = trials(n_trials=1, rank=1, deflated_probability=0.97, overfitting=math.nan)
    sentences = " ".join(assess(backtest_result(trials=alone)).sentences)
    assert "the only configuration" in sentences
    assert "is more than luck (deflated: 0.97" in sentences
    assert "overfits" not in sentences
    nothing = trials(deflated_probability=math.nan)
    assert "no Sharpe ratio to deflate" in " ".join(assess(backtest_result(trials=nothing)).sentences)


def test_what_the_search_and_the_choice_were_is_in_the_json():
    found = result_json(backtest_result(selection=selection(), trials=trials(), path_skills=(0.1,)))
    assert found["selection"]["over_volatility"] == 0.5e-4
    assert found["trials"]["n_trials"] == 12
    assert found["path_skills"] == [0.1]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("verdict", [Verdict.RANKS_BETTER, Verdict.CHANCE, Verdict.RANKS_WORSE])
def test_probabilities_worse_than_the_base_rate_are_said_to_be(verdict: Verdict):
    bad = msgspec.structs.replace(scores(verdict), log_loss_skill_interval=Interval(-0.02, -0.01))
    sentence = assess(backtest_result(test=bad)).sentences[0]
    assert "worse than the base rate, beyond chance" in sentence
    assert "no better than the base rate" not in sentence


def test_validation_and_test_that_disagree_are_not_passed_over():
    better, chance = scores(Verdict.BETTER), scores(Verdict.CHANCE)
    assert "believe the test" in " ".join(assess(backtest_result(validation=better, test=chance)).sentences)
    assert "may be luck" in " ".join(assess(backtest_result(validation=chance, test=better)).sentences)
    agree = " ".join(assess(backtest_result(validation=better, test=better)).sentences)
    assert "believe the test" not in agree
    assert "may be luck" not in agree


def test_no_test_scores_are_said_first():
    sentences = assess(backtest_result(test=None)).sentences
    assert "no score on the test period" in sentences[0]
    assert "In walk-forward validation" in sentences[1]
