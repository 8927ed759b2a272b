"""What a search finds in noise is called chance, and purged paths are out of sample."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from ml4t_actor.validation import (
    audit_splits,
    backtest_overfitting,
    combinatorial_purged_splits,
    deflated_sharpe,
    purged_paths,
)


def sharpes(returns):
    return returns.mean(axis=1) / returns.std(axis=1)


def noise(seed, n_trials=100, n=500, phi=0.0):
    return 0.01 * lfilter(
        [1.0], [1.0, -phi], np.random.default_rng(seed).standard_t(5, (n_trials, n)), axis=1
    )


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_the_best_of_a_hundred_series_of_noise_is_called_chance(phi):
    chance = 0
    for seed in range(100):
        trials = noise(seed, phi=phi)
        ratios = sharpes(trials)
        chance += not deflated_sharpe(trials[ratios.argmax()], ratios).beyond_chance
    assert chance >= 91


def test_the_best_of_a_few_series_of_noise_is_called_chance():
    # Of three trials the variance is hardly known; one alone is not deflated, at its level of 5 %.
    for n_trials, least in ((3, 91), (1, 86)):
        chance = 0
        for seed in range(100):
            trials = noise(seed, n_trials)
            ratios = sharpes(trials)
            chance += not deflated_sharpe(trials[ratios.argmax()], ratios).beyond_chance
        assert chance >= least


def test_a_planted_edge_is_found_among_a_hundred_trials():
    found = 0
    for seed in range(20):
        trials = noise(seed)
        trials[7] += 0.35 * trials[7].std()
        found += deflated_sharpe(trials[7], sharpes(trials)).beyond_chance
    assert found >= 18


def test_equals_the_published_formula():
    trials = noise(3, 40)
    ratios = sharpes(trials)
    returns, n = trials[0], 500
    sr, skew, kurtosis = (
        returns.mean() / returns.std(),
        stats.skew(returns, bias=False),
        stats.kurtosis(returns, fisher=False, bias=False),
    )
    gamma, z = 0.5772156649015329, stats.norm.ppf
    best = np.sqrt(max(ratios.var(ddof=1), 1 / 499)) * (
        (1 - gamma) * z(1 - 1 / 40) + gamma * z(1 - 1 / (40 * np.e))
    )
    statistic = (sr - best) * np.sqrt(n - 1) / np.sqrt(1 - skew * sr + (kurtosis - 1) / 4 * sr**2)
    found = deflated_sharpe(returns, ratios)
    assert found.sharpe == pytest.approx(sr)
    assert found.n_trials == 40
    assert found.expected_best >= best * (
        1 - 1e-12
    )  # more, where these returns happen to depend on each other
    assert found.expected_best == pytest.approx(best, rel=0.35)
    assert found.probability == pytest.approx(stats.norm.cdf(statistic), abs=0.1)


def test_more_trials_than_are_known_deflate_more():
    trials = noise(5)
    ratios = sharpes(trials)
    some, many = (deflated_sharpe(trials[0] + 0.002, ratios, n) for n in (100, 10_000))
    assert many.expected_best > some.expected_best
    assert many.probability < some.probability
    with pytest.raises(ValueError, match="`n_trials` was 99"):
        deflated_sharpe(trials[0], ratios, 99)
    with pytest.raises(ValueError, match="`trial_sharpes` is empty"):
        deflated_sharpe(trials[0], [])
    assert np.isnan(deflated_sharpe(np.zeros(50), ratios).probability)


def test_overfitting_is_likely_in_noise_and_unlikely_where_one_configuration_is_better():
    in_noise = [backtest_overfitting(noise(seed, 10, 200), 8).probability for seed in range(20)]
    assert np.mean(in_noise) == pytest.approx(0.5, abs=0.15)
    trials = noise(1, 10, 200)
    trials[3] += 0.5 * trials[3].std()
    found = backtest_overfitting(trials, 8)
    assert found.probability < 0.1
    assert (found.n_configurations, found.n_combinations) == (10, 70)
    with pytest.raises(ValueError, match="at least 2 configurations"):
        backtest_overfitting(trials[:1])


def windows(n=120, horizon=5):
    start = np.arange(n, dtype=np.int64) * 10
    return start, start + 10 * horizon


def test_splits_are_every_choice_of_groups_and_keep_clear_of_their_labels():
    start, end = windows()
    splits = combinatorial_purged_splits(start, end, n_groups=6, n_test_groups=2, embargo=30)
    groups = np.array_split(np.arange(120), 6)
    for split, chosen in zip(splits, combinations(range(6), 2), strict=True):
        test = np.concatenate([groups[g] for g in chosen])
        assert split.test.tolist() == test.tolist()
        clear = [
            i
            for i in range(120)
            if i not in set(test)
            and all(end[i] + 30 < start[groups[g][0]] or start[i] > end[groups[g][-1]] + 30 for g in chosen)
        ]
        assert split.train.tolist() == clear


def test_each_row_of_a_path_is_predicted_by_a_model_that_did_not_see_it():
    start, end = windows()
    splits = combinatorial_purged_splits(start, end, embargo=10)
    paths = purged_paths([np.full(len(split.test), float(fit)) for fit, split in enumerate(splits)], 120)
    assert paths.shape == (5, 120)
    for row in range(120):
        fits = paths[:, row].astype(int)
        assert len(set(fits)) == 5  # another model on every path
        assert all(row in splits[fit].test and row not in splits[fit].train for fit in fits)
    for group in np.array_split(np.arange(120), 6):
        assert (paths[:, group] == paths[:, group[:1]]).all()  # and one for a whole group


def test_walk_forward_splits_of_two_groups_pass_the_audit():
    start, end = windows()
    last = combinatorial_purged_splits(start, end, n_groups=2, n_test_groups=1, embargo=10)[1]
    audit_splits([last], start, end, 10)
