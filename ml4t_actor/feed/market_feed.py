"""The bars and trades of all instruments on their way in."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from ml4t_actor.feed.instrument import InstrumentFeed
from ml4t_actor.feed.ports import Ports
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId, TradeTick
from ml4t_actor.settings import FeedSettings

_log = logging.getLogger(__name__)


class MarketFeed:
    """Delivers each closed bar and each trade once, in order, and none before its closing time.

    Everywhere: bars are timed by their close, whatever end their source stamps. A bar that would close after the
    clock's time is rejected. Before a signal is answered, `catch_up` delivers what the cache holds already and only
    other components were given so far; when it comes later it is passed over.

    Live, in addition:

    - At the start, past bars are requested (of the venue's own bars of the same length where Nautilus aggregates them).
      Until they have come, what arrives is buffered, and follows them in order of arrival.
    - A bar after a gap, or one that comes so late that it may be what was known before an outage, waits until the bars
      since the last one have been requested. If the response has nothing better it is accepted as it is, since markets
      without trades do have gaps, and the next request waits longer. At most one request is under way per instrument.
    - A request that is not answered within the timeout is repeated with growing pauses, four times in all, and bars
      wait for it where they would otherwise shut out what is missing; trades do not.
    - Each trade is delivered once, by its id. A past bar stands for the trades of its time if none of them was;
      those that come later, as venues do upon subscription, are passed over.

    Incidents are reported to `ports.report_problem` by kind: `repeated_bar`, `unclosed_bar`, `repeated_trade`,
    `future_trade`, `no_history`, `stamped_at_open`, and `error in ...`. Nothing is raised into the caller. All calls
    belong on one thread.

    Parameters
    ----------
    bar_types : sequence of BarType
        One per instrument, aggregated by time.
    settings : FeedSettings
        Stamps, warm-up and limits.
    ports : Ports
        What the feed reads from and delivers to.
    trades : bool
        Whether trades are fed too.
    live : bool
        Whether the engine is live.
    max_clock_skew_ns : int
        How far a close, or a trade, may be ahead of the clock.
    """

    def __init__(
        self,
        bar_types: Sequence[BarType],
        settings: FeedSettings,
        ports: Ports,
        *,
        trades: bool,
        live: bool,
        max_clock_skew_ns: int = SECOND_NS,
    ) -> None:
        ports = replace(ports, report_problem=_never_raising(ports.report_problem))
        self._report_problem = ports.report_problem
        self._feeds = {
            bar_type.instrument_id: InstrumentFeed(
                bar_type, settings, ports, trades=trades, live=live, max_clock_skew_ns=max_clock_skew_ns
            )
            for bar_type in bar_types
        }

    def start(self) -> None:
        """Go on after what is known already and request what is missing; to be called once subscribed."""
        for feed in self._feeds.values():
            self._guard("starting the feed", feed.start)

    def on_bar(self, bar: Bar) -> None:
        """Deliver, buffer or pass over a bar that came."""
        feed = self._feeds.get(bar.bar_type.instrument_id)
        if feed is not None:
            try:
                feed.on_bar(bar)
            except Exception as e:
                self._report_problem("error in on_bar", f"handling {bar} failed: {e!r}")

    def on_historical_bar(self, bar: Bar) -> None:
        """Keep a bar of a response; bars that were not requested here are ignored."""
        feed = self._feeds.get(bar.bar_type.instrument_id)
        if feed is not None:
            self._guard("on_historical_data", feed.on_historical_bar, bar)

    def on_trade(self, tick: TradeTick) -> None:
        """Deliver, buffer or pass over a trade that came."""
        feed = self._feeds.get(tick.instrument_id)
        if feed is not None:
            try:
                feed.on_trade(tick)
            except Exception as e:
                self._report_problem("error in on_trade_tick", f"handling {tick} failed: {e!r}")

    def catch_up(self, instrument_id: InstrumentId) -> None:
        """Deliver what the cache holds of an instrument and did not come yet."""
        feed = self._feeds.get(instrument_id)
        if feed is not None:
            self._guard("catching up with the cache", feed.catch_up)

    def check(self, now: int) -> None:
        """Give up requests that were not answered, and repeat them; to be called every second or so when live."""
        for feed in self._feeds.values():
            self._guard("checking the feed", feed.check, now)

    def is_warming_up(self, instrument_id: InstrumentId) -> bool:
        """Whether what comes in for an instrument is buffered until history has come."""
        feed = self._feeds.get(instrument_id)
        return feed is not None and feed.is_warming_up

    def last_alive_ns(self, instrument_id: InstrumentId) -> int:
        """Return the close of the last bar that shows that data comes in, UNIX nanoseconds; 0 if none.

        Live, a bar without volume that Nautilus aggregated itself does not: it makes them in an outage too.
        """
        feed = self._feeds.get(instrument_id)
        return 0 if feed is None else feed.last_alive_ns

    def last_trade_ns(self, instrument_id: InstrumentId) -> int:
        """Return the time of the latest trade, UNIX nanoseconds; 0 if none."""
        feed = self._feeds.get(instrument_id)
        return 0 if feed is None else feed.last_trade_ns

    def _guard[**P](self, where: str, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as e:
            self._report_problem(f"error in {where}", f"{where} failed: {e!r}")


def _never_raising(report_problem: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """Return a `report_problem` whose own failure is logged: it must not keep what is behind from being delivered."""

    def report(kind: str, message: str) -> None:
        try:
            report_problem(kind, message)
        except Exception:
            _log.exception("a problem could not be reported: %s: %s", kind, message)

    return report
