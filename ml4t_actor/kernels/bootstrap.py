"""Block-bootstrap resamples and the scores of each, without copying a row.

A resample is a multiplicity per row: how often its blocks drew it. Ranks do not change when rows repeat, so
one sort serves every resample.
"""

import numpy as np

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray, IntArray


@kernel
def block_multiplicity(starts: IntArray, block: int, out: IntArray) -> None:
    """Count how often circular blocks from `starts` draw each row, the last cut to make `len(out)` draws."""
    n = len(out)
    out[:] = 0
    left = n
    for start in starts:
        length = min(block, left)
        left -= length
        end = start + length
        out[start] += 1
        if end > n:
            out[0] += 1
            out[end - n] -= 1
        elif end < n:
            out[end] -= 1
    drawn = 0
    for i in range(n):
        drawn += out[i]
        out[i] = drawn


@kernel
def concordance(
    multiplicity: IntArray,
    order: IntArray,
    tie_end: np.ndarray,
    positive: np.ndarray,
    weight: FloatArray,
    first: int,
    last: int,
) -> tuple[float, float]:
    """Return the weight of concordant (positive, negative) pairs, ties half, and of all such pairs.

    `order` ranks rows by ascending score; `tie_end`, `positive` and `weight` are in that order. Only ranks
    from `first` up to `last` (excluded) count, and `tie_end` must hold at `last - 1`.
    """
    concordant = positives = negatives = tied_positives = tied_negatives = 0.0
    for k in range(first, last):
        drawn = multiplicity[order[k]] * weight[k]
        if positive[k]:
            tied_positives += drawn
        else:
            tied_negatives += drawn
        if tie_end[k]:
            concordant += tied_positives * (negatives + 0.5 * tied_negatives)
            positives += tied_positives
            negatives += tied_negatives
            tied_positives = tied_negatives = 0.0
    return concordant, positives * negatives


@kernel
def row_concordance(
    order: IntArray,
    tie_end: np.ndarray,
    positive: np.ndarray,
    weight: FloatArray,
    first: int,
    last: int,
    concordant: FloatArray,
    pairs: FloatArray,
) -> None:
    """Write the weight of each row's concordant pairs, ties half, and of all its pairs, by row in order of time.

    Arguments as for `concordance`. A row's pairs are those with rows of the other class, the row's own weight left out.
    """
    positives = negatives = 0.0
    for k in range(first, last):
        if positive[k]:
            positives += weight[k]
        else:
            negatives += weight[k]
    positives_below = negatives_below = 0.0
    start = first
    while start < last:
        end = start
        tied_positives = tied_negatives = 0.0
        while True:
            if positive[end]:
                tied_positives += weight[end]
            else:
                tied_negatives += weight[end]
            end += 1
            if tie_end[end - 1]:
                break
        for k in range(start, end):
            row = order[k]
            if positive[k]:
                concordant[row] = negatives_below + 0.5 * tied_negatives
                pairs[row] = negatives
            else:
                concordant[row] = positives - positives_below - 0.5 * tied_positives
                pairs[row] = positives
        positives_below += tied_positives
        negatives_below += tied_negatives
        start = end


@kernel
def resample_scores(
    starts: IntArray,
    block: int,
    order: IntArray,
    tie_end: np.ndarray,
    positive: np.ndarray,
    weight: FloatArray,
    bounds: IntArray,
    losses: FloatArray,
    multiplicity: IntArray,
    out: FloatArray,
) -> None:
    """Write AUC within side, Brier skill, log-loss skill, weighted mean label and skill against the odds to `out`.

    All of one resample. `order` ranks by group, then score, and group g fills the ranks from ``bounds[g]`` up to
    ``bounds[g + 1]``. `losses` (n, 7) holds, in order of time and each times the row's weight: 1, label, Brier loss,
    its baseline's, log loss, its baseline's, that of the odds. `multiplicity` is scratch space.
    """
    block_multiplicity(starts, block, multiplicity)
    n = len(multiplicity)
    concordant = pairs = 0.0
    for g in range(len(bounds) - 1):
        of_group, pairs_of_group = concordance(
            multiplicity, order, tie_end, positive, weight, bounds[g], bounds[g + 1]
        )
        concordant += of_group
        pairs += pairs_of_group
    out[0] = concordant / pairs if pairs > 0.0 else np.nan

    total = labels = brier = brier_baseline = log_loss = log_loss_baseline = log_loss_odds = 0.0
    for i in range(n):
        drawn = multiplicity[i]
        total += drawn * losses[i, 0]
        labels += drawn * losses[i, 1]
        brier += drawn * losses[i, 2]
        brier_baseline += drawn * losses[i, 3]
        log_loss += drawn * losses[i, 4]
        log_loss_baseline += drawn * losses[i, 5]
        log_loss_odds += drawn * losses[i, 6]
    out[1] = 1.0 - brier / brier_baseline if brier_baseline > 0.0 else np.nan
    out[2] = 1.0 - log_loss / log_loss_baseline if log_loss_baseline > 0.0 else np.nan
    out[3] = labels / total if total > 0.0 else np.nan
    out[4] = 1.0 - log_loss / log_loss_odds if log_loss_odds > 0.0 else np.nan


@kernel
def resample_sharpe(starts: IntArray, block: int, returns: FloatArray, multiplicity: IntArray) -> float:
    """Return mean over standard deviation (``ddof=1``) of one resample, NaN if it is constant."""
    block_multiplicity(starts, block, multiplicity)
    n = len(returns)
    total = 0.0
    low, high = np.inf, -np.inf
    for i in range(n):
        if multiplicity[i] > 0:
            total += multiplicity[i] * returns[i]
            low = min(low, returns[i])
            high = max(high, returns[i])
    # Rounding gives a constant series a tiny variance: its range does not lie.
    if not low < high:
        return np.nan
    mean = total / n
    squares = 0.0
    for i in range(n):
        squares += multiplicity[i] * (returns[i] - mean) ** 2
    return float(mean / np.sqrt(squares / (n - 1)))
