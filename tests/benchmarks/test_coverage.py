"""The histories of the coverage benchmark are what they say, and an interval that is too narrow is found out."""

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import CASES, CoverageTask, ScoreCase, SharpeCase, autoregression, signals, truth
from ml4t_actor.validation import SharpeInterval


def test_the_autoregression_is_stationary_with_the_correlation_asked_for():
    rng = np.random.default_rng(0)
    path = autoregression(rng, 400_000, 0.8)
    assert path.std() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(path[1:], path[:-1])[0, 1] == pytest.approx(0.8, abs=0.01)
    starts = np.array([autoregression(rng, 1, 0.9)[0] for _ in range(4_000)])
    assert starts.std() == pytest.approx(1.0, abs=0.05)


def test_labels_overlap_and_pay_as_often_as_not_without_a_drift():
    case = ScoreCase(n=20_000, step=6, window=60, halflife_bars=60.0, drift=0.0)
    y, p, side = signals(case, np.random.default_rng(0))
    assert len(y) == len(p) == 20_000
    assert y.mean() == pytest.approx(0.5, abs=0.02)
    up = side * (2.0 * y - 1.0)
    # windows that share nine tenths of their bars agree in sign with 1 - arccos(0.9) / pi (Sheppard 1899)
    agree = (up[1:] == up[:-1]).mean()
    assert agree == pytest.approx(1.0 - np.arccos(0.9) / np.pi, abs=0.01)


def test_the_truth_without_a_drift_is_chance():
    auc, skill = truth(ScoreCase(n=3_000, step=6, window=60, halflife_bars=60.0, drift=0.0))
    assert auc == pytest.approx(0.5, abs=0.005)
    assert skill < 0.0  # a forecaster who leans on nothing loses


def test_the_truth_of_a_sharpe_ratio_is_annualised():
    assert truth(SharpeCase(phi=0.5, n=100, ratio=0.1)) == (pytest.approx(0.1 * np.sqrt(250.0)),)


def test_an_interval_that_is_too_narrow_is_found_out(monkeypatch):
    def narrow(returns, periods, **_):
        ratio = np.mean(returns) / np.std(returns) * np.sqrt(periods)
        half = 1.0 / np.sqrt(len(returns)) * np.sqrt(periods)  # one standard error
        return SharpeInterval(ratio, ratio - half, ratio + half)

    monkeypatch.setattr(coverage, "sharpe_interval", narrow)
    case = SharpeCase(phi=0.0, n=250, ratio=0.0)
    (held,) = coverage.count(CoverageTask(case=case, true=(0.0,), first_seed=0, n=1_000))
    assert held / 1_000 == pytest.approx(0.683, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_intervals_hold_what_they_say(case):
    held = np.array(coverage.count(CoverageTask(case=case, true=truth(case), first_seed=10_000, n=2_000)))
    assert ((held / 2_000 >= 0.93) & (held / 2_000 <= 0.97)).all(), held / 2_000
