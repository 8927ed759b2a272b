"""Features and terms on one scale: standardised on the rows that are learned from, and bounded."""

import numpy as np

from ml4t_actor.market_data import FloatArray


def moments(table: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weighted mean and standard deviation of every column, NaN left out; 0 and 1 where nothing varies.

    Parameters
    ----------
    table : float64 (n, n_columns)
    weight : float64 (n,)
        Not negative.
    """
    mean, scale = np.zeros(table.shape[1]), np.ones(table.shape[1])
    for j, column in enumerate(table.T):
        known = ~np.isnan(column)
        if weight[known].sum() > 0.0:
            mean[j] = np.average(column[known], weights=weight[known])
            sd = float(np.sqrt(np.average((column[known] - mean[j]) ** 2, weights=weight[known])))
            # What rounding leaves of a constant column is no spread.
            scale[j] = sd if sd > 1e-12 * max(1.0, abs(mean[j])) else 1.0
    return mean, scale


def standardised(table: FloatArray, mean: FloatArray, scale: FloatArray, limit: float) -> FloatArray:
    """Return ``z``, float64 (n, n_columns): standard deviations from the mean, bounded at `limit`; 0 for a NaN."""
    z = np.clip((table - mean) / scale, -limit, limit)
    return np.where(np.isnan(z), 0.0, z)
