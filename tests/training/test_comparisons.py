"""What a model is held against besides the odds: other choices, other paths, other configurations."""

import msgspec
import numpy as np
import pytest

from ml4t_actor.labeling.odds import TradeOdds, exit_times_of, fit_break_even_shift
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Signals
from ml4t_actor.registry import ModelStore
from ml4t_actor.registry.trials import PERIODS, TRIALS_FILE
from ml4t_actor.settings import LabelSettings, TrainingSettings, ValidationSettings, VPINSettings
from ml4t_actor.training.comparisons import (
    compare_choices,
    purged_path_skills,
    returns_by_period,
)
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.validation import combinatorial_purged_splits, log_loss, walk_forward_splits

MINUTE = 60_000_000_000
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=10, cost=0.0001),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    validation=ValidationSettings(n_folds=3, embargo_bars=15, bootstrap_samples=100),
    volatility_halflife_bars=20,
)
NAMES = ("volatility", "strength")


@pytest.fixture(scope="module")
def bars(synthetic_bars):
    return synthetic_bars[:8_000]


@pytest.fixture(scope="module")
def signals(bars):
    """Signals whose strength is the probability with which they know the next move's direction."""
    rng = np.random.default_rng(0)
    at = np.arange(0, len(bars), 5)
    ahead = np.sign(bars.close[np.minimum(at + 10, len(bars) - 1)] - bars.close[at])
    strength = rng.random(len(at))
    side = np.where((rng.random(len(at)) < strength) & (ahead != 0.0), ahead, rng.choice([-1, 1], len(at)))
    return Signals(bars.ts_event[at], side.astype(np.int8), strength)


def loop(store=None, **changes):
    return TrainingLoop(changed(**changes), feature_names=NAMES, store=store)


def changed(**changes):
    return msgspec.structs.replace(SETTINGS, **changes)


def rows(n=50, seed=0, **columns):
    rng = np.random.default_rng(seed)
    start = np.arange(n, dtype=np.int64) * 10 * MINUTE
    given = {
        "X": rng.normal(size=(n, 2)),
        "y": rng.integers(0, 2, n),
        "side": rng.choice([-1, 1], n),
        "ret": 0.01 * rng.normal(size=n),
        "weight": np.ones(n),
        "odds": np.full(n, 0.5),
        "volatility": rng.uniform(0.001, 0.02, n),
        "exit_time": np.ones(n),
        "label_start": start,
        "label_end": start + 5 * MINUTE,
        "regime": np.empty((n, 0)),
    }
    return LabelledRows(**{**given, **columns})


def test_returns_by_period_are_the_sums_of_what_was_chosen():
    n = 400
    some = rows(n)
    p, fold = np.random.default_rng(1).permutation(n) / n, np.repeat([0, 1], n // 2)
    first, last = -500 * MINUTE, 5_000 * MINUTE
    found = returns_by_period(some, p, fold, 0.001, (first, last))
    width = (last - first) / PERIODS
    expected = np.zeros(PERIODS)
    for f in (0, 1):
        own = np.flatnonzero(fold == f)
        for row in own[np.argsort(-p[own])[: len(own) // 5]]:
            expected[int((some.label_start[row] - first) // width)] += some.ret[row] - 0.001
    starts = first + width * np.arange(PERIODS)
    tested = (starts >= some.label_start[0]) & (starts + width <= some.label_start[-1])
    assert tested.sum() > 100
    assert found[tested] == pytest.approx(expected[tested], abs=1e-12)
    assert np.isnan(found[~tested]).all()
    assert np.isnan(returns_by_period(rows(n, ret=np.full(n, np.nan)), p, fold, 0.0, (first, last))).all()


@pytest.mark.parametrize("unknown", ["ret", "volatility"])
def test_without_returns_or_volatility_there_is_no_choice_to_compare(unknown):
    some = rows(**{unknown: np.full(50, np.nan)})
    assert compare_choices(some, np.full(50, 0.5), np.full(50, 0.5), 0.001, SETTINGS.validation) is None


def told_break_even(result):
    """Restate what bundles of each fold's training rows would have told of the tested ones."""
    rows, labels, validation = result.dataset, SETTINGS.labels, SETTINGS.validation
    embargo = validation.embargo_bars * MINUTE
    told = []
    for split in walk_forward_splits(rows.label_start, rows.label_end, validation, embargo):
        exit_times = exit_times_of(rows.exit_time[split.train])
        shift = fit_break_even_shift(rows[split.train], labels, exit_times)
        told.append(TradeOdds(labels, exit_times, shift).of_rows(rows.volatility[split.test])[1])
    return np.concatenate(told)


def test_a_training_tells_what_its_confidence_chose(bars, signals):
    result = loop().train(bars, signals)
    assert result.trials is None
    selection = result.selection
    tested = result.dataset[result.out_of_fold_rows]
    assert selection.n == len(tested)
    assert selection.net_all == pytest.approx(np.mean(tested.ret - 0.0001))
    assert selection.over_volatility > 0.0  # strength knows what volatility does not
    assert selection.over_random_interval.low > 0.0
    above = result.out_of_fold > told_break_even(result)
    assert selection.above_break_even == above.sum()
    assert selection.precision == pytest.approx(tested.y[above].mean())
    assert result.bundle.metrics["selection"]["net_all"] == selection.net_all


def test_trainings_with_a_store_are_counted_by_data_and_configuration(bars, signals, tmp_path):
    store = ModelStore(tmp_path)
    first = loop(store).train(bars, signals)
    assert (first.trials.n_trials, first.trials.rank) == (1, 1)
    assert loop(store).train(bars, signals).trials.n_trials == 1  # the same again is no other trial
    other = loop(store, labels=LabelSettings(horizon_bars=12, cost=0.0001)).train(bars, signals)
    assert other.trials.n_trials == 2
    assert 0.0 <= other.trials.overfitting <= 1.0
    assert 0.0 <= other.trials.deflated_probability <= 1.0
    assert (
        loop(store).train(bars[:7_900], signals[signals.ts_event <= bars.ts_event[7_899]]).trials.n_trials
        == 1
    )
    assert len(store.versions()) == 4  # beside the register, which is none


def test_a_register_that_cannot_be_written_costs_no_training(bars, signals, tmp_path):
    (tmp_path / TRIALS_FILE).write_bytes(b"something else" * 200)
    with pytest.warns(UserWarning, match="the register of trials .* was not written"):
        result = loop(ModelStore(tmp_path)).train(bars, signals)
    assert result.trials is None
    assert result.bundle.version


def test_path_skills_are_those_of_models_that_did_not_see_the_rows(bars, signals):
    training = loop()
    data = training.train(bars, signals).dataset
    found = purged_path_skills(training.fit, data, 15 * MINUTE, n_groups=3, n_test_groups=1, n_jobs=1)
    splits = combinatorial_purged_splits(
        data.label_start, data.label_end, n_groups=3, n_test_groups=1, embargo=15 * MINUTE
    )
    p, odds = np.empty(len(data)), np.empty(len(data))
    for split in splits:
        model, tested = training.fit(data, split.train), data[split.test]
        p[split.test] = model.predict_proba(tested.X, tested.odds, tested.volatility)
        odds[split.test] = model.predict_odds(tested.odds, tested.volatility)
    floored = (np.maximum(column, 1e-4) for column in (p, odds))
    model_loss, odds_loss = (log_loss(data.y, column) for column in floored)
    assert found == pytest.approx((1.0 - model_loss / odds_loss,))
    assert found[0] > 0.0
    assert found == purged_path_skills(training.fit, data, 15 * MINUTE, n_groups=3, n_test_groups=1, n_jobs=2)
