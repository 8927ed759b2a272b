"""When past bars may be asked for: one request at a time, and pauses that grow while asking is of no use."""

MAX_UNANSWERED = 4
MAX_PAUSE_BARS = 16
MAX_PAUSE_NS = 600_000_000_000


class RequestPacing:
    """Says when an instrument's history may be requested.

    A request that is not answered is repeated, up to `MAX_UNANSWERED` in a row, after 1, 2, 4, ... times the timeout.
    An answer that brings nothing new (a market without trades does have gaps) is followed by a pause of 1, 2, 4, ...
    bar lengths, at most `MAX_PAUSE_BARS`; the next one starts small again once asking was of use, or was not needed for
    that long.

    Parameters
    ----------
    timeout_ns : int
        A request that takes longer is given up.
    interval_ns : int
        Bar length.
    """

    __slots__ = (
        "_barren",
        "_not_before",
        "_unanswered",
        "asked_ns",
        "interval_ns",
        "timeout_ns",
        "wanted",
    )

    def __init__(self, timeout_ns: int, interval_ns: int) -> None:
        self.timeout_ns = timeout_ns
        self.interval_ns = interval_ns
        self.asked_ns: int | None = None
        # History is missing, and will be asked for again after a pause.
        self.wanted = False
        self._unanswered = 0
        self._barren = 0
        self._not_before = 0

    def may_ask(self, now: int) -> bool:
        """Whether a request may be sent: none is under way, and the pause is over."""
        return self.asked_ns is None and now >= self._not_before

    def is_overdue(self, now: int) -> bool:
        """Whether the request under way has taken too long."""
        return self.asked_ns is not None and now - self.asked_ns >= self.timeout_ns

    def asked(self, now: int) -> None:
        """Note that a request was sent."""
        if now - self._not_before > MAX_PAUSE_BARS * self.interval_ns:
            self._barren = 0
        self.asked_ns = now

    def answered(self, now: int, *, news: bool) -> None:
        """Note an answer, and whether it brought what was not known."""
        self.asked_ns = None
        self.wanted = False
        self._unanswered = 0
        self._barren = 0 if news else self._barren + 1
        bars = min(2 ** (self._barren - 1), MAX_PAUSE_BARS) if self._barren else 0
        self._not_before = now + bars * self.interval_ns

    def unanswered(self, now: int) -> None:
        """Note that the request under way is given up; `wanted` then says whether it will be repeated."""
        self.asked_ns = None
        self._unanswered += 1
        self.wanted = self._unanswered < MAX_UNANSWERED
        self._not_before = now + min(self.timeout_ns * 2 ** min(self._unanswered - 1, 16), MAX_PAUSE_NS)
