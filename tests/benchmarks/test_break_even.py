"""The observed break-even and its standard error, and that it is served on walks that primaries leave by signals."""

import numpy as np
import pytest

from benchmarks.break_even import BreakEvenResult, BreakEvenTask, band_line, measure, observed, report


def trades(rng, n, sets=3, block=1):
    """Return net returns of sets: wins of 1.2 on average in 40 of 100, losses of 1.0; `block` in a row are alike."""

    def one():
        won = np.repeat(rng.random(n // block + 1) < 0.4, block)[:n]
        size = np.repeat(rng.exponential(1.0, n // block + 1), block)[:n]
        return np.where(won, 1.2 * size, -size)

    return [one() for _ in range(sets)]


@pytest.mark.parametrize("block", [1, 25])
def test_the_error_of_the_observed_break_even_is_that_of_repeated_draws(block):
    rng = np.random.default_rng(0)
    found = np.array([observed(trades(rng, 2_000, block=block)) for _ in range(300)])
    values, errors = found.T
    assert values.mean() == pytest.approx(1.0 / 2.2, abs=0.004)
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_it_is_the_share_of_wins_at_which_nothing_is_earned():
    net = np.array([0.5, -1.0, 2.5, -0.2, -0.3])
    share, _ = observed([net[:2], net[2:]])
    assert share * 1.5 - (1.0 - share) * 0.5 == pytest.approx(0.0, abs=1e-15)
    for only in (net[net > 0.0], net[net < 0.0]):
        assert np.isnan(observed([only])).all()


def test_a_line_is_about_the_rows_of_its_band_alone():
    rng = np.random.default_rng(1)
    n = 400
    [net] = trades(rng, n, sets=1)
    threshold = np.where(np.arange(n) < 250, 0.12, 0.3)
    result = BreakEvenResult(
        task=BreakEvenTask(primary="trend", exit_on_signal=True),
        threshold=threshold,
        net=net,
        served=np.where(threshold < 0.2, 0.5, np.nan),
        walk=np.full(n, 0.4),
        formula=np.full(n, 0.6),
    )
    seen, error = observed([net[:250]])
    line = band_line([result], (0.10, 0.15))
    gaps = "  ".join(f"{100 * (seen - p):+7.2f}" for p in (0.5, 0.4, 0.6))
    assert line.split("250", 1)[1] == (
        f"   0.5000  {seen:.4f} +- {error:.4f}  {gaps}  {100 * (seen - 0.5):+9.2f} (1)"
    )
    assert band_line([result], (0.40, 0.70)).endswith("0  too few")


@pytest.mark.parametrize("primary", ["trend", "mean_reversion"])
def test_what_is_served_on_walks_that_primaries_leave_by_signals_is_what_is_observed(primary):
    tasks = [
        BreakEvenTask(primary=primary, exit_on_signal=True, seed=seed, n_bars=40_000) for seed in range(3)
    ]
    results = [measure(task) for task in tasks]
    low, high = 0.1, 0.4
    bands = [(r, (r.threshold >= low) & (r.threshold < high)) for r in results]
    seen, error = observed([r.net[rows] for r, rows in bands])
    served, formula = (
        np.concatenate([getattr(r, name)[rows] for r, rows in bands]).mean() for name in ("served", "formula")
    )
    assert sum(int(rows.sum()) for _, rows in bands) > 1_000
    assert served == pytest.approx(seen, abs=3.0 * error)
    assert abs(formula - seen) > 0.08 > 3.0 * error
    assert f"walks, labels that signals end, {primary}: 3 sets" in report(results)
