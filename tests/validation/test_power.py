"""A mean of zero is told from zero as rarely as is said, and another as often, with the sample that is asked for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ml4t_actor.validation.power import LEAST_VALUES, counted_values, mean_test, sample_needed

REPEATS = 2_000


def told(draw, repeats: int = REPEATS) -> tuple[float, float]:
    """Return how often a mean is said to be above and below zero."""
    found = [mean_test(draw()).direction for _ in range(repeats)]
    return found.count(1) / repeats, found.count(-1) / repeats


def sparse(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Days of which few saw a trade, won or lost by a coin."""
    return (rng.random(n) < share) * rng.choice([-1.0, 1.0], n)


def skewed(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Days of which few saw a trade, most of them a small loss and some a large gain; the mean is zero."""
    return (rng.random(n) < share) * ((rng.random(n) < 0.3) - 0.3)


@pytest.mark.parametrize("n", [20, 45, 120])
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.standard_t(3, n),
        lambda rng, n: np.convolve(rng.normal(size=n + 1), [1.0, 0.4], "valid"),
        lambda rng, n: sparse(rng, n, 0.05),
        lambda rng, n: sparse(rng, n, 0.3),
        lambda rng, n: skewed(rng, n, 0.3),
    ],
    ids=["normal", "fat tails", "dependent", "rare", "now and then", "skewed"],
)
def test_where_there_is_nothing_each_side_is_told_in_at_most_a_twentieth(draw, n: int):
    rng = np.random.default_rng([n, 7])
    above, below = told(lambda: draw(rng, n))
    error = math.sqrt(0.05 * 0.95 / REPEATS)
    assert max(above, below) <= 0.05 + 2.0 * error


@pytest.mark.parametrize("effect", [0.2, 0.4])
def test_the_sample_that_is_asked_for_tells_four_times_of_five(effect: float):
    n, rng = math.ceil(sample_needed(effect, 1.0)), np.random.default_rng(5)
    above, below = told(lambda: rng.normal(effect, 1.0, n))
    assert above == pytest.approx(0.8, abs=0.03)
    assert below == 0.0
    half, _ = told(lambda: rng.normal(effect, 1.0, n // 2))
    assert half < 0.6


def test_the_sample_of_a_test_is_that_of_its_own_mean_and_deviation():
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(60):
        values = rng.normal(0.3, 2.0, 500)
        found = mean_test(values)
        ratios.append(found.needed / sample_needed(abs(values.mean()), values.std()))
        further = max(abs(found.low), abs(found.high))
        assert found.needed_least * further**2 == pytest.approx(found.needed * found.mean**2)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)


def test_the_interval_of_many_independent_values_is_students():
    values = np.random.default_rng(2).normal(0.3, 2.0, 5_000)
    found = mean_test(values)
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.high - found.low == pytest.approx(high - low, rel=0.3)
    assert found.high - found.low > high - low  # the deviation is that of a bandwidth, and so less certain
    assert found.low + found.high == pytest.approx(2.0 * values.mean(), rel=1e-9)


def test_three_gains_in_a_row_are_no_proof():
    days = np.zeros(45)
    days[[5, 20, 31]] = 1.0
    assert mean_test(days).direction == 0


@pytest.mark.parametrize(
    "values", [[], [1.0] * 40, [0.0] * 40, list(np.arange(LEAST_VALUES - 1.0)), [0.0] * 39 + [1.0]]
)
def test_without_days_that_differ_there_is_no_interval(values):
    found = mean_test(values)
    assert found.direction is None
    assert math.isnan(found.needed)
    assert found.n == len(values)


@given(st.lists(st.floats(-1e3, 1e3), min_size=LEAST_VALUES, max_size=60))
def test_signs_and_units_do_not_matter(values: list[float]):
    found, turned = mean_test(values), mean_test([-value for value in values])
    if found.direction is None:
        assert turned.direction is None
        return
    assert turned.direction == -found.direction
    assert turned.low == pytest.approx(-found.high, rel=1e-9, abs=1e-12)
    assert 1.0 <= counted_values(np.array(values)) <= len(values) + 1e-9


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="row 1 is nan"):
        mean_test([0.0, math.nan])
