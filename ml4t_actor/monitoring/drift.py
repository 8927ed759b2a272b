"""Has a stream changed? Detectors of one number, of a rate, and of a distribution."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray, IntArray

# Mean overshoot of a normal walk over a barrier, at both ends (Siegmund 1985).
_OVERSHOOT = 2.0 * 0.583
_PSEUDO_COUNT = 0.5


class Cusum:
    """One-sided cumulative sum: has the mean of a standardised stream risen?

    ``value = max(0, value + weight * (x - reference))``, and an alarm while it is above the threshold. Of all
    detectors with as few false alarms it finds a rise of twice the reference soonest (Moustakides 1986).

    An observation of weight w counts as w observations. With average uniqueness as weight, labels that overlap
    add up to as many as would be independent.

    Parameters
    ----------
    reference : float
        Half the rise to detect, positive; in standard deviations if x is standardised.
    threshold : float
        Positive; see `cusum_threshold`.

    Attributes
    ----------
    value : float
        Evidence for a rise since the last time that there was none.

    Raises
    ------
    ValueError
        If a parameter is not positive and finite.

    Examples
    --------
    >>> cusum = Cusum(reference=0.5, threshold=4.0)
    >>> [cusum.update(x) for x in (0.0, 0.3, -0.2, 2.0, 2.5, 1.5, 2.0)]
    [False, False, False, False, False, True, True]
    >>> cusum.value
    6.0
    >>> cusum.reset()
    >>> cusum.value
    0.0

    References
    ----------
    E. S. Page, "Continuous inspection schemes", *Biometrika* 41, 1954.
    G. V. Moustakides, "Optimal stopping times for detecting changes in distributions", *Annals of Statistics*
    14, 1986.
    """

    __slots__ = ("reference", "threshold", "value")

    def __init__(self, reference: float, threshold: float) -> None:
        self.reference = _positive("reference", reference)
        self.threshold = _positive("threshold", threshold)
        self.value = 0.0

    def update(self, x: float, weight: float = 1.0) -> bool:
        """Process one observation; return whether there is an alarm."""
        self.value = max(0.0, self.value + weight * (x - self.reference))
        return self.value > self.threshold

    @property
    def alarm(self) -> bool:
        """Whether the value is above the threshold."""
        return self.value > self.threshold

    def reset(self) -> None:
        """Begin again without evidence."""
        self.value = 0.0


def cusum_threshold(reference: float, arl: float, skewness: float = 0.0) -> float:
    """Return the threshold of a `Cusum` whose false alarms are `arl` observations apart on average.

    Solves Siegmund's approximation for a stream of mean 0 and variance 1,
    ``arl = (exp(r * b) - r * b - 1) / (r * reference)`` with ``b = threshold + 1.166``, where r is the root of
    ``E[exp(r * (x - reference))] = 1``. That is twice the reference for a normal x; to third order the skewness
    of x lowers it.

    Parameters
    ----------
    reference : float
        Of the CUSUM, positive, in standard deviations.
    arl : float
        Average run length to a false alarm, in observations of weight 1, at least 1.
    skewness : float, default 0.0
        Of x; a negative one is taken as 0, which errs towards fewer alarms.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    At a threshold of 5 a two-sided CUSUM of reference 0.5 has a run length of 465 (Montgomery, *Introduction to
    Statistical Quality Control*), so one side has 930:

    >>> round(cusum_threshold(0.5, arl=930.0), 2)
    4.99

    References
    ----------
    D. Siegmund, *Sequential Analysis*, Springer, 1985, ch. 10.
    """
    k = _positive("reference", reference)
    if not (arl >= 1.0 and math.isfinite(arl)):
        raise ValueError(f"`arl` was {arl}, must be a finite number of observations, at least 1")
    if not math.isfinite(skewness):
        raise ValueError(f"`skewness` was {skewness}, must be finite")
    # The root of -k + r / 2 + skewness * r^2 / 6, written so that it does not cancel as skewness goes to 0.
    root = 2.0 * k / (0.5 + math.sqrt(0.25 + 2.0 * max(skewness, 0.0) * k / 3.0))
    low, high = 0.0, math.log(arl * root * k + 1.0) + 3.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        if math.expm1(middle) - middle < arl * root * k:
            low = middle
        else:
            high = middle
    threshold = high / root - _OVERSHOOT
    if threshold <= 0.0:
        raise ValueError(
            f"no threshold gives a run length as short as {arl:g} at the reference {k:g}; give a longer one"
        )
    return threshold


def population_stability_index(expected: ArrayLike, observed: ArrayLike) -> float:
    """Return the population stability index: how far observed counts are from the shares that were expected.

    ``sum((o - e) * log(o / e))`` over bins, the symmetric Kullback-Leibler divergence (Jeffreys 1946). An empty bin
    would make it infinite, so half an observation is added to each. By custom 0.1 is a small shift and 0.25 a
    large one; independent observations of an unchanged distribution give about ``(bins - 1) / n`` by chance
    (Yurdakul 2018).

    Parameters
    ----------
    expected : (n_bins,)
        Share of each bin, positive, with a sum of 1.
    observed : (n_bins,)
        Counts, not negative.

    Raises
    ------
    ValueError
        If the input is not as described.

    Examples
    --------
    >>> round(population_stability_index([0.5, 0.5], [100, 100]), 4)
    0.0
    >>> round(population_stability_index([0.5, 0.5], [150, 50]), 4)
    0.2716

    References
    ----------
    H. Jeffreys, "An invariant form for the prior probability in estimation problems", *Proceedings of the Royal
    Society A* 186, 1946.
    B. Yurdakul, *Statistical Properties of Population Stability Index*, Western Michigan University, 2018.
    """
    e, o = np.array(expected, np.float64), np.array(observed, np.float64)
    if e.ndim != 1 or e.shape != o.shape or not len(e):
        raise ValueError(
            f"`expected` and `observed` need one value per bin each: shapes {e.shape} and {o.shape}"
        )
    if not ((e > 0.0).all() and abs(float(e.sum()) - 1.0) < 1e-6):
        raise ValueError(f"`expected` must be positive shares with a sum of 1, was {e.tolist()}")
    if not ((o >= 0.0) & np.isfinite(o)).all():
        raise ValueError(f"`observed` must be counts, not negative, was {o.tolist()}")
    return float(_psi(e, o, len(e)))


def quantile_edges(column: ArrayLike, n_bins: int = 10) -> FloatArray:
    """Return the inner edges of bins of about equally many observations, each holding at least one.

    A bin is ``(edge before, edge]``. Edges are observed values, and equal values share a bin: ties give fewer
    bins, and a constant column gives a single bin without an edge.

    Parameters
    ----------
    column : (n,)
        Finite, at least one value.
    n_bins : int, default 10
        Most bins.

    Examples
    --------
    >>> quantile_edges([1.0, 2.0, 2.0, 2.0, 3.0, 9.0], n_bins=3).tolist()
    [2.0]
    """
    values = np.asarray(column, np.float64)
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins, method="inverted_cdf"))
    inner: FloatArray = edges[edges < values.max()]
    return inner


class PopulationStability:
    """Population stability index of each feature over the last rows.

    Parameters
    ----------
    edges : sequence of (n_bins - 1,)
        Per feature, ascending inner edges: see `quantile_edges`.
    shares : sequence of (n_bins,)
        Per feature, the share of each bin that is expected.
    window : int
        Rows.

    Attributes
    ----------
    n : int
        Rows in the window; it is full at `window`.
    n_refused : int
        Rows left out because a value was not finite.

    Examples
    --------
    >>> stability = PopulationStability(edges=[[0.0]], shares=[[0.5, 0.5]], window=100)
    >>> for i in range(100):
    ...     _ = stability.update(np.array([1.0 if i % 4 else -1.0]))
    >>> stability.values().round(2).tolist()  # 75 of 100 rows above zero
    [0.27]
    """

    def __init__(self, edges: Sequence[ArrayLike], shares: Sequence[ArrayLike], window: int) -> None:
        inner = [np.asarray(row, np.float64) for row in edges]
        self._n_bins = np.array([len(row) + 1 for row in inner], np.int64)
        if window < 1 or not inner or [np.shape(row) for row in shares] != [(n,) for n in self._n_bins]:
            raise ValueError(
                f"needs a window of at least 1 (was {window}) and, for each of the features, one share more than "
                f"edges: edges {[len(row) for row in inner]}, shares {[np.shape(row) for row in shares]}"
            )
        most = int(self._n_bins.max())
        self._edges = np.full((len(inner), most), np.inf)
        self._shares = np.ones((len(inner), most))
        for j, (row, share) in enumerate(zip(inner, shares, strict=True)):
            self._edges[j, : len(row)] = row
            self._shares[j, : len(row) + 1] = share
        self.window = window
        self.n = 0
        self.n_refused = 0
        self._at = 0
        self._row = np.full(len(inner), np.nan)
        self._ring = np.zeros((window, len(inner)), np.int64)
        self._counts = np.zeros((len(inner), most))
        # Compiles, or loads what was compiled, before the first signal waits for it.
        _slide(self._row, self._edges, self._ring, self._counts, 0, False)
        _psi_of_each(self._shares, self._counts, self._n_bins)

    def update(self, row: FloatArray) -> bool:
        """Put the newest row in place of the oldest; return False for one that is not finite, and only count it.

        Parameters
        ----------
        row : float64 (n_features,)
            Raises `ValueError` if it has another shape.
        """
        if np.shape(row) != self._row.shape:
            raise ValueError(
                f"a row has {len(self._row)} features, in order; this one has the shape {np.shape(row)}"
            )
        self._row[:] = row  # one type and layout, whatever comes: the kernel is compiled once
        if not _slide(self._row, self._edges, self._ring, self._counts, self._at, self.n == self.window):
            self.n_refused += 1
            return False
        self._at = (self._at + 1) % self.window
        self.n = min(self.n + 1, self.window)
        return True

    @property
    def full(self) -> bool:
        """Whether the window is full."""
        return self.n == self.window

    def values(self) -> FloatArray:
        """Return the index of each feature, (n_features,)."""
        values: FloatArray = _psi_of_each(self._shares, self._counts, self._n_bins)
        return values


def window_stability(
    X: ArrayLike, edges: Sequence[ArrayLike], shares: Sequence[ArrayLike], window: int
) -> FloatArray:
    """Return the population stability index of each feature in windows that overlap by half.

    Parameters
    ----------
    X : (n, n_features)
        Rows in order of time.
    edges, shares, window
        As in `PopulationStability`.

    Returns
    -------
    float64 (n_windows, n_features)
        No window if there are fewer rows than that.
    """
    rows = np.asarray(X, np.float64)
    starts = np.arange(0, len(rows) - window + 1, max(1, window // 2))
    values = np.empty((len(starts), len(edges)))
    for j, (row, share) in enumerate(zip(edges, shares, strict=True)):
        bins = np.searchsorted(np.asarray(row, np.float64), rows[:, j], side="left")
        for i, start in enumerate(starts):
            counts = np.bincount(bins[start : start + window], minlength=len(np.asarray(share)))
            values[i, j] = population_stability_index(share, counts)
    return values


@kernel
def _slide(
    row: FloatArray,
    edges: FloatArray,
    ring: IntArray,
    counts: FloatArray,
    at: int,
    full: bool,
) -> bool:
    for j in range(len(row)):
        if not np.isfinite(row[j]):
            return False
    for j in range(len(row)):
        b = 0
        for k in range(edges.shape[1]):
            b += row[j] > edges[j, k]
        if full:
            counts[j, ring[at, j]] -= 1.0
        ring[at, j] = b
        counts[j, b] += 1.0
    return True


@kernel
def _psi(expected: FloatArray, observed: FloatArray, n_bins: int) -> float:
    n = 0.0
    for b in range(n_bins):
        n += observed[b] + _PSEUDO_COUNT
    index = 0.0
    for b in range(n_bins):
        share = (observed[b] + _PSEUDO_COUNT) / n
        index += (share - expected[b]) * math.log(share / expected[b])
    return index


@kernel
def _psi_of_each(shares: FloatArray, counts: FloatArray, n_bins: IntArray) -> FloatArray:
    values = np.empty(len(shares))
    for j in range(len(shares)):
        values[j] = _psi(shares[j], counts[j], n_bins[j])
    return values


def _positive(name: str, value: float) -> float:
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"`{name}` was {value}, must be positive and finite")
    return float(value)
