"""The register of trials: what counts as one, what it says of them, and that it neither breaks nor grows."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest
from joblib import Parallel, delayed

from ml4t_actor.registry import trials
from ml4t_actor.registry.trials import PERIODS, Trial, TrialRegister, configuration_digest, fingerprint
from ml4t_actor.settings import LabelSettings, TrainingSettings
from ml4t_actor.validation import backtest_overfitting, deflated_sharpe


def noise(seed):
    returns = 0.01 * np.random.default_rng(seed).normal(size=PERIODS)
    returns[:80] = np.nan  # before the first test row
    return returns


def added(register, trial, at_ns=0):
    register.add(trial, at_ns)
    return register.summary(trial.data, trial.configuration)


def add_many(root, first, n):
    register = TrialRegister(root)
    for i in range(first, first + n):
        register.add(Trial("data", f"{i}", 0.0, noise(i)), at_ns=i)


def test_each_configuration_counts_once_on_each_data_set(tmp_path):
    register = TrialRegister(tmp_path / "models")
    assert register.summary("a", "one") is None
    assert added(register, Trial("a", "one", 0.01, noise(0)), 1).n_trials == 1
    assert added(register, Trial("a", "two", 0.02, noise(1)), 2).n_trials == 2
    again = added(register, Trial("a", "one", 0.01, noise(0)), 3)
    assert (again.n_trials, again.rank) == (2, 2)
    assert added(register, Trial("b", "one", 0.01, noise(0)), 4).n_trials == 1
    assert register.summary("b", "two") is None


def test_what_it_says_is_what_the_validation_says_of_the_returns(tmp_path):
    register = TrialRegister(tmp_path)
    for i in range(30):
        register.add(Trial("data", f"{i}", 0.001 * i, noise(i)), at_ns=i)
    found = register.summary("data", "29")
    returns = np.array([noise(i)[80:] for i in range(30)])
    ratios = returns.mean(axis=1) / returns.std(axis=1)
    expected = deflated_sharpe(returns[29], ratios)
    assert (found.sharpe, found.expected_best) == pytest.approx((expected.sharpe, expected.expected_best))
    assert found.deflated_probability == pytest.approx(expected.probability)
    assert (found.n_trials, found.rank) == (30, 1)
    assert found.overfitting == pytest.approx(
        backtest_overfitting(returns).probability, abs=0.1
    )  # order of ties


def test_the_best_of_many_trials_of_noise_is_not_beyond_chance(tmp_path):
    beyond = 0
    for market in range(5):
        register = TrialRegister(tmp_path / str(market))
        seeds = range(100 * market, 100 * market + 40)
        for seed in seeds:
            register.add(Trial("data", f"{seed}", 0.0, noise(seed)), at_ns=seed)
        best = max(seeds, key=lambda seed: np.nanmean(noise(seed)) / np.nanstd(noise(seed)))
        found = register.summary("data", f"{best}")
        beyond += found.deflated_probability > 0.95
    assert beyond == 0


@pytest.mark.parametrize("returns", [np.full(PERIODS, np.nan), np.zeros(PERIODS)], ids=["untested", "idle"])
def test_a_trial_without_returns_counts_and_has_no_ratio(tmp_path, returns):
    found = added(TrialRegister(tmp_path), Trial("data", "idle", np.nan, returns))
    assert found.n_trials == 1
    assert np.isnan([found.sharpe, found.deflated_probability, found.overfitting]).all()


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    Parallel(n_jobs=2, backend="loky")(delayed(add_many)(tmp_path, 100 * i, 15) for i in range(2))
    assert added(TrialRegister(tmp_path), Trial("data", "last", 0.0, noise(0)), 999).n_trials == 31


def test_does_not_grow_without_bound_and_goes_on_counting(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "MOST_TRIALS_PER_DATA_SET", 5)
    monkeypatch.setattr(trials, "MOST_DATA_SETS", 3)
    register = TrialRegister(tmp_path)
    for i in range(12):
        register.add(Trial("data", f"{i}", 0.0, noise(i)), at_ns=i)
    assert register.summary("data", "11").n_trials == 12
    assert register.summary("data", "0") is None
    for i in range(6):
        register.add(Trial(f"other {i}", "one", 0.0, noise(i)), at_ns=100 + i)
    connection = sqlite3.connect(register.path)
    assert connection.execute("SELECT count(*) FROM trials").fetchone() == (3,)
    assert connection.execute("SELECT data FROM data_sets ORDER BY 1").fetchall() == [
        ("other 3",),
        ("other 4",),
        ("other 5",),
    ]
    connection.close()


def test_a_file_that_is_no_register_and_returns_of_another_length_are_refused(tmp_path: Path):
    register = TrialRegister(tmp_path)
    with pytest.raises(ValueError, match="`returns` must be of 200 periods"):
        register.add(Trial("data", "one", 0.0, np.zeros(3)), at_ns=0)
    register.path.write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        register.add(Trial("data", "one", 0.0, noise(0)), at_ns=0)


def test_digests_tell_data_and_configurations_apart():
    ts, close = np.arange(5), np.arange(5.0)
    assert fingerprint([ts, close]) == fingerprint([ts.copy(), close[::1]])
    assert (
        len({fingerprint(c) for c in ([ts, close], [close, ts], [ts], [ts, close + 1e-12], [ts, close[:4]])})
        == 5
    )
    settings = TrainingSettings()
    other = TrainingSettings(labels=LabelSettings(horizon_bars=61))
    digests = {
        configuration_digest({"settings": msgspec.to_builtins(s), "features": f})
        for s in (settings, other)
        for f in ("a", "b")
    }
    assert len(digests) == 4
    assert configuration_digest({"a": 1, "b": 2}) == configuration_digest({"b": 2, "a": 1})
