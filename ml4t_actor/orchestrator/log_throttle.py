"""When to log what happens often."""


class LogThrottle:
    """Says when a kind of trouble is to be told: the first time, and again once an interval has passed.

    Parameters
    ----------
    interval_ns : int, optional
        Shortest time between two tellings, nanoseconds. By default each kind is told once.

    Examples
    --------
    >>> rarely = LogThrottle(interval_ns=100)
    >>> [rarely.count("malformed", now) for now in (0, 10, 50, 120, 130)]
    [1, 0, 0, 3, 0]
    """

    def __init__(self, interval_ns: int | None = None) -> None:
        self.interval_ns = interval_ns
        self._told_ns: dict[str, int] = {}
        self._since: dict[str, int] = {}

    def count(self, kind: str, now_ns: int) -> int:
        """Count one more; return how many there were since the last telling if it is time to tell, else 0."""
        n = self._since.get(kind, 0) + 1
        told_ns = self._told_ns.get(kind)
        if told_ns is not None and (self.interval_ns is None or now_ns - told_ns < self.interval_ns):
            self._since[kind] = n
            return 0
        self._told_ns[kind] = now_ns
        self._since[kind] = 0
        return n
