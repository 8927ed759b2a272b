"""Odds plus evidence: against other optimisers, quadrature, and truth that was drawn from the prior."""

import math
import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
PAIRS = list(permutations((0.0, 0.001, 0.01, 0.1), 2))
TERMS = (0.0, 0.003, 0.03)


@parametrize_with_checks([EvidenceLogisticRegression()])
def test_it_keeps_the_rules_of_scikit_learn(estimator, check):
    check(estimator)


def market(n=500, n_features=3, beta=(0.4, 0.0, 0.0), seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)) * 3.0 + 1.0
    offset = rng.normal(-0.4, 0.5, n)
    terms = np.column_stack([offset, rng.normal(-6.0, 0.7, n)])
    p = special.expit(offset + (X - 1.0) / 3.0 @ np.resize(beta, n_features))
    return X, (rng.random(n) < p).astype(int), offset, terms


def bounded_z(column):
    z = (column - column.mean(axis=0)) / column.std(axis=0)
    return np.minimum(np.maximum(z, -3.0), 3.0)


def by_hand(X, y, weight, offset, terms, group):
    """Every model by a general optimiser, evidence by the textbook: averaged coefficients and total covariance."""
    design = np.column_stack([np.ones(len(X)), bounded_z(terms), bounded_z(X)])
    models = []
    for sd, share_sd, w in [(sd, q, w) for sd, q in ((0.15, 0.9), (0.6, 0.1)) for w in TERMS]:
        scales = [(0.0, 0.0, 1 / 2)]
        scales += [(c, c, 1 / 4 / 6) for c in GRID]
        scales += [(rest, trend, 1 / 4 / 12) for rest, trend in PAIRS]
        for rest, trend, prior in scales:
            variance = np.array([sd**2, w, w, *np.where(group, trend, rest)])
            use = variance > 0.0
            A, P = design[:, use], np.diag(1.0 / variance[use])

            def negative(b, A=A, P=P):
                eta = offset + A @ b
                return weight @ (np.logaddexp(0.0, eta) - y * eta) + 0.5 * b @ P @ b

            b = optimize.minimize(negative, np.zeros(use.sum()), method="BFGS", tol=1e-9).x
            q = special.expit(offset + A @ b)
            H = A.T @ np.diag(weight * q * (1.0 - q)) @ A + P
            evidence = -negative(b) + 0.5 * np.linalg.slogdet(P)[1] - 0.5 * np.linalg.slogdet(H)[1]
            mode, covariance = np.zeros(len(use)), np.zeros((len(use), len(use)))
            mode[use], covariance[np.ix_(use, use)] = b, np.linalg.inv(H)
            models.append((evidence, share_sd * prior / 3, mode, covariance, not use[3:].any()))
    logs = np.array([e + math.log(prior) for e, prior, *_ in models])
    share = np.exp(logs - special.logsumexp(logs))
    modes = np.array([m[2] for m in models])
    mean = share @ modes
    total = sum(
        s * (c + np.outer(m - mean, m - mean)) for s, (_, _, m, c, _) in zip(share, models, strict=True)
    )
    null = np.array([m[4] for m in models])
    return mean, total, (share[null] / share[null].sum()) @ modes[null], share, null


def test_the_average_is_that_of_all_114_models_written_out():
    X, y, offset, terms = market(300)
    weight = np.random.default_rng(1).uniform(0.2, 0.5, 300)
    weight[:] = weight.mean()
    group = np.array([True, False, False])
    model = EvidenceLogisticRegression().fit(X, y, weight, offset=offset, terms=terms, groups=group)
    mean, total, base, share, null = by_hand(X, y, weight, offset, terms, group)
    assert len(model.candidates_) == len(share) == 114
    assert sum(c.probability for c in model.candidates_) == pytest.approx(1.0)
    assert sorted(model.probabilities_) == pytest.approx(sorted(share), abs=1e-5)
    assert model.relevance_ == pytest.approx(share[~null].sum(), abs=1e-5)
    ours = np.concatenate([model.intercept_, model.term_coef_, model.coef_[0]])
    assert ours == pytest.approx(mean, abs=1e-5)
    assert model.covariance_ == pytest.approx(total, abs=1e-6)
    assert [model.base_intercept_, *model.base_term_coef_] == pytest.approx(base[:3], abs=1e-5)


@pytest.mark.parametrize("variance", [0.001, 0.03, 0.1])
def test_evidence_is_the_integral_of_likelihood_times_prior(variance):
    X, y, offset, _ = market(400, 1, (0.3,))
    model = EvidenceLogisticRegression(variances=(variance,), wide_probability=0.0).fit(X, y, offset=offset)
    x = bounded_z(X)[:, 0]
    intercepts = np.linspace(-0.8, 0.8, 401)
    slopes = np.linspace(-2.0, 2.0, 1_001)

    def log_likelihood(a, b):
        eta = offset + a + b * x
        return -np.logaddexp(0.0, np.where(y == 1, -eta, eta)).sum()

    flat = [log_likelihood(a, 0.0) + stats.norm.logpdf(a, 0.0, 0.15) for a in intercepts]
    without = special.logsumexp(flat) + math.log(intercepts[1] - intercepts[0])
    # Far from the mode nothing is left: a coarse grid in the intercept, a window of the slopes.
    a, b = intercepts[::8], slopes[np.abs(slopes - 0.2) < 0.6]
    surface = [
        log_likelihood(i, j)
        + stats.norm.logpdf(i, 0.0, 0.15)
        + stats.norm.logpdf(j, 0.0, math.sqrt(variance))
        for i in a
        for j in b
    ]
    with_slope = special.logsumexp(surface) + math.log((a[1] - a[0]) * (b[1] - b[0]))
    odds = {c.variance: e for c, e in zip(model.candidates_, model.log_evidence_, strict=True)}
    assert odds[variance] - odds[0.0] == pytest.approx(with_slope - without, abs=0.02)
    bayes_factor = math.exp(with_slope - without)
    assert model.relevance_ == pytest.approx(bayes_factor / (1.0 + bayes_factor), abs=0.01)


def drawn_from_the_prior(rng, n, n_features, group):
    """Coefficients of one of the models, drawn as the priors say."""
    w = rng.choice(TERMS)
    kind = rng.random()
    rest, trend = 0.0, 0.0
    if kind > 0.75:
        rest, trend = PAIRS[rng.integers(len(PAIRS))]
    elif kind > 0.5:
        rest = trend = rng.choice(GRID)
    X = rng.normal(size=(n, n_features))
    offset = rng.normal(-0.4, 0.5, n)
    terms = np.column_stack([offset, rng.normal(size=n)])
    beta = rng.normal(size=n_features) * np.sqrt(np.where(group, trend, rest))
    r = rng.normal(size=2) * math.sqrt(w)
    sd = rng.choice([0.15, 0.6], p=[0.9, 0.1])
    eta = offset + rng.normal(0.0, sd) + bounded_z(terms) @ r + bounded_z(X) @ beta
    return X, offset, terms, special.expit(eta)


def share_covered(model, X, offset, terms, p):
    score, sd = model.decision_function(X, offset, terms, return_std=True)
    return float(np.mean(np.abs(special.logit(p) - score) <= 1.6449 * sd))


@pytest.mark.slow
def test_intervals_of_90_percent_cover_a_truth_drawn_from_the_prior_in_90_percent():
    rng = np.random.default_rng(5)
    group = np.array([True, True, False, False, False])
    covered = []
    for _ in range(250):
        X, offset, terms, p = drawn_from_the_prior(rng, 500, 5, group)
        model = EvidenceLogisticRegression()
        y = rng.random(500) < p
        covered.append(
            share_covered(model.fit(X, y, offset=offset, terms=terms, groups=group), X, offset, terms, p)
        )
    error = np.std(covered) / math.sqrt(len(covered))
    assert np.mean(covered) == pytest.approx(0.9, abs=3.0 * error + 0.01)
    assert error < 0.02


@pytest.mark.slow
def test_intervals_cover_with_overlapping_labels_where_each_weighs_the_mean_uniqueness():
    """Labels share the noise of a window of 8; features move as slowly, which is the worst case."""
    rng = np.random.default_rng(6)
    group = np.array([True, False, False])
    overlap, n = 8, 3_000
    weighted, unweighted = [], []
    for _ in range(80):
        X, offset, terms, _ = drawn_from_the_prior(rng, n, 3, group)
        X = np.repeat(rng.normal(size=(n // overlap + 1, 3)), overlap, axis=0)[:n]
        beta = rng.normal(size=3) * math.sqrt(rng.choice([0.0, 0.001, 0.01]))
        p = special.expit(offset + rng.normal(0.0, 0.15) + bounded_z(X) @ beta)
        noise = np.convolve(rng.normal(size=n + overlap - 1), np.ones(overlap), "valid") / math.sqrt(overlap)
        y = stats.norm.cdf(noise) < p
        for weight, covered in ((1.0 / overlap, weighted), (1.0, unweighted)):
            model = EvidenceLogisticRegression()
            model.fit(X, y, np.full(n, weight), offset=offset, terms=terms, groups=group)
            covered.append(share_covered(model, X, offset, terms, p))
    assert 0.84 < np.mean(weighted) < 0.97
    assert np.mean(unweighted) < 0.75


def test_features_of_no_use_are_hardly_used():
    relevance, size = [], []
    for seed in range(30):
        X, y, offset, terms = market(2_000, 6, (0.0,), seed)
        model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
        relevance.append(model.relevance_)
        size.append(np.sqrt(np.mean(model.coef_**2)))
    # An unpenalised fit has coefficients of 0.048 on average here, which is pure noise.
    assert np.mean(relevance) < 0.35
    assert np.mean(size) < 0.012


def test_a_planted_edge_is_stated_in_full():
    X, y, offset, terms = market(20_000, 4, (0.3, -0.2, 0.0, 0.0))
    model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
    assert model.relevance_ > 0.999
    assert model.coef_[0] == pytest.approx([0.3, -0.2, 0.0, 0.0], abs=0.05)
    assert model.intercept_[0] == pytest.approx(0.0, abs=0.05)
    score = model.decision_function(X, offset, terms)
    fit = optimize.minimize_scalar(lambda k: np.logaddexp(0.0, -(2 * y - 1) * k * score).sum())
    assert fit.x == pytest.approx(1.0, abs=0.06)  # the calibration slope


def test_what_beats_its_odds_throughout_is_believed_with_enough_labels():
    X, y, offset, terms = market(1_000, 3, (0.0,))
    y = (np.random.default_rng(1).random(1_000) < special.expit(offset + 0.6)).astype(int)
    for narrow, low, high in ((0.0, 0.35, 0.52), (0.1, 0.5, 0.7)):
        model = EvidenceLogisticRegression(wide_probability=narrow)
        model.fit(X, y, np.full(1_000, 0.4), offset=offset, terms=terms)
        assert low < model.base_intercept_ < high
    # And hardly where nothing beats them.
    X, y, offset, terms = market(1_000, 3, (0.0,))
    both = [
        EvidenceLogisticRegression(wide_probability=q).fit(X, y, offset=offset, terms=terms).base_intercept_
        for q in (0.0, 0.1)
    ]
    assert both[1] == pytest.approx(both[0], abs=0.005)


def test_an_edge_of_one_group_gives_that_group_the_larger_variance():
    X, y, offset, terms = market(8_000, 8, (0.25, -0.25, 0.2, 0.2, 0.0, 0.0, 0.0, 0.0))
    group = np.arange(8) < 4
    model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms, groups=group)
    best = model.candidates_[int(np.argmax(model.probabilities_))]
    assert best.group_variance > best.variance


def test_two_variances_need_two_groups():
    X, y, offset, terms = market()
    for mask in (None, np.ones(3, bool), np.zeros(3, bool)):
        model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms, groups=mask)
        assert len(model.candidates_) == 2 * 3 * 7
        null = [c.probability for c in model.candidates_ if c.variance == c.group_variance == 0.0]
        assert sum(null) == pytest.approx(0.5)
        assert sum(c.probability for c in model.candidates_) == pytest.approx(1.0)
    assert len(EvidenceLogisticRegression().fit(X, y, offset=offset).candidates_) == 2 * 7
    assert len(EvidenceLogisticRegression().fit(X, y).candidates_) == 7


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_neither_the_order_of_features_nor_the_name_of_a_group_matters(order, mask):
    X, y, offset, terms = market(150, 4, (0.5, 0.0))
    mask = np.array(mask)
    fit = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms, groups=mask)
    other = EvidenceLogisticRegression().fit(
        X[:, order], y, offset=offset, terms=terms, groups=~mask[list(order)]
    )
    assert other.coef_[0] == pytest.approx(fit.coef_[0, list(order)], abs=1e-7)
    assert other.relevance_ == pytest.approx(fit.relevance_, abs=1e-7)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(0, 100))
def test_repeated_rows_of_a_part_of_the_weight_are_as_good_as_one(k, seed):
    X, y, offset, terms = market(120, 2, (0.5, 0.0), seed)
    once = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
    often = EvidenceLogisticRegression().fit(
        np.repeat(X, k, axis=0),
        np.repeat(y, k),
        np.full(k * 120, 1.0 / k),
        offset=np.repeat(offset, k),
        terms=np.repeat(terms, k, axis=0),
    )
    assert often.coef_ == pytest.approx(once.coef_, abs=1e-8)
    assert often.covariance_ == pytest.approx(once.covariance_, abs=1e-8)
    assert often.log_evidence_ == pytest.approx(once.log_evidence_, abs=1e-7)


def test_without_an_offset_the_base_is_the_base_rate():
    X, y, _, _ = market(400)
    model = EvidenceLogisticRegression().fit(X, y)
    assert special.expit(model.base_decision_function(n=3)) == pytest.approx([y.mean()] * 3, abs=1e-9)
    assert model.predict_proba(X)[:, 1].mean() == pytest.approx(y.mean(), abs=0.02)
    assert model.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(400))


def test_predictions_are_the_formula():
    X, y, offset, terms = market()
    model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
    z, u = bounded_z(terms), bounded_z(X)
    score, sd = model.decision_function(X, offset, terms, return_std=True)
    by_row = offset + model.intercept_[0] + z @ model.term_coef_ + u @ model.coef_[0]
    assert score == pytest.approx(by_row)
    g = [np.array([1.0, *zi, *ui]) for zi, ui in zip(z, u, strict=True)]
    assert sd == pytest.approx([math.sqrt(v @ model.covariance_ @ v) for v in g])
    base = offset + model.base_intercept_ + z @ model.base_term_coef_
    assert model.base_decision_function(offset, terms) == pytest.approx(base)
    assert (model.predict(X, offset, terms) == (score > 0.0)).all()


def test_what_cannot_pay_has_probability_zero():
    X, y, offset, terms = market()
    model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
    never = np.full(len(X), -np.inf)
    with_never = np.column_stack([never, terms[:, 1]])
    assert (model.predict_proba(X, never, with_never)[:, 1] == 0.0).all()
    assert (special.expit(model.base_decision_function(never, with_never)) == 0.0).all()


def test_an_unknown_term_counts_as_the_mean_and_a_constant_one_as_none():
    X, y, offset, terms = market()
    holes = terms.copy()
    holes[::3, 1] = np.nan
    model = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=holes)
    assert model.term_mean_[1] == pytest.approx(np.nanmean(holes[:, 1]))
    mean = np.column_stack([offset, np.where(np.isnan(holes[:, 1]), model.term_mean_[1], holes[:, 1])])
    assert model.decision_function(X, offset, holes) == pytest.approx(
        model.decision_function(X, offset, mean)
    )
    X[:, 1] = 0.1
    with_constant = EvidenceLogisticRegression().fit(X, y, offset=offset, terms=terms)
    without = EvidenceLogisticRegression().fit(X[:, [0, 2]], y, offset=offset, terms=terms)
    assert with_constant.coef_[0] == pytest.approx([without.coef_[0, 0], 0.0, without.coef_[0, 1]], abs=1e-9)
    empty = np.column_stack([offset, np.full(len(X), np.nan)])
    assert np.isfinite(EvidenceLogisticRegression().fit(X, y, offset=offset, terms=empty).coef_).all()


def test_it_is_cloned_and_pickled_like_any_other():
    X, y, offset, terms = market(200)
    model = EvidenceLogisticRegression(variances=(0.01,), limit=2.0)
    assert clone(model).get_params() == model.get_params()
    model.fit(X, y, offset=offset, terms=terms)
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(X, offset, terms) == model.predict_proba(X, offset, terms)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"intercept_sd": 0.0}, "`intercept_sd` was 0.0, must be finite and above 0"),
        ({"free_intercept_sd": -1.0}, "`free_intercept_sd` was -1.0"),
        ({"limit": math.inf}, "`limit` was inf"),
        ({"wide_probability": 1.0}, r"`wide_probability` was 1.0, must be in \[0, 1\)"),
        ({"null_probability": 1.0}, r"`null_probability` was 1.0, must be in \(0, 1\)"),
        ({"variances": (0.0, 0.1)}, r"`variances` was \(0.0, 0.1\), must be above 0"),
        ({"variances": ()}, r"`variances` was \(\), must hold"),
        ({"term_variances": (0.1, 0.1)}, "must hold different finite numbers"),
        ({"group_variances": (0.1, -0.1)}, "must hold different finite numbers"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(parameters, message):
    X, y, _, _ = market(100)
    with pytest.raises(ValueError, match=message):
        EvidenceLogisticRegression(**parameters).fit(X, y)


def test_input_that_does_not_fit_is_refused_by_name():
    X, y, offset, terms = market(100)
    model = EvidenceLogisticRegression()
    bad = offset.copy()
    bad[7] = -np.inf
    for arguments, message in [
        ({"offset": offset[1:]}, r"`offset` must have shape \(100,\)"),
        ({"offset": bad}, "`offset` must be finite: row 7 is -inf; leave the row out"),
        ({"terms": terms[:, 0]}, r"`terms` must have shape \(100, n_terms\)"),
        ({"groups": [1, 0, 0]}, r"`groups` must be bool with shape \(3,\)"),
        ({"sample_weight": -np.ones(100)}, "`sample_weight` must be finite and not negative: row 0 is -1.0"),
        ({"sample_weight": np.zeros(100)}, "weight of all rows is zero"),
        ({"sample_weight": y.astype(float)}, "one class only"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, **arguments)
    model.fit(X, y, offset=offset, terms=terms)
    with pytest.raises(ValueError, match="`terms` must have 2 columns"):
        model.decision_function(X, offset)
