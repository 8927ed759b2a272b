"""What the benchmark of sizes rests on, and what it must find where the truth is known."""

import numpy as np
import pytest

from benchmarks.sizing import (
    COST,
    OFFSET_VARIANCE,
    PRODUCT,
    WIDTHS,
    learned,
    loss_without_edge,
    measure,
    rule_risks,
    scaled,
    trades_of,
)


def test_what_is_learned_is_the_mean_of_a_gaussian_process_averaged_by_its_likelihood():
    rng = np.random.default_rng(1)
    x, later = rng.standard_normal((60, 3)), rng.standard_normal((5, 3))
    y = 0.3 * x[:, 0] + rng.standard_normal(60)
    means, weights = [], []
    for width, prior in ((0.0, 0.5), *((width, 0.5 / len(WIDTHS)) for width in WIDTHS)):
        covariance = OFFSET_VARIANCE + width * x @ x.T + np.eye(60)
        cross = OFFSET_VARIANCE + width * later @ x.T
        inverse = np.linalg.inv(covariance)
        means.append(cross @ inverse @ y)
        weights.append(prior * np.exp(-0.5 * (y @ inverse @ y + np.linalg.slogdet(covariance)[1])))
    expected = np.array(weights) @ np.array(means) / sum(weights)
    assert learned(x, y, later) == pytest.approx(expected, abs=1e-12)


def test_trades_earn_what_they_are_said_to_earn():
    trades = trades_of("linear", 0.3, 0, 40_000)
    error = trades.net - trades.expected
    assert abs(error.mean()) < 4.0 * error.std() / 200.0
    assert abs(np.corrcoef(trades.expected, error)[0, 1]) < 0.02
    assert trades.expected[trades.volatility < COST].max(initial=-1.0) < 0.0


def test_a_pnl_is_scaled_to_a_volatility_of_one():
    risk, net = np.array([0.2, 0.0, 0.4]), np.array([1.0, -1.0, 0.5])
    assert scaled(risk, net) == pytest.approx(0.4 / (0.04 + 0.04) ** 0.5)
    assert scaled(10.0 * risk, net) == pytest.approx(scaled(risk, net))
    assert scaled(np.zeros(3), net) == 0.0


def test_the_shipped_size_keeps_most_of_a_saturated_edge_and_more_than_proportion_and_product():
    kept = measure("flow", 0.35, 6, 4_000)
    share, risk = (
        {name: each[0] for name, each in kept.items()},
        {name: each[1] for name, each in kept.items()},
    )
    assert share["shipped"] > 0.7
    assert share["shipped"] > share["in proportion"] > share[PRODUCT]
    assert risk["shipped"] > 10.0 * risk[PRODUCT]


def test_it_is_a_compromise_where_an_edge_grows_without_end():
    share = {name: each[0] for name, each in measure("linear", 0.35, 4, 4_000).items()}
    assert share["in proportion"] > share["shipped"] > share["all or nothing"]


def test_without_an_edge_nearly_nothing_is_lost():
    assert max(loss_without_edge(6, 2_000).values()) < 0.05
    # The measure is alive: with an edge to be lost, sizes are not zero.
    assert all(risk.sum() > 0.0 for risk in rule_risks(trades_of("flow", 0.35, 0, 2_000)).values())
