"""A meta-model that knows the odds: what it adds to them, and that what cannot pay has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.labeling.odds import random_walk_odds
from ml4t_actor.meta_model.calibration import expit
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression
from ml4t_actor.settings import ModelSettings

ESTIMATORS = ("logistic", "hist_gradient_boosting")
CALIBRATIONS = ("none", "sigmoid", "isotonic")
LIVELY = {
    "logistic": {},
    "hist_gradient_boosting": {"min_samples_leaf": 10, "l2_regularization": 0.1, "max_iter": 20},
}


def market(n=1_500, slope=0.5, seed=0, drift=0.0):
    """Return features, labels, odds and volatility; the first feature tells what the odds do not."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    volatility = 0.002 * np.exp(0.7 * rng.normal(size=n))
    odds = random_walk_odds(volatility, pt=1.0, sl=1.0, cost=0.0009)
    pays = odds > 0.0
    eta = np.full(n, -np.inf)
    eta[pays] = np.log(odds[pays] / (1.0 - odds[pays])) + drift + slope * X[pays, 0]
    return X, (rng.random(n) < expit(eta)).astype(int), odds, volatility


def model_of(estimator="logistic", calibration="none"):
    return MetaModel(
        ModelSettings(estimator=estimator, calibration=calibration, parameters=LIVELY[estimator])
    )


@pytest.fixture(scope="module")
def fitted():
    X, y, odds, volatility = market()
    return {
        (e, c): model_of(e, c).fit(X, y, odds=odds, volatility=volatility)
        for e in ESTIMATORS
        for c in CALIBRATIONS
    }


every_model = pytest.mark.parametrize(
    ("estimator", "calibration"), [(e, c) for e in ESTIMATORS for c in CALIBRATIONS]
)


@every_model
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 1.0, 30.0]))
def test_the_kernel_says_what_scikit_learn_says(fitted, estimator, calibration, seed, spread):
    model = fitted[estimator, calibration]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 3)) * spread
    volatility = 0.002 * np.exp(spread * rng.normal(size=60))
    odds = np.where(rng.random(60) < 0.1, 0.0, random_walk_odds(volatility, pt=1.0, sl=1.0, cost=0.0009))
    X[rng.random(X.shape) < 0.05] = np.nan
    assert model.verify_serving(X, odds, volatility) <= 1e-12
    answers = model.serving.answer_rows(X, odds, volatility)
    expected = model.predict_proba(X, odds, volatility)
    np.testing.assert_allclose(answers.confidence, expected, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(answers.base_odds, model.predict_odds(odds, volatility), rtol=0.0, atol=1e-12)
    known = np.isfinite(expected)
    assert (answers.low[known] <= answers.confidence[known]).all()
    assert (answers.confidence[known] <= answers.high[known]).all()
    single = [model.get_confidence(*row) for row in zip(X, odds, volatility, strict=True)]
    assert np.array(single).tobytes() == answers.confidence.tobytes()


def test_base_odds_and_interval_are_those_of_the_formula(fitted):
    model = fitted["logistic", "none"]
    X, _, odds, volatility = market(400, seed=3)
    pays = odds > 0.0
    X, odds, volatility = X[pays], odds[pays], volatility[pays]
    evidence = model.evidence_
    lo = np.log(odds) - np.log(1.0 - odds)
    z = (np.column_stack([lo, np.log(volatility)]) - evidence.term_mean_) / evidence.term_scale_
    z = np.clip(z, -3.0, 3.0)
    base = lo + evidence.base_intercept_ + z @ evidence.base_term_coef_
    np.testing.assert_allclose(model.predict_odds(odds, volatility), 1.0 / (1.0 + np.exp(-base)), rtol=1e-12)
    u = np.clip((X - evidence.mean_) / evidence.scale_, -3.0, 3.0)
    eta = lo + evidence.intercept_[0] + z @ evidence.term_coef_ + u @ evidence.coef_[0]
    g = np.column_stack([np.ones(len(X)), z, u])
    sd = np.sqrt(np.sum((g @ evidence.covariance_) * g, axis=1))
    answers = model.serving.answer_rows(X, odds, volatility)
    for got, score in (
        (answers.confidence, eta),
        (answers.low, eta - 1.6448536 * sd),
        (answers.high, eta + 1.6448536 * sd),
    ):
        np.testing.assert_allclose(got, 1.0 / (1.0 + np.exp(-score)), rtol=1e-7)


def test_it_is_the_evidence_regression_on_rows_that_can_pay():
    X, y, odds, volatility = market()
    weight = np.full(len(X), 0.4)
    trend = np.array([True, False, False])
    model = MetaModel().fit(X, y, weight, odds=odds, volatility=volatility, trend=trend)
    pays = odds > 0.0
    assert 0 < (~pays).sum() < len(X) / 2
    lo = np.log(odds[pays]) - np.log1p(-odds[pays])
    expected = EvidenceLogisticRegression().fit(
        X[pays],
        y[pays],
        weight[pays],
        offset=lo,
        terms=np.column_stack([lo, np.log(volatility[pays])]),
        groups=trend,
    )
    assert len(model.evidence_.candidates_) == 114
    np.testing.assert_allclose(model.evidence_.coef_, expected.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.evidence_.covariance_, expected.covariance_, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_cannot_pay_is_left_out_and_has_no_chance(estimator):
    X, y, odds, volatility = market()
    never = odds == 0.0
    model = model_of(estimator).fit(X, y, odds=odds, volatility=volatility)
    for column in model.serving.answer_rows(X[never], odds[never], volatility[never])[:4]:
        assert (column == 0.0).all()
    assert (model.predict_proba(X, odds, volatility)[never] == 0.0).all()
    # Whatever they hold, nothing is learned from them.
    other = model_of(estimator).fit(
        np.where(never[:, None], 1e9, X),
        np.where(never, 1 - y, y),
        odds=odds,
        volatility=np.where(never, 1e-9, volatility),
    )
    for name, array in model.serving.to_arrays().items():
        np.testing.assert_array_equal(other.serving.to_arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_features_that_say_nothing_leave_the_odds(estimator):
    X, y, odds, volatility = market(6_000, slope=0.0)
    model = MetaModel(ModelSettings(estimator=estimator)).fit(X, y, odds=odds, volatility=volatility)
    p = model.predict_proba(X, odds, volatility)
    assert np.abs(p - odds).mean() < 0.015
    assert np.abs(p - model.predict_odds(odds, volatility)).mean() < 0.01


def test_odds_that_are_off_are_recalibrated_without_the_features():
    X, y, odds, volatility = market(8_000, slope=0.8, drift=-0.3)
    model = MetaModel().fit(X, y, odds=odds, volatility=volatility)
    base = model.predict_odds(odds, volatility)
    assert base.mean() == pytest.approx(y.mean(), abs=0.02)
    p = model.predict_proba(X, odds, volatility)

    def loss(q):
        q = np.maximum(q, 1e-4)
        return -np.mean(y * np.log(q) + (1 - y) * np.log1p(-q))

    assert loss(p) < loss(base) - 0.03 < loss(base) < loss(odds) - 0.003


def test_a_volatility_that_is_not_known_counts_as_the_mean_and_is_not_served():
    X, y, odds, volatility = market()
    unknown = volatility.copy()
    unknown[::2] = np.nan
    model = MetaModel().fit(X, y, odds=odds, volatility=unknown)
    mean = np.exp(model.evidence_.term_mean_[1])
    np.testing.assert_allclose(
        model.predict_proba(X, odds, np.full(len(X), np.nan)),
        model.predict_proba(X, odds, np.full(len(X), mean)),
        rtol=1e-9,
    )
    served = model.serving.predict_rows(X, odds, unknown)
    assert (np.isnan(served) == np.isnan(unknown)).all()
    # Rows as 0.1.0 stored them know no volatility at all.
    assert np.isfinite(MetaModel().fit(X, y, odds=odds).predict_proba(X, odds)).all()


def test_the_interval_narrows_with_the_labels():
    widths = []
    for n in (500, 2_000, 8_000):
        X, y, odds, volatility = market(n)
        answers = (
            MetaModel()
            .fit(X, y, odds=odds, volatility=volatility)
            .serving.answer_rows(X[:400], odds[:400], volatility[:400])
        )
        widths.append((answers.high - answers.low)[odds[:400] > 0.0].mean())
    assert widths[0] > 1.3 * widths[1] > 1.3 * 1.3 * widths[2] > 0.0


def test_without_odds_the_base_is_the_base_rate_and_odds_are_ignored():
    X, y, odds, volatility = market()
    model = MetaModel().fit(X, y, volatility=volatility)
    assert not model.uses_odds_
    np.testing.assert_allclose(model.predict_odds(np.full(3, np.nan)), np.full(3, y.mean()), rtol=1e-9)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X, odds, volatility))
    answer = model.serving.answer(X[0], 0.0, 0.001)
    assert answer.base_odds == pytest.approx(y.mean())
    assert answer.confidence > 0.0


def test_odds_are_needed_where_it_was_fitted_with_them(fitted):
    for model in (fitted["logistic", "none"], fitted["hist_gradient_boosting", "none"]):
        with pytest.raises(ValueError, match="fitted with odds: give `odds`"):
            model.predict_proba(np.zeros((2, 3)))
        assert np.isnan(model.get_confidence(np.zeros(3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"odds": np.full(149, 0.5)}, r"`odds` must have shape \(150,\), one per row of `X`, has \(149,\)"),
        ({"odds": np.full((150, 1), 0.5)}, r"`odds` must have shape \(150,\)"),
        ({"odds": np.where(np.arange(150) == 7, np.nan, 0.5)}, r"`odds` must be .*: row 7 is nan"),
        ({"odds": np.where(np.arange(150) == 7, -0.1, 0.5)}, "row 7 is -0.1"),
        ({"odds": np.where(np.arange(150) == 7, 1.0, 0.5)}, "row 7 is 1.0"),
        ({"volatility": np.ones(151)}, r"`volatility` must have shape \(150,\)"),
        ({"odds": np.where(np.arange(150) < 49, 0.5, 0.0)}, "the odds are above 0 in 49 of 150"),
        ({"trend": [0, 1, 1]}, r"`trend` must be bool with shape \(3,\)"),
        ({"trend": np.zeros(4, bool)}, r"`trend` must be bool with shape \(3,\), one per feature, is bool"),
    ],
)
def test_what_is_known_must_fit_the_rows(changes, message):
    X, y, _, volatility = market(150)
    arguments = {"odds": np.full(150, 0.5), "volatility": volatility} | changes
    model = MetaModel()
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, **arguments)
    assert not model.is_fitted
