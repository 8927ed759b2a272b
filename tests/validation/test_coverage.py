"""Intervals hold what they say, by simulation where the truth is known: in closed form, the null included."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from ml4t_actor.validation import block_bootstrap, sharpe_interval
from ml4t_actor.validation.bootstrap import mean_interval

SAMPLES = 300


def autoregressive(rng, n, phi):
    """Standard normals of which each is `phi` times the last one and news."""
    news = rng.normal(size=n) * np.sqrt(1.0 - phi**2)
    news[0] = rng.normal()
    return lfilter([1.0], [1.0, -phi], news)


def moving_sums(rng, n, overlap):
    return np.convolve(rng.normal(size=n + overlap - 1), np.ones(overlap) / np.sqrt(overlap), "valid")


def attained(covered):
    """Return the share of the simulations that were covered, and four standard errors of it at 95 %."""
    return np.mean(covered), 4.0 * np.sqrt(0.05 * 0.95 / len(covered))


def sharpe_covers(seed, n, phi, ratio, block):
    returns = 0.01 * (autoregressive(np.random.default_rng(seed), n, phi) + ratio)
    found = sharpe_interval(returns, 1.0, block=block, samples=SAMPLES, seed=seed)
    return found.low <= ratio <= found.high


# Of 250 to 3,000 returns at least fifty are worth as much as independent ones, (1 - phi) / (1 + phi) of them.
SHARPES = [
    (0.0, 250, 0.0),
    (0.3, 250, 0.1),
    (0.5, 250, 0.0),
    (0.7, 500, 0.1),
    (0.8, 1000, 0.0),
    (0.9, 1500, 0.05),
]


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "n", "ratio"), SHARPES)
def test_sharpe_ratios_of_autoregressive_returns(phi, n, ratio):
    share, error = attained([sharpe_covers(seed, n, phi, ratio, 5) for seed in range(300)])
    assert abs(share - 0.95) < max(0.02, error)


@pytest.mark.long
@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize(("phi", "n", "ratio"), SHARPES)
def test_sharpe_ratios_of_autoregressive_returns_2000(phi, n, ratio, block):
    share, _ = attained([sharpe_covers(seed, n, phi, ratio, block) for seed in range(2000)])
    assert 0.93 <= share <= 0.97


def probit_market(seed, n, overlap, halflife, slope):
    """Labels whose luck overlaps, and the probability of each by a feature that persists."""
    rng = np.random.default_rng(seed)
    feature = autoregressive(rng, n, 0.5 ** (1.0 / halflife))
    y = (slope * feature + moving_sums(rng, n, overlap) > 0.0).astype(float)
    return y, norm.cdf((slope or 0.1) * feature), rng.choice([-1, 1], n)


def true_auc(slope):
    """Return AUC of a probit: twice an orthant probability of three normals (Sheppard 1899)."""
    return 0.5 + 2.0 / np.pi * np.arcsin(slope / np.sqrt(2.0 * (1.0 + slope**2)))


def true_skill(slope):
    """Return the log-loss skill against 1/2 of the true probability, or at no slope of the one that was served."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    served, p = norm.cdf((slope or 0.1) * nodes), norm.cdf(slope * nodes)
    loss = -(p * np.log(served) + (1.0 - p) * np.log(1.0 - served))
    return 1.0 - weights @ loss / weights.sum() / np.log(2.0)


def scores_cover(seed, n, overlap, halflife, slope):
    y, p, side = probit_market(seed, n, overlap, halflife, slope)
    half = np.full(n, 0.5)
    found = block_bootstrap(y, p, side, half, block=2 * overlap, samples=SAMPLES, seed=seed)
    auc, skill = true_auc(slope), true_skill(slope)
    return (
        found.auc_within_side.low <= auc <= found.auc_within_side.high,
        found.log_loss_skill.low <= skill <= found.log_loss_skill.high,
        found.base_rate.low <= 0.5 <= found.base_rate.high,
        found.odds_skill_low <= skill,
    )


# Rows, overlap, half-life of the feature in rows, its slope. n * (1 - phi) / (1 + phi) or n / (2 * overlap) are 50.
MARKETS = [
    (2_000, 20, 20, 0.0),
    (2_000, 20, 100, 0.0),
    (3_000, 5, 20, 0.3),
    (6_000, 20, 40, 0.3),
    (12_000, 60, 80, 0.2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "overlap", "halflife", "slope"), MARKETS[1:3])
def test_scores_with_persistent_features(n, overlap, halflife, slope):
    covered = np.array([scores_cover(seed, n, overlap, halflife, slope) for seed in range(200)])
    for score in covered[:, :2].T:
        share, error = attained(score)
        assert abs(share - 0.95) < max(0.02, error)
    assert covered[:, 2].mean() > 0.9  # a feature of a slope moves the base rate for long
    assert covered[:, 3].mean() > 0.91


@pytest.mark.long
@pytest.mark.parametrize(("n", "overlap", "halflife", "slope"), MARKETS)
def test_scores_with_persistent_features_2000(n, overlap, halflife, slope):
    covered = np.array([scores_cover(seed, n, overlap, halflife, slope) for seed in range(2000)])
    assert ((covered[:, :2].mean(axis=0) >= 0.93) & (covered[:, :2].mean(axis=0) <= 0.97)).all()
    assert 0.93 <= covered[:, 3].mean() <= 0.975


def mean_covers(seed, n, phi):
    values = autoregressive(np.random.default_rng(seed), n, phi)
    low, high = mean_interval(values, block=5, samples=SAMPLES, seed=seed)
    return low <= 0.0 <= high


@pytest.mark.slow
def test_means_of_autoregressive_values():
    share, error = attained([mean_covers(seed, 400, 0.6) for seed in range(400)])
    assert abs(share - 0.95) < max(0.02, error)
