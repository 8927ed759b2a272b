"""Expected returns: against normal marginals, quadrature, planted truth, and a market without any."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from sklearn.utils.estimator_checks import parametrize_with_checks

from ml4t_actor.labeling import random_walk_odds
from ml4t_actor.meta_model import EvidenceRidge, MetaModel
from ml4t_actor.settings import ModelSettings

GRID = (0.0, 1e-4, 1e-3, 1e-2)
PRIOR = (1 / 2, 1 / 6, 1 / 6, 1 / 6)


@parametrize_with_checks([EvidenceRidge()])
def test_it_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


def market(n=400, beta=(0.15, 0.0, 0.0), seed=0, noise=0.9):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(beta))) * 3.0 + 1.0
    return X, (X - 1.0) / 3.0 @ np.array(beta) + noise * rng.normal(size=n)


def bounded_z(X, weight=None):
    mean = np.average(X, axis=0, weights=weight)
    return np.clip((X - mean) / np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight)), -3.0, 3.0)


def design_of(X):
    return np.column_stack([np.ones(len(X)), bounded_z(X)])


def test_evidence_is_the_normal_marginal_of_the_rows_and_the_average_the_textbook_posterior():
    X, y = market(120)
    group = np.array([True, False, False])
    model = EvidenceRidge().fit(X, y, groups=group)
    D, noise = design_of(X), np.var(y)
    assert model.noise_variance_ == pytest.approx(noise)
    found = {
        (c.variance, c.group_variance): (c.probability, e)
        for c, e in zip(model.candidates_, model.log_evidence_, strict=True)
    }
    assert len(found) == 16
    logs, means = [], []
    for (rest, p), (trend, q) in product(zip(GRID, PRIOR, strict=True), repeat=2):
        V = np.diag([0.05**2, *np.where(group, trend, rest)])
        marginal = stats.multivariate_normal(np.zeros(120), noise * np.eye(120) + D @ V @ D.T)
        probability, evidence = found[rest, trend]
        assert probability == pytest.approx(p * q)
        assert evidence == pytest.approx(marginal.logpdf(y), abs=1e-7)
        logs.append(math.log(p * q) + marginal.logpdf(y))
        # The conditional mean of jointly normal coefficients and rows.
        means.append(V @ D.T @ np.linalg.solve(marginal.cov, y))
    share = np.exp(np.array(logs) - special.logsumexp(logs))
    mean = share @ np.array(means)
    assert [model.intercept_, *model.coef_] == pytest.approx(mean, abs=1e-9)
    assert model.relevance_ == pytest.approx(1.0 - share[0], abs=1e-9)
    assert model.predict(X) == pytest.approx(D @ mean, abs=1e-9)
    assert model.learned(X) == pytest.approx(D[:, 1:] @ mean[1:], abs=1e-9)


@pytest.mark.parametrize("variance", [1e-4, 1e-2])
def test_evidence_of_weighted_rows_is_the_integral_of_likelihood_to_the_weights_times_prior(variance):
    X, y = market(40, (0.3,))
    weight = np.random.default_rng(1).uniform(0.1, 0.9, 40)
    model = EvidenceRidge(variances=(variance,)).fit(X, y, weight)
    z = bounded_z(X, weight)[:, 0]
    noise = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)

    def density(b, a):
        likelihood = weight @ stats.norm.logpdf(y, a + b * z, math.sqrt(noise))
        return math.exp(
            likelihood + stats.norm.logpdf(a, 0.0, 0.05) + stats.norm.logpdf(b, 0.0, math.sqrt(variance))
        )

    sd = 6.0 * math.sqrt(variance)
    whole, _ = integrate.dblquad(density, -0.3, 0.3, -sd, sd, epsrel=1e-9)
    slope, _ = integrate.dblquad(lambda b, a: b * density(b, a), -0.3, 0.3, -sd, sd, epsrel=1e-9)
    without, _ = integrate.quad(
        lambda a: math.exp(
            weight @ stats.norm.logpdf(y, a, math.sqrt(noise)) + stats.norm.logpdf(a, 0.0, 0.05)
        ),
        -0.3,
        0.3,
    )
    assert model.log_evidence_ == pytest.approx([math.log(without), math.log(whole)], abs=1e-6)
    assert model.coef_[0] == pytest.approx(slope / (whole + without), rel=1e-5)


@pytest.mark.parametrize(("n", "beta"), [(200, 0.25), (600, 0.12), (3_000, 0.05)])
def test_to_integrate_the_noise_variance_out_changes_next_to_nothing(n, beta):
    """With Jeffreys' prior, on a grid, from a few hundred independent labels on."""
    for seed in range(5):
        X, y = market(n, (beta, 0.0, 0.0), seed)
        model = EvidenceRidge().fit(X, y)
        D = design_of(X)
        gram, projected, square = D.T @ D, D.T @ y, float(y @ y)
        logs, modes = [], []
        for noise in np.var(y) * np.exp(np.linspace(-6.0, 6.0, 121) * math.sqrt(2.0 / n)):
            for variance, p in zip(GRID, PRIOR, strict=True):
                used = np.array([True, *[variance > 0.0] * 3])
                P = np.diag([0.05**-2, *[1.0 / variance if variance else 1.0] * 3])[np.ix_(used, used)]
                A = gram[np.ix_(used, used)] / noise + P
                b = np.linalg.solve(A, projected[used] / noise)
                log = -0.5 * n * math.log(noise) - 0.5 * square / noise + 0.5 * b @ A @ b
                log += 0.5 * (np.linalg.slogdet(P)[1] - np.linalg.slogdet(A)[1])
                mode = np.zeros(4)
                mode[used] = b
                logs.append(log + math.log(p))  # the grid is even in the logarithm: Jeffreys' prior
                modes.append(mode)
        mean = np.exp(np.array(logs) - special.logsumexp(logs)) @ np.array(modes)
        assert [model.intercept_, *model.coef_] == pytest.approx(mean, abs=0.003 + 0.05 * beta)


def test_in_a_market_without_an_edge_next_to_nothing_is_learned():
    """Beside the same rows with an edge, of which next to everything is."""
    null, planted = [], []
    group = np.arange(8) < 3
    for seed in range(30):
        for size, learned in ((0.0, null), (0.15, planted)):
            X, y = market(4_000, (size, *[0.0] * 7), seed)
            model = EvidenceRidge().fit(X[:2_000], y[:2_000], np.full(2_000, 0.5), groups=group)
            learned.append(np.std(model.learned(X[2_000:])))
    # An unpenalised fit has 0.9 * sqrt(8 / 2000) = 0.057 of pure noise.
    assert np.sqrt(np.mean(np.square(null))) < 0.02
    assert np.median(null) < 0.008
    assert np.mean(planted) == pytest.approx(0.15, abs=0.015)


def test_what_is_realised_follows_what_was_told_one_to_one():
    """Coefficients are drawn from the priors; the slope over all markets is one, within its error."""
    rng = np.random.default_rng(3)
    group = np.array([True, True, False, False, False, False])
    told, realised = [], []
    for _ in range(300):
        trend, rest = rng.choice(GRID, p=PRIOR), rng.choice(GRID, p=PRIOR)
        beta = rng.normal(size=6) * np.sqrt(np.where(group, trend, rest))
        X, y = market(1_000, beta, int(rng.integers(2**31)))
        model = EvidenceRidge().fit(X[:600], y[:600], groups=group)
        told.append(model.learned(X[600:]))
        realised.append(y[600:])
    slopes = [float(t @ r) for t, r in zip(told, realised, strict=True)]
    norms = [float(t @ t) for t in told]
    slope = sum(slopes) / sum(norms)
    influence = np.array(slopes) - slope * np.array(norms)
    error = math.sqrt(float(influence @ influence)) / sum(norms)
    assert error < 0.1
    assert slope == pytest.approx(1.0, abs=3.0 * error)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4), st.integers(2, 5))
def test_neither_order_nor_the_name_of_a_group_nor_repeated_rows_matter(order, mask, k):
    X, y = market(150, (0.2, 0.0, 0.1, 0.0))
    mask, order = np.array(mask), list(order)
    fit = EvidenceRidge().fit(X, y, groups=mask)
    other = EvidenceRidge().fit(X[:, order], y, groups=~mask[order])
    assert other.coef_ == pytest.approx(fit.coef_[order], abs=1e-9)
    assert other.relevance_ == pytest.approx(fit.relevance_, abs=1e-9)
    often = EvidenceRidge().fit(
        np.repeat(X, k, axis=0), np.repeat(y, k), np.full(150 * k, 1.0 / k), groups=mask
    )
    assert often.coef_ == pytest.approx(fit.coef_, abs=1e-9)
    assert often.log_evidence_ == pytest.approx(fit.log_evidence_, abs=1e-7)


def test_one_group_alone_has_half_of_the_prior_on_nothing():
    X, y = market()
    for mask in (None, np.ones(3, bool), np.zeros(3, bool)):
        model = EvidenceRidge().fit(X, y, groups=mask)
        assert [c.probability for c in model.candidates_] == pytest.approx(PRIOR)
        assert [c.variance for c in model.candidates_] == list(GRID)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intercept_sd": 0.0}, "`intercept_sd` was 0.0"),
        ({"limit": math.nan}, "`limit` was nan"),
        ({"null_probability": 1.0}, "`null_probability` was 1.0"),
        ({"variances": ()}, "`variances` was ()"),
        ({"variances": (0.0, 0.1)}, "`variances` was (0.0, 0.1)"),
        ({"variances": (0.1, 0.1)}, "`variances` was (0.1, 0.1)"),
        ({"variances": (math.inf,)}, "`variances` was (inf,)"),
    ],
)
def test_a_parameter_out_of_range_is_refused(changes, message):
    X, y = market(60)
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        EvidenceRidge(**changes).fit(X, y)


def test_rows_that_do_not_fit_are_refused():
    X, y = market(60)
    with pytest.raises(ValueError, match="the weight of all rows is zero"):
        EvidenceRidge().fit(X, y, np.zeros(60))
    with pytest.raises(ValueError, match=r"`sample_weight` must be finite and not negative: row 3 is -1\.0"):
        EvidenceRidge().fit(X, y, np.where(np.arange(60) == 3, -1.0, 1.0))
    with pytest.raises(ValueError, match=r"`groups` must be bool with shape \(3,\)"):
        EvidenceRidge().fit(X, y, groups=np.zeros(3))


# In the meta-model.


def labelled(n=3_000, seed=0, cost=0.001):
    rng = np.random.default_rng(seed)
    X, gross = market(n, (0.2, 0.0, 0.0), seed)
    volatility = 0.003 * np.exp(0.7 * rng.normal(size=n))
    odds = random_walk_odds(volatility, pt=1.0, sl=1.0, cost=cost)
    ret = np.clip(gross, -1.0, 1.0) * volatility
    return X, ret, volatility, odds, (ret > cost).astype(int)


@pytest.mark.parametrize("estimator", ["logistic", "hist_gradient_boosting"])
def test_the_meta_model_tells_what_the_ridge_tells_of_all_rows_whose_return_is_known(estimator):
    X, ret, volatility, odds, y = labelled()
    ret[::10], volatility[5::20] = np.nan, np.nan
    assert 0.02 < np.mean(odds == 0.0) < 0.5
    weight, trend = np.full(len(X), 0.5), np.array([True, False, False])
    model = MetaModel(ModelSettings(estimator=estimator)).fit(
        X, y, weight, odds=odds, volatility=volatility, trend=trend, ret=ret
    )
    known = np.isfinite(ret / volatility)
    expected = EvidenceRidge().fit(X[known], ret[known] / volatility[known], weight[known], groups=trend)
    assert model.returns_.coef_ == pytest.approx(expected.coef_, rel=1e-9)
    learned = model.serving.answer_rows(X, odds, volatility).learned
    assert learned == pytest.approx(expected.learned(X), abs=1e-12)
    assert model.verify_serving(X, odds, volatility) <= 1e-12
    told = model.serving.expected_return(learned, volatility, 0.001)
    gross = expected.intercept_ + expected.learned(X)
    assert told == pytest.approx(1e4 * (volatility * gross - 0.001), abs=1e-9, nan_ok=True)


def test_nothing_is_told_where_no_returns_are_known_and_the_probability_is_the_same():
    X, ret, volatility, odds, y = labelled()
    told = MetaModel().fit(X, y, odds=odds, volatility=volatility, ret=ret)
    few = np.where(np.arange(len(X)) < 49, ret, np.nan)
    for unknown in (
        {"volatility": volatility},
        {"volatility": volatility, "ret": few},
        {"volatility": volatility, "ret": np.full(len(X), np.nan)},
    ):
        model = MetaModel().fit(X, y, odds=odds, **unknown)
        assert model.returns_ is None
        assert not model.serving.knows_return
        ours = told.serving.answer_rows(X, odds, volatility)
        theirs = model.serving.answer_rows(X, odds, volatility)
        assert np.array(ours[:4]).tobytes() == np.array(theirs[:4]).tobytes()
        assert np.isnan(theirs.learned).all()
    assert told.serving.knows_return
    with pytest.raises(ValueError, match=r"`ret` must have shape \(3000,\)"):
        MetaModel().fit(X, y, odds=odds, volatility=volatility, ret=ret[1:])
