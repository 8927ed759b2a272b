"""Which labelled signals the model that serves has not seen, so that a successor can be compared on them."""

from collections import deque
from heapq import heapify, heappop, heappush


class UnseenSignals:
    """Counts the labelled signals that took no part in making or choosing a model, once their whole windows are past.

    Kept in memory, lest a swap waits for the ledger.

    Parameters
    ----------
    capacity : int
        How many of the newest labelled signals are remembered.

    Examples
    --------
    >>> unseen = UnseenSignals(capacity=100)
    >>> unseen.reset(after_ns=10)
    >>> unseen.record(known_ns=15, ts_event=5, window_end_ns=20)  # the model has learned from signals of that time
    >>> unseen.record(known_ns=25, ts_event=12, window_end_ns=30)
    >>> unseen.count(now_ns=29), unseen.count(now_ns=30)
    (0, 1)
    """

    def __init__(self, capacity: int) -> None:
        # Of each labelled signal, in order, when its outcome was known, when it arose, and when its label window ends.
        self._labelled: deque[tuple[int, int, int]] = deque(maxlen=capacity)
        self._window_ends: list[int] = []  # a heap, of those that are not past
        self._n_past = 0
        self._after_ns = 0

    def record(self, known_ns: int, ts_event: int, window_end_ns: int) -> None:
        """Record a signal whose outcome is known."""
        self._labelled.append((known_ns, ts_event, window_end_ns))
        if ts_event > self._after_ns:
            heappush(self._window_ends, window_end_ns)

    def reset(self, after_ns: int) -> None:
        """Count for another model, which has seen what arose up to `after_ns`."""
        self._after_ns = after_ns
        self._n_past = 0
        self._window_ends = []
        for known_ns, ts_event, window_end_ns in reversed(self._labelled):
            if known_ns <= after_ns:
                break
            if ts_event > after_ns:
                self._window_ends.append(window_end_ns)
        heapify(self._window_ends)

    def count(self, now_ns: int) -> int:
        """Return how many there are whose windows are past; the time never goes back."""
        while self._window_ends and self._window_ends[0] <= now_ns:
            heappop(self._window_ends)
            self._n_past += 1
        return self._n_past
