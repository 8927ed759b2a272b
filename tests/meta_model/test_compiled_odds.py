"""The compiled model that starts from the odds: that it says what its formula says, written out in numpy."""

import io
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm

from ml4t_actor.meta_model.compiled import CompiledModel, Prediction

KINDS = ("logistic", "trees")
CALIBRATIONS = ("none", "sigmoid", "isotonic")
N_FEATURES = 5
LIMIT = 3.0


def random_tree(rng, depth):
    """Return a tree as nested tuples: a leaf's value, or (feature, threshold, default_left, left, right)."""
    if depth == 0 or rng.random() < 0.1:
        return float(rng.normal(scale=0.3))
    left, right = random_tree(rng, depth - 1), random_tree(rng, depth - 1)
    return int(rng.integers(N_FEATURES)), float(rng.normal()), bool(rng.random() < 0.5), left, right


def flat_trees(trees):
    """Return the arrays of trees, each node before its children."""
    names = ("feature", "threshold", "left", "right", "default_left", "value")
    columns = {name: [] for name in names}

    def add(tree):
        here = len(columns["feature"])
        leaf = isinstance(tree, float)
        row = (-1, 0.0, -1, -1, False, tree) if leaf else (tree[0], tree[1], 0, 0, tree[2], 0.0)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
        if not leaf:
            columns["left"][here] = add(tree[3])
            columns["right"][here] = add(tree[4])
        return here

    roots = [add(tree) for tree in trees]
    dtypes = {"feature": np.int32, "left": np.int32, "right": np.int32, "default_left": np.bool_}
    arrays = {name: np.array(c, dtype=dtypes.get(name, np.float64)) for name, c in columns.items()}
    return arrays | {"root": np.array(roots, dtype=np.int32)}


def walk(tree, x):
    while not isinstance(tree, float):
        feature, threshold, default_left, left, right = tree
        goes_left = default_left if np.isnan(x[feature]) else x[feature] <= threshold
        tree = left if goes_left else right
    return tree


def random_arrays(seed, kind, calibration, uses_odds=True):
    """Return the arrays of a model, and its trees."""
    rng = np.random.default_rng(seed)
    n = 3 + (N_FEATURES if kind == "logistic" else 1)
    trees = [random_tree(rng, 3) for _ in range(6)]
    arrays = {
        "format": np.int64(2),
        "kind": np.str_(kind),
        "n_features": np.int64(N_FEATURES),
        "limit": np.float64(LIMIT),
        "uses_odds": np.bool_(uses_odds),
        "odds_center": rng.normal([-0.5, -6.0]),
        "odds_scale": rng.uniform(0.1, 1.0, 2),
        "odds_coefficient": rng.normal(scale=0.1, size=2),
        "intercept": np.float64(rng.normal(scale=0.2)),
        "base_intercept": np.float64(rng.normal(scale=0.2)),
        "base_coefficient": rng.normal(scale=0.1, size=2),
        "covariance_factor": np.tril(rng.normal(scale=0.1, size=(n, n))),
        "calibration": np.str_(calibration),
        "calibration_slope": np.float64(rng.uniform(0.2, 2.0)),
        "calibration_intercept": np.float64(rng.normal(scale=0.3)),
        "calibration_score": np.empty(0),
        "calibration_probability": np.empty(0),
    }
    if calibration == "isotonic":
        arrays["calibration_score"] = np.cumsum(rng.uniform(0.05, 0.4, 8)) - 1.5
        arrays["calibration_probability"] = np.sort(rng.uniform(size=8))
    if kind == "logistic":
        arrays["mean"] = rng.normal(size=N_FEATURES)
        arrays["scale"] = rng.uniform(0.5, 2.0, N_FEATURES)
        arrays["coefficient"] = rng.normal(scale=0.3, size=N_FEATURES)
    else:
        arrays |= flat_trees(trees)
        arrays["trees_intercept"] = np.float64(rng.normal(scale=0.1))
        arrays["score_mean"] = np.float64(rng.normal(scale=0.1))
        arrays["score_scale"] = np.float64(rng.uniform(0.2, 0.6))
        arrays["score_coefficient"] = np.float64(rng.normal())
    return arrays, trees


def restated(arrays, trees, x, odds, volatility):
    """Return the four numbers by the formula of the docstring, for one row."""
    limit = arrays["limit"]
    kind, calibration = str(arrays["kind"]), str(arrays["calibration"])
    if arrays["uses_odds"]:
        if not (np.isfinite(volatility) and volatility > 0.0 and 0.0 <= odds < 1.0):
            return np.full(4, np.nan)
        if odds == 0.0:
            return np.zeros(4)
        lo = logit(odds)
        zo = np.clip(
            (np.array([lo, np.log(volatility)]) - arrays["odds_center"]) / arrays["odds_scale"], -limit, limit
        )
    else:
        lo, zo = 0.0, np.zeros(2)
    base = lo + arrays["base_intercept"] + arrays["base_coefficient"] @ zo
    if kind == "logistic":
        with np.errstate(invalid="ignore"):
            u = np.clip((x - arrays["mean"]) / arrays["scale"], -limit, limit)
        u[~np.isfinite(x)] = np.nan
        beta = arrays["coefficient"]
    else:
        score = arrays["trees_intercept"] + sum(walk(tree, x) for tree in trees)
        u = np.clip((score - arrays["score_mean"]) / arrays["score_scale"], -limit, limit).reshape(1)
        beta = arrays["score_coefficient"].reshape(1)
    eta = lo + arrays["intercept"] + arrays["odds_coefficient"] @ zo + beta @ u
    g = np.concatenate([[1.0], zo, u])
    covariance = arrays["covariance_factor"] @ arrays["covariance_factor"].T
    half = norm.ppf(0.95) * np.sqrt(g @ covariance @ g)

    def calibrated(score):
        if calibration == "none":
            return expit(score)
        if calibration == "sigmoid":
            return expit(arrays["calibration_slope"] * score + arrays["calibration_intercept"])
        knots = arrays["calibration_score"], arrays["calibration_probability"]
        return np.nan if np.isnan(score) else np.interp(score, *knots)

    return np.array([calibrated(eta), expit(base), calibrated(eta - half), calibrated(eta + half)])


def random_rows(seed, n=40, spread=2.0, holes=0.03):
    rng = np.random.default_rng(seed)
    X = rng.standard_t(3.0, size=(n, N_FEATURES)) * spread
    X[rng.random(X.shape) < holes] = np.nan
    X[rng.random(X.shape) < holes] = np.inf
    X[rng.random(X.shape) < holes] = -np.inf
    odds, volatility = rng.uniform(0.0, 1.0, n), np.exp(rng.normal(-6.0, 2.0, n))
    odds[::7], odds[1], odds[2] = 0.0, np.nan, 1e-300
    volatility[3:7] = np.nan, 0.0, np.inf, 1e-300
    return X, odds, volatility


every_model = pytest.mark.parametrize(("kind", "calibration"), [(k, c) for k in KINDS for c in CALIBRATIONS])


@every_model
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 2.0, 1e6, 1e300]), uses_odds=st.booleans()
)
def test_the_kernel_says_what_the_formula_says(kind, calibration, seed, spread, uses_odds):
    arrays, trees = random_arrays(seed, kind, calibration, uses_odds)
    model = CompiledModel.from_arrays(arrays)
    X, odds, volatility = random_rows(seed, spread=spread)
    rows = list(zip(X, odds, volatility, strict=True))
    expected = np.array([restated(arrays, trees, *row) for row in rows])
    served = model.answer_rows(X, odds, volatility)
    np.testing.assert_allclose(np.column_stack(served), expected, rtol=0.0, atol=1e-12)
    single = [model.answer(*row) for row in rows]
    assert np.array(single).tobytes() == np.column_stack(served).tobytes()
    assert all(type(value) is float for answer in single for value in answer)
    assert model.predict_rows(X, odds, volatility).tobytes() == served.confidence.tobytes()
    assert np.array([model.predict(*row) for row in rows]).tobytes() == served.confidence.tobytes()


@every_model
def test_the_rows_of_the_test_above_vary(kind, calibration):
    arrays, _ = random_arrays(1, kind, calibration)
    X, odds, volatility = random_rows(1, n=400, holes=0.0)
    served = CompiledModel.from_arrays(arrays).answer_rows(X, odds, volatility)
    for column in served:
        assert len(np.unique(column[np.isfinite(column)])) > 5
    known = np.isfinite(served.confidence)
    assert 0.5 < known.mean() < 1.0
    inside = (served.low <= served.confidence) & (served.confidence <= served.high)
    assert inside[known].all()
    assert (served.low < served.high)[known & (odds > 0.0)].mean() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_trade_that_cannot_pay_is_answered_with_zero(kind):
    model = CompiledModel.from_arrays(random_arrays(2, kind, "sigmoid")[0])
    assert model.answer(np.zeros(N_FEATURES), 0.0, 0.001) == Prediction(0.0, 0.0, 0.0, 0.0)
    assert model.predict(np.full(N_FEATURES, 9.0), 0.0, 0.001) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_known_is_answered_with_nan(kind):
    model = CompiledModel.from_arrays(random_arrays(3, kind, "none")[0])
    x = np.zeros(N_FEATURES)
    assert model.uses_odds
    for arguments in (
        (),
        (0.5,),
        (math.nan, 0.01),
        (0.5, math.nan),
        (0.0, math.nan),
        (0.5, 0.0),
        (-0.1, 0.01),
    ):
        assert np.isnan(model.answer(x, *arguments)).all()
    assert np.isnan(model.predict_rows(np.zeros((3, N_FEATURES)))).all()
    holed = model.answer(np.array([math.nan] * N_FEATURES), 0.5, 0.01)
    assert math.isfinite(holed.base_odds)
    assert math.isfinite(holed.confidence) == (kind == "trees")


@pytest.mark.parametrize("kind", KINDS)
def test_without_odds_the_base_rate_stands_for_them(kind):
    arrays, _ = random_arrays(4, kind, "none", uses_odds=False)
    model = CompiledModel.from_arrays(arrays)
    x = np.ones(N_FEATURES)
    assert not model.uses_odds
    answer = model.answer(x)
    assert answer.base_odds == pytest.approx(expit(arrays["base_intercept"]), abs=1e-15)
    assert model.answer(x, 0.0, -1.0) == model.answer(x, 0.3, 0.01) == answer


def test_certain_coefficients_leave_no_interval():
    arrays, _ = random_arrays(5, "logistic", "none")
    arrays["covariance_factor"] = np.zeros_like(arrays["covariance_factor"])
    answer = CompiledModel.from_arrays(arrays).answer(np.ones(N_FEATURES), 0.4, 0.01)
    assert answer.low == answer.confidence == answer.high


def test_format_1_knows_neither_odds_nor_interval():
    arrays, _ = random_arrays(6, "logistic", "sigmoid")
    plain = {
        name: arrays[name]
        for name in (
            "kind",
            "n_features",
            "limit",
            "mean",
            "scale",
            "coefficient",
            "intercept",
            "calibration",
        )
    }
    plain |= {name: array for name, array in arrays.items() if name.startswith("calibration_")}
    model = CompiledModel.from_arrays(plain | {"format": np.int64(1)})
    x = np.ones(N_FEATURES)
    assert not model.uses_odds
    assert model.answer(x, 0.3, 0.01) == Prediction(model.predict(x), 0.3, 0.0, 1.0)
    assert model.answer(x) == Prediction(model.predict(x, 0.0, math.nan), 0.0, 0.0, 1.0)
    rows = model.answer_rows([x, x], [0.0, math.nan])
    assert [column.tolist() for column in rows] == [
        [model.predict(x)] * 2,
        [0.0, 0.0],
        [0.0, 0.0],
        [1.0, 1.0],
    ]


@every_model
def test_arrays_survive_a_file_and_a_pickle(kind, calibration):
    model = CompiledModel.from_arrays(random_arrays(7, kind, calibration)[0])
    file = io.BytesIO()
    np.savez(file, **model.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = CompiledModel.from_arrays(stored)
    rows = random_rows(7)
    for other in (again, pickle.loads(pickle.dumps(model))):
        assert np.array(other.answer_rows(*rows)).tobytes() == np.array(model.answer_rows(*rows)).tobytes()


@pytest.mark.parametrize("name", ["odds", "volatility"])
def test_a_column_of_another_length_is_refused(name):
    model = CompiledModel.from_arrays(random_arrays(8, "logistic", "none")[0])
    columns = {"odds": np.full(3, 0.5), "volatility": np.full(3, 0.01)} | {name: np.full(2, 0.5)}
    with pytest.raises(ValueError, match=rf"`{name}` must have shape \(3,\)"):
        model.answer_rows(np.zeros((3, N_FEATURES)), **columns)


def put(name, value, at=None):
    def change(arrays):
        if at is None:
            arrays[name] = value
        else:
            arrays[name][at] = value

    return change


TAMPERED = {
    "a factor cut short": lambda a: a.__setitem__("covariance_factor", a["covariance_factor"][:-1, :-1]),
    "a factor that is not square": lambda a: a.__setitem__("covariance_factor", a["covariance_factor"][:-1]),
    "a flat factor": lambda a: a.__setitem__("covariance_factor", a["covariance_factor"].ravel()),
    "a number above the diagonal": put("covariance_factor", 0.1, (0, 2)),
    "a factor of NaN": put("covariance_factor", np.nan, (1, 0)),
    "a scale of zero": put("odds_scale", 0.0, 1),
    "an infinite scale": put("odds_scale", np.inf, 1),
    "three centres": put("odds_center", np.zeros(3)),
    "one coefficient": put("odds_coefficient", np.zeros(1)),
    "one coefficient of the odds alone": put("base_coefficient", np.zeros(1)),
    "an infinite intercept of the odds alone": put("base_intercept", np.float64(-np.inf)),
    "a number for a flag": put("uses_odds", np.float64(1.0)),
    "no limit": lambda a: a.pop("limit"),
    "a negative limit": put("limit", np.float64(-3.0)),
    "a name of the odds too few": lambda a: a.pop("base_intercept"),
    "format 1 with odds": put("format", np.int64(1)),
    "format 3": put("format", np.int64(3)),
    "a format that is a word": put("format", np.str_("2")),
    "no format": lambda a: a.pop("format"),
    "the other kind": lambda a: a.__setitem__(
        "kind", np.str_("trees" if str(a["kind"]) == "logistic" else "logistic")
    ),
}
TREES_TAMPERED = {
    "a score's scale of zero": put("score_scale", np.float64(0.0)),
    "a score's mean of NaN": put("score_mean", np.float64(np.nan)),
    "no coefficient of the score": lambda a: a.pop("score_coefficient"),
    "a table of intercepts": put("trees_intercept", np.zeros(2)),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, change) for kind in KINDS for change in TAMPERED.values()]
    + [("trees", change) for change in TREES_TAMPERED.values()],
    ids=[f"{kind}, {name}" for kind in KINDS for name in TAMPERED] + list(TREES_TAMPERED),
)
def test_tampered_arrays_are_refused(kind, change):
    arrays = {name: np.array(a) for name, a in random_arrays(9, kind, "none")[0].items()}
    CompiledModel.from_arrays(arrays)
    change(arrays)
    with pytest.raises(ValueError, match="serving array"):
        CompiledModel.from_arrays(arrays)


HUGE = np.finfo(np.float64).max
TINY = np.finfo(np.float64).smallest_subnormal


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_numbers_of_any_size_give_probabilities_or_nan(data):
    kind = data.draw(st.sampled_from(KINDS))
    arrays = {name: np.array(a) for name, a in random_arrays(10, kind, "sigmoid")[0].items()}
    names = [name for name, array in sorted(arrays.items()) if array.dtype == np.float64 and array.size]
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(names))
        value = data.draw(st.sampled_from([HUGE, 1e200, TINY, 1e-200, 0.0, -1e200, -HUGE]))
        array = arrays[name]
        array[...] = np.tril(np.full(array.shape, value)) if array.ndim == 2 else value
    try:
        model = CompiledModel.from_arrays(arrays)
    except ValueError:
        return
    served = np.array(model.answer_rows(*random_rows(11)))
    assert (np.isnan(served) | ((served >= 0.0) & (served <= 1.0))).all()
