"""The slope of realised on expected returns: least squares written out, and intervals that cover as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation import evaluate, return_slope, shrunk_slope
from ml4t_actor.validation.long_run import long_run_variance


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(30, 300), st.integers(1, 8), st.floats(-3.0, 3.0))
def test_is_least_squares_with_the_sandwich_of_the_long_run_variance_of_its_scores(seed, n, block, true):
    rng = np.random.default_rng(seed)
    expected = 0.2 * rng.normal(size=n) + 0.1
    realised = 0.3 + true * expected + rng.normal(size=n)
    found = return_slope(expected, realised, block=block)
    D = np.column_stack([np.ones(n), expected])
    coefficients, *_ = np.linalg.lstsq(D, realised, rcond=None)
    # The sandwich of White and Newey & West, with this house's long-run variance for the meat: of both score series'
    # combination that the bread makes of them.
    bread = np.linalg.inv(D.T @ D / n)
    influence = (D * (realised - D @ coefficients)[:, None]) @ bread[:, 1]
    assert found.n == n
    assert found.slope == pytest.approx(coefficients[1], rel=1e-9, abs=1e-9)
    assert found.standard_error == pytest.approx(
        math.sqrt(long_run_variance(influence, block).variance / n), rel=1e-6
    )
    low, high = found.interval
    assert low < found.slope < high
    assert (low + high) / 2.0 == pytest.approx(found.slope, rel=1e-9, abs=1e-9)
    holed = np.insert(expected, [3, 7], [np.nan, 1.0]), np.insert(realised, [3, 7], [1.0, np.nan])
    assert return_slope(*holed, block=block) == found


@pytest.mark.parametrize("true", [0.0, 1.0])
def test_intervals_cover_the_truth_where_returns_overlap_and_forecasts_are_slow(true):
    """Each return shares the shocks of 20 steps with its neighbours; the forecast is an AR(1) of 0.97."""
    rng = np.random.default_rng(4)
    covered, outside_naive = [], []
    for _ in range(300):
        expected = 0.1 * lfilter([math.sqrt(1.0 - 0.97**2)], [1.0, -0.97], rng.normal(size=3_000))[1_000:]
        noise = np.convolve(rng.normal(size=2_019), np.ones(20), "valid") / math.sqrt(20.0)
        found = return_slope(expected, true * expected + noise, block=40)
        covered.append(found.interval.low <= true <= found.interval.high)
        naive = 1.96 / math.sqrt(2_000.0) / np.std(expected)
        outside_naive.append(abs(found.slope - true) > naive)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert np.mean(outside_naive) > 0.4  # what ignores the dependence does not cover


def test_without_anything_expected_there_is_no_slope():
    y = np.random.default_rng(0).normal(size=100)
    for expected, realised in (
        (np.full(100, 0.3), y),
        (np.zeros(100), y),
        (np.full(100, np.nan), y),
        (y, np.full(100, np.nan)),
        (y[:19], y[:19]),
        ([], []),
    ):
        found = return_slope(expected, realised, block=3)
        assert math.isnan(found.slope)
        assert math.isnan(found.standard_error)
        assert all(math.isnan(bound) for bound in found.interval)
    tiny = return_slope(1e-9 * y, 1e-9 * y, block=3)
    assert tiny.slope == pytest.approx(1.0)
    with pytest.raises(ValueError, match="must have one value per row each"):
        return_slope(y, y[1:], block=3)


def test_scores_have_it_where_returns_were_expected():
    rng = np.random.default_rng(1)
    n = 2_000
    p, side = rng.uniform(0.3, 0.7, n), rng.choice([-1, 1], n)
    y, expected = rng.random(n) < p, 0.1 * rng.normal(size=n)
    realised = expected + rng.normal(size=n)
    rule = ValidationSettings(bootstrap_samples=20)
    scores = evaluate(y, p, side, np.full(n, 0.5), returns=(expected, realised), block=4, settings=rule)
    found = return_slope(expected, realised, block=4)
    assert (scores.return_slope, scores.return_slope_error) == (found.slope, found.standard_error)
    assert scores.return_slope_interval == found.interval
    without = evaluate(y, p, side, np.full(n, 0.5), block=4, settings=rule)
    assert without.to_dict()["return_slope"] is None
    assert without.log_loss == scores.log_loss


@settings(deadline=None, max_examples=60)
@given(st.floats(-3.0, 3.0), st.floats(0.02, 5.0))
def test_the_shrunk_slope_is_the_mean_of_the_posterior_within_its_bounds(slope, error):
    """By quadrature: a normal prior around 1 of standard deviation 0.25 times the likelihood of the estimate."""
    b = np.linspace(-12.0, 12.0, 480_001)
    log_density = -0.5 * ((b - 1.0) / 0.25) ** 2 - 0.5 * ((slope - b) / error) ** 2
    density = np.exp(log_density - log_density.max())
    mean = float((b * density).sum() / density.sum())
    assert shrunk_slope(slope, error) == pytest.approx(min(max(mean, 0.0), 1.0), abs=1e-6)


@pytest.mark.parametrize(
    ("slope", "error"), [(math.nan, math.nan), (0.5, math.nan), (0.5, 0.0), (math.inf, 0.1)]
)
def test_without_an_estimate_the_slope_is_left_alone(slope, error):
    assert shrunk_slope(slope, error) == 1.0


def test_where_slopes_differ_as_the_prior_says_the_shrunk_ones_are_right_on_average():
    rng = np.random.default_rng(7)
    true = rng.normal(1.0, 0.25, 40_000)
    error = rng.uniform(0.05, 0.6, len(true))
    told = np.array(
        [shrunk_slope(b + e * z, e) for b, e, z in zip(true, error, rng.normal(size=len(true)), strict=True)]
    )
    within = told < 1.0  # at 1 they are bounded
    assert np.mean(true[within] - told[within]) == pytest.approx(0.0, abs=0.01)
    assert np.mean((true - told) ** 2) < np.mean((true - 1.0) ** 2)
