"""Odds, excess and break-even of trades that later signals end, against densities, simulation and brute force."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from ml4t_actor.kernels import odds as kernels
from ml4t_actor.labeling.odds import (
    N_KNOTS,
    TradeOdds,
    exit_times_of,
    fit_break_even_shift,
    random_walk_odds,
    with_odds,
)
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.settings import LabelSettings

BARRIER = st.floats(0.2, 6.0)
TIMES = st.lists(st.floats(0.02, 1.0), min_size=1, max_size=8)
SHARE = st.floats(0.0, 0.98)


def density(x, pt, sl, t, n=60):
    """Where a Brownian motion that met no barrier is at time t, by the method of images (Karatzas & Shreve 2.8)."""
    k = 2.0 * (pt + sl) * np.arange(-n, n + 1)
    normal = partial(lambda y: np.exp(-y * y / (2.0 * t)) / math.sqrt(2.0 * math.pi * t))
    return float((normal(x - k) - normal(x - 2.0 * pt - k)).sum())


def by_quadrature(pt, sl, times, c):
    """Restate odds and excess: what survives by integrating its density, what is absorbed from the mean of zero."""
    odds = excess = 0.0
    for t in times:
        moment = partial(_integral, pt, sl, t)
        survived, mean = moment(0, -sl), moment(1, -sl)
        above = (sl * (1.0 - survived) - mean) / (pt + sl)  # pt a - sl b + mean = 0 with a + b = 1 - survived
        odds += above + moment(0, c)
        excess += (pt - c) * above + moment(1, c) - c * moment(0, c)
    return odds / len(times), excess / len(times)


def _integral(pt, sl, t, power, low):
    points = [x for x in np.linspace(-8.0, 8.0, 33) * math.sqrt(t) if low < x < pt]
    edges = [low, *points, pt]
    return sum(
        integrate.quad(lambda x: x**power * density(x, pt, sl, t), a, b, epsabs=1e-13, epsrel=1e-12)[0]
        for a, b in pairwise(edges)
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.45, 0.9])
@pytest.mark.parametrize("times", [[1.0], [0.05], [0.03, 0.2, 0.2, 1.0]])
@pytest.mark.parametrize(("pt", "sl"), [(1.0, 1.0), (1.5, 0.6), (0.4, 2.0), (5.0, 5.0)])
def test_odds_and_excess_are_integrals_over_the_density(pt, sl, times, share):
    series = kernels.barrier_series(pt, sl, np.array(times))
    found = kernels.random_walk_excess(1.0, share * pt, series)
    assert found == pytest.approx(by_quadrature(pt, sl, times, share * pt), abs=1e-10)


@given(BARRIER, BARRIER, TIMES, SHARE)
@settings(deadline=None)
def test_several_times_are_the_mean_of_each(pt, sl, times, share):
    together = kernels.random_walk_excess(1.0, share * pt, kernels.barrier_series(pt, sl, np.array(times)))
    alone = [
        kernels.random_walk_excess(1.0, share * pt, kernels.barrier_series(pt, sl, np.array([t])))
        for t in times
    ]
    assert together == pytest.approx(np.mean(alone, axis=0), abs=1e-12)


@given(BARRIER, BARRIER, st.floats(0.02, 1.0), SHARE)
@settings(deadline=None)
def test_an_earlier_end_is_farther_barriers_at_less_volatility(pt, sl, t, share):
    root = math.sqrt(t)
    early = kernels.random_walk_excess(1.0, share * pt, kernels.barrier_series(pt, sl, np.array([t])))
    scaled = kernels.barrier_series(pt / root, sl / root, np.ones(1))
    odds, excess = kernels.random_walk_excess(1.0, share * pt / root, scaled)
    assert early == pytest.approx((odds, excess * root), abs=1e-12)


@given(BARRIER, BARRIER, TIMES)
@settings(deadline=None)
def test_excess_falls_with_the_cost_and_by_no_more_than_it(pt, sl, times):
    series = kernels.barrier_series(pt, sl, np.array(times))
    costs = np.linspace(0.0, 0.999 * pt, 60)
    odds, excess = np.array([kernels.random_walk_excess(1.0, c, series) for c in costs]).T
    assert ((odds >= 0.0) & (odds <= 1.0)).all()
    # Its slope is minus the odds (d/dc E[(B - c)+] = -P(B > c)), so that it is convex and falls.
    slope = np.diff(excess) / np.diff(costs)
    assert (slope <= -odds[1:] + 1e-9).all()
    assert (slope >= -odds[:-1] - 1e-9).all()
    # No win is larger than what is left up to the barrier.
    assert (excess <= odds * (pt - costs) + 1e-15).all()


@given(BARRIER, BARRIER, st.floats(0.02, 1.0), st.floats(1e-5, 0.5))
@settings(deadline=None)
def test_break_even_rises_with_the_cost_from_the_odds_to_certainty(pt, sl, t, volatility):
    def told(c):
        labels = LabelSettings(profit_barrier=pt, stop_barrier=sl, cost=float(c * pt * volatility))
        return TradeOdds(labels, [t]).of(volatility)

    found = np.array([told(c) for c in (*np.linspace(0.0, 0.999, 30), 1.0001, 1.5)])
    odds, break_even = found.T
    assert ((break_even >= 0.0) & (break_even <= 1.0)).all()
    assert break_even[0] == pytest.approx(
        odds[0], abs=1e-9
    )  # without costs nobody is to know more than the walk
    seen = odds > 1e-9  # beyond, both sums are rounding
    assert (np.diff(break_even[seen]) >= -1e-9).all()
    assert (break_even >= odds - 1e-9).all()
    assert found[-2:].tolist() == [[0.0, 1.0]] * 2


def test_where_it_cannot_be_known_neither_is():
    for volatility in (math.nan, 0.0, -1.0, math.inf):
        assert np.isnan(TradeOdds(LabelSettings()).of(volatility)).all()


@pytest.mark.parametrize("barrier", [9.0, 40.0, 1e300])
@pytest.mark.parametrize("threshold", [0.5, 3.0, 6.0])
def test_far_in_a_tail_it_is_that_of_the_normal_distribution(barrier, threshold):
    odds = 0.5 * math.erfc(threshold / math.sqrt(2.0))
    excess = math.exp(-(threshold**2) / 2.0) / math.sqrt(2.0 * math.pi) - threshold * odds
    win, loss = excess / odds, (excess + threshold) / (1.0 - odds)
    labels = LabelSettings(profit_barrier=barrier, stop_barrier=barrier, cost=threshold * 0.01)
    assert TradeOdds(labels).of(0.01) == pytest.approx((odds, loss / (win + loss)), abs=1e-6)


ROWS = st.lists(
    st.one_of(st.floats(1e-7, 1.0), st.sampled_from([math.nan, 0.0, -1.0, math.inf, 1e-300])),
    min_size=1,
    max_size=30,
)


@given(ROWS, TIMES, st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=5))
@settings(deadline=None)
def test_live_and_batch_are_the_same_to_the_last_bit(volatility, times, shift):
    odds = TradeOdds(LabelSettings(), times, shift)
    alone = np.array([odds.of(v) for v in volatility]).T
    assert np.array(odds.of_rows(volatility)).tobytes() == np.ascontiguousarray(alone).tobytes()
    plain = random_walk_odds(volatility, 1.0, 1.0, LabelSettings().cost, times)
    assert plain.tobytes() == alone[0].tobytes()


@given(st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6), SHARE)
@settings(deadline=None)
def test_what_was_learned_is_added_to_the_log_odds_linearly_between_knots(shift, share):
    labels = LabelSettings(profit_barrier=1.5, cost=share * 1.5 * 0.01)
    plain, told = (TradeOdds(labels, [0.3, 1.0], s).of(0.01)[1] for s in ([0.0], shift))
    n = len(shift)
    added = np.interp(share, np.arange(n) / n, shift)
    assert math.log(told / (1.0 - told)) == pytest.approx(math.log(plain / (1.0 - plain)) + added, abs=1e-6)


def test_exit_times_are_quantiles_or_the_horizon_alone():
    assert exit_times_of(np.ones(50)).tolist() == [1.0]
    assert exit_times_of(np.empty(0)).tolist() == [1.0]
    times = exit_times_of(np.linspace(0.0, 1.0, 1_601)[1:])
    assert times == pytest.approx((np.arange(16) + 0.5) / 16, abs=1e-3)


def simulated(n, seed, *, exits=None, policy=None, volatility=None, labels=None, steps=900):
    """Simulate trades on random walks of fine steps; rows as training has them, and net returns in volatilities.

    Each ends at a barrier, the horizon, its time of exit (a share of the horizon), or where `policy`, which sees the
    path so far, says.
    """
    labels = labels or LabelSettings()
    rng = np.random.default_rng(seed)
    v = np.exp(rng.normal(-5.0, 0.5, n)) if volatility is None else np.full(n, volatility)
    exit_time = np.ones(n) if exits is None else exits(rng, n)
    step = 1.0 / math.sqrt(steps)
    position, peak = np.zeros(n), np.zeros(n)
    gross, open_ = np.zeros(n), np.ones(n, bool)
    for k in range(1, steps + 1):
        position += np.where(open_, step * (2.0 * rng.integers(0, 2, n) - 1.0), 0.0)
        peak = np.maximum(peak, position)
        out = (position >= labels.profit_barrier - 1e-9) | (position <= -labels.stop_barrier + 1e-9)
        out |= k >= exit_time * steps - 1e-9
        if policy is not None:
            out |= policy(position, peak)
        ended = open_ & out
        gross[ended] = position[ended]
        open_ &= ~out
    start = np.arange(n, dtype=np.int64)
    rows = LabelledRows(
        X=np.zeros((n, 1)),
        y=gross * v > labels.cost,
        side=np.ones(n),
        ret=gross * v,
        weight=np.ones(n),
        odds=np.full(n, 0.5),
        volatility=v,
        exit_time=exit_time,
        label_start=start,
        label_end=start + 1,
        regime=np.empty((n, 0)),
    )
    return with_odds(rows, labels, exit_times_of(exit_time)), gross - labels.cost / v


def early(rng, n):
    return np.minimum(rng.exponential(0.3, n) + 0.05, 1.0)


def observed(net):
    """Return mean loss over mean win and loss, and its standard error by the delta method."""
    win, loss = net[net > 0.0], -net[net <= 0.0]
    W, L = win.mean(), loss.mean()
    error = (
        math.hypot(L * win.std() / math.sqrt(len(win)), W * loss.std() / math.sqrt(len(loss))) / (W + L) ** 2
    )
    return L / (W + L), error


BANDS = [(0.10, 0.15), (0.15, 0.25), (0.25, 0.40), (0.40, 0.70)]


def check_bands(told, net, threshold, slack, bands=BANDS):
    """In each band of costs what is told is what is observed, within three standard errors and a slack."""
    for low, high in bands:
        band = (threshold >= low) & (threshold < high)
        seen, error = observed(net[band])
        assert band.sum() > 1_000
        assert told[band].mean() == pytest.approx(seen, abs=3.0 * error + slack), (low, high)


@pytest.mark.parametrize("exits", [None, early])
def test_the_closed_form_tells_the_break_even_of_simulated_walks(exits):
    labels = LabelSettings(cost=0.0015)
    rows, net = simulated(40_000, 1, exits=exits, labels=labels)
    odds = TradeOdds(labels, exit_times_of(rows.exit_time))
    expected, told = odds.of_rows(rows.volatility)
    assert rows.odds.tobytes() == expected.tobytes()
    assert expected.mean() == pytest.approx(rows.y.mean(), abs=4.0 * 0.5 / math.sqrt(len(rows)) + 0.004)
    # The lattice, and thresholds between its points, are worth up to half a point.
    check_bands(told, net, labels.cost / rows.volatility, slack=0.005)


def test_where_the_walk_is_right_what_is_learned_changes_little():
    labels = LabelSettings(cost=0.0015)
    rows, _ = simulated(30_000, 2, exits=early, labels=labels)
    times = exit_times_of(rows.exit_time)
    shift = fit_break_even_shift(rows, labels, times)
    threshold = np.arange(N_KNOTS) / N_KNOTS
    assert np.abs(shift[(threshold > 0.08) & (threshold < 0.7)]).max() < 0.1  # of log odds: 2.5 points


def trailing(position, peak):
    """Leave half a volatility below the highest: many small losses, few large wins."""
    return position <= peak - 0.5


def taking_profit(position, peak):
    """Leave at a third of a volatility: many small wins, few large losses."""
    return position >= 1.0 / 3.0


@pytest.mark.parametrize("policy", [trailing, taking_profit])
def test_exits_that_follow_the_price_are_learned(policy):
    """A third of the exits follow no clock: the closed form is off by many points, what was learned is not."""
    labels = LabelSettings(cost=0.0015)
    train, _ = simulated(20_000, 3, policy=policy, labels=labels)
    test, net = simulated(40_000, 4, policy=policy, labels=labels)
    test_threshold = labels.cost / test.volatility
    shift = fit_break_even_shift(train, labels, np.ones(1))
    told = TradeOdds(labels, break_even_shift=shift).of_rows(test.volatility)[1]
    bands = BANDS[:2] if policy is taking_profit else BANDS  # nothing is won beyond a cost of a third
    check_bands(told, net, test_threshold, slack=0.01, bands=bands)
    band = (test_threshold > 0.1) & (test_threshold < 0.25)
    walk = TradeOdds(labels).of_rows(test.volatility)[1]
    assert abs(walk[band].mean() - observed(net[band])[0]) > 0.05


def brute_force_shift(rows, labels, exit_times):
    """Restate what is learned, row by row."""
    series = kernels.barrier_series(labels.profit_barrier, labels.stop_barrier, exit_times)
    worth = rows.weight.mean()
    shift = []
    for k in range(N_KNOTS):
        cost = labels.profit_barrier * k / N_KNOTS
        odds, excess = kernels.random_walk_excess(1.0, cost, series)
        everywhere, here = [0.0] * 4, [0.0] * 4
        for (
            v,
            ret,
        ) in zip(rows.volatility, rows.ret, strict=True):
            floor = labels.profit_barrier / 64.0
            distance = math.log(max(labels.cost / v, floor)) - math.log(max(cost, floor))
            near = math.exp(-8.0 * distance**2)
            beyond = ret / v - cost
            terms = (1.0, float(beyond > 0.0), max(beyond, 0.0), max(-beyond, 0.0))
            for j, term in enumerate(terms):
                everywhere[j] += worth * term
                here[j] += worth * near * term
        walk = (1.0, odds, excess, excess + cost)
        every = [(a + 20.0 * b) / (everywhere[0] + 20.0) for a, b in zip(everywhere, walk, strict=True)]
        p, win, loss = ((here[j] + 50.0 * every[j]) / (here[0] + 50.0) for j in (1, 2, 3))
        ratio = (loss / (1.0 - p)) / (win / p)
        shift.append(math.log(ratio) - math.log(((excess + cost) / (1.0 - odds)) / (excess / odds)))
    return shift


def test_what_is_learned_is_the_law_of_the_rows_and_of_those_near():
    labels = LabelSettings(profit_barrier=1.2, cost=0.002)
    rows, _ = simulated(120, 5, exits=early, labels=labels, steps=60)
    rows = rows.replace(weight=np.linspace(0.2, 0.6, len(rows)))
    rows = rows[labels.cost < labels.profit_barrier * rows.volatility]
    times = exit_times_of(rows.exit_time)
    found = fit_break_even_shift(rows, labels, times)
    assert found == pytest.approx(brute_force_shift(rows, labels, times), abs=1e-9)


def test_rows_that_cannot_pay_or_are_not_known_teach_nothing():
    labels = LabelSettings()
    rows, _ = simulated(200, 6, labels=labels, volatility=0.01, steps=60)
    shift = fit_break_even_shift(rows, labels, np.ones(1))
    spoilt = rows.replace(
        volatility=np.where(np.arange(200) % 4 == 1, 0.0005, np.where(np.arange(200) % 4 == 2, np.nan, 0.01)),
        ret=np.where(np.arange(200) % 4 == 3, np.nan, rows.ret),
    )
    assert fit_break_even_shift(spoilt, labels, np.ones(1)) == pytest.approx(
        fit_break_even_shift(rows[::4], labels, np.ones(1)), abs=1e-12
    )
    assert shift.shape == (N_KNOTS,)
    nothing = rows.replace(ret=np.full(200, np.nan))
    assert fit_break_even_shift(nothing, labels, np.ones(1)).tolist() == [0.0]


def test_odds_that_are_not_known_stay_so():
    labels = LabelSettings()
    rows, _ = simulated(6, 7, labels=labels, volatility=0.01, steps=60)
    odds = np.array([np.nan, 0.4, 0.4, 0.0, 0.3, 0.2])
    volatility = np.array([0.01, np.nan, 0.01, 0.0005, 0.002, 0.0])
    found = with_odds(rows.replace(odds=odds, volatility=volatility), labels, np.array([0.2, 0.7])).odds
    fresh = random_walk_odds(volatility[2:5], 1.0, 1.0, labels.cost, [0.2, 0.7])
    assert found.tobytes() == np.array([np.nan, 0.4, *fresh, 0.2]).tobytes()
    assert fresh[1] == 0.0
