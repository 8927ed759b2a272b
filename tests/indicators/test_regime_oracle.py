"""The regime model against hmmlearn's Gaussian hidden Markov model.

Ours knows the distribution of regimes one bar before the first, hmmlearn's that of the first bar: they are one model
where the latter is the former times the transition.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.kernels.regime import regime_expectations, regime_filter
from tests.support.regimes import random_model

GaussianHMM = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn has no wheel for Python 3.14").GaussianHMM


def oracle(model, **changes):
    """Return hmmlearn's model of the standardised features, without its priors."""
    hmm = GaussianHMM(model.n_regimes, "diag", covars_prior=0.0, covars_weight=1.0, init_params="", **changes)
    hmm.n_features = model.n_features
    hmm.startprob_ = model.initial @ model.transition
    hmm.transmat_ = model.transition
    hmm.means_ = model.means
    hmm.covars_ = model.variances
    return hmm


def standardised(model, features):
    return (features - model.location) / model.scale


def arrays_of(model):
    names = ("initial", "location", "scale", "transition", "means", "variances")
    return [getattr(model, name).copy() for name in names]


pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting the shape on a NumPy array:DeprecationWarning:hmmlearn"
)
seeds = st.integers(0, 2**32 - 1)
sizes = {"k": st.integers(2, 4), "d": st.integers(1, 3), "n": st.integers(5, 60)}


@settings(deadline=None, max_examples=40)
@given(seed=seeds, **sizes)
def test_filter_and_likelihood_are_hmmlearns(seed, k, d, n):
    rng = np.random.default_rng(seed)
    model = random_model(rng, k, d)
    features = rng.normal(0.0, 2.0, (n, d))
    hmm, z = oracle(model), standardised(model, features)
    filtered = model.filter(features)
    for t in range(n):  # what is known at the last of some bars is what a filter knows
        np.testing.assert_allclose(filtered[t], hmm.predict_proba(z[: t + 1])[-1], rtol=1e-7, atol=1e-10)
    log_likelihood = regime_filter(features, *arrays_of(model), np.empty((n, k)))
    assert log_likelihood == pytest.approx(hmm.score(z), rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=seeds, **sizes)
def test_a_step_of_baum_welch_is_hmmlearns(seed, k, d, n):
    rng = np.random.default_rng(seed)
    model = random_model(rng, k, d)
    features = rng.normal(0.0, 2.0, (n, d))
    hmm, z = oracle(model, n_iter=1, params="tmc"), standardised(model, features)
    smoothed = hmm.predict_proba(z)
    hmm.fit(z)

    before_first, transitions, bars = np.empty(k), np.empty((k, k)), np.empty(k)
    deviations, squares = np.empty((k, d)), np.empty((k, d))
    regime_expectations(
        features, *arrays_of(model), np.empty((n, k)), before_first, transitions, bars, deviations, squares
    )
    # As sums and not as means, which a regime that hardly occurs makes of rounding.
    np.testing.assert_allclose(bars, smoothed.sum(axis=0), rtol=1e-7, atol=1e-9)
    shift = hmm.means_ - model.means
    np.testing.assert_allclose(deviations, bars[:, None] * shift, rtol=1e-7, atol=1e-8)
    variances = np.diagonal(hmm.covars_, axis1=1, axis2=2)
    theirs = bars[:, None] * (variances + shift**2)
    seen = bars > 1e-3  # hmmlearn divides by 1e-5 bars at least
    np.testing.assert_allclose(squares[seen], theirs[seen], rtol=1e-6, atol=1e-8)
    # The step into the first bar is one that hmmlearn does not count.
    into_first = model.initial[:, None] * model.transition
    into_first *= smoothed[0] / into_first.sum(axis=0)
    leaving = smoothed[:-1].sum(axis=0)[:, None]
    np.testing.assert_allclose(transitions - into_first, leaving * hmm.transmat_, rtol=1e-7, atol=1e-9)


def test_hmmlearn_finds_hardly_anything_better_from_where_the_fit_ended():
    rng = np.random.default_rng(9)
    truth = RegimeModel(
        location=np.zeros(2),
        scale=np.ones(2),
        initial=np.full(3, 1 / 3),
        transition=np.array([[0.98, 0.015, 0.005], [0.01, 0.98, 0.01], [0.01, 0.03, 0.96]]),
        means=np.array([[-1.2, -0.5], [0.1, 0.8], [1.6, -0.2]]),
        variances=np.array([[0.3, 0.5], [0.2, 0.6], [0.4, 0.3]]),
        weights=np.zeros(3),
        log_likelihood=np.empty(0),
    )
    features, _ = oracle(truth).sample(8_000, random_state=int(rng.integers(2**31)))
    model = RegimeModel.fit(features)
    assert model.n_regimes == 3
    z = standardised(model, features)
    ours = oracle(model).score(z)
    theirs = oracle(model, n_iter=100, tol=1e-3, params="tmc").fit(z).score(z)
    assert theirs - ours < 1e-3 * len(z)
    true = oracle(truth).score(features) + len(z) * np.log(model.scale).sum()
    assert ours > true  # a maximum of the likelihood is above the truth's
