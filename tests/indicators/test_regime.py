import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ml4t_actor.indicators.regime import (
    ORDINARY,
    QUIET,
    TURBULENT,
    UNKNOWN_REGIME,
    RegimeModel,
    occupancy,
    rule_regime,
    rule_weight,
)
from ml4t_actor.kernels.regime import regime_expectations
from ml4t_actor.settings import RegimeSettings
from tests.support.paths import DATA
from tests.support.regimes import random_model


def simulate(rng, model, n):
    """Draw regimes and features from the model."""
    k = model.n_regimes
    regimes = np.empty(n, dtype=int)
    regime = rng.choice(k, p=model.initial)
    for t in range(n):
        regime = rng.choice(k, p=model.transition[regime])
        regimes[t] = regime
    noise = rng.normal(size=(n, model.n_features))
    z = model.means[regimes] + np.sqrt(model.variances[regimes]) * noise
    return regimes, model.location + model.scale * z


def density(model, regime, x):
    """Density of the standardised features in a regime; a row that is not finite says nothing."""
    if not all(math.isfinite(value) for value in x):
        return 1.0
    product = 1.0
    for c, value in enumerate(x):
        z = (value - model.location[c]) / model.scale[c]
        variance = model.variances[regime, c]
        product *= math.exp(-((z - model.means[regime, c]) ** 2) / (2 * variance))
        product /= math.sqrt(2 * math.pi * variance)
    return product


def paths_and_joints(model, features):
    """Each path of regimes, from the bar before the first, and its joint probability with the features."""
    for path in itertools.product(range(model.n_regimes), repeat=len(features) + 1):
        joint = model.initial[path[0]]
        for t, x in enumerate(features):
            joint *= model.transition[path[t], path[t + 1]] * density(model, path[t + 1], x)
        yield path, joint


def forward_pass(model, features):
    """Textbook forward recursion in plain sums."""
    k = model.n_regimes
    before, rows = [float(p) for p in model.initial], []
    for x in features:
        joint = [
            sum(before[i] * model.transition[i, j] for i in range(k)) * density(model, j, x) for j in range(k)
        ]
        before = [value / sum(joint) for value in joint]
        rows.append(before)
    return np.array(rows)


STICKY = RegimeModel(
    location=np.array([-7.0, 0.2]),
    scale=np.array([0.5, 0.1]),
    initial=np.array([0.4, 0.4, 0.2]),
    transition=np.array([[0.98, 0.015, 0.005], [0.01, 0.98, 0.01], [0.01, 0.03, 0.96]]),
    means=np.array([[-1.2, -0.5], [0.1, 0.8], [1.6, -0.2]]),
    variances=np.array([[0.3, 0.5], [0.2, 0.6], [0.4, 0.3]]),
    weights=np.array([0.3, 0.5, 0.6]),
    log_likelihood=np.empty(0),
)


@pytest.fixture(scope="module")
def simulated():
    return simulate(np.random.default_rng(3), STICKY, 20_000)


@pytest.fixture(scope="module")
def fitted(simulated):
    return RegimeModel.fit(simulated[1])


seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds, k=st.integers(2, 5), d=st.integers(1, 4), n=st.integers(1, 40), missing=st.floats(0.0, 0.4)
)
def test_filter_is_the_textbook_forward_pass(seed, k, d, n, missing):
    rng = np.random.default_rng(seed)
    model = random_model(rng, k, d)
    features = rng.normal(0.0, 2.0, (n, d))
    features[rng.random((n, d)) < missing / d] = np.nan
    np.testing.assert_allclose(model.filter(features), forward_pass(model, features), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, k=st.integers(2, 3), d=st.integers(1, 2), n=st.integers(1, 4))
def test_filter_and_expectations_sum_over_all_paths(seed, k, d, n):
    rng = np.random.default_rng(seed)
    model = random_model(rng, k, d)
    features = rng.normal(0.0, 2.0, (n, d))

    for t in range(n):
        shares = np.zeros(k)
        for path, joint in paths_and_joints(model, features[: t + 1]):
            shares[path[-1]] += joint
        np.testing.assert_allclose(model.filter(features)[t], shares / shares.sum(), rtol=1e-9, atol=1e-12)

    total = 0.0
    before_first, transitions, bars = np.zeros(k), np.zeros((k, k)), np.zeros(k)
    deviations, squares = np.zeros((k, d)), np.zeros((k, d))
    for path, joint in paths_and_joints(model, features):
        total += joint
        before_first[path[0]] += joint
        for t, x in enumerate(features):
            regime = path[t + 1]
            gap = (x - model.location) / model.scale - model.means[regime]
            transitions[path[t], regime] += joint
            bars[regime] += joint
            deviations[regime] += joint * gap
            squares[regime] += joint * gap**2
    outputs = [
        np.empty((n, k)),
        *(np.empty_like(a) for a in (before_first, transitions, bars, deviations, squares)),
    ]
    arrays = (model.initial, model.location, model.scale, model.transition, model.means, model.variances)
    log_likelihood = regime_expectations(features, *(a.copy() for a in arrays), *outputs)

    assert log_likelihood == pytest.approx(math.log(total), rel=1e-9, abs=1e-9)
    for got, expected in zip(
        outputs[1:], (before_first, transitions, bars, deviations, squares), strict=True
    ):
        np.testing.assert_allclose(got, expected / total, rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, k=st.integers(2, 5), d=st.integers(1, 3), n=st.integers(1, 200))
def test_batch_and_streaming_agree_bit_for_bit(seed, k, d, n):
    rng = np.random.default_rng(seed)
    model = random_model(rng, k, d)
    features = rng.normal(0.0, 2.0, (n, d))
    features[rng.random(n) < 0.1, 0] = np.nan
    features[rng.random(n) < 0.05, -1] = 1e9
    batch = model.filter(features)
    probabilities = model.initial_state()
    for t in range(n):
        probabilities = model.step(probabilities, features[t])
        assert probabilities.tobytes() == batch[t].tobytes()
        assert model.weight(probabilities) == model.weight(batch[t])
        assert model.regime(probabilities) == batch[t].argmax()
        assert model.regime_and_weight(probabilities) == (batch[t].argmax(), model.weight(batch[t]))
        assert model.regime_and_weight(batch[::-1][n - 1 - t]) == model.regime_and_weight(probabilities)


def test_a_step_reads_any_layout_and_changes_nothing_it_was_given():
    columns = np.asfortranarray(np.random.default_rng(0).normal(size=(5, 2)))
    before = STICKY.initial_state()
    kept = before.copy()
    after = STICKY.step(before, columns[2])
    assert after.tobytes() == STICKY.step(before, columns[2].tolist()).tobytes()
    assert before.tobytes() == kept.tobytes()
    assert STICKY.initial_state().tobytes() == kept.tobytes()


@settings(deadline=None, max_examples=40)
@given(seed=seeds, t=st.integers(0, 98))
def test_features_after_t_do_not_change_probabilities_up_to_t(seed, t):
    rng = np.random.default_rng(seed)
    model = random_model(rng, 3, 2)
    features = rng.normal(0.0, 2.0, (100, 2))
    changed = features.copy()
    changed[t + 1 :] = rng.choice([np.nan, np.inf, 1e300, -3.0, 0.0, 7.0], changed[t + 1 :].shape)
    assert model.filter(features)[: t + 1].tobytes() == model.filter(changed)[: t + 1].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_row_only_predicts_and_leaves_no_damage(simulated, bad):
    _, features = simulated
    features = features[:400].copy()
    clean = STICKY.filter(features)
    features[100, 1] = bad
    hit = STICKY.filter(features)
    np.testing.assert_allclose(hit[100], clean[99] @ STICKY.transition, rtol=1e-12)
    assert hit[:100].tobytes() == clean[:100].tobytes()
    np.testing.assert_allclose(hit[150:], clean[150:], atol=1e-6)


def test_a_long_gap_ends_at_the_long_run_shares():
    probabilities = STICKY.filter(np.full((5_000, 2), np.nan))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(probabilities[-1] @ STICKY.transition, probabilities[-1], atol=1e-12)


@pytest.mark.parametrize("outlier", [1e3, -1e6, 1e80, 1e160, -1e308])
def test_an_outlier_never_gives_nan_and_is_overcome(simulated, outlier):
    _, features = simulated
    features = features[:400].copy()
    clean = STICKY.filter(features)
    features[100] = outlier
    hit = STICKY.filter(features)
    assert np.isfinite(hit).all()
    assert (hit >= 0.0).all()
    np.testing.assert_allclose(hit.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(hit[250:], clean[250:], atol=1e-3)


def test_an_outlier_counts_for_the_regime_least_surprised_by_it():
    assert STICKY.regime(STICKY.step(STICKY.initial_state(), [-7.0 + 0.5 * 50.0, 0.2])) == 2
    # Regime 2 is out of reach of a state that is certain of a regime that never leads to it.
    closed = replace(STICKY, transition=np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]]))
    after = closed.step(np.array([1.0, 0.0, 0.0]), [-7.0 + 0.5 * 50.0, 0.2])
    assert after[2] == 0.0
    assert after.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("damage", [np.nan, 0.0, np.inf])
def test_damaged_probabilities_restart_from_ignorance(damage):
    x = [-7.0, 0.2]
    after = STICKY.step(np.full(3, damage), x)
    expected = np.array([density(STICKY, j, x) for j in range(3)])
    np.testing.assert_allclose(after, expected / expected.sum(), rtol=1e-9)
    assert STICKY.weight(np.full(3, np.nan)) == 0.0
    equal = np.array([0.4, 0.4, 0.2])
    assert (
        STICKY.regime_and_weight(equal)
        == (STICKY.regime(equal), STICKY.weight(equal))
        == (0, STICKY.weight(equal))
    )


def em_over_all_paths(features, labels, k, steps):
    """Expectation maximisation as sums over all paths, from a start by labels; features are standardised."""
    n, d = features.shape
    counts = np.ones((k, k))
    for before, after in itertools.pairwise(labels):
        counts[before, after] += 1
    model = RegimeModel(
        location=np.zeros(d),
        scale=np.ones(d),
        initial=np.bincount(labels) / n,
        transition=counts / counts.sum(axis=1, keepdims=True),
        means=np.array([features[labels == j].mean(axis=0) for j in range(k)]),
        variances=np.array([features[labels == j].var(axis=0) for j in range(k)]),
        weights=np.zeros(k),
        log_likelihood=np.empty(0),
    )
    path_of_likelihood = []
    for step in range(steps + 1):
        first, transitions, shares, total = np.zeros(k), np.zeros((k, k)), np.zeros((n, k)), 0.0
        for path, joint in paths_and_joints(model, features):
            total += joint
            first[path[0]] += joint
            for t in range(n):
                transitions[path[t], path[t + 1]] += joint
                shares[t, path[t + 1]] += joint
        path_of_likelihood.append(math.log(total))
        if step < steps:
            means = (shares.T @ features) / shares.sum(axis=0)[:, None]
            squares = (features[:, None, :] - means) ** 2
            model = replace(
                model,
                initial=first / first.sum(),
                transition=transitions / transitions.sum(axis=1, keepdims=True),
                means=means,
                variances=(shares[:, :, None] * squares).sum(axis=0) / shares.sum(axis=0)[:, None],
            )
    return replace(model, initial=shares.sum(axis=0) / shares.sum()), path_of_likelihood


def test_baum_welch_is_expectation_maximisation_over_all_paths():
    labels = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1])
    features = np.random.default_rng(8).normal(size=(9, 2)) + 1.5 * labels[:, None]
    steps = 3
    expected, path = em_over_all_paths(features, labels, 2, steps)
    got = RegimeModel._baum_welch(features, np.zeros(2), np.ones(2), labels, 2, steps)
    np.testing.assert_allclose(got.log_likelihood, path, rtol=1e-9)
    for name in ("initial", "transition", "means", "variances"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-7, err_msg=name)


@settings(deadline=None, max_examples=10)
@given(seed=seeds, k=st.integers(2, 4), d=st.integers(1, 3))
def test_the_likelihood_never_decreases(seed, k, d):
    rng = np.random.default_rng(seed)
    _, features = simulate(rng, random_model(rng, k, d), 400)
    try:
        model = RegimeModel.fit(features, RegimeSettings(n_regimes=k, max_iterations=30))
    except ValueError as e:
        assert "tell two regimes apart" in str(e)  # noqa: PT017 - a draw may well hold one regime only
        reject()  # but not most of them
    path = model.log_likelihood
    assert 2 <= len(path) <= 31
    assert (np.diff(path) >= -1e-9 * np.abs(path[1:])).all()
    assert (np.diff(model.means[:, 0]) >= 0.0).all()


def test_the_fit_recovers_a_simulated_model(simulated, fitted):
    regimes, features = simulated
    means = STICKY.location + STICKY.scale * STICKY.means
    deviations = STICKY.scale * np.sqrt(STICKY.variances)
    assert fitted.n_regimes == 3
    np.testing.assert_allclose(fitted.location + fitted.scale * fitted.means, means, atol=0.03)
    np.testing.assert_allclose(fitted.scale * np.sqrt(fitted.variances), deviations, rtol=0.05)
    np.testing.assert_allclose(fitted.transition, STICKY.transition, atol=0.01)
    np.testing.assert_allclose(fitted.initial, np.bincount(regimes) / len(regimes), atol=0.02)
    assert (fitted.filter(features).argmax(axis=1) == regimes).mean() > 0.95


def test_the_last_likelihood_is_that_of_the_fitted_model(simulated, fitted):
    # Except for the regime before the first bar, of which a fit keeps the share: one bar's worth.
    _, features = simulated
    outputs = [np.empty(shape) for shape in ((len(features), 3), 3, (3, 3), 3, (3, 2), (3, 2))]
    arrays = (
        fitted.initial,
        fitted.location,
        fitted.scale,
        fitted.transition,
        fitted.means,
        fitted.variances,
    )
    got = regime_expectations(features, *(a.copy() for a in arrays), *outputs)
    assert got == pytest.approx(fitted.log_likelihood[-1], abs=5.0)


def test_the_same_features_and_seed_give_the_same_model(simulated, fitted):
    again = RegimeModel.fit(simulated[1]).to_arrays()
    for name, values in fitted.to_arrays().items():
        assert values.tobytes() == again[name].tobytes(), name


def test_incomplete_rows_are_dropped_before_the_fit(simulated):
    features = simulated[1][:3_000]
    holed = np.repeat(features, 2, axis=0)
    holed[1::2, 0] = np.nan
    holed[1::4, 1] = np.inf
    a, b = RegimeModel.fit(features), RegimeModel.fit(holed)
    assert all(values.tobytes() == b.to_arrays()[name].tobytes() for name, values in a.to_arrays().items())


@pytest.mark.parametrize("broken", [[1e12, 0.2], [-1e12, 0.2], [-7.0, -1e3]])
def test_one_broken_row_does_not_move_the_fit(simulated, fitted, broken):
    features = simulated[1].copy()
    features[777] = broken
    model = RegimeModel.fit(features)
    np.testing.assert_allclose(model.scale, fitted.scale, rtol=1e-3)
    np.testing.assert_allclose(model.means, fitted.means, atol=1e-3)


def test_features_in_other_units_give_the_same_regimes(simulated, fitted):
    features = simulated[1]
    model = RegimeModel.fit(features * [1e-6, 1e4] + [3.0, -50.0])
    np.testing.assert_allclose(model.means, fitted.means, atol=1e-6)
    np.testing.assert_allclose(model.transition, fitted.transition, atol=1e-6)


def test_a_constant_feature_does_no_harm(simulated, fitted):
    features = simulated[1]
    model = RegimeModel.fit(np.column_stack([features, np.full(len(features), 0.1)]))
    np.testing.assert_allclose(model.means[:, :2], fitted.means, atol=0.01)


def test_regimes_that_do_not_exist_are_given_up_with_a_warning(caplog):
    features = np.repeat([0.0, 1.0, 0.0, 1.0], 100)[:, None]
    model = RegimeModel.fit(features, RegimeSettings(n_regimes=4))
    assert model.n_regimes == 2
    assert "Fitted 2 regimes, could not tell 4 apart" in caplog.text
    np.testing.assert_allclose(occupancy(model.filter(features).argmax(axis=1), 2).share, 0.5)


@pytest.mark.parametrize("distance", [4.0, 6.0, 30.0, 1e6])
def test_a_rare_cluster_does_not_take_a_regime_for_itself(distance):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20_000, 2))
    features[5_000:5_060] += distance  # 0.3 % of the bars
    model = RegimeModel.fit(features)
    assert (occupancy(model.filter(features).argmax(axis=1), model.n_regimes).share >= 0.01).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(100), r"shape \(bars, features\), was \(100,\)"),
        (np.zeros((100, 0)), r"was \(100, 0\)"),
        (np.full((100, 2), np.nan), "at least 90 complete rows of features, got 0 of 100"),
        (np.zeros((89, 2)), "got 89 of 89"),
        (np.ones((500, 2)), "tell two regimes apart in 500 rows"),
    ],
)
def test_features_that_cannot_be_fitted_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        RegimeModel.fit(features)


def test_a_model_that_has_seen_no_signal_vouches_for_none(fitted):
    assert fitted.weights.tolist() == [0.0, 0.0, 0.0]
    assert fitted.weight(fitted.initial_state()) == 0.0


def test_weights_by_hand():
    p = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.75, 0.0]])
    y, w = np.array([1, 0, 1, 1]), np.array([1.0, 2.0, 1.0, 6.0])
    # Overall (1 + 1 + 6) / 10 = 0.8; regime 0 paid 1 + 1.5 = 2.5 of 3.5, regime 1 paid 1 + 4.5 = 5.5 of 6.5.
    expected = [(2.5 + 10 * 0.8) / (3.5 + 10), (5.5 + 10 * 0.8) / (6.5 + 10), 0.8]
    model = STICKY.with_weights(p, y, w, shrinkage=10.0)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-12)
    assert model.weight(np.array([0.2, 0.3, 0.5])) == pytest.approx(float(np.dot([0.2, 0.3, 0.5], expected)))
    assert model.transition.tobytes() == STICKY.transition.tobytes()
    np.testing.assert_allclose(
        STICKY.with_weights(p, y, w, shrinkage=0.0).weights, [2.5 / 3.5, 5.5 / 6.5, 0.8]
    )
    np.testing.assert_allclose(
        STICKY.with_weights(p, y, shrinkage=0.0).weights, [1.25 / 1.75, 1.75 / 2.25, 0.75], rtol=1e-12
    )


@settings(deadline=None, max_examples=50)
@given(seed=seeds, n=st.integers(1, 60), shrinkage=st.floats(0.0, 1e4))
def test_weights_lie_between_the_overall_rate_and_the_regimes_own(seed, n, shrinkage):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(3), n), rng.integers(0, 2, n)
    own = STICKY.with_weights(p, y, shrinkage=0.0).weights
    shrunk = STICKY.with_weights(p, y, shrinkage=shrinkage).weights
    assert (shrunk >= np.minimum(own, y.mean()) - 1e-12).all()
    assert (shrunk <= np.maximum(own, y.mean()) + 1e-12).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.empty((0, 3)), np.empty(0)), "got 0 with sum 0.0"),
        ((np.full((4, 2), 0.5), np.ones(4)), r"probabilities \(n, 3\)"),
        ((np.full((4, 3), 1 / 3), np.ones(3)), r"shapes \(4, 3\), \(3,\)"),
        ((np.full((4, 3), 1 / 3), np.ones(4), np.ones(5)), r"and \(5,\)"),
        ((np.full((4, 3), np.nan), np.ones(4)), "must be in"),
        ((np.full((4, 3), 1 / 3), np.array([1, 0, -1, 1])), "labels must be in"),
        ((np.full((4, 3), 1 / 3), np.array([1, 0, np.nan, 1])), "labels must be in"),
        ((np.full((4, 3), 1 / 3), np.ones(4), np.array([1, -1, 1, 1])), "not negative"),
        ((np.full((4, 3), 1 / 3), np.ones(4), np.zeros(4)), "not all zero"),
        (
            (np.full((4, 3), 1 / 3), np.ones(4), None, -1.0),
            "`shrinkage` must be finite and not negative, was -1",
        ),
    ],
)
def test_signals_that_cannot_be_weighed_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        STICKY.with_weights(*arguments)


def test_arrays_make_the_same_model_again(tmp_path, simulated, fitted):
    np.savez(tmp_path / "regime.npz", **fitted.to_arrays())
    with np.load(tmp_path / "regime.npz", allow_pickle=False) as arrays:
        again = RegimeModel.from_arrays(arrays)
    features = simulated[1][:500]
    assert again.filter(features).tobytes() == fitted.filter(features).tobytes()
    assert all(
        values.tobytes() == again.to_arrays()[name].tobytes() for name, values in fitted.to_arrays().items()
    )


def test_a_model_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        STICKY.weights[0] = 1.0
    mine = np.array([0.3, 0.5, 0.6])
    model = replace(STICKY, weights=mine)
    mine[:] = 0.0
    assert model.weights.tolist() == [0.3, 0.5, 0.6]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("location", np.zeros(3), r"`location` .* shape \(2,\), was \(3,\)"),
        ("location", np.array([0.0, np.nan]), "`location` .* finite"),
        ("scale", np.array([1.0, 0.0]), "`scale` .* positive, was 0.0"),
        ("initial", np.array([0.5, 0.5, 0.5]), "`initial` .* sum one"),
        ("initial", np.full(4, 0.25), r"`initial` .* shape \(3,\)"),
        ("transition", np.full((3, 3), 0.3), "`transition` .* sum one"),
        ("transition", np.array([[1.5, -0.5, 0.0], [0, 1, 0], [0, 0, 1]]), "`transition` .* probabilities"),
        ("transition", np.full((2, 3), 1 / 3), r"`transition` .* shape \(3, 3\)"),
        ("means", np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]), "in order"),
        ("means", np.zeros(3), "`means` .* shape"),
        ("means", np.zeros((1, 2)), "`means` .* shape"),
        ("means", np.full((3, 2), np.inf), "`means` .* finite"),
        ("variances", np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]), "`variances` .* positive, was -1.0"),
        ("variances", np.ones((2, 3)), r"`variances` .* shape \(3, 2\)"),
        ("weights", np.array([0.1, 0.2, 1.1]), r"`weights` .* \[0, 1\]"),
        ("weights", np.array([0.1, 0.2, np.nan]), "`weights` .* finite"),
        ("weights", np.array(["a", "b", "c"]), "`weights` .* numbers"),
        ("log_likelihood", np.zeros((2, 2)), "`log_likelihood` .* shape"),
        ("surprise", np.zeros(3), r"no arrays \['surprise'\]"),
    ],
)
def test_tampered_arrays_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        RegimeModel.from_arrays(STICKY.to_arrays() | {name: value})


def test_missing_arrays_are_named():
    arrays = STICKY.to_arrays()
    del arrays["scale"], arrays["means"]
    with pytest.raises(ValueError, match=r"lack \['means', 'scale'\]"):
        RegimeModel.from_arrays(arrays)


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match="knows 2 features, got rows of 3"):
        STICKY.filter(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="needs 3 probabilities and 2 features"):
        STICKY.step(STICKY.initial_state(), np.zeros(3))
    with pytest.raises(ValueError, match="needs 3 probabilities and 2 features"):
        STICKY.step(np.full(2, 0.5), np.zeros(2))


def test_the_rule_by_hand():
    assert [rule_regime(p, 0.1) for p in (0.0, 0.3, 0.5, 0.7, 1.0)] == [
        QUIET,
        QUIET,
        ORDINARY,
        TURBULENT,
        TURBULENT,
    ]
    assert rule_regime(1.0, 0.5) == ORDINARY
    assert rule_regime(0.1, 0.9) == QUIET
    assert rule_weight(0.2, 0.0) == 1.0
    assert rule_weight(0.75, 0.0) == pytest.approx(0.6)
    assert rule_weight(1.0, 0.0) == pytest.approx(0.2)
    assert rule_weight(1.0, 1.0) == pytest.approx(0.6)


@pytest.mark.parametrize("arguments", [(math.nan, 0.1), (0.5, math.nan), (math.inf, 0.1), (0.5, -math.inf)])
def test_the_rule_fails_closed(arguments):
    assert rule_weight(*arguments) == 0.0
    assert rule_regime(*arguments) == UNKNOWN_REGIME


finite = st.floats(-2.0, 3.0)


@settings(deadline=None)
@given(calm=finite, wild=finite, trend=finite)
def test_the_rule_never_trusts_turbulence_more(calm, wild, trend):
    calm, wild = sorted((calm, wild))
    assert 0.0 <= rule_weight(wild, trend) <= rule_weight(calm, trend) <= 1.0
    assert rule_regime(wild, trend) >= rule_regime(calm, trend)


@settings(deadline=None)
@given(path=st.lists(st.integers(0, 3), max_size=50))
def test_occupancy_counts_bars_and_runs(path):
    share, run_bars = occupancy(path, 4)
    for regime in range(4):
        runs = [len(list(group)) for value, group in itertools.groupby(path) if value == regime]
        assert share[regime] == pytest.approx(path.count(regime) / max(len(path), 1))
        assert run_bars[regime] == pytest.approx(sum(runs) / len(runs) if runs else 0.0)


def closes():
    """Closes of real 1-minute bars where there are any, else of a market with clustered volatility."""
    folder = DATA / "bars_1m"
    files = sorted(folder.glob("BTCUSDT-PERP.*.parquet"))
    if files:
        import pyarrow.parquet

        return pyarrow.parquet.read_table(files[0], columns=["close"])["close"].to_numpy()
    rng = np.random.default_rng(1)
    log_volatility, shocks = np.empty(60_000), rng.normal(0.0, 0.02, 60_000)
    level = 0.0
    for t, shock in enumerate(shocks):
        level = 0.999 * level + shock
        log_volatility[t] = level
    return 100.0 * np.exp(np.cumsum(5e-4 * np.exp(log_volatility) * rng.standard_t(4, 60_000)))


def log_volatility_and_trend_strength(close, halflife=60):
    alpha = 1.0 - 0.5 ** (1.0 / halflife)
    square = drift = gross = 0.0
    rows = []
    for r in np.diff(np.log(close)).tolist():
        square += alpha * (r * r - square)
        drift += alpha * (r - drift)
        gross += alpha * (abs(r) - gross)
        rows.append((0.5 * math.log(square), abs(drift) / gross) if square > 0.0 else (math.nan, math.nan))
    rows[: 5 * halflife] = [(math.nan, math.nan)] * (5 * halflife)
    return np.array(rows)


def test_on_minute_bars_every_regime_occurs_and_lasts_and_weights_vary():
    features = log_volatility_and_trend_strength(closes())
    half = len(features) // 2
    model = RegimeModel.fit(features[:half])
    assert model.n_regimes == 3
    for part in (features[:half], features[half:]):
        share, run_bars = occupancy(model.filter(part).argmax(axis=1), 3)
        assert (share > 0.01).all()
        assert (run_bars > 5.0).all()
    signals = np.arange(1_000, half, 50)
    labels = (features[signals, 0] > np.nanmedian(features[:half, 0])).astype(float)
    model = model.with_weights(model.filter(features)[signals], labels, shrinkage=20.0)
    assert model.weights[0] < model.weights[2]
    assert np.ptp([model.weight(row) for row in model.filter(features[half:])]) > 0.1
