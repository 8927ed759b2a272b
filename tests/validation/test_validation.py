import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation import (
    Interval,
    LeakageError,
    Split,
    Verdict,
    accuracy,
    auc,
    auc_within_side,
    audit_splits,
    base_rate,
    brier,
    evaluate,
    expected_calibration_error,
    log_loss,
    majority_accuracy,
    reliability_table,
    skill,
    verdict,
    walk_forward_splits,
    wilson_interval,
)
from tests.support.scored_rows import informed, overlapping_noise

MINUTE = 60_000_000_000
COVERS_HALF = Interval(0.45, 0.55)


@st.composite
def scored_rows(draw):
    n = draw(st.integers(2, 40))

    def column(values):
        return np.array(draw(st.lists(values, min_size=n, max_size=n)))

    y = column(st.integers(0, 1))
    p = column(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0.0, 1.0))
    weight = column(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0.01, 3.0))
    side = column(st.sampled_from([-1, 1]))
    weight[0] = 1.0
    return y, p, weight, side


@st.composite
def label_windows(draw):
    n = draw(st.integers(1, 40))
    start = np.sort(np.array(draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)), np.int64))
    length = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n)), np.int64)
    return start, start + length


def both_classes(y, weight):
    return 0.0 < (y * weight).sum() < weight.sum()


class TestSplits:
    @settings(deadline=None, max_examples=80)
    @given(label_windows(), st.integers(1, 4), st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 6))
    def test_equal_a_restatement_of_the_rule(self, windows, n_folds, test_fraction, embargo):
        start, end = windows
        n = len(start)
        size = int(n * test_fraction) // n_folds
        expected = []
        for fold in range(n_folds):
            first = n - (n_folds - fold) * size
            train = [i for i in range(first) if end[i] < start[first] - embargo] if size else []
            expected.append((train, list(range(first, first + size))))

        rule = ValidationSettings(n_folds=n_folds, test_fraction=test_fraction)
        if not all(train for train, _ in expected):
            with pytest.raises(ValueError, match="fewer folds"):
                walk_forward_splits(start, end, rule, embargo)
            return
        splits = walk_forward_splits(start, end, rule, embargo)
        assert [(s.train.tolist(), s.test.tolist()) for s in splits] == expected
        assert all(s.train.dtype == s.test.dtype == np.int64 for s in splits)

    def test_rows_at_the_time_of_the_first_test_row_do_not_train(self):
        start = np.repeat(np.arange(10, dtype=np.int64), 3)  # three instruments
        (split,) = walk_forward_splits(
            start, start, ValidationSettings(n_folds=1, test_fraction=0.5 - 1e-9), 0
        )
        assert split.test[0] == 16  # in the middle of the three rows at time 5
        assert split.train.tolist() == list(range(15))

    @pytest.mark.parametrize(
        ("start", "end", "embargo", "message"),
        [
            ([0, 2, 1], [3, 3, 3], 0, "row 2 has 1 after 2"),
            ([0, 1, 2], [3, 0, 3], 0, "row 1 runs from 1 to 0"),
            ([0, 1, 2], [3, 3], 0, "3 rows and `label_end` 2"),
            ([0, 1, 2], [3, 3, 3], -1, "`embargo` was -1"),
            ([0.0, 1.0, 2.0], [3, 3, 3], 0, "`label_start` must be one column of int64"),
            ([0, 1, 2], [3, 3, 3], 0, "3 rows are too few for 5 folds"),
        ],
    )
    def test_bad_rows_are_refused_with_the_reason(self, start, end, embargo, message):
        with pytest.raises(ValueError, match=message):
            walk_forward_splits(np.array(start), np.array(end), ValidationSettings(), embargo)


class TestAudit:
    start = np.arange(100, dtype=np.int64) * MINUTE
    end = start + 5 * MINUTE
    embargo = 10 * MINUTE

    def folds(self):
        return walk_forward_splits(self.start, self.end, ValidationSettings(n_folds=2), self.embargo)

    def test_passes_the_folds_of_the_splitter(self):
        audit_splits(self.folds(), self.start, self.end, self.embargo)

    @pytest.mark.parametrize(
        "row", [55, 69, 99]
    )  # its label ends just at the limit, in the fold, after the fold
    def test_names_the_fold_and_the_row_of_a_planted_leak(self, row):
        first, second = self.folds()
        assert (second.train[-1], second.test[0]) == (54, 70)
        leaky = Split(np.append(second.train, row), second.test[second.test != row])
        with pytest.raises(LeakageError, match=f"fold 1 leaks: 1 training rows .*{row}") as error:
            audit_splits([first, leaky], self.start, self.end, self.embargo)
        assert error.value.fold == 1
        assert error.value.rows.tolist() == [row]

    def test_names_rows_that_train_and_test(self):
        first, second = self.folds()
        with pytest.raises(LeakageError, match="are test rows too") as error:
            audit_splits(
                [first, Split(second.train, np.append(3, second.test))], self.start, self.end, self.embargo
            )
        assert error.value.rows.tolist() == [3]

    def test_folds_made_without_an_embargo_fail_under_one(self):
        folds = walk_forward_splits(self.start, self.end, ValidationSettings(n_folds=2), 0)
        with pytest.raises(LeakageError, match="10 training rows"):
            audit_splits(folds, self.start, self.end, self.embargo)

    def test_a_fold_without_test_rows_is_no_fold(self):
        with pytest.raises(ValueError, match="fold 0 has no test row"):
            audit_splits([Split(np.arange(3), np.arange(0))], self.start, self.end, 0)


class TestScores:
    @settings(deadline=None, max_examples=80)
    @given(scored_rows())
    def test_auc_equals_scikit_learn_with_weights_and_ties(self, rows):
        y, p, weight, _ = rows
        if both_classes(y, weight):
            assert auc(y, p, weight) == pytest.approx(
                metrics.roc_auc_score(y, p, sample_weight=weight), abs=1e-9
            )
        else:
            assert np.isnan(auc(y, p, weight))

    @settings(deadline=None, max_examples=80)
    @given(scored_rows())
    def test_auc_within_side_counts_pairs_of_the_same_side(self, rows):
        y, p, weight, side = rows
        won, pairs = {1: 0.0, -1: 0.0}, {1: 0.0, -1: 0.0}
        for i in np.flatnonzero(y == 1):
            for j in np.flatnonzero((y == 0) & (side == side[i])):
                pairs[side[i]] += weight[i] * weight[j]
                won[side[i]] += weight[i] * weight[j] * ((p[i] > p[j]) + 0.5 * (p[i] == p[j]))
        expected = [
            w / n if n > 0 else np.nan
            for w, n in ((sum(won.values()), sum(pairs.values())), (won[1], pairs[1]), (won[-1], pairs[-1]))
        ]
        assert auc_within_side(y, p, side, weight) == pytest.approx(expected, abs=1e-9, nan_ok=True)

    def test_the_best_short_may_tie_with_the_worst_long(self):
        assert auc_within_side([0, 1, 0, 1], [0.2, 0.5, 0.5, 0.9], [-1, -1, 1, 1]) == (1.0, 1.0, 1.0)
        assert auc_within_side([0, 1, 0, 1], [0.5] * 4, [-1, -1, 1, 1]) == (0.5, 0.5, 0.5)

    def test_auc_within_side_is_blind_to_base_rates_of_sides(self):
        rng = np.random.default_rng(0)
        side = rng.choice([-1, 1], 20_000)
        y = rng.random(20_000) < np.where(side == 1, 0.6, 0.4)
        p = np.where(side == 1, 0.6, 0.4) + 0.01 * rng.normal(size=20_000)
        assert auc(y, p) > 0.58
        assert auc_within_side(y, p, side).within == pytest.approx(0.5, abs=0.015)

    @settings(deadline=None, max_examples=80)
    @given(scored_rows())
    def test_losses_and_accuracy_equal_scikit_learn(self, rows):
        y, p, weight, _ = rows
        assert brier(y, p, weight) == pytest.approx(metrics.brier_score_loss(y, p, sample_weight=weight))
        assert log_loss(y, p, weight) == pytest.approx(
            metrics.log_loss(y, p, sample_weight=weight, labels=[0, 1]), rel=1e-9, abs=1e-14
        )
        assert accuracy(y, p, weight) == pytest.approx(
            metrics.accuracy_score(y, p > 0.5, sample_weight=weight)
        )
        rate = np.average(y, weights=weight)
        assert base_rate(y, weight) == pytest.approx(rate)
        assert majority_accuracy(y, weight) == pytest.approx(max(rate, 1 - rate))

    def test_skill_is_the_share_of_loss_avoided(self):
        assert skill(0.2, 0.25) == pytest.approx(0.2)
        assert skill(0.3, 0.25) < 0.0
        assert np.isnan(skill(0.0, 0.0))

    @pytest.mark.parametrize(
        ("y", "p", "weight", "message"),
        [
            ([0, 2], [0.1, 0.2], None, "`y` must be 0 or 1: row 1 is 2"),
            ([0, np.nan], [0.1, 0.2], None, "`y` must be 0 or 1: row 1 is nan"),
            ([0, 1], [0.1, 1.2], None, r"`p` must be in \[0, 1\]: row 1 is 1.2"),
            ([0, 1], [np.nan, 0.2], None, r"`p` must be in \[0, 1\]: row 0 is nan"),
            ([0, 1], [0.1], None, "`p` must have one value per row"),
            ([0, 1], [0.1, 0.2], [1, -1], "`weight` must be finite and not negative: row 1 is -1"),
        ],
    )
    def test_bad_values_are_refused_by_name_and_row(self, y, p, weight, message):
        with pytest.raises(ValueError, match=message):
            brier(y, p, weight)

    def test_scores_may_be_any_finite_number_for_auc_but_sides_may_not(self):
        assert auc([0, 1], [-7.0, 12.0]) == 1.0
        with pytest.raises(ValueError, match="`p` must be finite"):
            auc([0, 1], [0.0, np.inf])
        with pytest.raises(
            ValueError, match="`side` must be 1 or -1: leave rows without a trade out: row 1 is 0"
        ):
            auc_within_side([0, 1], [0.1, 0.2], [1, 0])
        with pytest.raises(ValueError, match="`side` must have one value per row"):
            auc_within_side([0, 1], [0.1, 0.2], [1])


class TestReliability:
    @settings(deadline=None, max_examples=80)
    @given(scored_rows(), st.integers(1, 12))
    def test_equals_brute_force(self, rows, n_bins):
        y, p, weight, _ = rows
        table = reliability_table(y, p, weight, n_bins)
        y, p, weight = (column[weight > 0] for column in (y, p, weight))
        assert table[0].p_low == p.min()
        assert table[-1].p_high == p.max()
        assert len(table) <= n_bins
        assert sum(row.n for row in table) == len(p)
        ranked = np.sort(p)
        cuts = {ranked[int(np.ceil(round(k * len(p) / n_bins, 9))) - 1] for k in range(1, n_bins + 1)}
        assert {row.p_high for row in table} == cuts
        gaps = 0.0
        for k, row in enumerate(table):
            held = (p <= row.p_high) & ((p > row.p_low) | (k == 0))
            assert row.n == held.sum()
            assert row.share == pytest.approx(weight[held].sum() / weight.sum())
            assert row.mean_p == pytest.approx(np.average(p[held], weights=weight[held]))
            assert row.rate == pytest.approx(np.average(y[held], weights=weight[held]))
            assert row.rate_low <= row.rate + 1e-12
            assert row.rate_high >= row.rate - 1e-12
            gaps += weight[held].sum() / weight.sum() * abs(row.mean_p - row.rate)
        assert expected_calibration_error(table) == pytest.approx(gaps)

    @pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (480, 1000)])
    def test_wilson_interval_equals_scipy(self, k, n):
        reference = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson_interval(k / n, n) == pytest.approx((reference.low, reference.high))

    def test_overlap_widens_the_intervals(self):
        y, p, _ = informed(0)
        plain, overlapping = reliability_table(y, p), reliability_table(y, p, n_effective=len(y) / 25)
        for a, b in zip(plain, overlapping, strict=True):
            assert b.rate_high - b.rate_low > 3 * (a.rate_high - a.rate_low)

    def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_do_not(self):
        y, p, _ = informed(0, n=20_000)
        assert expected_calibration_error(reliability_table(y, p)) < 0.02
        assert expected_calibration_error(reliability_table(y, np.round(p))) > 0.2

    def test_nothing_gives_nothing(self):
        assert reliability_table([], []) == []
        assert np.isnan(expected_calibration_error([]))
        assert np.isnan(wilson_interval(0.5, 0.0).low)
        with pytest.raises(ValueError, match="`n_bins` was 0"):
            reliability_table([1], [0.5], n_bins=0)


class TestEvaluate:
    rule = ValidationSettings(bootstrap_samples=200)

    def test_reports_each_score_as_its_function_does(self):
        y, p, side = informed(1)
        weight = np.random.default_rng(1).random(len(y))
        baseline = np.full(len(y), 0.45)
        scores = evaluate(y, p, side, baseline, weight=weight, block=5, settings=self.rule)
        assert scores.n == len(y)
        assert scores.base_rate == base_rate(y, weight)
        assert scores.auc_pooled == auc(y, p, weight)
        assert (scores.auc_within_side, scores.auc_long, scores.auc_short) == auc_within_side(
            y, p, side, weight
        )
        assert (scores.accuracy, scores.majority_accuracy) == (
            accuracy(y, p, weight),
            majority_accuracy(y, weight),
        )
        assert (scores.brier, scores.brier_baseline) == (brier(y, p, weight), brier(y, baseline, weight))
        assert (scores.log_loss, scores.log_loss_baseline) == (
            log_loss(y, p, weight),
            log_loss(y, baseline, weight),
        )
        assert scores.brier_skill == skill(scores.brier, scores.brier_baseline)
        assert scores.log_loss_skill == skill(scores.log_loss, scores.log_loss_baseline)
        for value, (low, high) in (
            (scores.base_rate, scores.base_rate_interval),
            (scores.auc_within_side, scores.auc_within_side_interval),
            (scores.brier_skill, scores.brier_skill_interval),
            (scores.log_loss_skill, scores.log_loss_skill_interval),
        ):
            assert low < value < high
        assert scores.expected_calibration_error == expected_calibration_error(scores.reliability)
        assert scores == evaluate(y, p, side, baseline, weight=weight, block=5, settings=self.rule)

    def test_says_what_the_predictions_are_worth(self):
        y, p, side = informed(2)

        def judge(p):
            return evaluate(y, p, side, np.full(len(y), 0.5), block=5, settings=self.rule)

        assert judge(p).verdict is Verdict.BETTER
        assert judge(p).better_than_chance
        overconfident = np.where(p > 0.5, 1 - (1 - p) ** 6, p**6)
        assert judge(overconfident).verdict is Verdict.RANKS_BETTER
        assert not judge(overconfident).better_than_chance
        assert judge(1 - p).verdict is Verdict.RANKS_WORSE
        assert judge(np.random.default_rng(0).permutation(p)).verdict is Verdict.CHANCE

    @pytest.mark.parametrize(
        ("ranking", "probabilities", "expected"),
        [
            (Interval(0.501, 0.6), Interval(0.001, 0.1), Verdict.BETTER),
            (Interval(0.501, 0.6), Interval(0.0, 0.1), Verdict.RANKS_BETTER),
            (Interval(0.5, 0.6), Interval(0.001, 0.1), Verdict.PROBABILITIES_BETTER),
            (COVERS_HALF, Interval(-0.1, 0.1), Verdict.CHANCE),
            (Interval(0.4, 0.499), Interval(-0.1, 0.1), Verdict.RANKS_WORSE),
            (Interval(np.nan, np.nan), Interval(0.1, 0.2), Verdict.NO_INTERVAL),
            (Interval(0.6, 0.7), Interval(np.nan, np.nan), Verdict.NO_INTERVAL),
        ],
    )
    def test_claims_only_what_the_lower_bounds_allow(self, ranking, probabilities, expected):
        assert verdict(ranking, probabilities) is expected

    def test_effective_rows_fall_with_overlap(self):
        y, p, side = informed(0)
        independent = evaluate(y, p, side, np.full(len(y), 0.5), block=5, settings=self.rule)
        assert 0.75 * len(y) < independent.n_effective <= len(y)
        y, p, side = overlapping_noise(0, n=4000)
        overlapping = evaluate(y, p, side, np.full(len(y), 0.5), block=40, settings=self.rule)
        assert overlapping.n_effective < len(y) / 5

    def test_becomes_strict_json_even_where_undefined(self):
        y, p, side = informed(0, n=30)
        scores = evaluate(y, p, side, np.full(30, 0.5), block=20, settings=self.rule)
        assert scores.verdict is Verdict.NO_INTERVAL
        decoded = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
        assert decoded["auc_within_side"] == scores.auc_within_side
        assert decoded["auc_within_side_interval"] == [None, None]
        assert decoded["n_effective"] is None
        assert decoded["verdict"] == Verdict.NO_INTERVAL.value
        assert decoded["reliability"][0]["n"] == scores.reliability[0].n

    def test_nothing_to_evaluate_is_an_error(self):
        with pytest.raises(ValueError, match="nothing to evaluate: 0 rows"):
            evaluate([], [], [], [], block=1, settings=self.rule)


def test_auc_within_folds_ignores_how_rows_rank_across_folds():
    rng = np.random.default_rng(3)
    n = 600
    y = rng.integers(0, 2, n)
    side = rng.choice([-1, 1], n)
    fold = np.repeat([7, 8, 9], n // 3)
    p = np.clip(0.5 + 0.1 * (y - 0.5) + rng.normal(0.0, 0.1, n), 0.01, 0.99)
    expected, pairs = 0.0, 0.0
    for s in (-1, 1):
        for f in (7, 8, 9):
            rows = (side == s) & (fold == f)
            weight = float(y[rows].sum() * (1 - y[rows]).sum())
            expected += weight * metrics.roc_auc_score(y[rows], p[rows])
            pairs += weight
    assert auc_within_side(y, p, side, fold=fold).within == pytest.approx(expected / pairs, abs=1e-12)
    # Forecasts that are constant in each fold rank nothing, whatever the folds' base rates are.
    constant = np.select([fold == 7, fold == 8], [0.3, 0.4], 0.5)
    assert auc_within_side(y, constant, side, fold=fold).within == 0.5
    scores = evaluate(y, p, side, np.full(n, 0.5), fold=fold, block=5, settings=ValidationSettings())
    low, high = scores.auc_within_side_interval
    assert low < expected / pairs < high


def test_fold_of_another_length_is_refused():
    with pytest.raises(ValueError, match="one value per row"):
        auc_within_side([0, 1], [0.1, 0.2], [1, 1], fold=[1])
