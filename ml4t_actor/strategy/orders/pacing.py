"""How often orders are sent: entries at an even pace, refused orders ever more seldom."""

from collections.abc import Callable

from ml4t_actor.market_data import SECOND_NS

_DENIED_NS = SECOND_NS // 2
_REFUSED_NS = 2 * SECOND_NS
_LONGEST_NS = 60 * SECOND_NS


class EntryPace:
    """Lets entries pass at most at a rate, without bursts: what is left of the submit rate is for protection.

    Parameters
    ----------
    entries_per_second : float
        The rate.
    now_ns : Callable[[], int]
        The clock.

    Examples
    --------
    >>> now = [0]
    >>> pace = EntryPace(2.0, lambda: now[0])
    >>> pace.acquire(), pace.acquire()
    (0, 500000000)
    >>> now[0] = 500_000_000
    >>> pace.acquire()
    0
    """

    def __init__(self, entries_per_second: float, now_ns: Callable[[], int]) -> None:
        self._interval_ns, self._now_ns = round(SECOND_NS / entries_per_second), now_ns
        self._next_ns = 0

    def acquire(self) -> int:
        """Take the turn, if it is time for the next entry; return how many nanoseconds are left until then, else 0."""
        now_ns = self._now_ns()
        if now_ns < self._next_ns:
            return self._next_ns - now_ns
        self._next_ns = now_ns + self._interval_ns
        return 0


def backoff_ns(refusals: int, *, denied: bool = False) -> int:
    """Return how long to wait after so many refusals in a row: 2 s, doubled by each, up to a minute.

    From half a second if the order never left the node, denied since too many were sent at once.

    Examples
    --------
    >>> [backoff_ns(n) // 1_000_000_000 for n in (0, 1, 2, 3, 10_000)]
    [2, 2, 4, 8, 60]
    """
    first_ns = _DENIED_NS if denied else _REFUSED_NS
    return min(first_ns << min(max(refusals - 1, 0), 16), _LONGEST_NS)
