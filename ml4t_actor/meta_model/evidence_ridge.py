"""Linear regression of returns in units of volatility, shrunk as far as the evidence of the rows asks for."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ml4t_actor.market_data import BoolArray, FloatArray
from ml4t_actor.meta_model.inputs import check_groups, check_weights
from ml4t_actor.meta_model.standardisation import moments, standardised


class ReturnCandidate(NamedTuple):
    """One of the models that are averaged.

    Attributes
    ----------
    variance, group_variance : float
        Prior variance of the coefficients outside and inside the group; 0 leaves these features out.
    probability : float
        Before the rows are seen.
    """

    variance: float
    group_variance: float
    probability: float


class EvidenceRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    r"""Ridge regression around zero, averaged over strengths of shrinkage by their exact evidence.

    .. math:: y = \beta_0 + \beta \cdot z(x) + \varepsilon, \quad \varepsilon \sim N(0, \sigma^2)

    Made for gross returns of trades over their volatility: in a driftless random walk their mean is zero whatever the
    barriers, so the intercept has a narrow normal prior around zero, and so have the coefficients. ``z`` standardises
    on the fitted rows and bounds at `limit`. How wide the coefficients' priors are is not known: each of the two groups
    of features has one of `variances`, with half of the prior probability on zero. With the design ``D = (1, z)``, the
    prior precision ``P``, weights ``W`` and ``A = D' W D / s² + P`` the marginal likelihood is, without approximation,

    .. math:: \log p(y) = -\tfrac12 \textstyle\sum w \log(2\pi\sigma^2) - \tfrac1{2\sigma^2} y'Wy
        + \tfrac12 m'Am + \tfrac12 \log|P| - \tfrac12 \log|A|, \quad m = A^{-1} D'Wy / \sigma^2

    Coefficients are averaged by it; that is the exact posterior mean, since predictions are linear in them.

    The noise variance is estimated once: the variance of `y` around its mean. Features explain a few percent of what
    becomes of a trade, so this overstates it by no more; and with the hundreds of independent labels that a model needs
    to integrate it out changes nothing (the tests do so).

    A weight multiplies a row's log-likelihood. Where labels overlap, give each row the mean uniqueness.

    Parameters
    ----------
    intercept_sd : float, default 0.05
        Prior standard deviation of the intercept.
    variances : sequence of float, default (0.0001, 0.001, 0.01)
        Prior variances of a group's coefficients beside zero, equally likely.
    null_probability : float, default 0.5
        Prior probability, of each group, that its coefficients are zero, in (0, 1).
    limit : float, default 3.0
        Bound of the standardised features, standard deviations.

    Attributes
    ----------
    intercept_ : float
    coef_ : float64 (n_features,)
        Of the standardised features.
    mean_, scale_ : float64 (n_features,)
        Of the standardisation.
    noise_variance_ : float
    candidates_ : list of ReturnCandidate
        The models.
    log_evidence_ : float64 (n_candidates,)
    probabilities_ : float64 (n_candidates,)
        Of the models given the rows.
    relevance_ : float
        Probability given the rows that any feature matters.

    References
    ----------
    D. MacKay, "Bayesian interpolation", *Neural Computation* 4, 1992. J. Hoeting, D. Madigan, A. Raftery, C. Volinsky,
    "Bayesian model averaging: a tutorial", *Statistical Science* 14, 1999.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(20_000, 3))
    >>> model = EvidenceRidge().fit(X, 0.1 * X[:, 0] + rng.normal(size=20_000))
    >>> abs(model.coef_).round(1).tolist(), round(model.relevance_, 3)
    ([0.1, 0.0, 0.0], 1.0)
    """

    def __init__(
        self,
        intercept_sd: float = 0.05,
        variances: Sequence[float] = (0.0001, 0.001, 0.01),
        null_probability: float = 0.5,
        limit: float = 3.0,
    ) -> None:
        self.intercept_sd = intercept_sd
        self.variances = variances
        self.null_probability = null_probability
        self.limit = limit

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit every model of the grid and average them.

        Parameters
        ----------
        X : (n, n_features)
            Finite.
        y : (n,)
            Finite: gross returns over volatility.
        sample_weight : (n,), optional
            Not negative; 1 by default.
        groups : bool (n_features,), optional
            Which features are in the group of their own.

        Raises
        ------
        ValueError
            If the input is not as described, or a parameter is out of range.
        """
        self._check_parameters()
        features, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        target = np.asarray(target, np.float64)
        weight = check_weights(sample_weight, len(features))
        if not weight.any():
            raise ValueError("the weight of all rows is zero: there is nothing to learn from")
        in_group = check_groups(groups, features.shape[1])
        self.mean_, self.scale_ = moments(features, weight)
        spread = float(np.average((target - np.average(target, weights=weight)) ** 2, weights=weight))
        self.noise_variance_ = spread if spread > 0.0 else 1.0
        z = standardised(features, self.mean_, self.scale_, self.limit)
        design = np.hstack([np.ones((len(z), 1)), z])
        weighted = design * (weight / self.noise_variance_)[:, None]
        # All that the models need of the rows.
        gram, projected = weighted.T @ design, weighted.T @ target
        likelihood = -0.5 * float(
            weight @ (np.log(2.0 * np.pi * self.noise_variance_) + target**2 / self.noise_variance_)
        )

        self.candidates_ = self._candidates(in_group)
        modes, evidence = np.zeros((len(self.candidates_), len(gram))), np.empty(len(self.candidates_))
        for k, candidate in enumerate(self.candidates_):
            variance = np.where(in_group, candidate.group_variance, candidate.variance)
            variance = np.concatenate([[self.intercept_sd**2], variance])
            used = np.flatnonzero(variance > 0.0)
            precision = 1.0 / variance[used]
            a = gram[np.ix_(used, used)] + np.diag(precision)
            modes[k, used] = np.linalg.solve(a, projected[used])
            fit = 0.5 * float(projected @ modes[k])
            determinants = 0.5 * float(np.log(precision).sum()) - 0.5 * float(np.linalg.slogdet(a)[1])
            evidence[k] = likelihood + fit + determinants
        self.log_evidence_ = evidence
        prior = np.array([candidate.probability for candidate in self.candidates_])
        probability = prior * np.exp(evidence - evidence.max())
        self.probabilities_ = probability / probability.sum()
        null = np.array([c.variance == 0.0 and c.group_variance == 0.0 for c in self.candidates_])
        self.relevance_ = float(self.probabilities_[~null].sum())
        mean = self.probabilities_ @ modes
        self.intercept_ = float(mean[0])
        self.coef_ = mean[1:]
        return self

    def learned(self, X: ArrayLike) -> FloatArray:
        """Return what the features add to the intercept, ``beta . z(x)``, float64 (n,).

        Parameters
        ----------
        X : (n, n_features)

        Raises
        ------
        ValueError
            If the input is not as in `fit`.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(standardised(features, self.mean_, self.scale_, self.limit) @ self.coef_)

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the expected `y` of every row, float64 (n,)."""
        learned = self.learned(X)
        return self.intercept_ + learned

    def _check_parameters(self) -> None:
        for name in ("intercept_sd", "limit"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0.0):
                raise ValueError(f"`{name}` was {value}, must be finite and above 0")
        if not 0.0 < self.null_probability < 1.0:
            raise ValueError(f"`null_probability` was {self.null_probability}, must be in (0, 1)")
        grid = np.asarray(self.variances, np.float64)
        fits = grid.ndim == 1 and len(grid) > 0 and bool(np.isfinite(grid).all() and (grid > 0.0).all())
        if not fits or len(np.unique(grid)) < len(grid):
            raise ValueError(
                f"`variances` was {self.variances}, must hold different finite numbers above 0: `null_probability` is "
                "that of 0"
            )

    def _candidates(self, in_group: BoolArray) -> list[ReturnCandidate]:
        each = (1.0 - self.null_probability) / len(self.variances)
        grid = [(0.0, self.null_probability), *((float(v), each) for v in self.variances)]
        if in_group.all() or not in_group.any():
            return [ReturnCandidate(v, v, p) for v, p in grid]
        return [ReturnCandidate(v, w, p * q) for (v, p), (w, q) in product(grid, repeat=2)]
