"""Intervals by the block bootstrap and scores of an account, against copied rows and published formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from ml4t_actor.kernels.bootstrap import block_multiplicity
from ml4t_actor.validation import (
    auc_within_side,
    base_rate,
    block_bootstrap,
    block_length,
    brier,
    log_loss,
    max_drawdown,
    probabilistic_sharpe,
    sharpe_interval,
    skill,
)
from ml4t_actor.validation.bootstrap import block_starts, mean_interval, resampled_block, resampled_scores
from ml4t_actor.validation.long_run import widening
from tests.support.scored_rows import bounds_of, informed, moving_sums, overlapping_noise


class TestBootstrap:
    @settings(deadline=None, max_examples=80)
    @given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
    def test_multiplicity_counts_wrapped_blocks(self, n, block, seed):
        block = min(block, n)
        (starts,) = block_starts(n, block, 1, seed)
        rows = [(start + k) % n for start in starts for k in range(block)][:n]
        out = np.empty(n, np.int64)
        block_multiplicity(starts, block, out)
        assert out.tolist() == np.bincount(rows, minlength=n).tolist()

    def test_equals_scoring_copied_rows(self):
        rng = np.random.default_rng(3)
        n, samples = 230, 40
        block = resampled_block(n, 7)
        y, side = rng.integers(0, 2, n), rng.choice([-1, 1], n)
        p, baseline = np.round(rng.random(n), 1), np.full(n, 0.4)  # ties, and certain predictions
        weight = rng.random(n)
        draws = []
        for starts in block_starts(n, block, samples, seed=5):
            rows = np.concatenate([(start + np.arange(block)) % n for start in starts])[:n]
            yy, pp, ss, ww, bb = y[rows], p[rows], side[rows], weight[rows], baseline[rows]
            won = total = 0.0
            for s in (-1, 1):
                on = ss == s
                pairs = ww[on & (yy == 1)].sum() * ww[on & (yy == 0)].sum()
                won += pairs * metrics.roc_auc_score(yy[on], pp[on], sample_weight=ww[on])
                total += pairs
            draws.append(
                (
                    won / total,
                    1 - np.average((pp - yy) ** 2, weights=ww) / np.average((bb - yy) ** 2, weights=ww),
                    1
                    - metrics.log_loss(yy, pp, sample_weight=ww) / metrics.log_loss(yy, bb, sample_weight=ww),
                    np.average(yy, weights=ww),
                )
            )
        draws = np.array(draws)
        found = resampled_scores(y, p, side, baseline, weight=weight, block=7, samples=samples, seed=5)
        for k in range(4):
            assert found[k].draws == pytest.approx(draws[:, k], abs=1e-9)
            factor = widening(0.95, found[k].influence, 7, block)
            expected = bounds_of(found[k].estimate, draws[:, k], 0.9, factor)
            assert found[k].interval(0.9) == pytest.approx(expected, abs=1e-9)
            distance = max(found[k].estimate - np.quantile(draws[:, k], 0.05), 1.6448536 * draws[:, k].std())
            assert found[k].lower_bound(0.95) == pytest.approx(found[k].estimate - factor * distance)

    def test_influence_is_the_derivative_by_a_row_s_weight(self):
        rng = np.random.default_rng(4)
        n, step = 60, 1e-6
        y, side, fold = rng.integers(0, 2, n), rng.choice([-1, 1], n), np.repeat([0, 1], n // 2)
        p, baseline, odds = np.round(rng.uniform(0.1, 0.9, n), 1), np.full(n, 0.4), rng.uniform(0.2, 0.6, n)
        weight = rng.uniform(0.2, 1.0, n)

        def statistics(weight):
            loss = log_loss(y, p, weight)
            return np.array(
                [
                    auc_within_side(y, p, side, weight, fold=fold).within,
                    skill(brier(y, p, weight), brier(y, baseline, weight)),
                    skill(loss, log_loss(y, baseline, weight)),
                    base_rate(y, weight),
                    skill(loss, log_loss(y, odds, weight)),
                ]
            )

        found = resampled_scores(
            y, p, side, baseline, base_odds=odds, weight=weight, fold=fold, block=1, samples=1, seed=0
        )
        for row in range(n):
            more = weight * (1.0 + step * (np.arange(n) == row))
            derivative = n * (statistics(more) - statistics(weight)) / step
            assert [score.influence[row] for score in found] == pytest.approx(derivative, rel=1e-3, abs=1e-4)

    def test_covers_whatever_block_is_said(self):
        covered = {1: 0, 40: 0}
        for seed in range(100):
            y, p, side = overlapping_noise(seed)
            for block in covered:
                low, high = block_bootstrap(
                    y, p, side, np.full(len(y), 0.5), block=block, samples=200, seed=seed
                ).auc_within_side
                covered[block] += low <= 0.5 <= high
        assert min(covered.values()) >= 88

    @pytest.mark.parametrize(("n", "asked"), [(300, 8), (307, 1)])
    def test_the_interval_of_a_mean_is_that_of_copied_rows_widened(self, n, asked):
        values = moving_sums(np.random.default_rng(n), n, 4)
        block = resampled_block(n, asked)
        draws = [
            values[np.concatenate([(s + np.arange(block)) % n for s in starts])[:n]].mean()
            for starts in block_starts(n, block, 60, seed=3)
        ]
        factor = widening(0.95, values - values.mean(), asked, block)
        expected = bounds_of(values.mean(), draws, 0.9, factor)
        assert mean_interval(values, block=asked, samples=60, seed=3, level=0.9) == pytest.approx(expected)
        assert np.isnan(mean_interval(np.ones(50), block=1)).all()
        assert np.isnan(mean_interval(values, block=n // 5)).all()

    def test_is_decided_by_its_seed(self):
        y, p, side = overlapping_noise(0)

        def run(seed):
            return block_bootstrap(y, p, side, np.full(len(y), 0.5), block=40, samples=50, seed=seed)

        assert run(1) == run(1)
        assert run(1) != run(2)

    def test_too_few_blocks_give_no_interval(self):
        y, p, side = informed(0, n=99)
        found = block_bootstrap(y, p, side, np.full(99, 0.5), block=10)
        assert np.isnan(found.auc_within_side.low)
        assert np.isnan(found.base_rate_error)
        assert np.isfinite(block_bootstrap(y, p, side, np.full(99, 0.5), block=9).auc_within_side.low)

    def test_one_class_leaves_auc_undefined_and_the_rest_defined(self):
        _, p, side = informed(0, n=100)
        found = block_bootstrap(np.ones(100), p, side, np.full(100, 0.5), block=1)
        assert np.isnan(found.auc_within_side.low)
        assert np.isfinite(found.log_loss_skill.low)

    @pytest.mark.parametrize(("block", "samples", "level"), [(0, 10, 0.9), (1, 0, 0.9), (1, 10, 1.0)])
    def test_settings_out_of_range_are_refused(self, block, samples, level):
        with pytest.raises(ValueError, match="must be"):
            block_bootstrap([0, 1], [0.1, 0.9], [1, 1], [0.5, 0.5], block=block, samples=samples, level=level)

    def test_a_bad_baseline_is_named(self):
        with pytest.raises(ValueError, match="`baseline_p` must be in"):
            block_bootstrap([0, 1], [0.1, 0.9], [1, 1], [0.5, 50.0], block=1)

    def test_block_length_is_twice_the_rows_of_a_label_window(self):
        start = np.array([0, 0, 10, 20, 50, 90], np.int64)
        assert block_length(start, start + 20) == 2 * 3  # rows 0, 1 and 2 start within [0, 20)
        assert block_length(start, start) == 2
        assert block_length([], []) == 1


class TestReturns:
    def test_sharpe_equals_its_formula_and_its_interval_copied_rows(self):
        rng = np.random.default_rng(0)
        returns = moving_sums(rng, 300, 4) * 0.01 + 0.001
        found = sharpe_interval(returns, 365, block=8, samples=50, seed=2)
        block = resampled_block(300, 8)

        def sharpe(r):
            return r.mean() / r.std(ddof=1) * np.sqrt(365)

        draws = [
            sharpe(returns[np.concatenate([(s + np.arange(block)) % 300 for s in starts])[:300]])
            for starts in block_starts(300, block, 50, seed=2)
        ]
        ratio = returns.mean() / returns.std(ddof=1)
        z = ratio * returns / returns.mean() - ratio  # standardised
        factor = widening(0.975, z - ratio / 2 * (z**2 - 1), 8, block)
        low, high = bounds_of(ratio * np.sqrt(365), draws, 0.95, factor)
        assert found == pytest.approx((sharpe(returns), low, high))
        assert found == sharpe_interval(returns, 365, block=8, samples=50, seed=2)

    @pytest.mark.parametrize("returns", [[], [0.1], [0.1] * 50])
    def test_sharpe_without_variance_is_undefined(self, returns):
        assert np.isnan(sharpe_interval(returns, 365, block=1)).all()
        assert np.isnan(probabilistic_sharpe(returns))

    def test_resamples_without_a_trade_do_not_spoil_the_interval(self):
        one_trade = np.append(np.zeros(199), 0.05)
        assert np.isfinite(sharpe_interval(one_trade, 365, block=15)).all()

    def test_sharpe_of_few_blocks_has_no_interval(self):
        sharpe, low, high = sharpe_interval(np.append(np.zeros(199), 0.05), 365, block=30)
        assert sharpe > 0
        assert np.isnan([low, high]).all()

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match="`returns` must be finite: row 1 is nan"):
            sharpe_interval([0.1, np.nan], 365, block=1)
        with pytest.raises(ValueError, match="`periods_per_year` was 0"):
            sharpe_interval([0.1, 0.2], 0, block=1)
        with pytest.raises(ValueError, match="`benchmark` was nan"):
            probabilistic_sharpe([0.1, 0.2], np.nan)
        with pytest.raises(ValueError, match="`returns` must be one column"):
            probabilistic_sharpe([[0.1, 0.2]])
        with pytest.raises(ValueError, match="`equity` must start above zero, its first value was 0"):
            max_drawdown([0.0, 1.0])
        with pytest.raises(ValueError, match="was missing"):
            max_drawdown([])

    def test_probabilistic_sharpe_equals_the_published_formula(self):
        returns = np.random.default_rng(4).standard_t(5, 200) * 0.01 + 0.001
        sr = returns.mean() / returns.std()
        skew, kurtosis = stats.skew(returns, bias=False), stats.kurtosis(returns, fisher=False, bias=False)
        z = (sr - 0.02) * np.sqrt(199) / np.sqrt(1 - skew * sr + (kurtosis - 1) / 4 * sr**2)
        assert probabilistic_sharpe(returns, 0.02) == pytest.approx(stats.norm.cdf(z))

    def test_probabilistic_sharpe_of_extreme_moments_is_undefined(self):
        assert np.isnan(probabilistic_sharpe([4.5, 3.8, 2.2, 1.3]))

    @settings(deadline=None)
    @given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=30))
    def test_drawdown_is_the_worst_of_all_falls(self, equity):
        falls = [1 - equity[j] / equity[i] for i in range(len(equity)) for j in range(i, len(equity))]
        assert max_drawdown(equity) == pytest.approx(max(falls), abs=1e-12)
