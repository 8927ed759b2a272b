"""The block bootstrap against `arch.bootstrap`, which copies the rows of every resample.

Both draw the first rows of circular blocks from the same generator, so that every resample is the same one.
"""

import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap, StationaryBootstrap

from ml4t_actor.settings import GateSettings
from ml4t_actor.training.gate import compare_models
from ml4t_actor.validation import auc_within_side, block_bootstrap, brier, log_loss, sharpe_interval, skill
from ml4t_actor.validation.bootstrap import resampled_block, resampled_scores
from ml4t_actor.validation.long_run import circular_block_variance, widening
from tests.support.scored_rows import bounds_of

SAMPLES, LEVEL = 300, 0.9


def arch_draws(block, seed, statistic, *columns, samples=SAMPLES):
    """Return the statistic of each resample, (samples, n_statistics)."""
    bootstrap = CircularBlockBootstrap(block, *columns, seed=np.random.default_rng(seed))
    return bootstrap.apply(statistic, samples)


def persistent(rng, n, memory=15):
    return np.convolve(rng.normal(size=n + memory - 1), np.ones(memory) / np.sqrt(memory), "valid")


def scored(seed, n):
    rng = np.random.default_rng(seed)
    signal = persistent(rng, n)
    p = 1 / (1 + np.exp(-0.5 * signal))
    y = (0.4 * signal + persistent(rng, n) > 0).astype(float)
    baseline = np.clip(0.5 + 0.02 * persistent(rng, n), 0.01, 0.99)
    return y, p, rng.choice([-1, 1], n), baseline, rng.uniform(0.1, 1.0, n)


def scores(y, p, side, baseline, weight):
    return np.array(
        [
            auc_within_side(y, p, side, weight).within,
            skill(brier(y, p, weight), brier(y, baseline, weight)),
            skill(log_loss(y, p, weight), log_loss(y, baseline, weight)),
            np.average(y, weights=weight),
        ]
    )


@pytest.mark.parametrize(("n", "block"), [(400, 30), (401, 30), (300, 1), (200, 20)])
def test_draws_of_scores_are_those_of_arch(n, block):
    y, p, side, baseline, weight = scored(n, n)
    ours = resampled_scores(y, p, side, baseline, weight=weight, block=block, samples=SAMPLES, seed=7)
    theirs = arch_draws(ours.base_rate.drawn_block, 7, scores, y, p, side, baseline, weight)
    drawn = (ours.auc_within_side, ours.brier_skill, ours.log_loss_skill, ours.base_rate)
    np.testing.assert_allclose(np.array([score.draws for score in drawn]).T, theirs, rtol=1e-9)
    assert [score.estimate for score in drawn] == pytest.approx(scores(y, p, side, baseline, weight))


@pytest.mark.parametrize("block", [1, 20])
def test_a_sharpe_ratio_s_interval_is_that_of_arch_s_draws_widened(block):
    returns = 0.002 + 0.01 * persistent(np.random.default_rng(block), 250, 5)
    ours = sharpe_interval(returns, 365.0, block=block, samples=SAMPLES, seed=3, level=LEVEL)
    drawn_block = resampled_block(250, block)
    draws = arch_draws(
        drawn_block, 3, lambda r: np.array([np.sqrt(365.0) * r.mean() / r.std(ddof=1)]), returns
    )
    standardised = (returns - returns.mean()) / returns.std(ddof=1)
    ratio = returns.mean() / returns.std(ddof=1)
    factor = widening(0.95, standardised - ratio / 2 * (standardised**2 - 1), block, drawn_block)
    expected = bounds_of(ours.sharpe, draws, LEVEL, factor)
    np.testing.assert_allclose([ours.low, ours.high], expected, rtol=1e-9)


@pytest.mark.parametrize("block", [1, 5, 16])
def test_the_variance_of_the_draws_has_a_closed_form(block):
    # 400 rows hold whole blocks of each length.
    values = persistent(np.random.default_rng(block), 400, 5)
    draws = arch_draws(block, 1, lambda v: np.array([v.mean()]), values, samples=4_000)
    assert circular_block_variance(values, block) == pytest.approx(400 * draws.var(), rel=0.1)


def test_the_gates_bound_lies_beyond_the_quantile_of_archs_draws():
    # Which draws it rests on is exact; how much further out it lies for few blocks is `widening`'s to say.
    y, champion, _, _, weight = scored(1, 600)
    challenger = np.clip(champion + 0.1 * (y - champion), 0.01, 0.99)
    settings = GateSettings(bootstrap_samples=SAMPLES)

    def improvement(y, one, other, weight):
        return np.array([log_loss(y, one, weight) - log_loss(y, other, weight)])

    decision = compare_models(
        y, champion, challenger, weight=weight, baseline_p=0.5, block=20, settings=settings
    )
    draws = arch_draws(20, settings.seed, improvement, y, champion, challenger, weight)[:, 0]
    assert decision.improvement == pytest.approx(improvement(y, champion, challenger, weight)[0])
    assert decision.improvement_low < np.quantile(draws, 1 - settings.confidence)
    assert decision.improvement_low > decision.improvement - 10 * draws.std()


def test_blocks_of_random_length_give_about_the_same_error():
    # Politis & Romano's stationary bootstrap shares no code and no draw with ours.
    y, p, side, baseline, weight = scored(5, 6_000)
    for block in (1, 60):  # how far neighbours depend on each other is seen without being said
        ours = block_bootstrap(y, p, side, baseline, weight=weight, block=block, samples=10).base_rate_error
        stationary = StationaryBootstrap(60, y, weight, seed=np.random.default_rng(0))
        draws = stationary.apply(lambda y, weight: np.array([np.average(y, weights=weight)]), 1_000)
        assert ours == pytest.approx(draws.std(), rel=0.2)
    assert np.sqrt(y.var() / len(y)) < 0.5 * ours  # which blocks are there to see
