"""When past bars may be requested: one request at a time, and pauses that grow while requests are of no use."""

MAX_TIMEOUTS = 4
MAX_PAUSE_BARS = 16
MAX_PAUSE_NS = 600_000_000_000


class RequestPacing:
    """Decides when an instrument's history may be requested.

    A request that is not answered is repeated, up to `MAX_TIMEOUTS` in a row, after 1, 2, 4, ... times the timeout.
    A response that brings nothing new (a market without trades does have gaps) is followed by a pause of 1, 2, 4, ...
    bar lengths, at most `MAX_PAUSE_BARS`; the next one starts small again once a request was of use, or none was
    needed for that long.

    Parameters
    ----------
    timeout_ns : int
        A request that takes longer is given up.
    interval_ns : int
        Bar length.
    """

    __slots__ = (
        "_empty",
        "_not_before",
        "_timeouts",
        "interval_ns",
        "requested_ns",
        "retry_due",
        "timeout_ns",
    )

    def __init__(self, timeout_ns: int, interval_ns: int) -> None:
        self.timeout_ns = timeout_ns
        self.interval_ns = interval_ns
        self.requested_ns: int | None = None
        # History is missing, and will be requested again after a pause.
        self.retry_due = False
        self._timeouts = 0
        self._empty = 0
        self._not_before = 0

    def may_request(self, now: int) -> bool:
        """Whether a request may be sent: none is under way, and the pause is over."""
        return self.requested_ns is None and now >= self._not_before

    def is_overdue(self, now: int) -> bool:
        """Whether the request under way has taken too long."""
        return self.requested_ns is not None and now - self.requested_ns >= self.timeout_ns

    def on_request(self, now: int) -> None:
        """Record that a request was sent."""
        if now - self._not_before > MAX_PAUSE_BARS * self.interval_ns:
            self._empty = 0
        self.requested_ns = now

    def on_response(self, now: int, *, is_news: bool) -> None:
        """Record a response, and whether it brought what was not known."""
        self.requested_ns = None
        self.retry_due = False
        self._timeouts = 0
        self._empty = 0 if is_news else self._empty + 1
        bars = min(2 ** (self._empty - 1), MAX_PAUSE_BARS) if self._empty else 0
        self._not_before = now + bars * self.interval_ns

    def on_timeout(self, now: int) -> None:
        """Record that the request under way is given up; `retry_due` is then whether it will be repeated."""
        self.requested_ns = None
        self._timeouts += 1
        self.retry_due = self._timeouts < MAX_TIMEOUTS
        self._not_before = now + min(self.timeout_ns * 2 ** min(self._timeouts - 1, 16), MAX_PAUSE_NS)
