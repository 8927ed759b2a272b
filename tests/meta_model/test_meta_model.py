"""The meta-model: what it learns, and that the compiled form says exactly the same."""

import io
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.meta_model.calibration import (
    _INTERCEPT_PRIOR_SD,
    _SLOPE_PRIOR_SD,
    Calibration,
    expit,
    fit_isotonic,
    fit_sigmoid,
)
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression
from ml4t_actor.meta_model.fitting import CALIBRATION_BLOCKS
from ml4t_actor.settings import ModelSettings

ESTIMATORS = ("logistic", "hist_gradient_boosting")
CALIBRATIONS = ("none", "sigmoid", "isotonic")
N_FEATURES = 4
LIVELY = {
    "logistic": {"C": 0.5},
    "hist_gradient_boosting": {
        "min_samples_leaf": 10,
        "l2_regularization": 0.1,
        "max_depth": 4,
        "max_iter": 20,
    },
}


def market(n=900, effect=1.0, seed=0):
    """Rows of unlike scales, a signal in the first two columns."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_t(4.0, size=(n, N_FEATURES))
    y = (effect * (Z[:, 0] - 0.5 * Z[:, 1] * Z[:, 2]) + rng.logistic(size=n) > 0.0).astype(int)
    return Z * [1e-4, 1.0, 50.0, 1e4] + [0.0, 1.0, -20.0, 1e6], y


def lively(estimator, calibration="sigmoid", **changes):
    return ModelSettings(
        **({"estimator": estimator, "calibration": calibration, "parameters": LIVELY[estimator]} | changes)
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On busy cores OpenMP's threads wait for each other, for seconds."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module")
def fitted():
    X, y = market()
    return {(e, c): MetaModel(lively(e, c)).fit(X, y) for e in ESTIMATORS for c in CALIBRATIONS}


def same_arrays(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


# The compiled model


every_model = pytest.mark.parametrize(
    ("estimator", "calibration"), [(e, c) for e in ESTIMATORS for c in CALIBRATIONS]
)


@every_model
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 1.0, 10.0, 1e6, 1e200]))
def test_the_kernel_says_what_scikit_learn_says(fitted, estimator, calibration, seed, spread):
    model = fitted[estimator, calibration]
    rng = np.random.default_rng(seed)
    X, _ = market(60, seed=seed)
    X = X.mean(axis=0) + (X - X.mean(axis=0)) * spread
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    if estimator == "hist_gradient_boosting":
        X[rng.uniform(size=X.shape) < 0.05] = np.inf
        X[rng.uniform(size=X.shape) < 0.05] = -np.inf
    expected = model.predict_proba(X)
    served = model.serving.predict_rows(X)
    np.testing.assert_allclose(served, expected, rtol=0.0, atol=1e-12)
    assert model.verify_serving(X) <= 1e-12
    single = [model.get_confidence(row) for row in X]
    assert np.array(single).tobytes() == served.tobytes()
    assert all(type(value) is float for value in single)


def test_the_rows_of_the_test_above_vary_and_split_on_nan(fitted):
    X, _ = market(200, seed=5)
    for model in fitted.values():
        assert len(np.unique(model.predict_proba(X))) > 5
    holed = X.copy()
    holed[:, 0] = np.nan
    trees, linear = fitted["hist_gradient_boosting", "none"], fitted["logistic", "none"]
    assert np.isfinite(trees.serving.predict_rows(holed)).all()
    assert np.isnan(linear.serving.predict_rows(holed)).all()
    assert np.isnan(linear.get_confidence(np.array([np.inf, 0.0, 0.0, 0.0])))


def test_thresholds_go_left_when_equal(fitted):
    model = fitted["hist_gradient_boosting", "none"]
    arrays = model.serving.to_arrays()
    X, _ = market(300, seed=6)
    for node in np.flatnonzero(arrays["feature"] >= 0)[:200]:
        X[node % len(X), arrays["feature"][node]] = arrays["threshold"][node]
    assert model.verify_serving(X) <= 1e-12


def test_the_bound_on_outliers_holds_in_both_forms(fitted):
    model = fitted["logistic", "sigmoid"]
    evidence = model.evidence_
    three, thirty = (evidence.mean_ + k * evidence.scale_ for k in (3.0001, 30.0))
    assert model.get_confidence(three) == model.get_confidence(thirty)
    assert model.predict_proba([three])[0] == model.predict_proba([thirty])[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_any_layout_of_a_row_is_answered_alike(fitted, estimator):
    model = fitted[estimator, "sigmoid"].serving
    row = np.array([1e-4, 2.0, -30.0, 1e6])
    expected = model.predict(row)
    frozen = row.copy()
    frozen.flags.writeable = False
    for other in (frozen, np.repeat(row, 2)[::2], row.astype(">f8"), row.tolist()):
        assert model.predict(other) == expected
    assert model.predict(row.astype(np.float32)) == model.predict(row.astype(np.float32).astype(np.float64))
    table = np.array([row, row])
    frozen_table = table.copy()
    frozen_table.flags.writeable = False
    for other in (table, np.asfortranarray(table), frozen_table, table.tolist()):
        assert model.predict_rows(other).tolist() == [expected, expected]
    assert model.predict_rows(np.empty((0, N_FEATURES))).shape == (0,)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5,), (1, 4), (4, 1)])
def test_a_row_of_another_shape_is_refused(fitted, shape):
    for model in fitted.values():
        with pytest.raises(ValueError, match=r"shape \(4,\)"):
            model.get_confidence(np.zeros(shape))


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 4, 1)])
def test_rows_of_another_shape_are_refused(fitted, shape):
    model = fitted["logistic", "sigmoid"]
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        model.serving.predict_rows(np.zeros(shape))
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        model.predict_proba(np.zeros(shape))


@every_model
def test_arrays_survive_a_file_without_pickle(fitted, estimator, calibration):
    model = fitted[estimator, calibration].serving
    file = io.BytesIO()
    np.savez(file, **model.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = CompiledModel.from_arrays(stored)
    assert same_arrays(again.to_arrays(), model.to_arrays())
    assert (again.kind, again.calibration, again.n_features) == (model.kind, calibration, N_FEATURES)
    X, _ = market(50, seed=9)
    assert again.predict_rows(X).tobytes() == model.predict_rows(X).tobytes()
    pickled = pickle.loads(pickle.dumps(fitted[estimator, calibration]))
    assert same_arrays(pickled.serving.to_arrays(), model.to_arrays())
    assert pickled.get_confidence(X[0]) == model.predict(X[0])


def test_a_serving_model_cannot_be_changed(fitted):
    for model in (m.serving for m in fitted.values()):
        with pytest.raises(AttributeError, match="immutable"):
            model._shape = (9,)
        with pytest.raises(AttributeError, match="immutable"):
            del model._shape
        assert not any(array.flags.writeable for array in model.to_arrays().values())
        source = {name: np.array(array) for name, array in model.to_arrays().items()}
        copy = CompiledModel.from_arrays(source)
        row = np.array([1e-4, 2.0, -30.0, 1e6])
        before = copy.predict(row)
        source["intercept"][...] = 50.0
        copy.to_arrays().clear()
        assert copy.predict(row) == before
        assert "n_features=4" in repr(copy)


def leaf_and_split(arrays):
    return int(np.flatnonzero(arrays["feature"] < 0)[0]), int(np.flatnonzero(arrays["feature"] >= 0)[0])


def put(name, value, at=None):
    def change(arrays):
        if at is None:
            arrays[name] = value
        else:
            leaf, split = leaf_and_split(arrays) if "feature" in arrays else (0, 0)
            arrays[name][{"leaf": leaf, "split": split}.get(at, at)] = value

    return change


TREES_TAMPERED = {
    "a child before its parent": put("left", 0, "split"),
    "a child that is its parent": lambda a: a["right"].__setitem__(
        leaf_and_split(a)[1], leaf_and_split(a)[1]
    ),
    "a child in the next tree": lambda a: a["left"].__setitem__(0, a["root"][1]),
    "a child far outside": put("right", 2**31 - 1, "split"),
    "a negative child": put("left", -7, "split"),
    "a leaf with a child": put("left", 3, "leaf"),
    "a feature too high": put("feature", N_FEATURES, "split"),
    "a feature below -1": put("feature", -2, "split"),
    "a threshold of NaN": put("threshold", np.nan, "split"),
    "an infinite leaf": put("value", np.inf, "leaf"),
    "roots that do not start at 0": put("root", 1, 0),
    "roots in disorder": lambda a: a["root"].__setitem__(slice(None), a["root"][::-1].copy()),
    "a root outside": put("root", 2**31 - 1, -1),
    "no roots": put("root", np.empty(0, dtype=np.int32)),
    "values cut short": lambda a: a.__setitem__("value", a["value"][:-1]),
    "64-bit children": lambda a: a.__setitem__("left", a["left"].astype(np.int64)),
    "flags that are not booleans": lambda a: a.__setitem__("default_left", a["default_left"].astype(np.int8)),
    "fewer features than splits use": put("n_features", np.int64(1)),
}
LOGISTIC_TAMPERED = {
    "a scale of zero": put("scale", 0.0, 0),
    "a negative scale": put("scale", -1.0, 0),
    "a limit of zero": put("limit", np.float64(0.0)),
    "a coefficient of NaN": put("coefficient", np.nan, 0),
    "a coefficient too many": put("coefficient", np.zeros(N_FEATURES + 1)),
    "a table of means": put("mean", np.zeros((1, N_FEATURES))),
    "another number of features": put("n_features", np.int64(3)),
    "no features": put("n_features", np.int64(0)),
    "features beyond memory": put("n_features", np.int64(2**62)),
    "another kind": put("kind", np.str_("trees")),
    "an unknown kind": put("kind", np.str_("forest")),
    "bytes for a kind": put("kind", np.bytes_(b"logistic")),
    "another format": put("format", np.int64(1)),
    "a format to come": put("format", np.int64(4)),
    "single precision": put("intercept", np.float32(0.0)),
    "an infinite intercept": put("intercept", np.float64(np.inf)),
    "objects": put("mean", np.array([None] * N_FEATURES)),
    "a name too few": lambda a: a.pop("mean"),
    "no kind": lambda a: a.pop("kind"),
    "no calibration": lambda a: a.pop("calibration"),
    "a name too many": put("extra", np.zeros(1)),
    "an unknown calibration": put("calibration", np.str_("beta")),
    "a negative slope": put("calibration_slope", np.float64(-0.1)),
    "knots without isotonic": lambda a: a.update(calibration=np.str_("none")),
    "knots in disorder": lambda a: a["calibration_score"].__setitem__(0, 1e9),
    "equal knots": lambda a: a["calibration_score"].__setitem__(0, a["calibration_score"][1]),
    "probabilities that fall": lambda a: a["calibration_probability"].__setitem__(-1, 0.0),
    "a probability above one": lambda a: a["calibration_probability"].__setitem__(-1, 1.01),
    "a probability below zero": lambda a: a["calibration_probability"].__setitem__(0, -0.01),
    "a knot without probability": lambda a: a.__setitem__("calibration_score", a["calibration_score"][:-1]),
    "isotonic without knots": lambda a: a.update(
        calibration_score=np.empty(0), calibration_probability=np.empty(0)
    ),
}


@pytest.mark.parametrize(
    ("estimator", "change"),
    [("hist_gradient_boosting", change) for change in TREES_TAMPERED.values()]
    + [("logistic", change) for change in LOGISTIC_TAMPERED.values()],
    ids=[*TREES_TAMPERED, *LOGISTIC_TAMPERED],
)
def test_tampered_arrays_are_refused(fitted, estimator, change):
    arrays = {name: np.array(a) for name, a in fitted[estimator, "isotonic"].serving.to_arrays().items()}
    CompiledModel.from_arrays(arrays)
    change(arrays)
    with pytest.raises(ValueError, match="serving array"):
        CompiledModel.from_arrays(arrays)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_no_tampering_crashes_or_hangs_the_kernel(fitted, data):
    arrays = {
        name: np.array(a)
        for name, a in fitted["hist_gradient_boosting", "isotonic"].serving.to_arrays().items()
    }
    CompiledModel.from_arrays(arrays)
    for _ in range(data.draw(st.integers(1, 4))):
        array = arrays[data.draw(st.sampled_from(["left", "right", "feature", "root"]))]
        at = data.draw(st.integers(0, len(array) - 1))
        array[at] = data.draw(st.one_of(st.integers(-3, 400), st.integers(-(2**31), 2**31 - 1)))
    try:
        model = CompiledModel.from_arrays(arrays)
    except ValueError:
        return
    assert np.isfinite(model.predict_rows(market(20)[0])).all()


def test_serving_needs_no_scikit_learn():
    code = (
        "import sys, ml4t_actor.meta_model.compiled, ml4t_actor.meta_model.estimator\n"
        "print([m for m in ('sklearn', 'pandas', 'treelite', 'joblib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What is learned


def linear(X, y, weight, variance=LIVELY["logistic"]["C"]):
    model = EvidenceLogisticRegression(variances=(variance,), group_variances=())
    return model.fit(X, y, weight).decision_function


def boosted(X, y, weight):
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        learning_rate=0.03,
        max_bins=32,
        early_stopping=False,
        random_state=0,
        **LIVELY["hist_gradient_boosting"],
    )
    trees.fit(X, y, sample_weight=weight)
    rate = np.average(y, weights=weight)
    return lambda rows: trees.decision_function(rows) - np.log(rate / (1.0 - rate))


def stacked(score, y, weight):
    fit = EvidenceLogisticRegression().fit(score[:, None], y, weight)
    return lambda scores: fit.decision_function(scores[:, None])


def overlapping_rows():
    X, y = market(600)
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.2, 1.0, size=600)
    start = np.sort(rng.integers(0, 3_000, size=600))
    return X, y, weight, start, start + rng.integers(0, 200, size=600)


def blocks_before(start, end):
    """Return each block of the latest 240 rows, and the earlier rows whose labels had ended by then."""
    edges = [360 + 240 * i // CALIBRATION_BLOCKS for i in range(CALIBRATION_BLOCKS + 1)]
    for first, last in pairwise(edges):
        rows = [i for i in range(first) if end[i] < start[first]]
        assert 0 < len(rows) < first
        yield rows, list(range(first, last))


def assert_calibrated(model, score, y, weight):
    fit = fit_sigmoid if model.settings.calibration == "sigmoid" else fit_isotonic
    expected = fit(score, y.astype(float), weight)
    assert model.n_calibration_rows_ == len(score)
    for name in ("slope", "intercept", "score", "probability"):
        np.testing.assert_allclose(getattr(model.calibration_, name), getattr(expected, name), rtol=1e-6)
    return expected


@pytest.mark.parametrize("calibration", ["sigmoid", "isotonic"])
def test_calibration_learns_from_walk_forward_scores_without_overlap(calibration):
    X, y, weight, start, end = overlapping_rows()
    model = MetaModel(lively("logistic", calibration, calibration_fraction=0.4))
    model.fit(X, y, weight, label_start=start, label_end=end)
    scores = []
    for rows, block in blocks_before(start, end):
        scores.extend(linear(X[rows], y[rows], weight[rows])(X[block]))
    expected = assert_calibrated(model, np.array(scores), y[360:], weight[360:])
    np.testing.assert_allclose(model.predict_proba(X), expected(linear(X, y, weight)(X)), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_trees_are_stacked_on_walk_forward_scores_without_overlap(calibration):
    X, y, weight, start, end = overlapping_rows()
    model = MetaModel(lively("hist_gradient_boosting", calibration, calibration_fraction=0.4))
    model.fit(X, y, weight, label_start=start, label_end=end)
    score = np.full(600, np.nan)
    calibrated = []
    for rows, block in blocks_before(start, end):
        earlier = [i for i in rows if i >= 360]
        score[block] = boosted(X[rows], y[rows], weight[rows])(X[block])
        if block[0] > 360:
            calibrated.extend(stacked(score[earlier], y[earlier], weight[earlier])(score[block]))
    eta = stacked(score[360:], y[360:], weight[360:])(boosted(X, y, weight)(X))
    expected = expit
    if calibration != "none":
        expected = assert_calibrated(model, np.array(calibrated), y[440:], weight[440:])
    np.testing.assert_allclose(model.predict_proba(X), expected(eta), rtol=0.0, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_labels_that_outlast_every_calibration_start_do_not_touch_calibration(data):
    X, y = market(300)
    start = np.arange(300)
    end = start + 5
    purged = data.draw(st.lists(st.integers(0, 140), min_size=1, max_size=20, unique=True))
    end[purged] = 299
    flipped = y.copy()
    flipped[purged] = 1 - flipped[purged]
    setting = lively("logistic", calibration_fraction=0.5)
    a, b = (MetaModel(setting).fit(X, labels, label_start=start, label_end=end) for labels in (y, flipped))
    assert (a.calibration_.slope, a.calibration_.intercept) == (
        b.calibration_.slope,
        b.calibration_.intercept,
    )
    assert not np.array_equal(a.predict_proba(X), b.predict_proba(X))
    unpurged = MetaModel(setting).fit(X, flipped)
    assert unpurged.calibration_.slope != a.calibration_.slope


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_seed_gives_the_same_model_on_any_number_of_cores(estimator):
    from threadpoolctl import threadpool_limits

    X, y = market(2_000, effect=0.3)
    weight = np.random.default_rng(2).uniform(0.1, 1.0, size=2_000)
    models = []
    for threads in (1, 2, None):
        with threadpool_limits(limits=threads):
            models.append(MetaModel(lively(estimator)).fit(X, y, weight))
    first, *others = (model.serving.to_arrays() for model in models)
    assert all(same_arrays(first, other) for other in others)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_labels_without_weight_do_not_matter_and_weights_do(estimator):
    X, y = market(600)
    weight = np.ones(600)
    weight[::3] = 0.0
    flipped = np.where(weight > 0.0, y, 1 - y)
    a, b = (MetaModel(lively(estimator)).fit(X, labels, weight) for labels in (y, flipped))
    np.testing.assert_allclose(a.predict_proba(X), b.predict_proba(X), rtol=0.0, atol=1e-9)
    c = MetaModel(lively(estimator)).fit(X, flipped)
    assert np.abs(c.predict_proba(X) - a.predict_proba(X)).max() > 0.05


def overlapping(n, horizon, effect, seed):
    """Labels of returns over `horizon` steps, one event a step; a slow feature moves them by `effect`."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n + horizon, N_FEATURES))
    for i in range(1, len(X)):
        X[i] = 0.97 * X[i - 1] + np.sqrt(1.0 - 0.97**2) * X[i]
    total = np.concatenate([[0.0], np.cumsum(rng.normal(size=n + horizon))])
    noise = (total[horizon : horizon + n] - total[:n]) / np.sqrt(horizon)
    y = (effect * X[:n, 0] + noise + 0.2 > 0.0).astype(int)
    start = np.arange(n)
    return X[:n], y, np.full(n, 1.0 / horizon), start, start + horizon - 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_skill_every_confidence_is_near_the_base_rate(estimator):
    spreads = []
    for seed in range(3):
        X, y, weight, start, end = overlapping(4_000, 30, 0.0, seed)
        model = MetaModel(ModelSettings(estimator=estimator)).fit(
            X, y, weight, label_start=start, label_end=end
        )
        p = model.predict_proba(X)
        spreads.append(p.std())
        assert abs(p.mean() - y.mean()) < 0.1
    assert np.mean(spreads) < 0.03


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_true_signal_is_kept_and_calibrated(estimator):
    X, y, weight, start, end = overlapping(12_000, 30, 1.0, seed=4)
    model = MetaModel(ModelSettings(estimator=estimator)).fit(X, y, weight, label_start=start, label_end=end)
    X2, y2, *_ = overlapping(12_000, 30, 1.0, seed=5)
    p = model.predict_proba(X2)

    def log_loss(q):
        return -np.mean(y2 * np.log(q) + (1 - y2) * np.log1p(-q))

    assert 1.0 - log_loss(p) / log_loss(np.full(len(p), y.mean())) > 0.05
    assert model.feature_importances.argmax() == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_shuffled_labels_leave_little_to_say(estimator):
    X, y = market(3_000, effect=2.0)
    y = np.random.default_rng(7).permutation(y)
    model = MetaModel(ModelSettings(estimator=estimator)).fit(X, y)
    assert np.abs(model.predict_proba(X) - y.mean()).max() < 0.12


def test_importances_are_shares():
    X, y = market(900, effect=2.0)
    for estimator in ESTIMATORS:
        model = MetaModel(lively(estimator)).fit(X, y)
        shares = model.feature_importances
        assert shares.shape == (N_FEATURES,)
        assert (shares >= 0.0).all()
        assert shares.sum() == pytest.approx(1.0)
        assert shares.argmax() == 0
        shares[:] = 0.0
        assert model.feature_importances.sum() == pytest.approx(1.0)
        if estimator == "logistic":
            size = np.abs(model.evidence_.coef_[0])
            np.testing.assert_allclose(model.feature_importances, size / size.sum())
        else:
            gain = np.zeros(N_FEATURES)
            for (tree,) in model.estimator_._predictors:
                for node in tree.nodes[tree.nodes["is_leaf"] == 0]:
                    gain[node["feature_idx"]] += node["gain"]
            np.testing.assert_allclose(model.feature_importances, gain / gain.sum())


def test_trees_that_never_split_serve_one_number_and_equal_shares():
    X, y = market(100)
    model = MetaModel(ModelSettings(estimator="hist_gradient_boosting", calibration="none")).fit(X, y)
    assert np.ptp(model.predict_proba(X)) == 0.0
    assert model.get_confidence(X[0]) == pytest.approx(y[50:].mean(), abs=1e-9)  # what they are stacked on
    assert model.feature_importances.tolist() == [0.25] * 4


def test_parameters_reach_the_estimator():
    X, y = market(200)
    model = MetaModel(ModelSettings(parameters={"null_probability": 0.25, "limit": 2.0})).fit(X, y)
    assert (model.evidence_.null_probability, model.evidence_.limit) == (0.25, 2.0)
    assert model.serving.to_arrays()["limit"] == 2.0
    # As models of 0.1.0 were configured: C goes on, the rest is of an estimator that is gone.
    model = MetaModel(ModelSettings(parameters={"C": 0.25, "solver": "lbfgs"})).fit(X, y)
    assert (model.evidence_.variances, model.evidence_.group_variances) == ((0.25,), ())
    trees = ModelSettings(estimator="hist_gradient_boosting", parameters={"max_iter": 3})
    assert MetaModel(trees).fit(X, y).estimator_.n_iter_ == 3


def test_it_is_fitted_when_it_is():
    model = MetaModel()
    assert not model.is_fitted
    X, y = market(100)
    calls = (
        lambda: model.serving,
        lambda: model.feature_importances,
        lambda: model.predict_proba(X),
        lambda: model.get_confidence(X[0]),
        lambda: model.verify_serving(X),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="not fitted"):
            call()
    assert model.fit(X, y) is model
    assert model.is_fitted
    with pytest.raises(ValueError, match="0 or 1"):
        model.fit(X, y + 1)
    assert not model.is_fitted


def test_a_kernel_that_differs_is_not_served(fitted):
    model = pickle.loads(pickle.dumps(fitted["logistic", "sigmoid"]))
    arrays = dict(model.serving.to_arrays())
    arrays["intercept"] = np.float64(arrays["intercept"] + 1e-9)
    model.serving_ = CompiledModel.from_arrays(arrays)
    with pytest.raises(RuntimeError, match="differs from scikit-learn"):
        model.verify_serving(market(20)[0])


X0, Y0 = market(120)
HALF = np.repeat([0, 1], 60)


def with_value(value, at):
    X = X0.copy()
    X[at] = value
    return X


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], Y0), "shape"),
        ((np.empty((120, 0)), Y0), "shape"),
        ((X0, Y0[:-1]), r"`y` must have shape \(120,\)"),
        ((X0, Y0, np.ones(119)), r"`sample_weight` must have shape \(120,\)"),
        ((X0[:49], Y0[:49]), "at least 50 rows, got 49"),
        ((with_value(np.nan, (7, 2)), Y0), "column 2 is nan in row 7"),
        ((with_value(-np.inf, (0, 3)), Y0), "column 3 is -inf in row 0"),
        ((X0, np.where(np.arange(120) == 5, 2, Y0)), "row 5 is 2.0"),
        ((X0, np.where(np.arange(120) == 5, np.nan, Y0)), "row 5 is nan"),
        ((X0, Y0, np.where(np.arange(120) == 3, -0.5, 1.0)), "row 3 is -0.5"),
        ((X0, Y0, np.where(np.arange(120) == 3, np.nan, 1.0)), "row 3 is nan"),
        ((X0, Y0, np.zeros(120)), "0 rows of positive weight"),
        ((X0, np.zeros(120)), "have label 0"),
        ((X0, np.where(np.arange(120) < 60, Y0, 1)), "calibration part have label 1"),
        ((X0, np.where(np.arange(120) < 60, 0, Y0)), "estimator part have label 0"),
    ],
)
def test_bad_rows_are_refused_with_the_place(arguments, message):
    with pytest.raises(ValueError, match=message):
        MetaModel(ModelSettings(calibration="sigmoid")).fit(*arguments)


def test_a_data_frame_is_refused_by_column_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        with_value(np.nan, (7, 1)), columns=["volatility", "momentum", "regime", "trend"]
    )
    with pytest.raises(ValueError, match="column 'momentum' is nan in row 7"):
        MetaModel().fit(frame, Y0)
    assert MetaModel().fit(frame.fillna(0.0), Y0).is_fitted


START = np.arange(120)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"label_start": START}, "both"),
        ({"label_end": START}, "both"),
        ({"label_start": START[:-1], "label_end": START}, r"`label_start` must have shape"),
        ({"label_start": START, "label_end": START[1:]}, r"`label_end` must have shape"),
        ({"label_start": START.astype(float), "label_end": START}, "integers"),
        ({"label_start": START[::-1], "label_end": START + 200}, "row 1 has label_start 118 after 119"),
        ({"label_start": START, "label_end": START - 1}, r"row 0 is \[0, -1\]"),
        ({"label_start": START, "label_end": START + 200}, "0 rows of positive weight.*60 were purged"),
    ],
)
def test_bad_windows_are_refused_with_the_place(windows, message):
    with pytest.raises(ValueError, match=message):
        MetaModel(ModelSettings(calibration="sigmoid")).fit(X0, Y0, **windows)


@pytest.mark.parametrize(
    ("estimator", "known"), [("logistic", "'C'"), ("hist_gradient_boosting", "'max_leaf_nodes'")]
)
def test_an_unknown_parameter_is_refused_with_the_known_ones(estimator, known):
    with pytest.raises(ValueError, match=rf"\['depth'\].*{known}"):
        MetaModel(ModelSettings(estimator=estimator, parameters={"depth": 3})).fit(X0, Y0)


# Calibration alone


def is_minimum(loss, at, step=1e-4):
    """Return whether a convex `loss` is least at `at`: no neighbour on a circle is below."""
    angles = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    around = [loss([at[0] + step * np.cos(a), at[1] + step * np.sin(a)]) for a in angles]
    return loss(at) <= min(around)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 5.0), slope=st.floats(0.0, 2.0))
def test_the_sigmoid_is_the_posterior_mode(seed, spread, slope):
    rng = np.random.default_rng(seed)
    score = rng.normal(0.3, spread, size=200)
    y = (rng.uniform(size=200) < expit(slope * score)).astype(float)
    weight = rng.uniform(0.0, 1.0, size=200)

    def loss(b):
        p = np.clip(expit(b[0] * score + b[1]), 1e-300, 1.0 - 1e-16)
        likelihood = -np.sum(weight * (y * np.log(p) + (1.0 - y) * np.log(1.0 - p)))
        return (
            likelihood + 0.5 * ((b[0] - 1.0) / _SLOPE_PRIOR_SD) ** 2 + 0.5 * (b[1] / _INTERCEPT_PRIOR_SD) ** 2
        )

    fitted = fit_sigmoid(score, y, weight)
    if fitted.slope > 0.0:
        assert is_minimum(loss, [fitted.slope, fitted.intercept])
    else:
        floor = [loss([0.0, b]) for b in np.linspace(-0.5, 0.5, 401)]
        assert min(floor) <= min(loss([0.01, b]) for b in np.linspace(-0.5, 0.5, 401))
        assert fitted(score) == pytest.approx(np.average(y, weights=weight))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 400), levels=st.sampled_from([1, 2, 5, 1_000_000]))
def test_isotonic_never_decreases_and_stays_off_the_ends(seed, n, levels):
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(size=n) * levels) / levels
    y = (rng.uniform(size=n) < 0.2 + 0.6 * score).astype(float)
    y[:2] = 0.0, 1.0
    weight = rng.uniform(0.1, 1.0, size=n)
    fitted = fit_isotonic(score, y, weight)
    p = fitted(np.sort(score))
    assert (np.diff(p) >= 0.0).all()
    assert p.min() >= 1.0 / (weight @ (1.0 - y) + 2.0) - 1e-12
    assert p.max() <= 1.0 - 1.0 / (weight @ y + 2.0) + 1e-12
    assert (np.diff(fitted.score) > 0.0).all()
    assert len(fitted.score) <= 20


def test_isotonic_finds_a_known_curve():
    rng = np.random.default_rng(3)
    score = rng.normal(size=40_000)
    truth = 0.2 + 0.6 * (score > 0.0)
    y = (rng.uniform(size=40_000) < truth).astype(float)
    fitted = fit_isotonic(score, y, np.ones(40_000))
    at = np.array([-3.0, -1.0, -0.3, 0.3, 1.0, 3.0])
    assert fitted(at) == pytest.approx([0.2, 0.2, 0.2, 0.8, 0.8, 0.8], abs=0.03)
    assert np.isnan(fitted(np.array([np.nan]))).all()


def test_a_ranking_that_is_upside_down_is_not_turned_round():
    rng = np.random.default_rng(8)
    score = rng.normal(size=5_000)
    y = (rng.uniform(size=5_000) < expit(0.4 - score)).astype(float)
    assert fit_sigmoid(score, y, np.ones(5_000))(score) == pytest.approx(y.mean())


def test_extreme_scores_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert expit(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
        assert Calibration("sigmoid", 2.0, 0.0)(np.array([-1e4, 1e4])).tolist() == [0.0, 1.0]
