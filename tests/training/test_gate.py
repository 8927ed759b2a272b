"""The promotion gate: figures restated by brute force, rules at their edges, and rates on seeded simulations."""

import json
import math
from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from benchmarks.gate import (
    BLOCK,
    N_TRAIN,
    OVERLAP,
    champion_gone_bad,
    decide,
    equal_models,
    improvement,
    noise,
    normal_cdf,
    outcomes,
    overconfident,
    persistent,
)
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.settings import GateSettings
from ml4t_actor.training.gate import VARIANCE_INFLATION, GateDecision, compare_models, lower_bound, widening
from ml4t_actor.validation.bootstrap import block_starts

QUICK = GateSettings(bootstrap_samples=200)


def forecasts(seed, n=400, skill=1.5):
    """Independent outcomes, a champion that knows nothing, and a challenger that knows their odds."""
    rng = np.random.default_rng(seed)
    p = 1.0 / (1.0 + np.exp(-skill * rng.normal(size=n)))
    return (rng.random(n) < p).astype(float), np.clip(0.5 + 0.1 * rng.normal(size=n), 0.05, 0.95), p


def decided(y, champion, challenger, *, weight=None, baseline_p=0.5, block=5, gate=QUICK):
    return compare_models(
        y, champion, challenger, weight=weight, baseline_p=baseline_p, block=block, settings=gate
    )


def passed(scenario, n, runs, seed=0):
    rng = np.random.default_rng([seed, n])
    return sum(decide(scenario(rng, n), QUICK).promoted for _ in range(runs))


def losses(y, p):
    return np.array([-math.log(q if label else 1.0 - q) for label, q in zip(y, p, strict=True)])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [60, 63])
def test_improvement_low_is_the_widened_quantile_of_explicit_resamples(n, weighted):
    y, champion, challenger = forecasts(3, n=n)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, n) if weighted else np.ones(n)
    gate = GateSettings(bootstrap_samples=300, confidence=0.97, seed=5)
    decision = decided(y, champion, challenger, weight=weight, block=5, gate=gate)

    difference = losses(y, champion) - losses(y, challenger)
    draws = []
    for starts in block_starts(n, 5, 300, 5):
        rows = [(start + i) % n for start in starts for i in range(5)][:n]
        draws.append(sum(weight[r] * difference[r] for r in rows) / sum(weight[r] for r in rows))
    mean = np.average(difference, weights=weight)
    blocks = weight.sum() ** 2 / (weight**2).sum() / 5
    z = stats.norm.ppf(0.97)
    distance = max(mean - np.quantile(draws, 0.03), z * np.std(draws))
    student = stats.t.ppf(0.97, 1.5 * blocks) / z
    bias = 1.0 - 1.0 / blocks + 1.0 / (3.0 * blocks**2)

    assert decision.n_blocks == pytest.approx(blocks)
    assert decision.improvement == pytest.approx(mean)
    expected = mean - student * math.sqrt(VARIANCE_INFLATION / bias) * distance
    assert decision.improvement_low == pytest.approx(expected, rel=2e-4)


def test_scores_are_those_of_scikit_learn():
    y, champion, challenger = forecasts(0)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    decision = decided(y, champion, challenger, weight=weight, baseline_p=0.4)
    for name, p in (("champion", champion), ("challenger", challenger), ("baseline", np.full(len(y), 0.4))):
        expected = metrics.log_loss(y, p, sample_weight=weight)
        assert getattr(decision, f"{name}_log_loss") == pytest.approx(expected)
    for name, p in (("champion", champion), ("challenger", challenger)):
        assert getattr(decision, f"{name}_brier") == pytest.approx(
            metrics.brier_score_loss(y, p, sample_weight=weight)
        )
        gap = abs(np.average(y, weights=weight) - np.average(p, weights=weight))
        assert getattr(decision, f"{name}_calibration_gap") == pytest.approx(gap)


@pytest.mark.parametrize("n_blocks", [10.0, 20.0, 50.0, 200.0])
def test_widening_matches_the_fixed_b_critical_values_of_kiefer_and_vogelsang(n_blocks):
    # Their table 1, Bartlett kernel: 95 and 99 % points as polynomials in the bandwidth's share.
    b = 1.0 / n_blocks
    published = {
        0.95: 1.6449 + 2.1859 * b + 0.3142 * b**2 - 0.3427 * b**3,
        0.99: 2.3263 + 4.1618 * b + 0.5368 * b**2 - 0.9060 * b**3,
    }
    for confidence, value in published.items():
        ours = (
            widening(confidence, n_blocks) * NormalDist().inv_cdf(confidence) / math.sqrt(VARIANCE_INFLATION)
        )
        assert ours == pytest.approx(value, rel=0.015)


@given(st.floats(0.501, 0.9995), st.floats(10.0, 1e6))
def test_widening_is_student_s_quantile_over_the_normal_one(confidence, n_blocks):
    bias = 1.0 - 1.0 / n_blocks + 1.0 / (3.0 * n_blocks**2)
    ratio = stats.t.ppf(confidence, 1.5 * n_blocks) / stats.norm.ppf(confidence)
    expected = ratio * math.sqrt(VARIANCE_INFLATION / bias)
    assert widening(confidence, n_blocks) == pytest.approx(expected, rel=1e-3)


def test_a_bound_takes_the_longer_tail():
    skewed = -np.random.default_rng(0).exponential(size=20_000)
    low = lower_bound(-1.0, skewed, 0.99, 1e9)
    quantile = math.log(0.01)
    assert low == pytest.approx(-1.0 + math.sqrt(VARIANCE_INFLATION) * (quantile + 1.0), rel=0.05)
    # The other way round the short tail does not count: the normal distance does.
    low = lower_bound(1.0, -skewed, 0.99, 1e9)
    assert low == pytest.approx(1.0 - math.sqrt(VARIANCE_INFLATION) * 2.3263, rel=0.05)


@given(st.integers(0, 50), st.floats(1e-200, 1e200))
@settings(max_examples=20)
def test_scaling_the_weights_changes_nothing(seed, scale):
    y, champion, challenger = forecasts(seed, n=100)
    weight = np.random.default_rng(seed).uniform(0.2, 1.0, 100)
    one = decided(y, champion, challenger, weight=weight)
    other = decided(y, champion, challenger, weight=scale * weight)
    assert one.promoted is other.promoted
    assert one.reason == other.reason
    assert other.improvement_low == pytest.approx(one.improvement_low, abs=1e-12)
    assert other.n_blocks == pytest.approx(one.n_blocks)


@given(st.integers(0, 50))
@settings(max_examples=20)
def test_swapping_both_models_flips_the_sign_and_never_promotes_both(seed):
    y, champion, challenger = forecasts(seed, n=100, skill=0.5)
    one, other = decided(y, champion, challenger), decided(y, challenger, champion)
    assert other.improvement == -one.improvement
    assert (other.champion_brier, other.champion_calibration_gap) == (
        one.challenger_brier,
        one.challenger_calibration_gap,
    )
    assert not (one.promoted and other.promoted)


def test_mirrored_outcomes_and_probabilities_are_judged_alike():
    y, champion, challenger = forecasts(2)
    one = decided(y, champion, challenger, baseline_p=0.3)
    other = decided(1.0 - y, 1.0 - champion, 1.0 - challenger, baseline_p=0.7)
    assert one.promoted is other.promoted
    assert other.improvement_low == pytest.approx(one.improvement_low)
    assert other.challenger_calibration_gap == pytest.approx(one.challenger_calibration_gap)


def test_rows_without_weight_do_not_count():
    y, champion, challenger = forecasts(4, n=300)
    weight = np.ones(300)
    weight[::3] = 0.0
    kept = weight > 0.0
    assert decided(y, champion, challenger, weight=weight) == decided(
        y[kept], champion[kept], challenger[kept]
    )


def test_one_seed_gives_one_decision_and_another_seed_another_bound():
    y, champion, challenger = forecasts(1)
    assert decided(y, champion, challenger) == decided(y, champion, challenger)
    other = decided(y, champion, challenger, gate=GateSettings(bootstrap_samples=200, seed=1))
    assert other.improvement_low != decided(y, champion, challenger).improvement_low


def test_nine_blocks_are_too_few_and_ten_are_enough():
    y, champion, challenger = forecasts(0, n=100, skill=4.0)
    few = decided(y[:99], champion[:99], challenger[:99], block=10)
    assert (few.promoted, few.improvement_low, few.n_blocks) == (False, None, pytest.approx(9.9))
    assert few.reason.startswith("too few signals")
    assert few.improvement > 0.0
    assert decided(y, champion, challenger, block=10).promoted


def test_one_row_is_too_few():
    decision = decided([1], [0.4], [0.6], block=1)
    assert not decision.promoted
    assert decision.n == 1
    assert decision.improvement == pytest.approx(math.log(1.5))


def test_a_few_heavy_rows_are_too_few():
    y, champion, challenger = forecasts(0, skill=4.0)
    weight = np.full(len(y), 1e-6)
    weight[:5] = 1.0
    assert decided(y, champion, challenger, block=1).promoted
    assert decided(y, champion, challenger, weight=weight, block=1).reason.startswith("too few signals")


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_window_of_one_outcome_teaches_nothing(outcome):
    better = np.full(200, 0.1 + 0.8 * outcome)
    decision = decided(np.full(200, outcome), np.full(200, 0.5), better)
    assert not decision.promoted
    assert "outcome" in decision.reason


def test_the_same_model_is_not_promoted():
    y, champion, _ = forecasts(0)
    decision = decided(y, champion, champion)
    assert (decision.promoted, decision.improvement, decision.improvement_low) == (False, 0.0, 0.0)


def test_a_better_challenger_is_promoted_with_the_figures_in_the_reason():
    y, champion, challenger = forecasts(0)
    decision = decided(y, champion, challenger)
    assert decision.promoted
    assert 0.0 < decision.improvement_low < decision.improvement
    for figure in (decision.challenger_log_loss, decision.champion_log_loss, decision.baseline_log_loss):
        assert f"{figure:.4f}" in decision.reason
    assert f"{decision.improvement_low:+.4f} with 99 % confidence" in decision.reason


def test_without_a_champion_the_base_rate_is_to_be_beaten():
    y, _, challenger = forecasts(0)
    decision = decided(y, None, challenger, baseline_p=0.45)
    constant = decided(y, np.full(len(y), 0.45), challenger, baseline_p=0.45)
    assert decision.promoted
    assert "champion" not in decision.reason
    assert decision.improvement == constant.improvement
    assert decision.improvement_low == constant.improvement_low
    assert decision.champion_log_loss == decision.baseline_log_loss
    assert not decision.champion_failed
    assert not decided(y, None, np.full(len(y), 0.45), baseline_p=0.45).promoted


def test_better_than_a_bad_champion_is_not_enough_where_a_constant_is_as_good():
    y, _, challenger = forecasts(0, n=1000)
    bad = decided(y, 1.0 - challenger, np.full(1000, 0.5 + 1e-6))
    assert bad.champion_failed
    assert bad.improvement_low > 0.0
    assert not bad.promoted
    assert "no better than the base rate" in bad.reason


def test_a_champion_that_did_not_fail_does_not_give_way_to_what_may_be_no_better_than_a_constant():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        decision = decide(noise(-0.02)(rng, 1000), QUICK)
        below = decision.challenger_log_loss < decision.baseline_log_loss
        if (
            decision.improvement_low > 0.0
            and below
            and not decision.champion_failed
            and not decision.promoted
        ):
            found += 1
            assert "no better than the base rate" in decision.reason
            assert "95 % confidence" in decision.reason
    assert found > 0


def test_a_failed_champion_gives_way_at_a_lower_confidence():
    # An improvement beyond 95 but not 99 % of chance, by a challenger that just beats the constant.
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        y, champion, challenger = champion_gone_bad(0.02)(rng, 1000)
        decision = decide((y, champion, challenger), QUICK)
        if decision.promoted and decision.improvement_low <= 0.0:
            found += 1
            assert decision.champion_failed
            assert "95 % confidence" in decision.reason
            assert decision.challenger_log_loss < decision.baseline_log_loss
    assert found > 0


def test_better_log_loss_does_not_excuse_worse_calibration():
    rng = np.random.default_rng(0)
    n = 4000
    score = 1.5 * rng.normal(size=n)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-score))).astype(float)
    shifted = 1.0 / (1.0 + np.exp(-score - 0.6))
    decision = decided(y, np.full(n, y.mean()), shifted, baseline_p=0.5)
    assert decision.improvement_low > 0.0
    assert decision.challenger_calibration_gap > 0.08
    assert not decision.promoted
    assert "worse calibrated" in decision.reason


def test_a_gap_that_chance_explains_is_excused():
    # Both are off by the luck of the window; the challenger, a hair further, is not worse for it.
    rng = np.random.default_rng(1)
    p = 1.0 / (1.0 + np.exp(-1.5 * rng.normal(size=1000)))
    y = (rng.random(1000) < p).astype(float)
    further = math.copysign(0.005, p.mean() - y.mean())
    decision = decided(y, np.full(1000, p.mean()), np.clip(p + further, 0.001, 0.999))
    assert decision.challenger_calibration_gap > decision.champion_calibration_gap
    assert decision.promoted


@given(st.integers(0, 1000), st.integers(1, 12), st.booleans(), st.floats(0.01, 0.99), st.booleans())
@settings(max_examples=60)
@example(seed=0, block=1, without=False, baseline_p=0.5, knows=True)  # one that is promoted
def test_every_decision_is_consistent_short_and_survives_json(seed, block, without, baseline_p, knows):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    y = (rng.random(n) < rng.random()).astype(float)
    p = rng.choice([0.0, 0.2, 0.5, 0.51, 1.0], size=(2, n))
    if knows:
        p[1] = np.where(rng.random(n) < 0.8, y, 1.0 - y) * 0.6 + 0.2
    weight = rng.choice([1e-9, 1.0, 3.0], n)
    decision = decided(y, None if without else p[0], p[1], weight=weight, baseline_p=baseline_p, block=block)
    sent = msgspec.json.encode(decision)
    assert msgspec.json.decode(sent, type=GateDecision) == decision
    assert json.loads(sent)["promoted"] is decision.promoted
    if decision.promoted:
        assert decision.challenger_log_loss < min(decision.champion_log_loss, decision.baseline_log_loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": [0.0, 2.0]}, "`y` must be 0 or 1"),
        ({"y": [0.0, np.nan]}, "`y` must be 0 or 1"),
        ({"p_champion": [0.5, np.nan]}, "`p_champion` must be in"),
        ({"p_champion": [0.5]}, "`p_champion` must have one value per row"),
        ({"p_challenger": [0.5, 1.1]}, "`p_challenger` must be in"),
        ({"p_challenger": [0.5, np.inf]}, "`p_challenger` must be in"),
        ({"p_challenger": [0.5, 0.5, 0.5]}, "`p_challenger` must have one value per row"),
        ({"p_challenger": [[0.5, 0.5]]}, "`p_challenger` must have one value per row"),
        ({"weight": [1.0, -1.0]}, "`weight` must be finite and not negative"),
        ({"weight": [1.0, np.inf]}, "`weight` must be finite and not negative"),
        ({"weight": [0.0, 0.0]}, "none of 2 rows has a positive weight"),
        ({"y": [], "p_champion": [], "p_challenger": []}, "none of 0 rows"),
        ({"baseline_p": 0.0}, "`baseline_p` was 0.0"),
        ({"baseline_p": 1.0}, "`baseline_p` was 1.0"),
        ({"baseline_p": math.nan}, "`baseline_p` was nan"),
        ({"block": 0}, "`block` was 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {
        "y": [0.0, 1.0],
        "p_champion": [0.5, 0.5],
        "p_challenger": [0.4, 0.6],
        "baseline_p": 0.5,
        "block": 1,
        "settings": QUICK,
    }
    with pytest.raises(ValueError, match=message):
        compare_models(**(good | change))


def plain():
    y, champion, challenger = forecasts(0)
    decision = decided(y, champion, challenger)
    assert decision.promoted
    return msgspec.to_builtins(decision)


GARBAGE = [
    {"promoted": 1},
    {"promoted": "yes"},
    {"reason": ""},
    {"reason": "x" * 300},
    {"reason": None},
    {"n": 0},
    {"n": -5},
    {"n": 3.5},
    {"n": True},
    {"n_blocks": math.nan},
    {"n_blocks": -1.0},
    {"champion_log_loss": -0.1},
    {"champion_log_loss": math.inf},
    {"challenger_log_loss": math.nan},
    {"challenger_log_loss": "0.5"},
    {"baseline_log_loss": None},
    {"baseline_log_loss": 0.0},  # the challenger would be worse than the baseline
    {"improvement": math.nan},
    {"improvement": 0.5},  # not the difference of the losses
    {"improvement_low": math.nan},
    {"improvement_low": -math.inf},
    {"improvement_low": 5.0},  # above the improvement
    {"improvement_low": -0.001},  # promoted all the same
    {"improvement_low": None},
    {"champion_brier": 1.5},
    {"challenger_brier": -0.5},
    {"champion_calibration_gap": math.nan},
    {"challenger_calibration_gap": 2.0},
    {"champion_failed": None},
    {"champion_failed": True, "baseline_log_loss": 30.0},  # not worse than that
    {"surprise": 1},
]


@pytest.mark.parametrize("change", GARBAGE, ids=str)
def test_garbage_from_another_process_is_refused(change):
    good = plain()
    assert msgspec.convert(good, GateDecision).promoted
    # MessagePack carries the NaN and the infinities that JSON cannot.
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(good | change), type=GateDecision)
    if "surprise" not in change:
        with pytest.raises(ValueError, match="GateDecision"):
            GateDecision(**(good | change))


@pytest.mark.parametrize("name", GateDecision.__struct_fields__)
def test_a_missing_figure_is_refused(name):
    good = plain()
    del good[name]
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert(good, GateDecision)


def test_equal_models_are_told_apart_less_than_once_in_a_hundred():
    assert passed(equal_models, 500, 200) <= 2
    assert passed(equal_models, 1000, 100) <= 1


def test_noise_and_overconfidence_do_not_pass_against_skill():
    assert passed(noise(0.02), 1000, 100) == 0
    assert passed(overconfident, 1000, 100) == 0


def test_useful_improvements_pass_more_often_the_larger_they_are():
    # Measured on 300 windows of 2,000 rows: 13, 37 and 72 %.
    two, five, ten = (passed(improvement(gain), 2000, 60) for gain in (0.02, 0.05, 0.10))
    assert two < five < ten
    assert 12 <= five <= 33
    assert ten >= 33


def test_a_champion_gone_bad_gives_way():
    # Measured on 300 windows of 2,000 rows: 88 %.
    assert passed(champion_gone_bad(0.05), 2000, 60) >= 42


def history(seed, n):
    rng = np.random.default_rng(seed)
    X = persistent(rng, N_TRAIN + OVERLAP + n, 8)
    return rng, X, outcomes(rng, 0.25 * (X[:, 0] + X[:, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("n_fits", [60, pytest.param(600, marks=pytest.mark.long)])
def test_no_challenger_fitted_to_shuffled_labels_passes_against_a_skilled_champion(n_fits):
    rng, X, y = history(0, 2000)
    after = slice(N_TRAIN + OVERLAP, None)
    champion = MetaModel().fit(X[:N_TRAIN], y[:N_TRAIN]).predict_proba(X[after])
    assert decide((y[after], np.full(2000, 0.5), champion), QUICK).improvement > 0.01
    for _ in range(n_fits):
        shuffled = MetaModel().fit(X[:N_TRAIN], rng.permutation(y[:N_TRAIN])).predict_proba(X[after])
        for n in (500, 2000):
            decision = decide((y[after][:n], champion[:n], shuffled[:n]), QUICK)
            assert not decision.promoted, decision.reason


def test_permuted_forecasts_never_pass_against_the_model_that_they_were_taken_from():
    rng, X, y = history(1, 1000)
    after = slice(N_TRAIN + OVERLAP, None)
    truth = normal_cdf(0.25 * (X[after, 0] + X[after, 1]))
    for _ in range(300):
        shuffled = np.roll(truth, int(rng.integers(100, 900)))
        decision = decide((y[after], truth, shuffled), QUICK)
        assert not decision.promoted, decision.reason
    assert decision.n_blocks == pytest.approx(1000 / BLOCK)
