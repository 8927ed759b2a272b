"""Laplace's approximation of a logistic regression's posterior: mode, covariance and evidence."""

from typing import NamedTuple

import numpy as np

from ml4t_actor.market_data import FloatArray
from ml4t_actor.meta_model.calibration import expit

_MAX_STEPS = 100


class Posterior(NamedTuple):
    """Mode of a posterior, the covariance of the normal distribution it is taken for, and its log evidence.

    The evidence lacks no constant: powers of two pi of prior and approximation cancel.
    """

    evidence: float
    mode: FloatArray
    covariance: FloatArray


def fit_posterior(
    design: FloatArray,
    outcome: FloatArray,
    weight: FloatArray,
    offset: FloatArray,
    precision: FloatArray,
    start: FloatArray,
    tol: float,
) -> Posterior:
    """Return mode, covariance and log evidence of a logistic regression with normal priors around zero.

    Parameters
    ----------
    design : float64 (n, n_coefficients)
    outcome : float64 (n,)
        0 or 1.
    weight : float64 (n,)
        What each row's log-likelihood is multiplied with.
    offset : float64 (n,)
        Known part of the log odds.
    precision : float64 (n_coefficients,)
        One over the prior variances, positive.
    start : float64 (n_coefficients,)
        Where Newton's method begins.
    tol : float
        It ends once a step would raise the log posterior by less.
    """
    signs = 2.0 * outcome - 1.0
    b = start
    eta = offset + design @ b
    objective = _objective(eta, signs, weight, b, precision)
    for _ in range(_MAX_STEPS):
        p = expit(eta)
        gradient = design.T @ (weight * (outcome - p)) - precision * b
        root = np.sqrt(weight * p * (1.0 - p))
        scaled = design * root[:, None]
        hessian = scaled.T @ scaled
        hessian[np.diag_indices_from(hessian)] += precision
        step = np.linalg.solve(hessian, gradient)
        gain = float(gradient @ step)
        # From a far start a full step can overshoot: halved until it climbs. (At the mode nothing climbs any more.)
        for _ in range(_MAX_STEPS):
            candidate = b + step
            eta = offset + design @ candidate
            reached = _objective(eta, signs, weight, candidate, precision)
            if reached >= objective or gain <= tol:
                break
            step = 0.5 * step
        b, objective = candidate, reached
        if gain <= tol:
            break
    evidence = objective + 0.5 * float(np.log(precision).sum()) - 0.5 * float(np.linalg.slogdet(hessian)[1])
    return Posterior(evidence, b, np.linalg.inv(hessian))


def _objective(
    eta: FloatArray, signs: FloatArray, weight: FloatArray, b: FloatArray, precision: FloatArray
) -> float:
    """Return the log posterior but for constants."""
    margin = signs * eta
    log_likelihood = np.minimum(margin, 0.0) - np.log1p(np.exp(-np.abs(margin)))
    return float(weight @ log_likelihood) - 0.5 * float(precision @ (b * b))
