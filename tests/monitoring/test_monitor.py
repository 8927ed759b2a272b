import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.monitor import DETECTORS, WINDOW, YEAR, Restatement, Stream, known
from ml4t_actor.monitoring.drift import (
    Cusum,
    PopulationStability,
    cusum_threshold,
    population_stability_index,
    quantile_edges,
    window_stability,
)
from ml4t_actor.monitoring.monitor import MonitorBaseline, RetrainMonitor
from ml4t_actor.settings import MonitorSettings
from ml4t_actor.validation.scores import accuracy, log_loss

MINUTE = 60 * 10**9
DAY = 24 * 60 * MINUTE
DEFAULTS = MonitorSettings()
BASELINE = MonitorBaseline(accuracy=0.6, log_loss=0.673, log_loss_sd=0.2, residual_sd=0.49)

observations = st.lists(st.tuples(st.floats(-5.0, 5.0), st.floats(0.0, 1.0)), min_size=1, max_size=60)


def monitor(baseline=BASELINE, settings=DEFAULTS, **keywords):
    return RetrainMonitor(baseline, settings, **{"bar_interval_ns": MINUTE, **keywords})


def fail(watched, n=500):
    """Record so many signals of high confidence that did not pay."""
    for _ in range(n):
        watched.record_outcome(0.7, 0)
    return watched


class TestCusum:
    @given(observations, st.floats(0.01, 2.0))
    def test_is_the_largest_sum_of_the_latest_observations(self, stream, reference):
        cusum = Cusum(reference, threshold=3.0)
        steps = [w * (x - reference) for x, w in stream]
        for i, (x, w) in enumerate(stream):
            largest = max(sum(steps[j : i + 1]) for j in range(i + 2))  # the last of these is empty
            assert cusum.update(x, w) == cusum.alarm == (cusum.value > 3.0)
            assert cusum.value == pytest.approx(largest, abs=1e-9)

    @given(observations)
    def test_an_observation_counts_as_its_weight_says(self, stream):
        whole, halves = Cusum(0.2, 3.0), Cusum(0.2, 3.0)
        for x, w in stream:
            whole.update(x, w)
            halves.update(x, 0.5 * w)
            halves.update(x, 0.5 * w)
        assert halves.value == pytest.approx(whole.value, abs=1e-9)

    @pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_parameters_that_never_or_always_alarm(self, bad):
        with pytest.raises(ValueError, match="reference"):
            Cusum(bad, 1.0)
        with pytest.raises(ValueError, match="threshold"):
            Cusum(1.0, bad)


class TestThreshold:
    @given(st.floats(0.02, 1.0), st.floats(1e3, 1e8))
    def test_solves_siegmunds_formula(self, reference, arl):
        b = 2.0 * reference * (cusum_threshold(reference, arl) + 1.166)
        assert (math.exp(b) - b - 1.0) / (2.0 * reference**2) == pytest.approx(arl, rel=1e-6)

    @pytest.mark.parametrize(("threshold", "arl"), [(4.0, 336.0), (5.0, 930.0)])
    def test_agrees_with_published_run_lengths(self, threshold, arl):
        # Of a two-sided CUSUM with reference 0.5: 168 and 465 (Montgomery); one side has twice that.
        assert cusum_threshold(0.5, arl) == pytest.approx(threshold, abs=0.01)

    def test_rises_with_run_length_and_skewness(self):
        at = [cusum_threshold(0.1, arl, skewness) for arl in (1e5, 1e6) for skewness in (0.0, 0.5, 2.0)]
        assert at == sorted(at)
        assert len(set(at)) == len(at)
        assert cusum_threshold(0.1, 1e5, -1.0) == cusum_threshold(0.1, 1e5)

    def test_refuses_what_has_no_solution(self):
        for arguments in ((0.0, 100.0), (0.1, 0.5), (0.1, math.inf), (0.1, 100.0, math.nan)):
            with pytest.raises(ValueError, match="was"):
                cusum_threshold(*arguments)
        with pytest.raises(ValueError, match="longer"):
            cusum_threshold(0.5, 1.0)


def accuracy_chain(base, rate):
    """Return the transition matrix, among values without an alarm, of the accuracy CUSUM at a rate of being right.

    Being wrong adds `base` less half the drop, being right takes one less that away, in standard deviations: whole
    multiples of 0.05 of these, so that the values are a lattice (Brook & Evans 1972).
    """
    cusum = monitor(msgspec.structs.replace(BASELINE, accuracy=base)).detectors["accuracy"]
    sd = math.sqrt(base * (1.0 - base))
    assert cusum.reference == pytest.approx(0.05 / sd)
    up, down = round((base - 0.05) / 0.05), round((1.05 - base) / 0.05)
    n = math.floor(cusum.threshold * sd / 0.05) + 1
    move = np.zeros((n, n))
    for i in range(n):
        move[i, max(0, i - down)] += rate
        if i + up < n:
            move[i, i + up] += 1.0 - rate
    return move


class TestAccuracyDetectorExactly:
    @pytest.mark.parametrize("base", [0.3, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9])
    def test_false_alarms_are_years_apart(self, base):
        move = accuracy_chain(base, base)
        years = np.linalg.solve(np.eye(len(move)) - move, np.ones(len(move)))[0] / YEAR
        assert 1.7 < years < (3.0 if base >= 0.45 else 5.0)

    @pytest.mark.parametrize("base", [0.3, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9])
    def test_a_drop_of_ten_points_is_found_within_the_window(self, base):
        move = accuracy_chain(base, base - 0.10)
        state = np.zeros(len(move))
        state[0] = 1.0  # the least evidence that there can be when accuracy drops
        for _ in range(WINDOW):
            state = state @ move
        assert 1.0 - state.sum() > 0.95


class TestFalseAlarmsAndPower:
    def test_the_compiled_restatement_is_the_monitor(self):
        rng = np.random.default_rng(0)
        p = rng.choice([0.001, 0.2, 0.5, 0.6, 0.999], 3_000)
        y = (rng.random(3_000) < p).astype(float)
        w = rng.random(3_000)
        worth = np.cumsum(w) / np.arange(1, 3_001)
        watched = monitor()
        rows = []
        restatement = Restatement(BASELINE)
        restatement._threshold[:] = np.inf  # values are compared, so it must not start afresh
        for *row, weight, mean_weight in zip(p, y, w, worth, strict=True):
            watched.record_outcome(*row, weight)
            restatement.run(*(np.array([value]) for value in (*row, mean_weight)))
            rows.append([watched.detectors[name].value for name in DETECTORS])
            assert restatement._value == pytest.approx(rows[-1], abs=1e-9)
        assert (np.max(rows, axis=0) > 1.0).all()

    @pytest.mark.parametrize("overlapping", [False, True])
    def test_a_stationary_stream_has_fewer_than_one_false_alarm_a_year(self, overlapping):
        years, alarms = 0, 0
        for i, (rate, spread) in enumerate([(0.3, 0.2), (0.45, 0.0), (0.5, 0.5), (0.6, 0.2)]):
            stream = Stream(rate, spread, i, overlapping=overlapping)
            restatement = Restatement(known(stream))
            for _ in range(3):
                alarms += restatement.run(*stream.stationary(YEAR // 5 if overlapping else YEAR))[0].sum()
                years += 1
        assert alarms < years

    @pytest.mark.parametrize("how", ["right", "rate", "noise"])
    def test_a_drop_of_ten_points_is_found_in_95_of_100_runs(self, how):
        stream = Stream(0.5, 0.6, 1)
        baseline = known(stream)
        found = 0
        for _ in range(100):
            watched = monitor(baseline)
            p, y, w = stream.dropped(500 + WINDOW, 500, 0.10, how)
            for i, row in enumerate(zip(p.tolist(), y.tolist(), w.tolist(), strict=True)):
                watched.record_outcome(*row)
                if i >= 500 and watched.check_retrain_trigger() is not None:
                    found += 1
                    break
        assert found >= 95


class TestPopulationStability:
    @given(st.lists(st.integers(0, 500), min_size=2, max_size=10), st.data())
    def test_is_the_published_formula(self, counts, data):
        raw = data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(counts), max_size=len(counts)))
        expected = np.array(raw) / sum(raw)
        observed = [(count + 0.5) / (sum(counts) + 0.5 * len(counts)) for count in counts]
        index = sum((o - e) * math.log(o / e) for o, e in zip(observed, expected, strict=True))
        assert population_stability_index(expected, counts) == pytest.approx(index, abs=1e-12)
        assert population_stability_index(expected, counts) >= -1e-12

    def test_refuses_what_is_no_distribution(self):
        for expected, observed in (
            ([0.5, 0.6], [1, 1]),
            ([1.0, 0.0], [1, 1]),
            ([0.5, 0.5], [1, -1]),
            ([0.5, 0.5], [1, math.nan]),
            ([0.5, 0.5], [1, 1, 1]),
            ([], []),
        ):
            with pytest.raises(ValueError, match=r"expected|observed"):
                population_stability_index(expected, observed)

    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=50), st.integers(2, 10))
    def test_each_bin_of_quantile_edges_holds_a_value(self, column, n_bins):
        edges = quantile_edges(column, n_bins)
        counts = np.bincount(np.searchsorted(edges, column, side="left"), minlength=len(edges) + 1)
        assert len(edges) < n_bins
        assert counts.min() > 0

    def test_bins_of_distinct_values_are_even(self):
        edges = quantile_edges(np.random.default_rng(0).permutation(1_000.0 * np.arange(1_000)))
        assert np.bincount(np.searchsorted(edges, 1_000.0 * np.arange(1_000))).tolist() == [100] * 10

    def test_the_window_slides_as_a_recount_would(self):
        rng = np.random.default_rng(1)
        rows = rng.integers(0, 6, (400, 3)).astype(float)
        rows[:, 2] = 1.0
        edges = [quantile_edges(column) for column in rows.T]
        shares = [np.bincount(np.searchsorted(e, c)) / 400 for e, c in zip(edges, rows.T, strict=True)]
        stability = PopulationStability(edges, shares, window=50)
        windows = window_stability(rows, edges, shares, window=50)
        for i, row in enumerate(rows):
            assert stability.full == (i >= 50)
            assert stability.update(row)
            recount = [
                population_stability_index(s, np.bincount(np.searchsorted(e, c), minlength=len(s)))
                for e, s, c in zip(edges, shares, rows[max(0, i - 49) : i + 1].T, strict=True)
            ]
            assert stability.values() == pytest.approx(recount, abs=1e-12)
            if i >= 49 and (i - 49) % 25 == 0:
                assert windows[(i - 49) // 25] == pytest.approx(recount, abs=1e-12)
        assert len(windows) == 15

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_row_that_is_not_finite_is_counted_and_changes_nothing(self, bad):
        stability = PopulationStability([[0.0], [0.0]], [[0.5, 0.5]] * 2, window=4)
        for x in (1.0, -1.0, 1.0, 1.0):
            stability.update(np.array([x, x]))
        before = stability.values().tolist()
        assert not stability.update(np.array([1.0, bad]))
        assert (stability.values().tolist(), stability.n_refused, stability.n) == (before, 1, 4)

    def test_a_row_of_another_shape_is_refused(self):
        stability = PopulationStability([[0.0]], [[0.5, 0.5]], window=4)
        with pytest.raises(ValueError, match="1 features"):
            stability.update(np.zeros(2))


def rows_of(n, seed=0):
    """Return independent, tied and constant columns."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.standard_normal(n), rng.integers(0, 2, n), np.full(n, 3.0)])


NAMES = ("normal", "binary", "constant")


def measured(n=5_000, window=500):
    rng = np.random.default_rng(2)
    p = rng.uniform(0.2, 0.8, 3_000)
    y, w = (rng.random(3_000) < p).astype(int), rng.random(3_000)
    return MonitorBaseline.measure(y, p, w, rows_of(n), NAMES, window), y, p, w


class TestBaseline:
    def test_scores_are_those_of_validation(self):
        baseline, y, p, w = measured()
        losses = [log_loss([a], [b]) for a, b in zip(y, p, strict=True)]
        assert baseline.accuracy == pytest.approx(accuracy(y, p, w))
        assert baseline.log_loss == pytest.approx(log_loss(y, p, w))
        assert baseline.log_loss_sd**2 == pytest.approx(np.cov(losses, aweights=w, ddof=0))
        assert baseline.residual_sd**2 == pytest.approx(np.average(p * (1 - p), weights=w))

    def test_survives_json(self):
        baseline = measured()[0]
        stored = json.loads(json.dumps({"monitor": baseline.to_dict()}, allow_nan=False))
        assert MonitorBaseline.from_metrics(stored) == baseline

    def test_without_its_own_figures_a_bundles_scores_stand_in(self):
        baseline = MonitorBaseline.from_metrics({"out_of_fold": {"accuracy": 0.6, "log_loss": 0.67}})
        assert (baseline.accuracy, baseline.log_loss, baseline.feature_names) == (0.6, 0.67, ())
        assert baseline.log_loss_sd == pytest.approx(math.sqrt(0.24))
        for metrics in ({}, {"out_of_fold": {"accuracy": None, "log_loss": 0.67}}, {"out_of_fold": None}):
            assert MonitorBaseline.from_metrics(metrics) is None

    def test_a_broken_record_is_refused_by_its_field(self):
        good = measured()[0].to_dict()
        for field, value in (
            ("accuracy", None),
            ("accuracy", 1.5),
            ("log_loss", math.nan),
            ("edges", []),
            ("psi_limits", [0.1, 0.1, math.inf]),
            ("window", 0),
        ):
            with pytest.raises(ValueError, match=field):
                MonitorBaseline.from_dict(good | {field: value})
        with pytest.raises(ValueError, match="surprise"):
            MonitorBaseline.from_dict(good | {"surprise": 1})

    def test_few_rows_give_shorter_windows_and_very_few_none(self):
        assert measured(20_000, 500)[0].window == 500
        assert measured(2_000, 500)[0].window == 200
        assert measured(999, 500)[0].feature_names == ()
        assert MonitorBaseline.measure([1, 0], [0.5, 0.5], None, np.empty((0, 3)), NAMES).accuracy == 0.5

    def test_a_window_below_a_hundred_rows_is_measured_at_a_hundred(self):
        assert measured(20_000, 30)[0].window == 100

    def test_limits_of_shorter_windows_are_wider_by_as_much_as_chance_can_make_them(self):
        baseline = measured(20_000, 500)[0]
        assert baseline.psi_limits_at(500) == baseline.psi_limits
        assert baseline.psi_limits_at(200) == pytest.approx([2.5 * limit for limit in baseline.psi_limits])
        for window in (0, 501):
            with pytest.raises(ValueError, match=f"`window` was {window}"):
                baseline.psi_limits_at(window)

    def test_a_feature_that_wanders_has_a_higher_limit(self):
        rng = np.random.default_rng(3)
        steady = rng.standard_normal(10_000)
        wandering = np.cumsum(steady)
        X = np.column_stack([steady, wandering])
        limits = MonitorBaseline.measure([1, 0], [0.5, 0.5], None, X, ("a", "b")).psi_limits
        assert limits[1] > 20.0 * limits[0]

    def test_refuses_what_cannot_be_measured(self):
        X = rows_of(10)
        for y, p, w, rows in (
            ([1, 0], [0.5, 0.5], [0.0, 0.0], X),
            ([1, 0], [0.5, math.nan], None, X),
            ([1, 0], [0.5, 0.5], None, X[:, :2]),
            ([1, 0], [0.5, 0.5], None, np.where(X == 3.0, np.nan, X)),
        ):
            with pytest.raises(ValueError, match=r"weight|`p`|`X`"):
                MonitorBaseline.measure(y, p, w, rows, NAMES)


class TestOutcomes:
    @pytest.mark.parametrize(
        "outcome",
        [
            (math.nan, 1),
            (-0.1, 1),
            (1.1, 1),
            (0.5, 2),
            (0.5, -1),
            (0.5, math.nan),
            (0.5, 1, math.nan),
            (0.5, 1, 1.1),
            (0.5, 1, -0.1),
        ],
    )
    def test_what_is_out_of_range_is_refused_and_not_recorded(self, outcome):
        watched = fail(monitor(), 10)
        before = watched.summary()
        with pytest.raises(ValueError, match="was"):
            watched.record_outcome(*outcome)
        assert watched.summary() == before

    def test_rolling_figures_are_those_of_the_last_window(self):
        rng = np.random.default_rng(4)
        p, w = rng.random(250), rng.random(250)
        y = rng.integers(0, 2, 250)
        watched = monitor(settings=MonitorSettings(window=100))
        assert math.isnan(watched.accuracy)
        for row in zip(p, y, w, strict=True):
            watched.record_outcome(*row)
        last = slice(150, None)
        assert watched.accuracy == pytest.approx(accuracy(y[last], p[last]))
        assert watched.log_loss == pytest.approx(log_loss(y[last], p[last]))
        assert watched.calibration_gap == pytest.approx(np.mean(p[last] - y[last]))
        assert (watched.n_outcomes, watched.outcome_weight) == (250, pytest.approx(w.sum()))
        assert json.loads(json.dumps(watched.summary(), allow_nan=False)) == watched.summary()

    def test_certainties_that_failed_do_not_trigger_by_themselves(self):
        watched = monitor()
        rng = np.random.default_rng(5)
        for i in range(1_000):
            watched.record_outcome(0.6, int(rng.random() < 0.6))
            if i % 250 == 0:
                watched.record_outcome(0.0, 1)
        assert watched.check_retrain_trigger() is None

    @pytest.mark.parametrize("base", [0.0, 0.5, 1.0])
    def test_any_baseline_can_be_watched(self, base):
        baseline = MonitorBaseline(accuracy=base, log_loss=math.log(2.0), log_loss_sd=0.0, residual_sd=0.0)
        watched = monitor(baseline)
        for i in range(2_000):
            watched.record_outcome(0.5 if base == 0.5 else 1.0 - 1e-9, i % 2 if base == 0.5 else int(base))
        trigger = watched.check_retrain_trigger()
        assert (trigger is None) == (base > 0.0)

    def test_nothing_triggers_before_the_minimum(self):
        watched = monitor(settings=MonitorSettings(min_outcomes=400))
        assert fail(watched, 399).check_retrain_trigger() is None
        assert fail(watched, 1).check_retrain_trigger() is not None

    def test_overlapping_labels_need_as_many_more(self):
        def needed(weight):
            watched = monitor(settings=MonitorSettings(min_outcomes=1))
            while watched.check_retrain_trigger() is None:
                watched.record_outcome(0.7, 0, weight)
            return watched.n_outcomes

        assert needed(0.1) == pytest.approx(10 * needed(1.0), rel=0.05)

    def test_weights_that_go_with_the_outcome_feign_no_gap(self):
        """Losing trades overlap more: confidence is right on average, each outcome alike, but not by weight."""
        rng = np.random.default_rng(6)
        outcomes = rng.integers(0, 2, 6_000)
        watched = monitor(settings=MonitorSettings(calibration_drift=0.05))
        for y in outcomes.tolist():
            watched.record_outcome(0.5 + 1e-9, y, 0.6 if y else 0.3)
        assert np.average(outcomes, weights=np.where(outcomes == 1, 0.6, 0.3)) > 0.6
        for name in ("overconfidence", "underconfidence"):
            assert not watched.detectors[name].alarm


class TestTriggers:
    def test_accuracy_comes_first_and_says_how_much(self):
        trigger = fail(monitor()).check_retrain_trigger(DAY)
        assert (trigger.kind, trigger.ts) == ("accuracy", DAY)
        assert "0.000, 0.600 in validation" in trigger.reason
        assert trigger.detail["value"] == 0.0
        assert trigger.detail["cusum"] > trigger.detail["threshold"]

    @pytest.mark.parametrize(("p", "y", "direction"), [(0.49, 0, "above"), (0.6, 1, "below")])
    def test_confidence_that_is_right_too_seldom_or_too_often(self, p, y, direction):
        watched = monitor()
        for _ in range(500):
            watched.record_outcome(p, y)  # always right
        trigger = watched.check_retrain_trigger()
        assert trigger.kind == "calibration"
        assert f"confidence too far {direction}" in trigger.reason
        assert trigger.detail["value"] == pytest.approx(p - y)

    def test_loss_that_rises_while_accuracy_and_mean_confidence_hold(self):
        watched = monitor()
        for i in range(2_000):
            right = i // 2 % 5 < 3
            watched.record_outcome(*((0.9, int(right)) if i % 2 else (0.1, int(not right))))
        assert watched.accuracy == pytest.approx(0.6)
        assert watched.calibration_gap == pytest.approx(0.0)
        assert watched.check_retrain_trigger().kind == "loss"

    def test_a_shifted_feature_is_named(self):
        watched = monitor(measured()[0])
        rows = rows_of(1_000, seed=6)
        for row in rows:
            watched.record_features(row)
        assert watched.check_retrain_trigger() is None
        rows[:, 0] += 3.0
        for row in rows[:499]:
            watched.record_features(row)
        watched.record_features(np.array([math.nan, 0.0, 3.0]))
        trigger = watched.check_retrain_trigger()
        assert trigger.kind == "feature_drift"
        assert "'normal'" in trigger.reason
        assert trigger.detail["psi"] > trigger.detail["limit"] >= MonitorSettings().feature_drift

    def test_a_shift_that_led_to_no_other_model_is_not_news_until_it_grows(self):
        watched = monitor(measured()[0], settings=MonitorSettings(cooldown_bars=0))
        shifted = rows_of(1_000, seed=6)
        shifted[:, 0] += 2.0
        for row in shifted:
            watched.record_features(row)
        assert watched.check_retrain_trigger(DAY).kind == "feature_drift"
        watched.retrained(DAY)
        for row in shifted:
            watched.record_features(row)
        assert watched.check_retrain_trigger(2 * DAY) is None
        for row in shifted:
            watched.record_features(row + np.array([4.0, *np.zeros(len(row) - 1)]))
        assert watched.check_retrain_trigger(3 * DAY).kind == "feature_drift"
        watched.model_changed(measured()[0], now_ns=3 * DAY)
        for row in shifted:
            watched.record_features(row)
        assert watched.check_retrain_trigger(4 * DAY).kind == "feature_drift"  # for another model it is

    def test_no_feature_triggers_before_its_window_is_full(self):
        watched = monitor(measured()[0])
        for row in rows_of(499) + 5.0:
            watched.record_features(row)
        assert watched.check_retrain_trigger() is None

    @pytest.mark.parametrize(("configured", "watched_rows"), [(200, 200), (500, 500), (1_000, 500)])
    def test_features_are_watched_over_the_configured_window_up_to_that_of_the_baseline(
        self, configured, watched_rows
    ):
        watched = monitor(measured()[0], settings=MonitorSettings(window=configured))
        shifted = rows_of(watched_rows) + 5.0
        for row in shifted[:-1]:
            watched.record_features(row)
        assert watched.check_retrain_trigger() is None
        watched.record_features(shifted[-1])
        trigger = watched.check_retrain_trigger()
        assert trigger.kind == "feature_drift"
        assert f"over the last {watched_rows} rows" in trigger.reason

    def test_a_window_shorter_than_the_baselines_raises_no_false_alarm(self):
        rng = np.random.default_rng(11)
        noise = rng.standard_normal((60_000, 2))
        rows = np.empty_like(noise)
        rows[0] = noise[0]
        for i, persistence in enumerate((0.0, 0.98)):  # independent, and half gone after 34 rows
            for t in range(1, len(rows)):
                rows[t, i] = persistence * rows[t - 1, i] + noise[t, i]
        baseline = MonitorBaseline.measure([1, 0], [0.5, 0.5], None, rows[:10_000], ("a", "b"), 1_000)
        watched = monitor(baseline, settings=MonitorSettings(window=100, cooldown_bars=0))
        for t in range(10_000, len(rows)):
            watched.record_features(rows[t])
            if t % 10 == 0:
                assert watched.check_retrain_trigger() is None

    def test_age_counts_from_the_first_check_and_from_each_retraining(self):
        watched = monitor(interval_bars=100, settings=MonitorSettings(cooldown_bars=0))
        assert watched.check_retrain_trigger(DAY) is None
        assert watched.check_retrain_trigger(DAY + 100 * MINUTE - 1) is None
        trigger = watched.check_retrain_trigger(DAY + 100 * MINUTE)
        assert trigger.kind == "age"
        assert "100 bars" in trigger.reason
        assert watched.check_retrain_trigger() is None  # without the time nothing ages
        watched.retrained(DAY + 150 * MINUTE)
        assert watched.check_retrain_trigger(DAY + 249 * MINUTE) is None
        assert watched.check_retrain_trigger(DAY + 250 * MINUTE).kind == "age"
        watched.model_changed(BASELINE, 0, DAY + 300 * MINUTE)
        assert watched.check_retrain_trigger(DAY + 399 * MINUTE) is None

    def test_a_model_expires_by_its_newest_label(self):
        watched = monitor(settings=MonitorSettings(max_age_days=2.0))
        watched.model_changed(BASELINE, trained_until_ns=10 * DAY, now_ns=11 * DAY)
        assert watched.check_retrain_trigger(12 * DAY) is None
        trigger = watched.check_retrain_trigger(12 * DAY + DAY // 2)
        assert trigger.kind == "expired"
        assert trigger.detail == {"age_days": 2.5, "max_age_days": 2.0}
        unlimited = monitor()
        unlimited.model_changed(BASELINE, trained_until_ns=0, now_ns=0)
        assert unlimited.check_retrain_trigger(10_000 * DAY) is None

    def test_without_a_model_enough_outcomes_ask_for_the_first(self):
        watched = monitor(None, min_samples=200, interval_bars=1)
        fail(watched, 199)
        assert watched.check_retrain_trigger(DAY) is None
        assert watched.check_retrain_trigger(2 * DAY) is None
        trigger = fail(watched, 1).check_retrain_trigger(2 * DAY)
        assert (trigger.kind, trigger.detail["n_outcomes"]) == ("first_model", 200.0)
        watched.model_changed(BASELINE, 0, 2 * DAY)
        assert watched.n_outcomes == 0
        assert watched.check_retrain_trigger() is None

    def test_by_hand_comes_once_first_and_without_a_cooldown(self):
        watched = fail(monitor())
        watched.retrained(DAY)
        watched.request("new venue " * 100)
        trigger = watched.check_retrain_trigger(DAY + 1)
        assert trigger.kind == "manual"
        assert "new venue" in trigger.reason
        assert len(trigger.reason) < 300
        assert watched.check_retrain_trigger(DAY + 2) is None

    def test_the_cooldown_begins_with_a_trigger_and_with_a_retraining(self):
        cooldown = MonitorSettings().cooldown_bars * MINUTE
        watched = fail(monitor())
        assert watched.check_retrain_trigger(DAY) is not None
        assert watched.check_retrain_trigger(DAY + cooldown - 1) is None
        assert watched.check_retrain_trigger() is not None  # without the time there is no cooldown
        assert watched.check_retrain_trigger(DAY + cooldown) is not None
        watched.retrained(3 * DAY)
        fail(watched)
        assert watched.check_retrain_trigger(3 * DAY + cooldown - 1) is None
        assert watched.check_retrain_trigger(3 * DAY + cooldown) is not None

    def test_a_retraining_resets_the_evidence_and_not_the_rolling_figures(self):
        watched = fail(monitor())
        watched.retrained(DAY)
        assert watched.check_retrain_trigger() is None
        assert {cusum.value for cusum in watched.detectors.values()} == {0.0}
        assert (watched.n_outcomes, watched.accuracy) == (500, 0.0)

    def test_another_model_resets_everything(self):
        watched = monitor(measured()[0])
        for row in rows_of(500) + 5.0:
            watched.record_features(row)
        fail(watched)
        watched.model_changed(measured()[0], 0, DAY)
        assert watched.check_retrain_trigger() is None
        assert (watched.n_outcomes, watched.outcome_weight) == (0, 0.0)
        assert math.isnan(watched.accuracy)
        assert watched.summary()["feature_drift"] is None

    def test_every_reason_has_numbers(self):
        drifted = monitor(measured()[0])
        for row in rows_of(500) + 5.0:
            drifted.record_features(row)
        asked = monitor()
        asked.request("because")
        aged = monitor(interval_bars=1)
        aged.check_retrain_trigger(1)
        overdue = monitor(settings=MonitorSettings(max_age_days=1.0))
        overdue.model_changed(BASELINE, 0, 0)
        for watched in (fail(monitor()), drifted, asked, aged, overdue, fail(monitor(None), 1_000)):
            trigger = watched.check_retrain_trigger(100 * DAY)
            assert any(character.isdigit() for character in trigger.reason)
            assert len(trigger.reason) < 300
            assert all(math.isfinite(value) for value in trigger.detail.values())
            assert msgspec.json.decode(msgspec.json.encode(trigger), type=type(trigger)) == trigger

    @pytest.mark.parametrize(
        "keywords",
        [
            {"accuracy_drop_threshold": 0.0},
            {"accuracy_drop_threshold": math.nan},
            {"interval_bars": 0},
            {"bar_interval_ns": 0},
            {"min_samples": 0},
        ],
    )
    def test_parameters_out_of_range_are_refused(self, keywords):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            monitor(**keywords)
