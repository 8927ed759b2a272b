"""From a classifier's scores to probabilities, where skill is tiny and labels overlap."""

from dataclasses import dataclass, field

import numpy as np

from ml4t_actor.market_data import FloatArray

_SLOPE_PRIOR_SD = 0.25
_INTERCEPT_PRIOR_SD = 0.05
_MIN_KNOT_GAP = 1e-4
_MAX_BINS = 20


def _no_knots() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fitted map from score (log odds) to probability that never decreases.

    Attributes
    ----------
    kind : {'none', 'sigmoid', 'isotonic'}
        *none*: ``expit(score)``. *sigmoid*: ``expit(slope * score + intercept)``. *isotonic*: linear between
        knots, constant beyond them.
    slope, intercept : float
        Of the sigmoid.
    score, probability : float64 (n_knots,)
        Knots of the isotonic map.
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0
    score: FloatArray = field(default_factory=_no_knots)
    probability: FloatArray = field(default_factory=_no_knots)

    def __call__(self, score: FloatArray) -> FloatArray:
        """Return the probability of each score, float64 of the same shape."""
        if self.kind == "isotonic":
            return np.where(np.isnan(score), np.nan, np.interp(score, self.score, self.probability))
        return expit(self.slope * score + self.intercept if self.kind == "sigmoid" else score)


def expit(score: FloatArray) -> FloatArray:
    """Return ``1 / (1 + exp(-score))``."""
    # exp of the negative magnitude: no overflow on either side.
    odds = np.exp(-np.abs(score))
    return np.asarray(np.where(score >= 0.0, 1.0, odds) / (1.0 + odds))


def logit(p: float) -> float:
    """Return ``log(p / (1 - p))``."""
    return float(np.log(p) - np.log1p(-p))


def fit_sigmoid(score: FloatArray, y: FloatArray, weight: FloatArray) -> Calibration:
    r"""Return Platt's sigmoid, kept near the identity unless the rows speak against it.

    Platt (1999) fits ``P(y = 1) = expit(a * score + b)`` by maximum likelihood. Where skill is tiny, that fit
    is mostly noise: a slope off by its own size, and an intercept that follows the last base rate. The score
    already is a log odds, so the identity is the natural guess, and the fit is its posterior mode under
    independent normal priors, slope 1 with standard deviation 0.25 and intercept 0 with 0.05. A regularised
    regression's faint scores hold too little information to move it; an overconfident booster's wide ones are
    pulled in. Where the slope would turn negative every forecast is the base rate: calibration never turns a
    ranking round.

    Parameters
    ----------
    score : float64 (n,)
        Log odds, each from a classifier that was fitted on earlier rows only.
    y : float64 (n,)
        0 or 1, both present.
    weight : float64 (n,)
        Not negative. Their sum is the number of independent labels that the rows are worth.

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines", 1999. A. Niculescu-Mizil, R. Caruana,
    "Predicting good probabilities with supervised learning", ICML 2005.
    """
    slope, intercept = _posterior_mode(score, y, weight)
    if slope <= 0.0:
        return Calibration("sigmoid", 0.0, logit(float(np.average(y, weights=weight))))
    return Calibration("sigmoid", slope, intercept)


def _posterior_mode(score: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Return slope and intercept at the maximum of likelihood times prior."""
    slope_precision, intercept_precision = _SLOPE_PRIOR_SD**-2, _INTERCEPT_PRIOR_SD**-2

    def loss(b: FloatArray) -> float:
        eta = b[0] * score + b[1]
        data = weight @ (np.logaddexp(0.0, eta) - y * eta)
        prior = slope_precision * (b[0] - 1.0) ** 2 + intercept_precision * b[1] ** 2
        return float(data + 0.5 * prior)

    b = np.array([1.0, 0.0])
    current = loss(b)
    for _ in range(100):
        p = expit(b[0] * score + b[1])
        residual, curvature = weight * (p - y), weight * p * (1.0 - p)
        gradient = np.array(
            [
                residual @ score + slope_precision * (b[0] - 1.0),
                residual.sum() + intercept_precision * b[1],
            ]
        )
        cross = curvature @ score
        hessian = np.array(
            [
                [curvature @ score**2 + slope_precision, cross],
                [cross, curvature.sum() + intercept_precision],
            ]
        )
        step = np.linalg.solve(hessian, gradient)
        # Newton's step, halved until it descends.
        while (candidate := loss(b - step)) > current and np.abs(step).max() > 1e-12:
            step = step / 2.0
        if candidate > current or np.abs(step).max() <= 1e-10:
            break
        b, current = b - step, candidate
    return float(b[0]), float(b[1])


def fit_isotonic(score: FloatArray, y: FloatArray, weight: FloatArray) -> Calibration:
    """Return a centred isotonic regression of `y` on `score`.

    Rows are put into at most 20 bins of equal count, so that no step rests on a handful of rows;
    scikit-learn's `IsotonicRegression` pools the bins' rates; each pooled block is one knot at its mean
    score, with linear interpolation between (Oron & Flournoy 2017), which leaves no cliffs where a score's
    last digit decides. Rates are kept inside ``[1 / (n0 + 2), 1 - 1 / (n1 + 2)]`` for weights `n0` and `n1`
    of the classes (Platt's targets), away from the certainty that no sample shows.

    Nothing is shrunk: with tiny skill this needs far more independent labels than `fit_sigmoid`.

    Parameters
    ----------
    score, y, weight : float64 (n,)
        As in `fit_sigmoid`.

    References
    ----------
    B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability estimates",
    KDD 2002. A. Oron, N. Flournoy, "Centered isotonic regression", Statistics in Biopharmaceutical Research
    9, 2017.
    """
    from sklearn.isotonic import IsotonicRegression

    used = weight > 0.0
    score, y, weight = score[used], y[used], weight[used]
    edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, _MAX_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, score, side="left")
    mass = np.bincount(bins, weights=weight)
    filled = mass > 0.0
    mass, centre, rate = (
        mass[filled],
        np.bincount(bins, weights=weight * score)[filled] / mass[filled],
        np.bincount(bins, weights=weight * y)[filled] / mass[filled],
    )
    positive = float(weight @ y)
    negative = float(weight.sum()) - positive
    pooled = IsotonicRegression().fit_transform(centre, rate, sample_weight=mass)
    pooled = np.clip(pooled, 1.0 / (negative + 2.0), 1.0 - 1.0 / (positive + 2.0))

    # One knot for each block of equal rate, and for scores too close to mean anything.
    new = (np.diff(pooled) > 0.0) & (np.diff(centre) > _MIN_KNOT_GAP)
    block = np.concatenate([[0], np.cumsum(new)])
    weight_of = np.bincount(block, weights=mass)
    return Calibration(
        "isotonic",
        score=np.bincount(block, weights=mass * centre) / weight_of,
        probability=np.bincount(block, weights=mass * pooled) / weight_of,
    )
