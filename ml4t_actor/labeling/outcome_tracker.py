"""What becomes of signals, bar by bar: the triple barriers that are open now."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from ml4t_actor.labeling.triple_barrier import (
    PROFIT,
    SIGNAL,
    STOP,
    UNRESOLVED,
    VERTICAL,
    barrier_step,
    log_price,
)
from ml4t_actor.settings import LabelSettings

# Relative: several times what two roundings can move a level, so that no touch is overlooked.
LEVEL_SLACK = 2.0**-50
STALE_LEVELS = 64


class OpenBarrier(NamedTuple):
    """A triple barrier that nothing has resolved yet.

    Attributes
    ----------
    key : Hashable
        The caller's name of it.
    side : int
        1 long, -1 short.
    entry : float
        Natural logarithm of the entry price.
    profit, stop : float
        Distances of the barriers, as positive log returns.
    entry_ts : int
        Close of the bar of the entry, UNIX nanoseconds.
    entry_bar : int
        Bars that the tracker had processed at the entry.
    entry_share : float
        The tracker's running sum of shares at the entry.
    ending : bool
        Whether a signal within the bar of the entry has ended it already, which counts at the next close.
    """

    key: Hashable
    side: int
    entry: float
    profit: float
    stop: float
    entry_ts: int
    entry_bar: int
    entry_share: float
    ending: bool = False


class Resolution(NamedTuple):
    """What became of a barrier.

    Attributes
    ----------
    key : Hashable
        The caller's name of it.
    barrier : int
        `PROFIT` (1), `STOP` (-1), `VERTICAL` (0), `SIGNAL` (2) or `UNRESOLVED` (-2).
    label : int
        1 if the trade made more than its costs, 0 if not, -1 if unresolved.
    ret : float
        Gross log return in the direction of the side; NaN if unresolved.
    ts_end : int
        When the outcome was known, UNIX nanoseconds.
    bars : int
        Bars that it was watched over. The bar after a gap is not one of them.
    weight : float
        Average uniqueness, in (0, 1]; 0 if unresolved.
    """

    key: Hashable
    barrier: int
    label: int
    ret: float
    ts_end: int
    bars: int
    weight: float


class OutcomeTracker:
    """Follow the triple barriers of one instrument's signals, with the labels of `triple_barrier_labels`.

    Whatever the bars, a barrier has the outcome, to the last bit, that the batch gives its event; what is open
    when the batch's data end is open here. A bar costs time in proportion to the barriers that it resolves, times the
    logarithm of those open: the levels that price must reach lie in two heaps. A signal that may end barriers takes
    time in proportion to those open.

    A barrier that is open across a step of more than `labels.max_gap_bars` bar lengths is `UNRESOLVED`, as such
    rows are left out of training data (`spans_gap`). Shorter steps count as one bar each.

    The weight of an outcome is its average uniqueness (Lopez de Prado 2018, ch. 4), as of `uniqueness_weights`:
    each bar is shared among the barriers open while it is processed. One difference is unavoidable: those that end
    `UNRESOLVED` share the bars that they were open on too, since their fate was not known then.

    Parameters
    ----------
    labels : LabelSettings
        Barriers, horizon, costs and the longest gap.
    interval_ns : int
        Bar length in nanoseconds.

    Raises
    ------
    ValueError
        If the bar length is not positive.

    Examples
    --------
    >>> labels = LabelSettings(horizon_bars=2, profit_barrier=1.0, stop_barrier=1.0, cost=0.001)
    >>> tracker = OutcomeTracker(labels, interval_ns=60)
    >>> tracker.update(60, high=100.0, low=100.0, close=100.0)
    []
    >>> tracker.open("a", side=1, volatility=0.02).entry_ts
    60
    >>> tracker.update(120, high=101.0, low=99.0, close=101.0)
    []
    >>> tracker.update(180, high=103.0, low=100.0, close=102.0)
    [Resolution(key='a', barrier=1, label=1, ret=0.02, ts_end=180, bars=2, weight=1.0)]

    References
    ----------
    M. Lopez de Prado, *Advances in Financial Machine Learning*, Wiley, 2018, ch. 3 and 4.
    """

    def __init__(self, labels: LabelSettings, interval_ns: int) -> None:
        if interval_ns <= 0:
            raise ValueError(f"`interval_ns` was {interval_ns}, must be a positive bar length in nanoseconds")
        self.labels = labels
        self.interval_ns = interval_ns
        self._horizon_ns = labels.horizon_bars * interval_ns
        self._max_gap_ns = labels.max_gap_bars * interval_ns
        self._bars = 0
        self._last_ts = 0
        self._log_close = 0.0
        self._share = 0.0
        # Numbered and held in order of entry, so the vertical barrier of the first is always the next one due.
        # Not a dict: finding its first item takes longer the more were deleted before it.
        self._open: OrderedDict[int, OpenBarrier] = OrderedDict()
        self._entries = 0
        self._ending: list[int] = []  # those of the last bar that a signal has ended within it
        # (level, number) of what price must rise to, and (-level, number) of what it must fall to. Those of
        # barriers resolved otherwise stay until they surface or outnumber the others.
        self._above: list[tuple[float, int]] = []
        self._below: list[tuple[float, int]] = []
        # Compile now, and not at the first touch on the event thread.
        barrier_step(1.0, log_price(1.0), 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, False)

    @property
    def n_open(self) -> int:
        """Number of open barriers."""
        return len(self._open)

    @property
    def open_barriers(self) -> list[OpenBarrier]:
        """The open barriers in order of entry."""
        return list(self._open.values())

    @property
    def ending(self) -> set[Hashable]:
        """Keys of the open barriers that end at the next close."""
        return {self._open[number].key for number in self._ending if number in self._open}

    @property
    def state(self) -> tuple[int, int, float, float]:
        """What `restore` needs besides the barriers: bars processed, time and log close of the last, sum of shares."""
        return self._bars, self._last_ts, self._log_close, self._share

    def restore(self, state: tuple[int, int, float, float], barriers: Iterable[OpenBarrier]) -> None:
        """Continue, to the last bit, where another tracker was.

        Parameters
        ----------
        state : tuple
            Its `state`.
        barriers : iterable of OpenBarrier
            Its `open_barriers` of the same moment. Those entered on one bar keep their order.

        Raises
        ------
        ValueError
            If a barrier cannot have been open at that moment. The tracker is unchanged then.
        """
        bars, last_ts, log_close, share = state
        ordered = sorted(barriers, key=lambda barrier: barrier.entry_bar)
        for barrier in ordered:
            if barrier.entry_ts > last_ts or barrier.entry_bar > bars:
                raise ValueError(
                    f"barrier {barrier.key!r} was entered on bar {barrier.entry_bar} at {barrier.entry_ts}, after the "
                    f"state at bar {bars}, {last_ts}; restore the barriers with the state of their moment"
                )
            if bars - barrier.entry_bar >= self.labels.horizon_bars:
                raise ValueError(
                    f"barrier {barrier.key!r} was entered on bar {barrier.entry_bar} and its horizon of "
                    f"{self.labels.horizon_bars} bars was over at the state's bar {bars}; record it as unresolved"
                )
        self._bars, self._last_ts, self._log_close, self._share = bars, last_ts, log_close, share
        self._open.clear()
        self._above.clear()
        self._below.clear()
        self._ending.clear()
        for barrier in ordered:
            self._follow(barrier)

    def open(self, key: Hashable, side: int, volatility: float) -> OpenBarrier | None:
        """Enter at the close of the last bar processed.

        Parameters
        ----------
        key : Hashable
            Comes back with the outcome. It need not be unique: each barrier resolves by itself.
        side : int
            1 long, -1 short.
        volatility : float
            Known at that close, as a log return already scaled to the horizon.

        Returns
        -------
        OpenBarrier or None
            None if no bar was processed yet, or the volatility is not positive and finite.

        Raises
        ------
        ValueError
            If the side is neither 1 nor -1.
        """
        if side not in (1, -1):
            raise ValueError(f"`side` was {side}, must be 1 or -1; signals of 0 have no outcome")
        if not (self._bars and volatility > 0.0 and math.isfinite(volatility)):
            return None
        barrier = OpenBarrier(
            key,
            side,
            self._log_close,
            self.labels.profit_barrier * volatility,
            self.labels.stop_barrier * volatility,
            self._last_ts,
            self._bars,
            self._share,
        )
        self._follow(barrier)
        return barrier

    def end(self, side: int, ts_event: int, concerns: Callable[[Hashable], bool]) -> list[Resolution]:
        """Let a signal end the open barriers of another side, at the last close; see `exit_bars`.

        Those entered at that very close end at the next one, unless price or time end them on that bar. A signal that
        comes longer than the longest gap after the last bar ends nothing: the next bar will leave all unresolved.

        Parameters
        ----------
        side : int
            Of the signal: 1, -1, or 0, which ends either side.
        ts_event : int
            When it was given, UNIX nanoseconds.
        concerns : callable
            Given the key of a barrier, whether it is of the same source.

        Returns
        -------
        list[Resolution]
            What ended now, in order of entry.
        """
        if ts_event - self._last_ts > self._max_gap_ns:
            return []
        resolved = []
        for number, barrier in list(self._open.items()):
            if barrier.side == side or barrier.ending or not concerns(barrier.key):
                continue
            if barrier.entry_bar == self._bars:
                self._open[number] = barrier._replace(ending=True)
                self._ending.append(number)
                continue
            del self._open[number]
            ret = barrier.side * (self._log_close - barrier.entry)
            resolved.append(self._resolution(barrier, SIGNAL, ret, max(ts_event, self._last_ts)))
        self._drop_stale_levels()
        return resolved

    def give_up(self, side: int, concerns: Callable[[Hashable], bool], now_ns: int) -> list[Resolution]:
        """Leave unresolved what a signal ended at a bar that is not known; the arguments are those of `end`."""
        numbers = [n for n, barrier in self._open.items() if barrier.side != side and concerns(barrier.key)]
        resolved = [self._give_up(number, now_ns) for number in numbers]
        self._drop_stale_levels()
        return resolved

    def update(
        self, ts_event: int, high: float, low: float, close: float, open: float = math.nan
    ) -> list[Resolution]:
        """Take a closed bar and return what it resolves, in order of entry.

        Parameters
        ----------
        ts_event : int
            Its close, UNIX nanoseconds, later than that of the bar before.
        high, low, close : float
            Prices. A bar whose high or low is not positive and finite touches nothing.
        open : float, default nan
            Price at which it opened: a stop that it lies beyond is filled there. Where it is not known, NaN.

        Raises
        ------
        ValueError
            If the bar is not later than the last one, or its close is not positive and finite. The tracker is
            unchanged then.
        """
        if self._bars and ts_event <= self._last_ts:
            raise ValueError(
                f"the bar of {ts_event} is not later than the last one, of {self._last_ts}; drop it"
            )
        log_close = log_price(close)
        if math.isnan(log_close):
            raise ValueError(f"`close` was {close}, must be positive and finite; drop the bar")
        resolved: list[Resolution] = []
        if self._open and ts_event - self._last_ts > self._max_gap_ns:
            resolved += [self._give_up(number, ts_event) for number in list(self._open)]
        self._bars += 1
        self._last_ts = ts_event
        self._log_close = log_close
        self._share += 1.0 / max(len(self._open), 1)
        if self._open:
            resolved += self._step(log_price(high), log_price(low), log_price(open))
        self._ending.clear()
        self._drop_stale_levels()
        return resolved

    def close(self, key: Hashable, ret: float, ts_event: int) -> Resolution | None:
        """End a barrier by an outcome that is known from elsewhere, such as the trade itself.

        Parameters
        ----------
        key : Hashable
            Of the barrier; of several with the same key the first that is open.
        ret : float
            Gross log return in the direction of the side.
        ts_event : int
            When it was known, UNIX nanoseconds.

        Returns
        -------
        Resolution or None
            None if no barrier of this key is open. Its `barrier` is the one that a return this large lies beyond, the
            vertical one if it lies between.

        Raises
        ------
        ValueError
            If the return is not finite.
        """
        if not math.isfinite(ret):
            raise ValueError(f"`ret` was {ret}, must be a finite log return in the direction of the signal")
        number = next((n for n, barrier in self._open.items() if barrier.key == key), None)
        if number is None:
            return None
        barrier = self._open.pop(number)
        self._drop_stale_levels()
        bars = self._bars - barrier.entry_bar
        kind = PROFIT if ret >= barrier.profit else STOP if ret <= -barrier.stop else VERTICAL
        # Within its first bar it has shared none with any other.
        weight = min((self._share - barrier.entry_share) / bars, 1.0) if bars else 1.0
        return Resolution(key, kind, int(ret > self.labels.cost), ret, ts_event, bars, weight)

    def expire(self, now_ns: int) -> list[Resolution]:
        """Give up what a feed that stopped has left open, and return it in order of entry.

        Once no bar has come for longer than the longest gap, barriers whose horizon, counted in time, was over longer
        ago than that are `UNRESOLVED`. A feed that is merely sparse still counts its bars.

        Parameters
        ----------
        now_ns : int
            UNIX nanoseconds.
        """
        if now_ns - self._last_ts <= self._max_gap_ns:
            return []
        overdue = []
        for number, barrier in self._open.items():
            if now_ns - (barrier.entry_ts + self._horizon_ns) <= self._max_gap_ns:
                break
            overdue.append(number)
        resolved = [self._give_up(number, now_ns) for number in overdue]
        self._drop_stale_levels()
        return resolved

    def _follow(self, barrier: OpenBarrier) -> None:
        number = self._entries
        self._entries += 1
        self._open[number] = barrier
        if barrier.ending:
            self._ending.append(number)
        up, down = barrier.profit, barrier.stop
        if barrier.side < 0:
            up, down = down, up
        heappush(self._above, (_lowest_touch(barrier.entry, up), number))
        heappush(self._below, (_lowest_touch(-barrier.entry, down), number))

    def _step(self, high: float, low: float, opened: float) -> list[Resolution]:
        """Resolve what the last bar, of these log prices, touches or ends."""
        above: list[tuple[float, int]] = []
        below: list[tuple[float, int]] = []
        if math.isfinite(high - low):
            above, below = self._pop_reached(self._above, high), self._pop_reached(self._below, -low)
        candidates = {number for _, number in above + below} | {n for n in self._ending if n in self._open}
        for number, barrier in self._open.items():
            if self._bars - barrier.entry_bar < self.labels.horizon_bars:
                break
            candidates.add(number)
        resolved = []
        for number in sorted(candidates):
            barrier = self._open[number]
            bars = self._bars - barrier.entry_bar
            outcome, ret = barrier_step(
                float(barrier.side),
                barrier.entry,
                barrier.profit,
                barrier.stop,
                high,
                low,
                self._log_close,
                opened,
                bars >= self.labels.horizon_bars or barrier.ending,
            )
            if outcome == VERTICAL and bars < self.labels.horizon_bars:
                outcome = SIGNAL
            if outcome != UNRESOLVED:
                del self._open[number]
                resolved.append(self._resolution(barrier, outcome, ret, self._last_ts))
        for heap, reached in ((self._above, above), (self._below, below)):
            for level in reached:
                if level[1] in self._open:
                    heappush(heap, level)
        return resolved

    def _resolution(self, barrier: OpenBarrier, outcome: int, ret: float, ts_end: int) -> Resolution:
        """Return what became of a barrier that has been open on a bar at least."""
        bars = self._bars - barrier.entry_bar
        # A running sum rounds, which must not lift a weight above its bound.
        weight = min((self._share - barrier.entry_share) / bars, 1.0)
        return Resolution(barrier.key, outcome, int(ret > self.labels.cost), ret, ts_end, bars, weight)

    def _pop_reached(self, heap: list[tuple[float, int]], price: float) -> list[tuple[float, int]]:
        reached = []
        while heap and heap[0][0] <= price:
            level = heappop(heap)
            if level[1] in self._open:
                reached.append(level)
        return reached

    def _give_up(self, number: int, ts_end: int) -> Resolution:
        barrier = self._open.pop(number)
        bars = self._bars - barrier.entry_bar
        return Resolution(barrier.key, UNRESOLVED, -1, math.nan, ts_end, bars, 0.0)

    def _drop_stale_levels(self) -> None:
        for heap in (self._above, self._below):
            # Each open barrier has one level in each heap. At half of them stale, the cost is shared by those.
            if len(heap) > 2 * len(self._open) + STALE_LEVELS:
                heap[:] = [level for level in heap if level[1] in self._open]
                heapify(heap)


def _lowest_touch(entry: float, distance: float) -> float:
    """Return a level just below the lowest price for which ``price - entry >= distance`` after rounding."""
    return entry + distance * (1.0 - LEVEL_SLACK) - abs(entry) * LEVEL_SLACK
