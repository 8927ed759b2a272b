"""Training: what it finds, what it must not find, and what it says about it."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.odds import TradeOdds
from ml4t_actor.market_data import Signals
from ml4t_actor.meta_model.calibration import expit
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import (
    LabelSettings,
    ModelSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.validation import (
    Verdict,
    auc_within_side,
    block_length,
    log_loss,
    return_slope,
    walk_forward_splits,
)
from tests.support.effects import rows_with_effects
from tests.support.mirror import mirror

MINUTE = 60_000_000_000
HORIZON, EMBARGO = 10, 15
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=HORIZON, cost=0.0001),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    validation=ValidationSettings(n_folds=3, embargo_bars=EMBARGO, bootstrap_samples=200),
    volatility_halflife_bars=20,
)
NAMES = ("volatility", "momentum", "trend_strength", "strength")
LOOP = TrainingLoop(SETTINGS, feature_names=NAMES)


@pytest.fixture(scope="module")
def bars(synthetic_bars):
    return synthetic_bars[:12_000]


def random_signals(bars, seed=0, every=5):
    """A signal every few bars, of either side and any strength, that knows nothing."""
    rng = np.random.default_rng(seed)
    at = np.arange(0, len(bars), every)
    return Signals(bars.ts_event[at], rng.choice([-1, 1], len(at)).astype(np.int8), rng.random(len(at)))


def knowing_signals(bars, seed=0):
    """Signals whose strength is the probability with which they know the next move's direction."""
    signals = random_signals(bars, seed)
    at = np.searchsorted(bars.ts_event, signals.ts_event)
    ahead = np.sign(bars.close[np.minimum(at + HORIZON, len(bars) - 1)] - bars.close[at])
    knows = np.random.default_rng(seed + 1_000).random(len(at)) < signals.strength
    side = np.where(knows & (ahead != 0.0), ahead, signals.signal).astype(np.int8)
    return replace(signals, signal=side)


@pytest.fixture(scope="module")
def planted(bars):
    return LOOP.train(bars, knowing_signals(bars))


def shuffled(dataset, seed):
    return replace(dataset, y=np.random.default_rng(seed).permutation(dataset.y))


def assert_no_more_than_chance(results):
    """Say what 95 % intervals may say of many runs that found nothing."""
    scores = [result.scores for result in results]
    n = len(scores)
    # Of six, two misses or fewer come about in 99.8 % of cases; a leak misses every time.
    assert (
        sum(s.auc_within_side_interval.low <= 0.5 <= s.auc_within_side_interval.high for s in scores) >= n - 2
    )
    assert sum(s.log_loss_skill_interval.low <= 0.0 for s in scores) >= n - 1
    assert not any(s.better_than_chance for s in scores)
    errors = [(s.auc_within_side_interval.high - s.auc_within_side_interval.low) / 3.92 for s in scores]
    mean = np.mean([s.auc_within_side for s in scores])
    assert abs(mean - 0.5) < 3.0 * np.mean(errors) / math.sqrt(n)


def test_random_labels_of_the_user_are_not_found(bars):
    results = []
    for seed in range(6):
        signals = random_signals(bars, seed)
        labels = np.random.default_rng(100 + seed).integers(0, 2, len(signals))
        results.append(LOOP.train(bars, signals, labels))
    assert_no_more_than_chance(results)


def test_shuffled_barrier_labels_are_not_found_where_the_true_ones_are(planted):
    assert_no_more_than_chance(LOOP.train_dataset(shuffled(planted.dataset, seed)) for seed in range(6))


def assert_found(result):
    assert result.auc > 0.58
    assert result.scores.auc_within_side_interval.low > 0.54
    assert result.scores.log_loss_skill_interval.low > 0.0
    assert result.scores.verdict is Verdict.BETTER
    assert max(result.feature_importance, key=result.feature_importance.get) == "strength"


def test_a_planted_signal_is_found_in_barrier_labels(planted):
    assert_found(planted)


def test_a_planted_signal_is_found_in_labels_of_the_user(bars):
    signals = random_signals(bars)
    rng = np.random.default_rng(7)
    result = LOOP.train(bars, signals, rng.random(len(signals)) < 0.2 + 0.6 * signals.strength)
    assert_found(result)
    assert result.accuracy > result.baselines["majority_accuracy"] + 0.05


def test_a_model_that_knows_the_other_way_round_is_called_worse_than_chance(bars):
    signals = random_signals(bars)
    rng = np.random.default_rng(8)
    # What strength means turns round where testing starts.
    early = np.arange(len(signals)) < 0.8 * len(signals)
    p = np.where(early, signals.strength, 1.0 - signals.strength)
    settings = replace_validation(n_folds=1, test_fraction=0.2)
    result = TrainingLoop(settings, feature_names=NAMES).train(bars, signals, rng.random(len(p)) < p)
    assert result.auc < 0.4
    assert result.scores.verdict is Verdict.RANKS_WORSE


def replace_validation(**changes):

    validation = msgspec.structs.replace(SETTINGS.validation, **changes)
    return msgspec.structs.replace(SETTINGS, validation=validation)


def test_every_fold_learns_from_exactly_what_was_known_an_embargo_before_it(planted):
    dataset = planted.dataset
    embargo = EMBARGO * MINUTE
    splits = walk_forward_splits(dataset.label_start, dataset.label_end, SETTINGS.validation, embargo)
    size = int(len(dataset) * 0.6) // 3
    assert planted.out_of_fold_rows.tolist() == list(range(len(dataset) - 3 * size, len(dataset)))
    for i, (split, fold) in enumerate(zip(splits, planted.folds, strict=True)):
        first = len(dataset) - (3 - i) * size
        test = list(range(first, first + size))
        before = int(dataset.label_start[first]) - embargo
        train = [row for row, end in enumerate(dataset.label_end.tolist()) if end < before]
        assert split.test.tolist() == test
        assert split.train.tolist() == train
        assert (fold.n_train, fold.n_test) == (len(train), size)
        assert (fold.test_start, fold.test_end) == (
            dataset.label_start[first],
            dataset.label_start[first + size - 1],
        )
        # The row just before the test rows was in time, but its label was not.
        assert train[-1] < first - 1


def test_out_of_fold_predictions_are_of_models_that_never_saw_the_fold(planted):
    dataset = planted.dataset
    splits = walk_forward_splits(
        dataset.label_start, dataset.label_end, SETTINGS.validation, EMBARGO * MINUTE
    )
    at, learned = 0, []
    for split, fold in zip(splits, planted.folds, strict=True):
        train, test = split.train, split.test
        can_pay = dataset.odds[train] > 0.0
        weight = dataset.weight[train]
        worth = [
            np.mean(weight[part == can_pay]) if (part == can_pay).any() else 0.0 for part in (False, True)
        ]
        model = MetaModel(SETTINGS.model).fit(
            dataset.X[train],
            dataset.y[train],
            np.where(can_pay, worth[1], worth[0]),
            label_start=dataset.label_start[train],
            label_end=dataset.label_end[train],
            odds=dataset.odds[train],
            volatility=dataset.volatility[train],
            trend=np.array([False, True, True, False]),
            ret=dataset.ret[train],
        )
        p = model.predict_proba(dataset.X[test], dataset.odds[test], dataset.volatility[test])
        np.testing.assert_array_equal(planted.out_of_fold[at : at + len(test)], p)
        base_odds = model.predict_odds(dataset.odds[test], dataset.volatility[test])
        np.testing.assert_array_equal(planted.base_odds[at : at + len(test)], base_odds)
        ridge = EvidenceRidge().fit(
            dataset.X[train],
            dataset.ret[train] / dataset.volatility[train],
            np.where(can_pay, worth[1], worth[0]),
            groups=np.array([False, True, True, False]),
        )
        expected = dataset.volatility[test] * ridge.predict(dataset.X[test]) - SETTINGS.labels.cost
        assert planted.expected_return[at : at + len(test)] == pytest.approx(1e4 * expected, abs=1e-9)
        learned.append(ridge.learned(dataset.X[test]))
        assert planted.out_of_fold_rows[at : at + len(test)].tolist() == test.tolist()
        at += len(test)
        y, rate = dataset.y[test], np.mean(dataset.y[train])
        assert fold.base_rate_train == pytest.approx(rate)
        assert fold.base_rate_test == pytest.approx(np.mean(y))
        assert fold.auc == auc_within_side(y, p, dataset.side[test]).within
        assert fold.log_loss == pytest.approx(log_loss(y, p))
        assert fold.log_loss_baseline == pytest.approx(log_loss(y, np.full(len(y), rate)))
        assert fold.note == ""
    assert at == len(planted.out_of_fold)
    tested = dataset[planted.out_of_fold_rows]
    found = return_slope(
        np.concatenate(learned),
        tested.ret / tested.volatility,
        block=block_length(tested.label_start, tested.label_end),
    )
    assert planted.scores.return_slope == pytest.approx(found.slope)
    assert planted.scores.return_slope_interval == pytest.approx(found.interval)
    assert planted.bundle.metrics["out_of_fold"]["return_slope"] == planted.scores.return_slope


def test_baselines_are_of_what_knows_only_the_base_rate(planted):
    dataset, rows = planted.dataset, planted.out_of_fold_rows
    y = dataset.y[rows]
    rate = np.repeat(
        [fold.base_rate_train for fold in planted.folds], [fold.n_test for fold in planted.folds]
    )
    share = np.mean(y)
    assert planted.baselines == pytest.approx(
        {
            "majority_accuracy": max(share, 1.0 - share),
            "auc": 0.5,
            "log_loss": -np.mean(np.where(y == 1, np.log(rate), np.log1p(-rate))),
            "brier": np.mean((y - rate) ** 2),
        }
    )
    right = (planted.out_of_fold >= 0.5) == (y == 1)
    assert planted.accuracy == pytest.approx(np.mean(right))


def test_importance_is_shared_out_largest_first(planted):
    shares = list(planted.feature_importance.values())
    assert set(planted.feature_importance) == set(NAMES)
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0.0
    by_name = dict(zip(NAMES, planted.bundle.estimator.feature_importances, strict=True))
    assert planted.feature_importance == by_name


class Steady:
    directional = False
    value = 3.0

    def update(self, *bar):
        pass


def test_the_range_seen_holds_every_row_and_a_constant_has_none(bars):
    names = (*NAMES, "steady")
    result = TrainingLoop(SETTINGS, feature_names=names, custom_features={"steady": Steady}).train(
        bars, random_signals(bars)
    )
    low, high, X = result.bundle.feature_low, result.bundle.feature_high, result.dataset.X
    assert (low <= X).all()
    assert (high >= X).all()
    assert (low[-1], high[-1]) == (-math.inf, math.inf)
    assert np.isfinite(low[:-1]).all()
    assert np.isfinite(high[:-1]).all()
    # Not so wide that nothing is ever novel: a quarter of the range on either side.
    span = X.max(axis=0) - X.min(axis=0)
    np.testing.assert_allclose((high - low)[:-1], 1.5 * span[:-1])
    assert result.feature_importance["steady"] < 1e-12


def test_the_break_even_that_a_bundle_tells_pays_for_the_average_loss(planted):
    rows, odds = planted.dataset, planted.bundle.trade_odds()
    net = (rows.ret - SETTINGS.labels.cost) / rows.volatility
    won = net > 0.0
    gain, loss = net[won].mean(), -net[~won].mean()
    told = odds.of_rows(rows.volatility)[1]
    assert told.mean() == pytest.approx(loss / (gain + loss), abs=0.01)
    # What trades pay does not change by calling them something else.
    other = LOOP.train_dataset(shuffled(rows, 0)).bundle
    assert other.break_even_shift.tobytes() == planted.bundle.break_even_shift.tobytes()


def test_the_break_even_of_the_users_labels_is_that_of_a_random_walk(bars):
    signals = random_signals(bars)
    result = LOOP.train(bars, signals, np.random.default_rng(0).integers(0, 2, len(signals)))
    assert result.bundle.exit_times.tolist() == [1.0]
    assert result.bundle.break_even_shift.tolist() == [0.0]
    assert result.bundle.trade_odds().of(0.01) == TradeOdds(SETTINGS.labels).of(0.01)


def served_by(result, model=None):
    rows = result.dataset
    return (model or result.bundle.model).predict_rows(rows.X, rows.odds, rows.volatility)


def test_a_mirrored_market_gives_the_same_model(bars):
    names = (
        "volatility",
        "momentum",
        "regime",
        "trend_strength",
        "flow_fast",
        "vpin",
        "toxicity",
        "strength",
    )
    loop = TrainingLoop(SETTINGS, feature_names=names)
    signals = knowing_signals(bars)
    one = loop.train(bars, signals)
    other = loop.train(mirror(bars), replace(signals, signal=-signals.signal))
    np.testing.assert_array_equal(other.dataset.side, -one.dataset.side)
    np.testing.assert_array_equal(other.dataset.y, one.dataset.y)
    np.testing.assert_allclose(other.dataset.X, one.dataset.X, atol=1e-9)
    np.testing.assert_allclose(other.out_of_fold, one.out_of_fold, atol=1e-9)
    np.testing.assert_allclose(served_by(other), served_by(one), atol=1e-9)
    np.testing.assert_allclose(other.bundle.break_even_shift, one.bundle.break_even_shift, atol=1e-9)
    assert other.auc == pytest.approx(one.auc, abs=1e-4)
    assert np.ptp(one.out_of_fold) > 0.1


@pytest.mark.parametrize("estimator", ["logistic", "hist_gradient_boosting"])
def test_the_same_training_twice_is_the_same_to_the_byte(bars, tmp_path, estimator):
    model = ModelSettings(estimator=estimator, parameters={"max_iter": 5} if estimator != "logistic" else {})

    settings = msgspec.structs.replace(SETTINGS, model=model)
    kept = []
    for name in ("a", "b"):
        store = ModelStore(tmp_path / name)
        bundle = TrainingLoop(settings, feature_names=NAMES, store=store).train(bars[:4_000]).bundle
        kept.append((store.read_manifest(bundle.version), tmp_path / name / bundle.version))
    (one, folder_one), (other, folder_other) = kept
    arrays = [path.name for path in folder_one.iterdir() if path.suffix == ".npz"]
    assert arrays
    for name in arrays:
        assert (folder_one / name).read_bytes() == (folder_other / name).read_bytes()
    assert one.metrics == other.metrics
    assert one.provenance == other.provenance


def test_a_store_keeps_the_bundle_and_without_one_it_is_only_returned(bars, tmp_path, planted):
    assert planted.bundle.version == ""
    store = ModelStore(tmp_path)
    result = TrainingLoop(SETTINGS, feature_names=NAMES, store=store).train(bars, knowing_signals(bars))
    assert store.versions() == [result.bundle.version]
    stored = store.load_latest()
    assert stored.version == result.bundle.version
    assert stored.metrics == result.bundle.metrics
    assert stored.metrics["out_of_fold"]["auc_within_side"] == result.auc
    assert stored.metrics["feature_importance"] == result.feature_importance
    rows = result.dataset
    assert served_by(result, stored.model).tobytes() == served_by(planted).tobytes()
    assert stored.settings == SETTINGS
    assert stored.feature_names == NAMES
    assert stored.provenance["rows"] == len(rows)
    assert stored.provenance["last_label_end_ns"] == result.dataset.label_end.max()
    again = store.load_estimator(stored.version)
    np.testing.assert_array_equal(
        again.predict_proba(rows.X, rows.odds, rows.volatility),
        result.bundle.estimator.predict_proba(rows.X, rows.odds, rows.volatility),
    )


def test_instruments_are_pooled_into_one_model(synthetic_bars):
    cuts = {"B": synthetic_bars[2_000:6_000], "A": synthetic_bars[:4_000]}
    signals = {name: random_signals(bars, seed) for seed, (name, bars) in enumerate(cuts.items())}
    labels = {name: np.random.default_rng(3).random(len(one)) < one.strength for name, one in signals.items()}
    result = LOOP.train(cuts, signals, labels)
    alone = {name: build_dataset(cuts[name], signals[name], labels[name], settings=SETTINGS, feature_names=NAMES)
             for name in cuts}  # fmt: skip
    dataset = result.dataset
    assert len(dataset) == sum(map(len, alone.values()))
    assert (np.diff(dataset.label_start) >= 0).all()
    assert set(dataset.regime_rows[:, 0].tolist()) == {0, 1}
    for i, name in enumerate(cuts):
        mine = dataset.regime_rows[:, 0] == i
        np.testing.assert_array_equal(dataset.X[mine], alone[name].X)
        np.testing.assert_array_equal(dataset.y[mine], alone[name].y)
    assert result.bundle.provenance["instruments"] == ["B", "A"]
    assert result.bundle.provenance["bars"] == 8_000
    # Keys that are no strings, but print as the same ones, will do: instrument ids.
    again = LOOP.train(cuts, {Key(name): one for name, one in signals.items()}, labels)
    assert again.out_of_fold.tobytes() == result.out_of_fold.tobytes()


class Key:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


def test_mappings_must_have_the_same_keys(bars):
    both = {"A": bars, "B": bars}
    one = random_signals(bars)
    for signals in ({"A": one}, {"A": one, "B": one, "C": one}, one, [1, 2]):
        with pytest.raises(
            ValueError, match=r"`signals` must be a mapping with the same keys as `bars`, \['A'"
        ):
            LOOP.train(both, signals)
    with pytest.raises(ValueError, match=r"`labels` must be .*; it was a mapping with \['A'\]"):
        LOOP.train(both, {"A": one, "B": one}, {"A": np.ones(len(one))})
    with pytest.raises(ValueError, match=r"`trades` must be .*; it was a mapping with \['X'\]"):
        LOOP.train(both, trades={"X": None})
    with pytest.raises(ValueError, match="empty mapping"):
        LOOP.train({})
    with pytest.raises(ValueError, match=r"^B: training needs at least 1,000 bars, got 12;"):
        LOOP.train({"A": bars, "B": bars[:12]})


def columns(bars):
    return {
        name: getattr(bars, name).copy() for name in ("ts_event", "open", "high", "low", "close", "volume")
    }


@pytest.mark.parametrize("n", [0, 1, 999])
def test_too_few_bars_are_counted(bars, n):
    # Of one instrument the message stands for itself.
    with pytest.raises(ValueError, match=rf"^training needs at least 1,000 bars, got {n};"):
        LOOP.train(bars[:n])


def test_bad_input_is_refused_by_name(bars):
    signals = random_signals(bars)
    n = len(signals)
    with pytest.raises(ValueError, match=r"^there are no signals to learn from"):
        LOOP.train(bars, [])
    with pytest.raises(ValueError, match="labels` need the `signals`"):
        LOOP.train(bars, labels=np.ones(n))
    with pytest.raises(ValueError, match=f"one label per signal: {n - 1:,} for {n:,} signals"):
        LOOP.train(bars, signals, np.ones(n - 1))
    for label in (0, 1):
        with pytest.raises(
            ValueError, match=rf"^all [\d,]+ labels are {label}: there is nothing to tell apart"
        ):
            LOOP.train(bars, signals, np.full(n, label))
    with pytest.raises(
        ValueError, match=rf"none of the {n:,} signals became a labelled row; left out: .*no_label"
    ):
        LOOP.train(bars, signals, np.full(n, np.nan))
    with pytest.raises(ValueError, match="signals must be in order of time"):
        LOOP.train(bars, signals[::-1])
    with pytest.raises(ValueError, match="bars must be strictly increasing"):
        LOOP.train(bars[::-1])
    broken = columns(bars)
    broken["close"][77] = np.nan
    with pytest.raises(ValueError, match="`close` of row 77 is nan"):
        LOOP.train(broken)
    with pytest.raises(ValueError, match="unknown feature"):
        TrainingLoop(SETTINGS, feature_names=("momentun",))


def test_too_few_rows_for_the_folds_is_an_error(bars):
    signals = random_signals(bars)[200:206]
    with pytest.raises(ValueError, match=r"6 rows are too few|no training row"):
        LOOP.train(bars, signals, np.array([0, 1, 0, 1, 0, 1]))


def test_an_error_in_every_fold_is_an_error(bars):
    settings = msgspec.structs.replace(SETTINGS, model=ModelSettings(parameters={"Gamma": 1.0}))
    loop = TrainingLoop(settings, feature_names=NAMES)
    with pytest.raises(ValueError, match=r"no fold could be fitted; the last said: .*'Gamma'"):
        loop.train(bars)


def test_a_fold_without_a_model_is_the_baseline_and_says_why(bars):
    signals = random_signals(bars)
    labels = (np.random.default_rng(0).random(len(signals)) < 0.5).astype(float)
    # Until after the first fold starts there are labels of one class only.
    labels[: int(0.5 * len(signals))] = 0.0
    # Without calibration, which would need both classes in the first part of each fold as well.
    model = msgspec.structs.replace(SETTINGS.model, calibration="none")
    loop = TrainingLoop(msgspec.structs.replace(SETTINGS, model=model), feature_names=NAMES)
    result = loop.train(bars, signals, labels)
    first, *others = result.folds
    assert "nothing to tell apart" in first.note
    assert (result.out_of_fold[: first.n_test] == first.base_rate_train).all()
    assert first.base_rate_train == 0.0
    assert first.auc == 0.5
    assert [fold.note for fold in others] == ["", ""]


def test_weights_can_be_turned_off(bars):

    model = msgspec.structs.replace(SETTINGS.model, uniqueness_weights=False)
    labels = msgspec.structs.replace(SETTINGS.labels, exit_on_signal=False)  # so that they overlap much
    settings = msgspec.structs.replace(SETTINGS, model=model)
    signals = random_signals(bars)
    loop = TrainingLoop(settings, feature_names=NAMES)
    overlapping = msgspec.structs.replace(SETTINGS, labels=labels)
    dataset = TrainingLoop(overlapping, feature_names=NAMES).train(bars, signals).dataset
    assert (dataset.weight < 1.0).any()
    alone = dataset.replace(weight=np.ones(len(dataset)))
    off, on, of_alone = (
        one.fit(rows, np.arange(len(rows))).serving.to_arrays()["covariance_factor"]
        for one, rows in ((loop, dataset), (LOOP, dataset), (LOOP, alone))
    )
    np.testing.assert_array_equal(off, of_alone)
    assert off[0, 0] < 0.9 * on[0, 0]  # more labels: the level is known better


def test_which_labels_are_unique_does_not_matter_but_how_much_they_are_on_average(planted):
    dataset = planted.dataset
    shuffled_weights = dataset.replace(weight=np.random.default_rng(0).permutation(dataset.weight))
    everything = np.arange(len(dataset))
    for name, array in LOOP.fit(dataset, everything).serving.to_arrays().items():
        if array.dtype.kind == "f":
            other = LOOP.fit(shuffled_weights, everything).serving.to_arrays()[name]
            np.testing.assert_allclose(other, array, rtol=1e-6, atol=1e-9)


def test_rows_that_cannot_pay_change_nothing_but_their_own_probability(planted):
    dataset = planted.dataset
    never = np.arange(len(dataset)) % 4 == 0
    some = dataset.replace(odds=np.where(never, 0.0, dataset.odds))
    everything = np.arange(len(dataset))
    model, without = LOOP.fit(some, everything), LOOP.fit(dataset[~never], everything[: (~never).sum()])
    p = model.predict_proba(some.X, some.odds, some.volatility)
    assert (p[never] == 0.0).all()
    assert (model.predict_odds(some.odds, some.volatility)[never] == 0.0).all()
    rest = some[~never]
    np.testing.assert_array_equal(p[~never], without.predict_proba(rest.X, rest.odds, rest.volatility))


def test_progress_rises_from_nothing_to_done(bars):
    said = []
    TrainingLoop(
        SETTINGS, feature_names=NAMES, progress=lambda what, share: said.append((what, share))
    ).train(bars)
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert (shares[0], said[-1]) == (0.0, ("done", 1.0))
    assert [what for what, _ in said if what.startswith("validating")] == [
        f"validating, fold {i} of 3" for i in (1, 2, 3)
    ]


def test_regime_weights_are_learned_where_signals_fare_differently(bars):
    """Where signals pay in a calm market only, calm regimes weigh more."""
    signals = random_signals(bars)
    blank = build_dataset(bars, signals, settings=SETTINGS, feature_names=NAMES)
    volatility = blank.regime_inputs[0][blank.regime_rows[:, 1], 0]
    p = expit(-4.0 * (volatility - np.median(volatility)) / np.std(volatility))
    y = (np.random.default_rng(0).random(len(p)) < p).astype(np.int8)
    regime = LOOP.train_dataset(replace(blank, y=y)).bundle.regime
    filtered = regime.filter(blank.regime_inputs[0])
    weight = np.array([regime.weight(row) for row in filtered])[blank.regime_rows[:, 1]]
    assert np.corrcoef(weight, p)[0, 1] > 0.3


def test_what_did_not_come_true_out_of_fold_is_promised_no_more():
    n = 6_000
    fading = np.linspace(0.5, 0.0, n)  # each part of the rows sees less of it than those before
    found = {
        name: LOOP.train_rows(rows_with_effects(effect, len(NAMES)), None, interval_ns=MINUTE)
        for name, effect in (("stays", np.full(n, 0.25)), ("fades", fading))
    }
    for result in found.values():
        trust = 0.25**2 / (0.25**2 + result.scores.return_slope_error**2)
        slope = min(1.0, 1.0 + trust * (result.scores.return_slope - 1.0))
        assert result.bundle.return_slope == pytest.approx(slope, rel=1e-12)
    assert found["stays"].bundle.return_slope > 0.9
    assert found["fades"].bundle.return_slope < 0.7
