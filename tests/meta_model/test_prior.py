"""The prior of a meta-model: labels that a random walk would give, beside those that there are."""

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.settings import ModelSettings

N = 600
STRENGTH = 500.0


def rows(seed=0, n=N):
    """Rows whose labels depend on the first feature, and a prior that knows the second one only."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(0.5 - 0.8 * X[:, 0]))).astype(int)
    prior = 1.0 / (1.0 + np.exp(-1.5 * X[:, 1]))
    return X, y, rng.uniform(0.1, 1.0, n), prior


def log_odds(p):
    return np.log(p / (1.0 - p))


def pseudo_odds(prior, y, weight):
    """Restate the odds: bounded, then moved by one shift of log odds to the weighted base rate."""
    bounded = np.minimum(np.maximum(prior, 0.02), 0.98)
    rate = (weight * y).sum() / weight.sum()

    def moved(shift):
        return 1.0 / (1.0 + np.exp(-(log_odds(bounded) + shift)))

    return moved(
        brentq(lambda shift: (weight * moved(shift)).sum() / weight.sum() - rate, -20.0, 20.0, xtol=1e-14)
    )


def augmented(X, y, weight, prior, strength):
    """Write out the rows that a fit with a prior sees, one by one."""
    p = pseudo_odds(prior, y, weight)
    seen = [(X[i], y[i], weight[i]) for i in range(len(y))]
    seen += [(X[i], 1, strength * p[i] / len(y)) for i in range(len(y))]
    seen += [(X[i], 0, strength * (1.0 - p[i]) / len(y)) for i in range(len(y))]
    return tuple(np.array(column) for column in zip(*seen, strict=True))


def settings(estimator="logistic", strength=STRENGTH, parameters=None, **more):
    more = {"calibration": "none"} | more
    return ModelSettings(estimator=estimator, prior_strength=strength, parameters=parameters or {}, **more)


@pytest.mark.parametrize("strength", [10.0, 500.0, 20_000.0])
def test_a_logistic_fit_with_a_prior_is_a_fit_on_the_augmented_rows(strength):
    X, y, weight, prior = rows()
    model = MetaModel(settings(strength=strength, parameters={"C": 0.05})).fit(X, y, weight, prior=prior)
    A, labels, w = augmented(X, y, weight, prior, strength)
    scaler = StandardScaler().fit(A, sample_weight=w)
    by_hand = LogisticRegression(C=0.05, solver="newton-cholesky", tol=1e-8, max_iter=200)
    by_hand.fit(np.clip(scaler.transform(A), -3.0, 3.0), labels, sample_weight=w)
    expected = by_hand.predict_proba(np.clip(scaler.transform(X), -3.0, 3.0))[:, 1]
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-9)
    np.testing.assert_allclose(model.serving.predict_rows(X), expected, atol=1e-9)


def test_a_boosted_fit_with_a_prior_is_a_fit_on_the_augmented_rows():
    X, y, weight, prior = rows()
    parameters = {
        "max_iter": 20,
        "learning_rate": 0.1,
        "max_depth": 2,
        "max_bins": 32,
        "min_samples_leaf": 30,
        "l2_regularization": 5.0,
        "early_stopping": False,
    }
    model = MetaModel(settings("hist_gradient_boosting", parameters=parameters)).fit(
        X, y, weight, prior=prior
    )
    A, labels, w = augmented(X, y, weight, prior, STRENGTH)
    by_hand = HistGradientBoostingClassifier(random_state=0, **parameters).fit(A, labels, sample_weight=w)
    # Pseudo labels differ in their last digits only, which trees sum up in single precision.
    np.testing.assert_allclose(model.predict_proba(X), by_hand.predict_proba(X)[:, 1], atol=1e-5)


def test_calibration_learns_from_scores_of_fits_with_the_prior_of_earlier_rows():
    X, y, weight, prior = rows(n=900)
    model = MetaModel(settings(calibration="sigmoid", parameters={"C": 0.05})).fit(X, y, weight, prior=prior)
    # What the later rows' prior says reaches the calibrator through no earlier fit.
    later = np.where(np.arange(900) < 750, prior, 1.0 - prior)
    other = MetaModel(settings(calibration="sigmoid", parameters={"C": 0.05})).fit(X, y, weight, prior=later)
    assert other.calibration_.slope == model.calibration_.slope
    assert other.calibration_.intercept == model.calibration_.intercept
    assert other.serving.predict(X[0]) != model.serving.predict(X[0])
    earlier = np.where(np.arange(900) < 150, 1.0 - prior, prior)
    changed = MetaModel(settings(calibration="sigmoid", parameters={"C": 0.05})).fit(
        X, y, weight, prior=earlier
    )
    assert changed.calibration_.slope != model.calibration_.slope


@pytest.mark.parametrize("estimator", ["logistic", "hist_gradient_boosting"])
def test_a_prior_without_strength_is_none(estimator):
    X, y, weight, prior = rows()
    with_prior = MetaModel(settings(estimator, 0.0)).fit(X, y, weight, prior=prior)
    without = MetaModel(settings(estimator, 0.0)).fit(X, y, weight)
    assert with_prior.predict_proba(X).tobytes() == without.predict_proba(X).tobytes()
    strong = MetaModel(settings(estimator)).fit(X, y, weight)
    assert strong.predict_proba(X).tobytes() == without.predict_proba(X).tobytes()


def test_the_prior_says_which_rows_pay_and_the_labels_how_many():
    X, y, weight, prior = rows()
    model = MetaModel(settings(strength=1e6, parameters={"C": 1.0})).fit(X, y, weight, prior=prior)
    p = model.predict_proba(X)
    expected = pseudo_odds(prior, y, weight)
    assert np.corrcoef(log_odds(p), log_odds(expected))[0, 1] > 0.98
    assert np.average(p, weights=weight) == pytest.approx(np.average(y, weights=weight), abs=0.01)
    # A prior that is the same for all rows says nothing about any of them.
    flat = MetaModel(settings(parameters={"C": 1.0})).fit(X, y, weight, prior=np.full(N, 0.9))
    assert np.average(flat.predict_proba(X), weights=weight) == pytest.approx(
        np.average(y, weights=weight), abs=0.01
    )


def test_labels_outweigh_the_prior_as_they_come():
    X, y, _, prior = rows(n=4_000)
    pull = []
    for n in (200, 1_000, 4_000):
        model = MetaModel(settings(parameters={"C": 1.0})).fit(X[:n], y[:n], prior=prior[:n])
        p = log_odds(model.predict_proba(X))
        pull.append(abs(np.corrcoef(p, X[:, 1])[0, 1]))
    assert pull[0] > pull[1] > pull[2]
    assert pull[0] > 0.8 > 0.5 > pull[2]


def test_a_prior_of_zeros_and_ones_is_bounded():
    X, y, weight, prior = rows()
    sure = (prior > 0.5).astype(float)
    one = MetaModel(settings()).fit(X, y, weight, prior=sure)
    bounded = MetaModel(settings()).fit(X, y, weight, prior=np.clip(sure, 0.02, 0.98))
    assert one.predict_proba(X).tobytes() == bounded.predict_proba(X).tobytes()
    assert np.isfinite(one.predict_proba(X)).all()


@pytest.mark.parametrize("share", [0.03, 0.97])
def test_a_rare_class_is_met_by_the_shift(share):
    X, _, weight, prior = rows()
    y = (np.random.default_rng(4).random(N) < share).astype(int)
    model = MetaModel(settings(parameters={"C": 0.05})).fit(X, y, weight, prior=prior)
    assert model.predict_proba(X).mean() == pytest.approx(np.average(y, weights=weight), rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], r"`prior` must have shape \(600,\), one per row of `X`, has \(599,\)"),
        (lambda p: p[:, None], r"`prior` must have shape \(600,\).*has \(600, 1\)"),
        (lambda p: np.where(np.arange(N) == 5, 1.01, p), r"must be probabilities: row 5 is 1\.01"),
        (lambda p: np.where(np.arange(N) == 6, -0.01, p), r"must be probabilities: row 6 is -0\.01"),
        (lambda p: np.where(np.arange(N) == 7, np.nan, p), r"must be probabilities: row 7 is nan"),
        (lambda p: np.where(np.arange(N) == 8, np.inf, p), r"must be probabilities: row 8 is inf"),
    ],
)
def test_a_prior_that_is_none_is_refused(change, message):
    X, y, weight, prior = rows()
    model = MetaModel(settings())
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, weight, prior=change(prior))
    assert not model.is_fitted
