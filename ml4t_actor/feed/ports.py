"""What a feed is connected to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId, TradeTick


class MarketCache(Protocol):
    """What is read of Nautilus's `Cache`: index 0 is what it was given last, which need not be the latest."""

    def bar(self, bar_type: BarType, index: int = 0) -> Bar | None:
        """Return a bar, or None beyond the last."""

    def trade_tick(self, instrument_id: InstrumentId, index: int = 0) -> TradeTick | None:
        """Return a trade, or None beyond the last."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a feed is connected to.

    Attributes
    ----------
    cache : MarketCache
        Of the engine.
    now : callable () -> int
        The engine's time, UNIX nanoseconds.
    on_bar : callable (InstrumentId, int, Bar, bool) -> bool
        Given the close in UNIX nanoseconds, the bar, and whether its volume stands for trades that were missed;
        returns whether it was accepted.
    on_trade : callable (TradeTick, int) -> None
        Given the trade and its time in UNIX nanoseconds.
    last_close, last_trade_ns : callable (InstrumentId) -> int
        Close of the last bar, and time of the last trade, that were handled, also before a restart; 0 if none.
    request_bars : callable (BarType, int, callable () -> None) -> None
        Requests closed bars from a time on; calls back when all have been delivered.
    report_problem : callable (str, str) -> None
        Given the kind of an incident and what happened.
    warmup_bars : callable (InstrumentId) -> int
        How much history is needed.
    """

    cache: MarketCache
    now: Callable[[], int]
    on_bar: Callable[[InstrumentId, int, Bar, bool], bool]
    on_trade: Callable[[TradeTick, int], None]
    last_close: Callable[[InstrumentId], int]
    last_trade_ns: Callable[[InstrumentId], int]
    request_bars: Callable[[BarType, int, Callable[[], None]], None]
    report_problem: Callable[[str, str], None]
    warmup_bars: Callable[[InstrumentId], int]
