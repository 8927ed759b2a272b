"""Why the signals of a source are all too old: their source may stamp the open of a bar."""

from collections import OrderedDict
from dataclasses import dataclass

from ml4t_actor.market_data import MILLISECOND_NS, SECOND_NS
from ml4t_actor.messages import SignalData

_N_IN_A_ROW = 3
_SPREAD_NS, _SPREAD_SHARE = 5 * SECOND_NS, 0.1
_MAX_SOURCES = 1_000


@dataclass(slots=True)
class _Streak:
    """The expired signals of a source since the last that was not: how many, and how old they were."""

    n: int
    least_ns: int
    most_ns: int
    last_ts: int


class ExpiredStamps:
    """Recognises sources whose signals expire since they are stamped with the open of a bar and not with its close.

    Such a signal is as old as a bar is long when it arises. It is recognised at once where its stamp is a bar's
    boundary and its age that of the instrument's bars; where the source's bars are of another length, by the third
    signal in a row of the same age.

    Examples
    --------
    >>> stamps = ExpiredStamps()
    >>> minute = 60 * 10**9
    >>> signal = SignalData(
    ...     instrument_id="ETH.SIM", signal=1, strength=1.0, source="me", signal_id="1", ts_event=4 * minute
    ... )
    >>> stamps.explain(signal, age_ns=minute + 10**8, interval_ns=minute, last_close_ns=5 * minute)[:50]
    'it is stamped with the open of a bar of about 60 s'
    """

    def __init__(self) -> None:
        self._streaks: OrderedDict[str, _Streak] = OrderedDict()

    def forget(self, source: str) -> None:
        """Remember that a signal of the source was not expired."""
        if self._streaks:
            self._streaks.pop(source, None)

    def explain(
        self, signal: SignalData, age_ns: int, interval_ns: int | None, last_close_ns: int
    ) -> str | None:
        """Return how an expired signal came to be so old, as far as its stamp shows; None if it does not.

        Parameters
        ----------
        signal : SignalData
            The signal.
        age_ns : int
            How old it was when it came, nanoseconds.
        interval_ns : int or None
            Length of the instrument's bars; None where it is not followed.
        last_close_ns : int
            When the last of them closed, UNIX nanoseconds.
        """
        streak = self._extend(signal, age_ns)
        if interval_ns is not None and interval_ns <= age_ns < 2 * interval_ns:
            off = (signal.ts_event - last_close_ns) % interval_ns
            if min(off, interval_ns - off) < MILLISECOND_NS:
                if abs(signal.ts_event - last_close_ns) < MILLISECOND_NS:
                    return (
                        f"it is stamped with the close of the last bar of {signal.instrument_id}, which came a bar "
                        "length later: if its bars are stamped with their open, set `feed.stamped_at` to 'open'; "
                        "stamp signals with the bar's close"
                    )
                return _sentence(signal, interval_ns)
        spread = max(_SPREAD_NS, int(_SPREAD_SHARE * streak.least_ns))
        if streak.n >= _N_IN_A_ROW and streak.most_ns - streak.least_ns <= spread:
            return _sentence(signal, streak.least_ns)
        return None

    def _extend(self, signal: SignalData, age_ns: int) -> _Streak:
        source = signal.source
        streak = self._streaks.setdefault(source, _Streak(0, age_ns, age_ns, signal.ts_event - age_ns))
        # Opens of bars are a bar apart: what has waited together, and is read at once, shows nothing.
        if signal.ts_event - streak.last_ts >= age_ns // 2:
            streak.n += 1
            streak.last_ts = signal.ts_event
        streak.least_ns, streak.most_ns = min(streak.least_ns, age_ns), max(streak.most_ns, age_ns)
        self._streaks.move_to_end(source)
        if len(self._streaks) > _MAX_SOURCES:
            self._streaks.popitem(last=False)
        return streak


def _sentence(signal: SignalData, length_ns: int) -> str:
    return (
        f"it is stamped with the open of a bar of about {length_ns / SECOND_NS:.0f} s, as it seems by "
        "its age: stamp signals with the bar's close (its open and its length), or with the time at which they arise"
    )
