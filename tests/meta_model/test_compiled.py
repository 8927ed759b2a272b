"""The compiled model: that it says what its formula says, written out in numpy, and refuses what is no model."""

import io
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ml4t_actor.meta_model.compiled import CompiledModel, Prediction
from tests.support.compiled_models import (
    N_FEATURES,
    plain_arrays,
    random_arrays,
    restated,
    restated_plain,
    without_return,
)

KINDS = ("logistic", "trees")
CALIBRATIONS = ("none", "sigmoid", "isotonic")


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
    learned = model.answer(np.zeros(N_FEATURES), 0.5, 0.01).learned
    assert model.answer(np.zeros(N_FEATURES), 0.0, 0.001) == Prediction(0.0, 0.0, 0.0, 0.0, learned)
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
        assert np.isnan(model.answer(x, *arguments)[:4]).all()
    assert np.isnan(model.predict_rows(np.zeros((3, N_FEATURES)))).all()
    holed = model.answer(np.array([math.nan] * N_FEATURES), 0.5, 0.01)
    assert math.isfinite(holed.base_odds)
    assert math.isfinite(holed.confidence) == (kind == "trees")
    assert math.isnan(holed.learned)


@every_model
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), uses_odds=st.booleans())
def test_format_2_says_the_same_to_the_last_bit_but_for_the_return(kind, calibration, seed, uses_odds):
    arrays, _ = random_arrays(seed, kind, calibration, uses_odds)
    new, old = CompiledModel.from_arrays(arrays), CompiledModel.from_arrays(without_return(arrays))
    rows = random_rows(seed)
    ours, theirs = new.answer_rows(*rows), old.answer_rows(*rows)
    assert np.array(ours[:4]).tobytes() == np.array(theirs[:4]).tobytes()
    assert np.isnan(theirs.learned).all()
    assert np.isnan([old.answer(*row).learned for row in zip(*rows, strict=True)]).all()
    assert (new.knows_return, old.knows_return) == (True, False)
    assert math.isnan(old.expected_return(0.1, 0.01, 0.001))


@settings(deadline=None)
@given(
    seed=st.integers(0, 1_000),
    cost=st.floats(0.0, 0.01),
    slope=st.floats(0.0, 3.0),
    kind=st.sampled_from(KINDS),
)
def test_the_expected_return_is_that_of_volatilities_less_costs_and_batch_equals_one_by_one(
    seed, cost, slope, kind
):
    arrays, _ = random_arrays(seed, kind, "none")
    model = CompiledModel.from_arrays(arrays)
    X, odds, volatility = random_rows(seed, holes=0.0)
    learned = model.answer_rows(X, odds, volatility).learned
    told = model.expected_return(learned, volatility, cost, slope)
    z = np.clip((X - arrays["return_mean"]) / arrays["return_scale"], -3.0, 3.0)
    gross = float(arrays["return_intercept"]) + slope * (z @ arrays["return_coefficient"])
    known = np.isfinite(volatility)
    assert told[known] == pytest.approx(
        1e4 * (-cost + volatility[known] * gross[known]), rel=1e-12, abs=1e-12
    )
    one_by_one = [
        model.expected_return(model.answer(*row).learned, float(row[2]), cost, slope)
        for row in zip(X, odds, volatility, strict=True)
    ]
    assert np.array(one_by_one).tobytes() == told.tobytes()
    plain = model.expected_return(learned, volatility, cost)
    assert plain.tobytes() == model.expected_return(learned, volatility, cost, 1.0).tobytes()


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


@every_model
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 2.0, 1e6, 1e300]))
def test_format_1_says_what_it_always_said(kind, calibration, seed, spread):
    arrays, trees = random_arrays(seed, kind, calibration)
    plain = plain_arrays(arrays)
    model = CompiledModel.from_arrays(plain)
    X, odds, volatility = random_rows(seed, spread=spread)
    expected = [restated_plain(plain, trees, x) for x in X]
    served = model.predict_rows(X, odds, volatility)
    np.testing.assert_allclose(served, expected, rtol=0.0, atol=1e-12)
    assert np.array([model.predict(x) for x in X]).tobytes() == served.tobytes()
    assert model.predict_rows(X).tobytes() == served.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_format_1_knows_neither_odds_nor_interval(kind):
    model = CompiledModel.from_arrays(plain_arrays(random_arrays(6, kind, "sigmoid")[0]))
    x = np.ones(N_FEATURES)
    assert not model.uses_odds
    assert not model.knows_return
    assert model.answer(x, 0.3, 0.01)[:4] == (model.predict(x), 0.3, 0.0, 1.0)
    assert model.answer(x)[:4] == (model.predict(x, 0.0, math.nan), 0.0, 0.0, 1.0)
    assert math.isnan(model.answer(x).learned)
    rows = model.answer_rows([x, x], [0.0, math.nan])
    assert [column.tolist() for column in rows[:4]] == [
        [model.predict(x)] * 2,
        [0.0, 0.0],
        [0.0, 0.0],
        [1.0, 1.0],
    ]
    assert np.isnan(rows.learned).all()


def test_without_a_limit_format_1_bounds_nothing():
    arrays = plain_arrays(random_arrays(6, "logistic", "none")[0])
    bounded = CompiledModel.from_arrays(arrays)
    unbounded = CompiledModel.from_arrays({name: a for name, a in arrays.items() if name != "limit"})
    x = arrays["mean"] + 4.0 * arrays["scale"]
    assert bounded.predict(x) == bounded.predict(x + arrays["scale"])
    expected = expit(arrays["intercept"] + 4.0 * arrays["coefficient"].sum())
    assert unbounded.predict(x) == pytest.approx(expected, abs=1e-12)


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
    "format 2 with a return": put("format", np.int64(2)),
    "format 4": put("format", np.int64(4)),
    "a return without intercept": lambda a: a.pop("return_intercept"),
    "a return's intercept of NaN": put("return_intercept", np.float64(np.nan)),
    "a return's intercept of single precision": put("return_intercept", np.float32(0.1)),
    "a coefficient of the return too few": put("return_coefficient", np.zeros(N_FEATURES - 1)),
    "a mean of the return too many": put("return_mean", np.zeros(N_FEATURES + 1)),
    "an infinite coefficient of the return": put("return_coefficient", np.inf, 1),
    "a scale of the return of zero": put("return_scale", 0.0, 2),
    "a negative scale of the return": put("return_scale", -1.0, 2),
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


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_no_tampering_with_trees_crashes_or_hangs_the_kernel(data):
    arrays = {name: np.array(a) for name, a in random_arrays(12, "trees", "isotonic")[0].items()}
    if data.draw(st.booleans()):
        arrays = {name: np.array(a) for name, a in plain_arrays(arrays).items()}
    for _ in range(data.draw(st.integers(1, 4))):
        array = arrays[data.draw(st.sampled_from(["left", "right", "feature", "root"]))]
        at = data.draw(st.integers(0, len(array) - 1))
        array[at] = data.draw(st.one_of(st.integers(-3, 80), st.integers(-(2**31), 2**31 - 1)))
    try:
        model = CompiledModel.from_arrays(arrays)
    except ValueError:
        return
    X, _, _ = random_rows(13)
    n = len(X)
    assert np.isfinite(np.array(model.answer_rows(X, np.full(n, 0.4), np.full(n, 0.01))[:4])).all()


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
    served = np.array(model.answer_rows(*random_rows(11))[:4])
    assert (np.isnan(served) | ((served >= 0.0) & (served <= 1.0))).all()
