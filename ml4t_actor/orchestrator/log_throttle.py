"""When to log what happens often."""


class LogThrottle:
    """Says when a kind of problem is to be logged: the first time, and again once an interval has passed.

    Parameters
    ----------
    interval_ns : int, optional
        Shortest time between two lines of a kind, nanoseconds. By default each kind is logged once.

    Examples
    --------
    >>> throttle = LogThrottle(interval_ns=100)
    >>> [throttle.count("malformed", now) for now in (0, 10, 50, 120, 130)]
    [1, 0, 0, 3, 0]
    """

    def __init__(self, interval_ns: int | None = None) -> None:
        self.interval_ns = interval_ns
        self._logged_ns: dict[str, int] = {}
        self._since: dict[str, int] = {}

    def count(self, kind: str, now_ns: int) -> int:
        """Count one more; return how many there were since the last line if it is time for one, else 0."""
        n = self._since.get(kind, 0) + 1
        logged_ns = self._logged_ns.get(kind)
        if logged_ns is not None and (self.interval_ns is None or now_ns - logged_ns < self.interval_ns):
            self._since[kind] = n
            return 0
        self._logged_ns[kind] = now_ns
        self._since[kind] = 0
        return n
