"""Logistic regression on top of known odds, shrunk as far as the evidence of the rows asks for."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from ml4t_actor.market_data import FloatArray
from ml4t_actor.meta_model.calibration import expit, logit
from ml4t_actor.meta_model.inputs import check_groups, check_weights
from ml4t_actor.meta_model.laplace import Posterior, fit_posterior
from ml4t_actor.meta_model.standardisation import moments, standardised


class Candidate(NamedTuple):
    """One of the models that are averaged.

    Attributes
    ----------
    intercept_variance : float
        Prior variance of the intercept.
    term_variance : float
        Of every coefficient of a term; 0 leaves the terms out.
    variance, group_variance : float
        Of the features outside and inside the group; 0 leaves them out.
    probability : float
        Before the rows are seen.
    """

    intercept_variance: float
    term_variance: float
    variance: float
    group_variance: float
    probability: float


class EvidenceLogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    r"""Logistic regression from known odds, averaged over strengths of shrinkage by their evidence.

    .. math:: \log\frac{p}{1 - p} = \text{offset} + a + r \cdot z(\text{terms}) + \beta \cdot z(x)

    ``z`` standardises on the fitted rows and bounds at `limit`. All coefficients have normal priors around zero; how
    wide those of `r` and `beta` are is not known, so each of a grid of models is fitted (its posterior's mode by
    Newton's method) and weighs as much as the rows speak for it: prior probability times marginal likelihood, in
    Laplace's approximation

    .. math:: \log L(b) - \tfrac12 b^\top P b + \tfrac12 \log|P| - \tfrac12 \log|H|

    at the mode b, with the prior precision P and the Hessian H of the negative log posterior. Half of the prior
    probability is on ``beta = 0``, so features that say nothing are hardly used; a quarter is on one variance for all
    features, and a quarter on two different ones for the two groups of features (where there is one group, one
    variance has that quarter too). Coefficients are averaged, not probabilities, so one vector serves; their covariance
    is the average of the models' own, and how much the models differ.

    A weight multiplies a row's log-likelihood. Where labels overlap, give each row the mean uniqueness: the evidence
    then counts as many labels as there are independent ones.

    Parameters
    ----------
    intercept_sd : float, default 0.15
        Prior standard deviation of `a`, log odds, where there is an offset.
    wide_intercept_sd : float, default 0.6
        Another one, for what beats or misses its odds whatever the features are.
    wide_probability : float, default 0.1
        Prior probability of the latter, in [0, 1).
    free_intercept_sd : float, default 1.0
        Around the logit of the base rate, where there is no offset.
    term_variances : sequence of float, default (0, 0.003, 0.03)
        Prior variances of `r`, equally likely.
    variances : sequence of float, default (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
        Prior variances of `beta` if all features have the same, equally likely.
    group_variances : sequence of float, default (0, 0.001, 0.01, 0.1)
        Of the two groups, if they differ: every ordered pair is equally likely.
    null_probability : float, default 0.5
        Prior probability of ``beta = 0``, in (0, 1).
    limit : float, default 3.0
        Bound of the standardised terms and features, standard deviations.
    tol : float, default 1e-14
        Newton's method ends once a step would raise the log posterior by less than this share of the rows' weight.

    Attributes
    ----------
    classes_ : (2,)
        The labels; probabilities are those of the second.
    coef_ : float64 (1, n_features)
        Of the standardised features.
    intercept_ : float64 (1,)
        `a`, and the logit of the base rate where there is no offset.
    term_coef_ : float64 (n_terms,)
        `r`.
    base_intercept_ : float
    base_term_coef_ : float64 (n_terms,)
        The same of the models without features alone: the odds, recalibrated.
    covariance_ : float64 (1 + n_terms + n_features, 1 + n_terms + n_features)
        Of the intercept, terms and features, in this order.
    mean_, scale_ : float64 (n_features,)
    term_mean_, term_scale_ : float64 (n_terms,)
        Of the standardisation.
    candidates_ : list of Candidate
        The models.
    log_evidence_ : float64 (n_candidates,)
        Of the models, in Laplace's approximation.
    probabilities_ : float64 (n_candidates,)
        Of the models given the rows.
    relevance_ : float
        Probability given the rows that any feature matters.

    References
    ----------
    D. MacKay, "Bayesian interpolation", *Neural Computation* 4, 1992. L. Tierney, J. Kadane, "Accurate approximations
    for posterior moments and marginal densities", *JASA* 81, 1986. J. Hoeting, D. Madigan, A. Raftery, C. Volinsky,
    "Bayesian model averaging: a tutorial", *Statistical Science* 14, 1999.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(20_000, 3))
    >>> odds = np.full(20_000, -0.4)
    >>> y = rng.random(20_000) < 1.0 / (1.0 + np.exp(-odds - 0.5 * X[:, 0]))
    >>> model = EvidenceLogisticRegression().fit(X, y, offset=odds)
    >>> abs(model.coef_[0]).round(1).tolist(), round(model.relevance_, 3)
    ([0.5, 0.0, 0.0], 1.0)
    """

    def __init__(
        self,
        intercept_sd: float = 0.15,
        wide_intercept_sd: float = 0.6,
        wide_probability: float = 0.1,
        free_intercept_sd: float = 1.0,
        term_variances: Sequence[float] = (0.0, 0.003, 0.03),
        variances: Sequence[float] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
        group_variances: Sequence[float] = (0.0, 0.001, 0.01, 0.1),
        null_probability: float = 0.5,
        limit: float = 3.0,
        tol: float = 1e-14,
    ) -> None:
        self.intercept_sd = intercept_sd
        self.wide_intercept_sd = wide_intercept_sd
        self.wide_probability = wide_probability
        self.free_intercept_sd = free_intercept_sd
        self.term_variances = term_variances
        self.variances = variances
        self.group_variances = group_variances
        self.null_probability = null_probability
        self.limit = limit
        self.tol = tol

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        terms: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit every model of the grid and average them.

        Parameters
        ----------
        X : (n, n_features)
            Finite.
        y : (n,)
            Labels of two classes.
        sample_weight : (n,), optional
            Not negative; 1 by default.
        offset : (n,), optional
            Known log odds of the second class, finite.
        terms : (n, n_terms), optional
            What the known odds may depend on wrongly; a NaN counts as the mean.
        groups : bool (n_features,), optional
            Which features are in the group of their own.

        Raises
        ------
        ValueError
            If the input is not as described, there are not two classes, or a parameter is out of range.
        """
        self._check_parameters()
        features, labels = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(labels)
        kind = type_of_target(labels, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        self.classes_, positive = np.unique(labels, return_inverse=True)
        weight = check_weights(sample_weight, len(features))
        if not weight.any():
            raise ValueError("the weight of all rows is zero: there is nothing to learn from")
        mass = np.bincount(positive, weights=weight, minlength=2)
        if len(self.classes_) < 2 or not (mass > 0.0).all():
            raise ValueError("the rows of positive weight have one class only: give rows of both classes")
        outcome = positive.astype(np.float64)
        known = _column(offset, len(features), "offset")
        table = _table(terms, len(features))
        n_terms = table.shape[1]
        self.mean_, self.scale_ = moments(features, weight)
        self.term_mean_, self.term_scale_ = moments(table, weight)
        design = np.hstack(
            [
                np.ones((len(features), 1)),
                standardised(table, self.term_mean_, self.term_scale_, self.limit),
                standardised(features, self.mean_, self.scale_, self.limit),
            ]
        )
        centre = 0.0
        if known is None:
            centre = logit(float(mass[1] / mass.sum()))
            known = np.full(len(features), centre)
        in_group = check_groups(groups, features.shape[1])
        self.candidates_ = self._candidates(n_terms, in_group, offset is None)
        fits = self._fit_candidates(design, outcome, weight, known, n_terms, in_group)

        self.log_evidence_ = np.array([fit.evidence for fit in fits])
        prior = np.array([candidate.probability for candidate in self.candidates_])
        probability = prior * np.exp(self.log_evidence_ - self.log_evidence_.max())
        self.probabilities_ = probability / probability.sum()
        null = np.array([c.variance == 0.0 and c.group_variance == 0.0 for c in self.candidates_])
        self.relevance_ = float(self.probabilities_[~null].sum())
        modes = np.array([fit.mode for fit in fits])
        mean = self.probabilities_ @ modes
        # Of the models without features alone, by evidences of their own: all may have underflown in the mixture.
        base = prior[null] * np.exp(self.log_evidence_[null] - self.log_evidence_[null].max())
        base_mean = base @ modes[null] / base.sum()
        self.intercept_ = np.array([centre + mean[0]])
        self.term_coef_ = mean[1 : 1 + n_terms]
        self.coef_ = mean[None, 1 + n_terms :]
        self.base_intercept_ = float(centre + base_mean[0])
        self.base_term_coef_ = base_mean[1 : 1 + n_terms]
        within = np.tensordot(self.probabilities_, np.array([fit.covariance for fit in fits]), axes=1)
        between = (modes - mean).T @ (self.probabilities_[:, None] * (modes - mean))
        self.covariance_ = within + between
        return self

    def decision_function(
        self,
        X: ArrayLike,
        offset: ArrayLike | None = None,
        terms: ArrayLike | None = None,
        return_std: bool = False,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return the log odds of the second class, float64 (n,), and with `return_std` their standard deviation.

        Parameters
        ----------
        X : (n, n_features)
        offset, terms
            As in `fit`; an offset may be infinite, and is zero by default.
        return_std : bool, default False
            Whether to return how uncertain the log odds are, too.

        Raises
        ------
        ValueError
            If the input is not as described.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float64, reset=False)
        z = self._standardised_terms(terms, len(features))
        u = standardised(features, self.mean_, self.scale_, self.limit)
        score = self.intercept_[0] + z @ self.term_coef_ + u @ self.coef_[0]
        if offset is not None:
            score = score + np.asarray(offset, np.float64)
        if not return_std:
            return np.asarray(score)
        g = np.hstack([np.ones((len(u), 1)), z, u])
        return np.asarray(score), np.sqrt(np.einsum("ij,jk,ik->i", g, self.covariance_, g, optimize=True))

    def base_decision_function(
        self, offset: ArrayLike | None = None, terms: ArrayLike | None = None, n: int = 1
    ) -> FloatArray:
        """Return the log odds without the features, float64 (n,): the known odds, recalibrated.

        Parameters
        ----------
        offset, terms
            As in `decision_function`.
        n : int, default 1
            Rows, where neither is given.
        """
        check_is_fitted(self)
        n = next((len(np.asarray(given)) for given in (offset, terms) if given is not None), n)
        score = self.base_intercept_ + self._standardised_terms(terms, n) @ self.base_term_coef_
        return np.asarray(score if offset is None else score + np.asarray(offset, np.float64))

    def predict_proba(
        self, X: ArrayLike, offset: ArrayLike | None = None, terms: ArrayLike | None = None
    ) -> FloatArray:
        """Return the probabilities of both classes, float64 (n, 2)."""
        p = expit(np.asarray(self.decision_function(X, offset, terms)))
        return np.column_stack([1.0 - p, p])

    def predict(
        self, X: ArrayLike, offset: ArrayLike | None = None, terms: ArrayLike | None = None
    ) -> NDArray[np.generic]:
        """Return the more likely class of every row, (n,)."""
        later = np.asarray(self.decision_function(X, offset, terms)) > 0.0
        return np.asarray(self.classes_[later.astype(np.intp)])

    def _check_parameters(self) -> None:
        for name in ("intercept_sd", "wide_intercept_sd", "free_intercept_sd", "limit", "tol"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"`{name}` was {value}, must be finite and above 0")
        if not 0.0 < self.null_probability < 1.0:
            raise ValueError(f"`null_probability` was {self.null_probability}, must be in (0, 1)")
        if not 0.0 <= self.wide_probability < 1.0:
            raise ValueError(f"`wide_probability` was {self.wide_probability}, must be in [0, 1)")
        for name, lowest, least in (
            ("term_variances", 0, 1),
            ("variances", None, 1),
            ("group_variances", 0, 0),
        ):
            grid = np.asarray(getattr(self, name), np.float64)
            fits = grid.ndim == 1 and len(grid) >= least and bool(np.isfinite(grid).all())
            if not fits or len(np.unique(grid)) < len(grid) or not (grid >= 0.0).all():
                raise ValueError(
                    f"`{name}` was {getattr(self, name)}, must hold different finite numbers of at least 0"
                )
            if lowest is None and not (grid > 0.0).all():
                raise ValueError(
                    f"`{name}` was {getattr(self, name)}, must be above 0: `null_probability` is that of 0"
                )

    def _candidates(self, n_terms: int, in_group: NDArray[np.bool_], free: bool) -> list[Candidate]:
        pairs = [
            (first, second) for first, second in product(self.group_variances, repeat=2) if first != second
        ]
        if in_group.all() or not in_group.any():
            pairs = []
        share = (1.0 - self.null_probability) / (2.0 if pairs else 1.0)
        features = [(0.0, 0.0, self.null_probability)]
        features += [(v, v, share / len(self.variances)) for v in self.variances]
        features += [(first, second, share / len(pairs)) for first, second in pairs]
        terms = self.term_variances if n_terms else (0.0,)
        intercepts = [(self.free_intercept_sd**2, 1.0)]
        if not free:
            intercepts = [(self.intercept_sd**2, 1.0 - self.wide_probability)]
            if self.wide_probability > 0.0:
                intercepts.append((self.wide_intercept_sd**2, self.wide_probability))
        return [
            Candidate(float(a), float(w), float(first), float(second), share_a * p / len(terms))
            for w in terms
            for first, second, p in features
            for a, share_a in intercepts
        ]

    def _fit_candidates(
        self,
        design: FloatArray,
        outcome: FloatArray,
        weight: FloatArray,
        offset: FloatArray,
        n_terms: int,
        in_group: NDArray[np.bool_],
    ) -> list[Posterior]:
        """Return the fit of every candidate, each begun where the one before ended."""
        start = np.zeros(design.shape[1])
        fits = []
        subset: tuple[bytes, FloatArray] = (b"", design)
        for candidate in self.candidates_:
            variance = np.concatenate(
                [
                    [candidate.intercept_variance],
                    np.full(n_terms, candidate.term_variance),
                    np.where(in_group, candidate.group_variance, candidate.variance),
                ]
            )
            used = np.flatnonzero(variance > 0.0)
            if subset[0] != used.tobytes():
                subset = (used.tobytes(), np.ascontiguousarray(design[:, used]))
            fit = fit_posterior(
                subset[1], outcome, weight, offset, 1.0 / variance[used], start[used], self.tol * weight.sum()
            )
            mode, covariance = np.zeros(len(start)), np.zeros((len(start), len(start)))
            mode[used], covariance[np.ix_(used, used)] = fit.mode, fit.covariance
            start[used] = fit.mode
            fits.append(Posterior(fit.evidence, mode, covariance))
        return fits

    def _standardised_terms(self, terms: ArrayLike | None, n: int) -> FloatArray:
        table = _table(terms, n)
        if table.shape[1] != len(self.term_mean_):
            raise ValueError(
                f"`terms` must have {len(self.term_mean_)} columns, as in `fit`: {table.shape[1]}"
            )
        return standardised(table, self.term_mean_, self.term_scale_, self.limit)


def _column(values: ArrayLike | None, n: int, name: str) -> FloatArray | None:
    if values is None:
        return None
    column = np.asarray(values, np.float64)
    if column.shape != (n,):
        raise ValueError(f"`{name}` must have shape ({n},), one per row of `X`, has {column.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(column))):
        raise ValueError(f"`{name}` must be finite: row {bad[0]} is {column[bad[0]]}; leave the row out")
    return column


def _table(terms: ArrayLike | None, n: int) -> FloatArray:
    if terms is None:
        return np.empty((n, 0))
    table = np.asarray(terms, np.float64)
    if table.ndim != 2 or len(table) != n:
        raise ValueError(f"`terms` must have shape ({n}, n_terms), one row per row of `X`, has {table.shape}")
    return table
