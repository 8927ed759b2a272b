"""Gaussian hidden Markov model: one filter step, the batch filter over it, the expectations of Baum-Welch.

Shapes throughout: ``k`` regimes, ``d`` features, ``n`` bars. `initial` is the distribution of the regime one
bar *before* the first one, so that the first bar is a step like any other.
"""

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray

LOG_2PI = float(np.log(2.0 * np.pi))


@kernel
def regime_predict(probs: FloatArray, transition: FloatArray, out: FloatArray) -> None:
    """Write ``probs @ transition``, normalised, to `out`; uniform where `probs` has no valid sum."""
    k = len(probs)
    total = 0.0
    for j in range(k):
        out[j] = 0.0
        for i in range(k):
            out[j] += probs[i] * transition[i, j]
        total += out[j]
    for j in range(k):
        out[j] = out[j] / total if 0.0 < total < np.inf else 1.0 / k


@kernel
def regime_step(
    probs: FloatArray,
    x: FloatArray,
    location: FloatArray,
    scale: FloatArray,
    transition: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    out: FloatArray,
) -> float:
    """Predict by one bar, update with its features `x`, write filtered probabilities to `out` (not `probs`).

    Returns the log density of the standardised features given the bars before; 0.0 where they say nothing:
    one is NaN or infinite, or so far out that every density's logarithm overflows. Then `out` is the
    prediction alone.
    """
    k, d = means.shape
    regime_predict(probs, transition, out)
    for c in range(d):
        if not np.isfinite(x[c]):
            return 0.0
    # Products as sums of logarithms, the largest taken out: no outlier underflows all regimes at once.
    top = -np.inf
    for j in range(k):
        distance = 0.0
        for c in range(d):
            deviation = (x[c] - location[c]) / scale[c] - means[j, c]
            distance += np.log(variances[j, c]) + deviation * deviation / variances[j, c]
        out[j] = np.log(out[j]) - 0.5 * distance
        top = max(top, out[j])
    if not np.isfinite(top):
        regime_predict(probs, transition, out)
        return 0.0
    total = 0.0
    for j in range(k):
        out[j] = np.exp(out[j] - top)
        total += out[j]
    for j in range(k):
        out[j] /= total
    return float(top + np.log(total) - 0.5 * d * LOG_2PI)


@kernel
def regime_filter(
    features: FloatArray,
    initial: FloatArray,
    location: FloatArray,
    scale: FloatArray,
    transition: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    out: FloatArray,
) -> float:
    """Write the filtered probabilities of all bars to `out` (n, k); returns the log likelihood."""
    log_likelihood = 0.0
    before = initial.copy()
    for t in range(len(features)):
        log_likelihood += regime_step(
            before, features[t], location, scale, transition, means, variances, out[t]
        )
        before = out[t]
    return log_likelihood


@kernel
def regime_expectations(
    features: FloatArray,
    initial: FloatArray,
    location: FloatArray,
    scale: FloatArray,
    transition: FloatArray,
    means: FloatArray,
    variances: FloatArray,
    filtered: FloatArray,
    before_first: FloatArray,
    transitions: FloatArray,
    occupancy: FloatArray,
    deviations: FloatArray,
    squares: FloatArray,
) -> float:
    """Expectation step of Baum-Welch over finite `features`; returns the log likelihood.

    Writes the filtered probabilities (n, k), and the expected values given all bars: the regime before the
    first bar (k,), numbers of transitions (k, k), bars in each regime (k,), and there the sums of deviations
    from `means` and of their squares (k, d). The backward pass smooths the filtered probabilities (Kim 1994,
    Journal of Econometrics 60): the result of scaled forward-backward (Rabiner 1989) without a second look at
    the densities.
    """
    k, d = means.shape
    log_likelihood = regime_filter(features, initial, location, scale, transition, means, variances, filtered)
    transitions[:] = 0.0
    occupancy[:] = 0.0
    deviations[:] = 0.0
    squares[:] = 0.0
    smoothed = filtered[len(features) - 1].copy()
    earlier = np.empty(k)
    for t in range(len(features) - 1, -1, -1):
        for j in range(k):
            occupancy[j] += smoothed[j]
            for c in range(d):
                deviation = (features[t, c] - location[c]) / scale[c] - means[j, c]
                deviations[j, c] += smoothed[j] * deviation
                squares[j, c] += smoothed[j] * deviation * deviation
        before = filtered[t - 1] if t > 0 else initial
        earlier[:] = 0.0
        for j in range(k):
            predicted = 0.0
            for i in range(k):
                predicted += before[i] * transition[i, j]
            if predicted > 0.0:
                for i in range(k):
                    # The quotient first: it is at most one, where smoothed / predicted may overflow.
                    both = before[i] * transition[i, j] / predicted * smoothed[j]
                    transitions[i, j] += both
                    earlier[i] += both
        smoothed, earlier = earlier, smoothed
    before_first[:] = smoothed
    return log_likelihood


@kernel
def expected_weight(probs: FloatArray, weights: FloatArray) -> float:
    """Return the mean of the regimes' weights under `probs`, clipped to [0, 1]; 0.0 where it is NaN."""
    total = 0.0
    for j in range(len(weights)):
        total += probs[j] * weights[j]
    return min(total, 1.0) if total > 0.0 else 0.0


@kernel
def likeliest_and_weight(probs: FloatArray, weights: FloatArray) -> tuple[int, float]:
    """Return the likeliest regime under `probs`, the first of two equals, and `expected_weight`."""
    likeliest = 0
    for j in range(1, len(probs)):
        if probs[j] > probs[likeliest]:
            likeliest = j
    return likeliest, expected_weight(probs, weights)
