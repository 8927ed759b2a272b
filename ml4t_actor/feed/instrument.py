"""The bars and trades of one instrument on their way in."""

from collections import deque

from ml4t_actor.feed.bar_times import close_ns, stamped_at_open
from ml4t_actor.feed.pacing import RequestPacing
from ml4t_actor.feed.ports import Ports
from ml4t_actor.feed.recent_ids import RecentIds
from ml4t_actor.feed.warmup import MAX_HISTORY_BARS
from ml4t_actor.market_data import MILLISECOND_NS, SECOND_NS
from ml4t_actor.nautilus.model import AggregationSource, Bar, BarType, TradeTick
from ml4t_actor.settings import FeedSettings

_MAX_SLOTS = 64
_REQUEST_MARGIN_BARS = 2
_OPENS_IN_A_ROW = 3
_SUSPICIONS = {
    "partial_bar": "began before the subscription",
    "missing_bars": "comes after a gap",
    "late_bar": "comes late",
    "reconnected": "closed before trades were delivered again, as after an interruption",
}


class InstrumentFeed:
    """Delivers each closed bar and each trade of one instrument once, in order; see `MarketFeed`.

    Parameters
    ----------
    bar_type : BarType
        Of its bars.
    settings : FeedSettings
        Stamps, warm-up and limits.
    ports : Ports
        What it is connected to.
    trades : bool
        Whether its trades are fed too.
    live : bool
        Whether the engine is live.
    max_clock_skew_ns : int
        How far a close may be read_ahead of the clock.
    """

    def __init__(
        self,
        bar_type: BarType,
        settings: FeedSettings,
        ports: Ports,
        *,
        trades: bool,
        live: bool,
        max_clock_skew_ns: int,
    ) -> None:
        self._id = bar_type.instrument_id
        self._type = bar_type.standard()  # what composite bars are delivered and cached as
        # Nautilus has no history of bars that it aggregates itself; the venue has bars of the same length.
        self._backfill_type = BarType(self._id, bar_type.spec, AggregationSource.EXTERNAL)
        self._external = bar_type.is_externally_aggregated()
        self._interval: int = bar_type.spec.get_interval_ns()
        self._at_open = stamped_at_open(self._type, settings.stamped_at, live)
        self._backfill_at_open = stamped_at_open(self._backfill_type, settings.stamped_at, live)
        self._ports = ports
        self._trades = trades
        self._live = live
        self._backfills = live and settings.warm_up
        self._skew_ns = max(max_clock_skew_ns, MILLISECOND_NS)  # by which some venues stamp closes early
        self._late_ns = int(settings.late_bars * self._interval)
        self._warmup_bars = settings.warmup_bars
        self._pacing = RequestPacing(int(settings.timeout_seconds * SECOND_NS), self._interval)

        self._started_ns = 0
        self._last = 0  # close of the last bar delivered
        self._last_alive = 0
        self._redelivered_until = 0  # bars that closed until then are expected to come again
        self._rejected: Bar | None = None
        self._late_by_a_bar = 0  # how many in a row

        # While bars and trades wait for history: what is buffered, with its time and that of its arrival.
        self._buffering = False
        self._awaiting = False
        self._draining = False
        self._buffered: deque[tuple[int, int, Bar | TradeTick]] = deque()
        self._history: dict[int, Bar] = {}
        self._responses: deque[tuple[int, bool]] = deque()
        self._requests = 0  # sent so far
        self._unanswered = 0  # sent and not answered so far
        self._verified_ns = -1  # what arrived until then is accepted as it is

        self._ids = RecentIds(settings.trade_ids)
        self._newest_trade: TradeTick | None = None  # as the cache is walked back to
        self._read_ahead: deque[TradeTick] = deque()  # read from the cache before they came
        self._last_trade = 0
        self._trades_after = 0  # earlier ones are known
        self._reconnected = 0  # when trades came again, as upon a new subscription
        self._plausible_until = 0
        self._slot_open = self._slot_close = 0
        self._slots: set[int] = set()  # bar lengths since the epoch in which there were trades

    @property
    def is_warming_up(self) -> bool:
        """Whether bars and trades are buffered until history has come."""
        return self._buffering

    @property
    def last_alive_ns(self) -> int:
        """Close of the last bar that shows that data comes in."""
        return self._last_alive

    @property
    def last_trade_ns(self) -> int:
        """Time of the latest trade that was delivered."""
        return self._last_trade

    def start(self) -> None:
        """Go on after what is known already, and request what is missing."""
        now = self._ports.now()
        self._started_ns = now
        self._last = self._last_alive = self._redelivered_until = self._ports.last_close(self._id)
        if self._live:
            self._last_trade = self._trades_after = self._ports.last_trade_ns(self._id)
            if self._last_trade:
                self._enter_slot(self._last_trade)
        if self._backfills and self._last + self._interval <= now:
            self._request_backfill(now)

    def on_bar(self, bar: Bar) -> None:
        """Deliver a bar that came, or buffer it."""
        close = close_ns(bar.ts_event, self._interval, self._at_open)
        now = self._ports.now()
        if self._live and self._external and not self._at_open:
            self._check_stamp(bar, now - close)
        if self._buffering:
            self._buffer(now, close, bar)
        elif not self._admit_bar(now, close, bar):
            self._buffer(now, close, bar)
            self._drain()

    def _check_stamp(self, bar: Bar, late_ns: int) -> None:
        """Report a source that seems to stamp opens: its bars come a bar length after what counts as their close."""
        is_late_by_a_bar = self._interval <= late_ns < 2 * self._interval
        self._late_by_a_bar = self._late_by_a_bar + 1 if is_late_by_a_bar else 0
        if self._late_by_a_bar >= _OPENS_IN_A_ROW:
            self._ports.report_problem(
                "stamped_at_open",
                f"{bar} came {late_ns / 1e9:.1f} s after its time, which counts as its close, and so did those before "
                "it: if this source stamps the open of a bar, set `feed.stamped_at` (and the strategy's `stamped_at`) "
                "to 'open'; signals that carry the bar's time are expired otherwise",
            )

    def on_historical_bar(self, bar: Bar) -> None:
        """Keep a bar of the response to a request, until the response is complete."""
        if not self._unanswered or bar.bar_type != self._backfill_type:
            return
        close = close_ns(bar.ts_event, self._interval, self._backfill_at_open)
        # One that is still open has an end to come.
        if self._last < close <= self._ports.now():
            self._history[close] = bar

    def on_trade(self, tick: TradeTick) -> None:
        """Deliver a trade that came, or buffer it."""
        read_ahead = self._read_ahead
        if read_ahead:
            if tick == read_ahead[0]:
                read_ahead.popleft()
                return
            read_ahead.clear()
        self._newest_trade = tick
        self._admit_trade(tick)

    def catch_up(self) -> None:
        """Deliver what the cache holds and did not come yet: a signal may arise from the same bar or trade."""
        if self._buffering:
            return
        if self._trades:
            self._catch_up_trades()
        self._catch_up_bars()

    def check(self, now: int) -> None:
        """Give up a request that was not answered in time; repeat one whose pause is over."""
        if self._pacing.is_overdue(now):
            self._time_out(now)
        if self._pacing.retry_due and self._pacing.may_request(now):
            self._request_backfill(now)

    def _catch_up_trades(self) -> None:
        cache, newest = self._ports.cache, self._newest_trade
        missed: list[TradeTick] = []
        while (tick := cache.trade_tick(self._id, len(missed))) is not None:
            if newest is not None and tick == newest:
                break
            missed.append(tick)
        for tick in reversed(missed):
            self._read_ahead.append(tick)
            self._newest_trade = tick
            self._admit_trade(tick)

    def _catch_up_bars(self) -> None:
        cache = self._ports.cache
        missed: list[tuple[int, Bar]] = []
        while (bar := cache.bar(self._type, len(missed))) is not None:
            close = close_ns(bar.ts_event, self._interval, self._at_open)
            if close <= self._last:
                break
            missed.append((close, bar))
        if not missed:
            return
        now = self._ports.now()
        for close, bar in reversed(missed):
            # Responses to requests, also to those of others, are in the cache as well, with candles among them that
            # were open then: live, only what was made after its close, and will not have to wait.
            if self._live and not close <= bar.ts_init <= now:
                continue
            if close > min(bar.ts_init, now) + self._skew_ns:  # rejected when it came, or about to be
                return
            if self._suspicion(now, close) is not None:
                return
            if close > self._last and not self._was_rejected(bar):
                self._redelivered_until = max(self._redelivered_until, close)
                self._deliver_bar(bar, close)

    def _admit_bar(self, arrival: int, close: int, bar: Bar) -> bool:
        """Deliver a bar, or pass over it; return False where it has to wait for history."""
        if close <= self._last:
            if close > self._redelivered_until:
                self._ports.report_problem(
                    "repeated_bar", f"{bar} came before, or comes after a later one; passed over"
                )
        elif close > arrival + self._skew_ns:
            self._ports.report_problem(
                "unclosed_bar",
                f"{bar} would close {(close - arrival) / 1e9:.3f} s after the clock's time; passed over: check the "
                "clock, and `feed.stamped_at`",
            )
        elif self._was_rejected(bar):
            pass  # when it was in the cache, or came before
        elif arrival > self._verified_ns and (suspicion := self._suspicion(arrival, close)) is not None:
            if self._pacing.retry_due or self._pacing.may_request(self._ports.now()):
                return False
            self._ports.report_problem(
                f"{suspicion}_kept",
                f"{bar} {_SUSPICIONS[suspicion]}, and is accepted as it is, since requests were of no use",
            )
            self._deliver_bar(bar, close)
        else:
            self._deliver_bar(bar, close)
        return True

    def _suspicion(self, arrival: int, close: int) -> str | None:
        """Return why bars before this one may be missing, or a part of its own time; None where nothing is suspect."""
        if not self._backfills:
            return None
        if self._pacing.retry_due:
            return "no_history"
        if not self._external:  # the first one began before the subscription
            return "partial_bar" if close - self._interval < self._started_ns else None
        if self._last > 0 and close - self._last > self._interval + self._interval // 2:
            return "missing_bars"
        # After an outage the adapter's first bar is what it knew before.
        if arrival - close > self._late_ns:
            return "late_bar"
        return "reconnected" if close <= self._reconnected + self._skew_ns else None

    def _was_rejected(self, bar: Bar) -> bool:
        return self._rejected is not None and bool(bar == self._rejected)

    def _deliver_bar(self, bar: Bar, close: int, *, stands_for_trades: bool = False) -> None:
        before = self._last
        # At once: what follows may publish, and a signal in answer would find this bar in the cache.
        self._last = close
        try:
            accepted = self._ports.on_bar(self._id, close, bar, stands_for_trades)
        except Exception as e:
            self._ports.report_problem("error in on_bar", f"handling {bar} failed: {e!r}")
            self._last = max(before, self._ports.last_close(self._id))
            accepted = self._last >= close
        if not accepted:
            self._last = before
            self._rejected = bar
            return
        if not self._live or self._external or stands_for_trades or bar.volume.as_double() > 0.0:
            # After an outage internal aggregation goes on with bars without volume.
            self._last_alive = close
        if len(self._slots) > _MAX_SLOTS:
            self._slots = {slot for slot in self._slots if slot * self._interval > close}

    def _admit_trade(self, tick: TradeTick) -> None:
        """Deliver a trade, buffer it, or pass over one that is known."""
        ts: int = tick.ts_event
        if not self._live:
            if ts > self._last_trade:
                self._last_trade = ts
            self._deliver_trade(tick, ts)
            return
        if self._backfill_at_open:
            ts = (ts + MILLISECOND_NS // 2) // MILLISECOND_NS * MILLISECOND_NS
        if not self._ids.add(tick.trade_id.value):
            self._reconnected = self._ports.now()
            self._ports.report_problem("repeated_trade", f"{tick} came before; passed over")
        elif self._buffering:
            self._buffer(self._ports.now(), ts, tick)
        else:
            self._accept_trade(tick, ts)

    def _accept_trade(self, tick: TradeTick, ts: int) -> None:
        """Deliver a trade, unless a bar stood for it or its time cannot be."""
        if ts <= self._trades_after:
            return
        if ts > self._plausible_until:
            self._plausible_until = self._ports.now() + self._skew_ns
            if ts > self._plausible_until:
                self._ports.report_problem(
                    "future_trade", f"{tick} is from the future; passed over: check the clock"
                )
                return
        if not self._slot_open < ts <= self._slot_close:
            self._enter_slot(ts)
        if ts > self._last_trade:
            self._last_trade = ts
        self._deliver_trade(tick, ts)

    def _deliver_trade(self, tick: TradeTick, ts: int) -> None:
        try:
            self._ports.on_trade(tick, ts)
        except Exception as e:
            self._ports.report_problem("error in on_trade_tick", f"handling {tick} failed: {e!r}")

    def _enter_slot(self, ts: int) -> None:
        slot = self._slot_of(ts)
        self._slots.add(slot)
        self._slot_open, self._slot_close = (slot - 1) * self._interval, slot * self._interval

    def _slot_of(self, ts: int) -> int:
        """Return the number of the bar that a time falls into, at its close included."""
        return -(-ts // self._interval)

    def _buffer(self, now: int, time: int, item: Bar | TradeTick) -> None:
        self._buffered.append((now, time, item))
        if self._pacing.is_overdue(now):  # should nobody check
            self._time_out(now)

    def _request_backfill(self, now: int) -> None:
        self._awaiting = self._buffering = True
        bars = self._warmup_bars or self._ports.warmup_bars(self._id)
        reach = (min(bars, MAX_HISTORY_BARS) + _REQUEST_MARGIN_BARS) * self._interval
        self._requests += 1
        self._unanswered += 1
        number = self._requests
        self._pacing.on_request(now)
        try:
            self._ports.request_bars(
                self._backfill_type, max(self._last, now - reach, 0), lambda: self._on_response(number, now)
            )
        except Exception as e:
            self._ports.report_problem(
                "error in requesting bars", f"requesting {self._backfill_type} failed: {e!r}"
            )
            self._time_out(now)

    def _on_response(self, number: int, requested_ns: int) -> None:
        self._unanswered -= 1
        self._responses.append((requested_ns, number == self._requests))
        try:
            self._drain()
        except Exception as e:  # it must not reach the engine; without a response the request times out
            self._ports.report_problem(
                "error in requesting bars", f"processing a response about {self._backfill_type} failed: {e!r}"
            )

    def _time_out(self, now: int) -> None:
        self._ports.report_problem(
            "no_history",
            f"past bars of {self._backfill_type} were not delivered within {self._pacing.timeout_ns / 1e9:g} s",
        )
        self._pacing.on_timeout(now)
        # A bar on top of missing ones would make it impossible to insert them: it waits for the next attempt.
        if not (self._pacing.retry_due and any(isinstance(item, Bar) for _, _, item in self._buffered)):
            self._awaiting = False
        self._drain()

    def _drain(self) -> None:
        """Process responses, then what is buffered, until history is awaited (again)."""
        if self._draining:
            return
        self._draining = self._buffering = True
        try:
            while True:
                if self._responses:
                    self._process_response(*self._responses.popleft())
                elif self._awaiting or not self._buffered:
                    break
                else:
                    self._process_buffered()
        finally:
            self._draining = False
            self._buffering = self._awaiting

    def _process_buffered(self) -> None:
        arrival, time, item = self._buffered.popleft()
        if not isinstance(item, Bar):
            self._accept_trade(item, time)
        elif not self._admit_bar(arrival, time, item):
            self._buffered.appendleft((arrival, time, item))
            self._awaiting = True
            now = self._ports.now()
            if self._pacing.may_request(now):
                suspicion = self._suspicion(arrival, time)
                if suspicion in _SUSPICIONS:
                    self._ports.report_problem(
                        suspicion, f"{item} {_SUSPICIONS[suspicion]}; past bars are requested"
                    )
                self._request_backfill(now)

    def _process_response(self, requested_ns: int, is_newest: bool) -> None:
        history, self._history = self._history, {}
        buffered = {time: item for _, time, item in self._buffered if isinstance(item, Bar)}
        is_news = False
        for close in sorted(history):
            # One that closed after the request may have been read before it closed.
            if not self._last < close <= requested_ns:
                continue
            bar = history[close]
            is_news = is_news or close not in buffered or not _is_alike(buffered[close], bar)
            stands = self._trades and self._slot_of(close) not in self._slots
            if stands:
                self._trades_after = max(self._trades_after, close)
            elif self._trades:
                self._release_trades(close)
            self._redelivered_until = max(self._redelivered_until, close)
            self._deliver_bar(bar, close, stands_for_trades=stands)
        if is_newest:
            verified = 0 < self._reconnected <= requested_ns
            if verified:  # which is of use, even where nothing was amiss
                self._reconnected = 0
            self._pacing.on_response(self._ports.now(), is_news=is_news or verified)
            self._verified_ns = max(self._verified_ns, requested_ns)
            self._awaiting = False

    def _release_trades(self, until: int) -> None:
        """Deliver the buffered trades that belong before a bar's close."""
        buffered, self._buffered = self._buffered, deque()
        rest: deque[tuple[int, int, Bar | TradeTick]] = deque()
        for arrival, time, item in buffered:
            if isinstance(item, Bar) or time > until:
                rest.append((arrival, time, item))
            else:
                self._accept_trade(item, time)
        rest.extend(self._buffered)
        self._buffered = rest


def _is_alike(a: Bar, b: Bar) -> bool:
    """Whether two bars say the same, however they are stamped."""
    return bool(
        a.open == b.open
        and a.high == b.high
        and a.low == b.low
        and a.close == b.close
        and a.volume == b.volume
    )
