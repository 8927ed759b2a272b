"""Choices of signals against brute force, and their intervals against a bootstrap that chooses anew."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from ml4t_actor.validation import precision_recall, profit_factor, select
from ml4t_actor.validation.selection import top_share


def signals(seed, n=3_000, edge=0.0):
    """Signals whose returns grow with volatility, and a confidence that knows volatility and an edge."""
    rng = np.random.default_rng(seed)
    volatility = np.exp(0.3 * rng.normal(size=n))
    known = rng.normal(size=n)
    net = volatility * (0.3 + edge * known + rng.normal(size=n)) - 0.15
    p = 1.0 / (1.0 + np.exp(-(0.8 * np.log(volatility) + edge * known)))
    return (net > 0).astype(float), p, volatility, net


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(1, 30), st.sampled_from([0.1, 0.25, 0.5]))
def test_the_top_share_is_the_average_of_all_ways_to_break_ties(data, n, share):
    values = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), float)
    fold = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    chosen = top_share(values, fold, share)
    for name in np.unique(fold):
        own, part = values[fold == name], chosen[fold == name]
        left, expected = share * len(own), {}
        for level in sorted(set(own), reverse=True):  # fill from the top, each level evenly
            count = int((own == level).sum())
            expected[level] = min(1.0, left / count)
            left = max(0.0, left - count)
        assert part == pytest.approx([expected[v] for v in own])


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(1, 40))
def test_precision_recall_and_profit_factor_equal_their_definitions(data, n):
    def column(values):
        return np.array(data.draw(st.lists(values, min_size=n, max_size=n)), float)

    y, p, limit = column(st.integers(0, 1)), column(st.floats(0, 1)), column(st.floats(0, 1))
    acted = p > limit
    precision, recall = precision_recall(y, p, limit)
    if acted.any():
        assert precision == pytest.approx(metrics.precision_score(y, acted))
    else:
        assert math.isnan(precision)
    if y.any():
        assert recall == pytest.approx(metrics.recall_score(y, acted))
    else:
        assert math.isnan(recall)
    net = column(st.integers(-3, 3))
    gains, losses = sum(v for v in net if v > 0), sum(-v for v in net if v < 0)
    if losses:
        assert profit_factor(net) == pytest.approx(gains / losses)
    else:
        assert profit_factor(net) == math.inf if gains else math.isnan(profit_factor(net))


def test_means_are_those_of_the_signals_that_each_rule_takes():
    y, p, volatility, net = signals(0)
    fold = np.repeat([3, 4], len(y) // 2)
    found = select(y, p, volatility, net, 0.55, fold=fold, block=5)
    rows = np.concatenate(
        [
            np.flatnonzero(fold == f)[np.argsort(-column[fold == f])[:300]]
            for column in (p, volatility)
            for f in (3, 4)
        ]
    )
    confident, volatile = net[rows[:600]].mean(), net[rows[600:]].mean()
    assert (found.net_confidence, found.net_volatility) == pytest.approx((confident, volatile))
    assert found.over_volatility == pytest.approx(confident - volatile)
    assert found.over_random == pytest.approx(confident - net.mean())
    assert found.net_all == pytest.approx(net.mean())
    assert found.above_break_even == (p > 0.55).sum()
    assert found.precision == pytest.approx(y[p > 0.55].mean())
    assert found.profit_factor == pytest.approx(profit_factor(net[p > 0.55]))
    assert found.n == len(y)


def test_a_choice_by_volatility_alone_is_not_better_than_that_filter_and_an_edge_is():
    y, _, volatility, net = signals(1)
    none = select(y, volatility / 10, volatility, net, 0.5, block=5)
    assert none.over_volatility == 0.0
    assert none.over_random_interval.low > 0.0  # the filter itself earns
    known = select(*signals(2, edge=0.5), 0.5, block=5)
    assert known.over_volatility_interval.low > 0.0


def test_intervals_are_as_wide_as_those_of_choosing_anew_in_every_resample():
    widths, one = [], np.zeros(1_500, int)
    for seed in range(5):
        y, p, volatility, net = signals(seed, n=1_500, edge=0.3)
        found = select(y, p, volatility, net, 0.5, block=1)
        low, high = found.over_volatility_interval
        assert low < found.over_volatility < high
        rng = np.random.default_rng(seed)
        draws = []
        for _ in range(200):
            rows = rng.integers(0, len(y), len(y))
            by_p, by_v = (top_share(column[rows], one, 0.2) for column in (p, volatility))
            draws.append((net[rows] * (by_p - by_v)).sum() / by_p.sum())
        widths.append((high - low) / (2 * 1.96 * np.std(draws)))
    assert np.mean(widths) == pytest.approx(1.1, abs=0.2)  # a tenth wider, for what is estimated


@pytest.mark.slow
def test_intervals_cover_a_difference_that_is_not_there():
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n = 1_500
        p, volatility = rng.random(n), rng.random(n)  # neither says anything
        net = np.convolve(rng.normal(size=n + 9), np.ones(10), "valid")
        found = select((net > 0).astype(float), p, volatility, net, 0.5, block=20, samples=200)
        covered.append(found.over_volatility_interval.low <= 0.0 <= found.over_volatility_interval.high)
    assert 0.90 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, "`share` was 1.0"),
        ({"net": [0.1, np.nan]}, "`net` must be finite: row 1 is nan"),
        ({"volatility": [0.1]}, "`volatility` must have one value per row"),
        ({"fold": [1]}, "`fold` needs one value per row"),
        ({"y": [], "confidence": [], "volatility": [], "net": []}, "there is no row"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {
        "y": [0, 1],
        "confidence": [0.1, 0.9],
        "volatility": [1.0, 2.0],
        "net": [0.1, 0.2],
        "break_even": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        select(**{**given, "block": 1, **change})
