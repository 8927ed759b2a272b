"""The long-run variance against what is known of it in closed form, and Student's quantiles against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from ml4t_actor.validation.long_run import (
    circular_block_variance,
    long_run_variance,
    student_quantile,
    widening,
    widening_for_blocks,
)


def restated(values, block, least_share):
    """Return variance and bandwidth by loops over rows and lags."""
    n = len(values)
    x = values - values.mean()
    largest = max(1, n // 4)
    c = [sum(x[t] * x[t + k] for t in range(n - k)) / n for k in range(largest + 1)]
    limit = 2 * np.sqrt(np.log10(n) / n)
    small = [abs(c[k] / c[0]) < limit for k in range(1, largest + 1)]
    last = next((k for k in range(len(small) - 4) if all(small[k : k + 5])), len(small))
    half = max(int(np.ceil(block / 2)), int(np.ceil(1.5 * last)) + 1, int(np.ceil(least_share * n / 2)))
    m = min(2 * half, largest)
    flat = c[0] + 2 * sum(min(1.0, 2 * (1 - k / m)) * c[k] for k in range(1, m + 1))
    blocks = [sum(x[(t + j) % n] for j in range(m)) ** 2 for t in range(n)]
    bartlett = sum(blocks) / n / m
    return max(flat / (1 - 1.5 * m / n), bartlett / (1 - m / n + (m / n) ** 2 / 3)), m


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(25, 120),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.sampled_from([0.0, 1 / 30, 0.1]),
)
def test_equals_a_restatement_of_its_rule(seed, n, block, phi, least_share):
    values = lfilter([1.0], [1.0, -phi], np.random.default_rng(seed).normal(size=n))
    found = long_run_variance(values, block, least_share=least_share)
    variance, bandwidth = restated(values, block, least_share)
    assert found.bandwidth == bandwidth
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.df == pytest.approx(0.75 * n / bandwidth)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_is_that_of_an_autoregression(phi):
    rng = np.random.default_rng(5)
    found = [
        long_run_variance(lfilter([1.0], [1.0, -phi], rng.normal(size=4_000))).variance for _ in range(60)
    ]
    assert np.mean(found) == pytest.approx(1.0 / (1.0 - phi) ** 2, rel=0.12)


def test_constant_values_have_none_and_need_no_widening():
    assert long_run_variance(np.full(50, 3.0)).variance == 0.0
    assert widening(0.975, np.zeros(50), 1, 5) == 1.0


def test_widening_turns_the_draws_spread_into_student_s_on_the_long_run():
    values = lfilter([1.0], [1.0, -0.8], np.random.default_rng(2).normal(size=900))
    found = long_run_variance(values, 4)
    deviation = widening(0.95, values, 4, 30) * np.sqrt(circular_block_variance(values, 30))
    expected = stats.t.ppf(0.95, found.df) / stats.norm.ppf(0.95) * np.sqrt(found.variance)
    assert deviation == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("df", [4.0, 15.0, 75.0, 1_000.0])
@pytest.mark.parametrize("quantile", [0.8, 0.95, 0.975, 0.995])
def test_student_s_quantile_is_scipy_s(quantile, df):
    assert student_quantile(stats.norm.ppf(quantile), df) == pytest.approx(
        stats.t.ppf(quantile, df), rel=5e-3
    )


def test_few_blocks_widen_more():
    factors = [widening_for_blocks(0.95, n) for n in (10, 20, 100, 1e6)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(1.0, abs=1e-5)
    assert widening_for_blocks(0.95, 20, 1.5) == pytest.approx(np.sqrt(1.5) * factors[1])
