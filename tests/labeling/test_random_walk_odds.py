"""The odds of a random walk between barriers, against simulation and what must hold of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.kernels import odds as kernels
from ml4t_actor.labeling.odds import random_walk_odds

STEPS = 400  # of a random walk over the horizon, each of a twentieth of the volatility
STEP = 1.0 / math.sqrt(STEPS)


@pytest.fixture(scope="module")
def walks():
    """Simulate random walks on a fine lattice, in steps: int16 (STEPS, n_paths)."""
    rng = np.random.default_rng(0)
    steps = 2 * rng.integers(0, 2, (STEPS, 40_000), dtype=np.int8) - 1
    return np.cumsum(steps, axis=0, dtype=np.int16)


def simulated_odds(walks, pt, sl, threshold):
    """Restate the definition on every path: absorbed above, or at the horizon above the threshold."""
    up, down = round(pt / STEP), -round(sl / STEP)
    above, below = walks >= up, walks <= down
    never = len(walks)
    first_up = np.where(above.any(axis=0), above.argmax(axis=0), never)
    first_down = np.where(below.any(axis=0), below.argmax(axis=0), never)
    survived = (first_up == never) & (first_down == never)
    paid = (first_up < first_down) | (survived & (walks[-1] > threshold / STEP))
    return float(paid.mean()), float(paid.std() / math.sqrt(len(paid)))


# Thresholds lie between two points that the walk can end at, so that the lattice adds no error of its own.
@pytest.mark.parametrize("threshold", [0.05, 0.25, 0.75])
@pytest.mark.parametrize(("pt", "sl"), [(1.0, 1.0), (1.5, 1.0), (1.0, 2.0), (0.8, 0.5), (3.0, 3.0)])
def test_odds_are_those_of_a_simulated_random_walk(walks, pt, sl, threshold):
    expected, error = simulated_odds(walks, pt, sl, threshold)
    volatility = 0.02
    odds = random_walk_odds([volatility], pt=pt, sl=sl, cost=threshold * volatility)[0]
    assert abs(odds - expected) < 4.0 * error + 1.0 / STEPS


@given(st.floats(0.1, 6.0), st.floats(1e-5, 1.0))
@settings(deadline=None)
def test_odds_without_costs_are_even_between_equal_barriers(barrier, volatility):
    assert random_walk_odds([volatility], pt=barrier, sl=barrier, cost=0.0)[0] == pytest.approx(
        0.5, abs=1e-12
    )


@given(st.floats(0.2, 5.0), st.floats(0.2, 5.0))
@settings(deadline=None)
def test_odds_of_both_sides_without_costs_are_one(pt, sl):
    # What pays for a long does not pay for a short whose barriers are exchanged.
    long, short = (random_walk_odds([0.01], pt=a, sl=b, cost=0.0)[0] for a, b in ((pt, sl), (sl, pt)))
    assert long + short == pytest.approx(1.0, abs=1e-12)


@given(st.floats(0.2, 5.0), st.floats(0.2, 5.0), st.floats(1e-4, 0.5))
@settings(deadline=None)
def test_odds_fall_with_the_cost_from_its_first_cent_to_nothing(pt, sl, volatility):
    shares = np.concatenate([np.linspace(0.0, 0.999, 50), [1.0, 1.001, 5.0]])
    odds = np.array(
        [random_walk_odds([volatility], pt=pt, sl=sl, cost=share * pt * volatility)[0] for share in shares]
    )
    assert (odds[1:] <= odds[:-1] + 1e-12).all()
    assert odds[0] > odds[40]
    assert ((odds >= 0.0) & (odds <= 1.0)).all()
    assert (odds[-2:] == 0.0).all()
    # A profit barrier just beyond the cost is still reached by some; the cost itself lets none through.
    assert odds[-4] > 0.0


def test_barriers_out_of_reach_leave_the_normal_distribution():
    for threshold in (0.0, 0.3, 1.0):
        expected = 0.5 * math.erfc(threshold / math.sqrt(2.0))
        odds = random_walk_odds([0.01], pt=9.0, sl=9.0, cost=threshold * 0.01)[0]
        assert odds == pytest.approx(expected, abs=1e-12)


def test_odds_of_rows_follow_each_rows_volatility():
    volatility = np.array([0.001, 0.01, np.nan, 0.0, -1.0, np.inf, 0.1, 1e-4])
    odds = random_walk_odds(volatility, pt=1.0, sl=1.0, cost=0.0005)
    assert np.isnan(odds[2:6]).all()
    assert odds[0] < odds[1] < odds[6] < 0.5
    assert odds[7] == 0.0
    for row in (0, 1, 6, 7):
        assert odds[row] == random_walk_odds(volatility[row : row + 1], pt=1.0, sl=1.0, cost=0.0005)[0]


@pytest.mark.parametrize("name", ["pt", "sl"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_odds_need_barriers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` was {value}, must be positive and finite"):
        random_walk_odds([0.01], **({"pt": 1.0, "sl": 1.0, "cost": 0.0} | {name: value}))


def normal_above(x):
    return 0.5 * math.erfc(x / math.sqrt(2.0))


def odds_by_images(pt, sl, threshold, n=60):
    """Restate the odds by the method of images, the other classical expansion (Karatzas & Shreve 1991, 2.8)."""
    if threshold >= pt:
        return 0.0
    width = pt + sl
    absorbed = sum(
        2.0 * normal_above(2 * k * width + pt) - 2.0 * normal_above(2 * k * width + pt + 2 * sl)
        for k in range(n)
    )
    ends_between = sum(
        (normal_above(threshold - 2 * k * width) - normal_above(pt - 2 * k * width))
        - (normal_above(threshold - 2 * pt - 2 * k * width) - normal_above(pt - 2 * pt - 2 * k * width))
        for k in range(-n, n + 1)
    )
    return absorbed + ends_between


@given(st.floats(0.2, 12.0), st.floats(0.2, 12.0), st.floats(0.0, 1.2))
@settings(deadline=None)
def test_odds_are_those_of_the_other_expansion(pt, sl, share):
    odds = random_walk_odds([1.0], pt=pt, sl=sl, cost=share * pt)[0]
    assert odds == pytest.approx(odds_by_images(pt, sl, share * pt), abs=1e-12)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(1e-6, 1.0), st.sampled_from([math.nan, 0.0, math.inf, 1e-300])),
            st.sampled_from([0.3, 1.0, 2.5]),
            st.sampled_from([0.5, 1.0, 3.0]),
            st.floats(0.0, 0.01),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None)
def test_each_row_may_have_barriers_and_costs_of_its_own(rows):
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    odds = random_walk_odds(*columns)
    alone = [random_walk_odds([v], pt=pt, sl=sl, cost=cost)[0] for v, pt, sl, cost in rows]
    live = [
        kernels.random_walk_excess(v, cost, kernels.barrier_series(pt, sl, np.ones(1)))[0]
        for v, pt, sl, cost in rows
    ]
    assert odds.tobytes() == np.array(alone).tobytes() == np.array(live).tobytes()


def test_shapes_broadcast():
    assert random_walk_odds(0.01, 1.0, 1.0, 0.0).shape == ()
    assert random_walk_odds(np.full((3, 1), 0.01), 1.0, 1.0, [0.0, 0.001]).shape == (3, 2)
    assert random_walk_odds([], 1.0, 1.0, 0.0).shape == (0,)


@pytest.mark.parametrize("barrier", [41.0, 1e6, 1e300])
def test_a_barrier_beyond_any_float_costs_no_more_than_one_out_of_reach(barrier):
    assert len(kernels.barrier_series(barrier, barrier, np.ones(1))) < 300
    odds = random_walk_odds([0.01] * 3, barrier, barrier, [0.0, 0.01, 10.0])
    assert odds == pytest.approx([0.5, normal_above(1.0), 0.0], abs=1e-12)
    assert ((odds >= 0.0) & (odds <= 1.0)).all()


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_odds_need_costs_in_every_row(value):
    with pytest.raises(ValueError, match=f"`cost` was {value}, must be a finite log return"):
        random_walk_odds([0.01, 0.01], 1.0, 1.0, [0.0, value])
