"""The bars and trades of one instrument on their way in."""

from collections import deque

from ml4t_actor.feed.bar_times import close_ns, stamped_at_open
from ml4t_actor.feed.pacing import RequestPacing
from ml4t_actor.feed.ports import Ports
from ml4t_actor.feed.recent_ids import RecentIds
from ml4t_actor.feed.warmup import MAX_HISTORY_BARS
from ml4t_actor.market_data import MILLISECOND_NS
from ml4t_actor.nautilus.model import AggregationSource, Bar, BarType, TradeTick
from ml4t_actor.settings import FeedSettings

_MAX_SLOTS = 64
_REQUEST_MARGIN_BARS = 2
_DOUBTS = {
    "partial_bar": "began before the subscription",
    "missing_bars": "comes after a gap",
    "late_bar": "comes late",
    "reconnected": "closed before trades were delivered again, as after an interruption",
}


class InstrumentFeed:
    """Takes each closed bar and each trade of one instrument once, in order; see `MarketFeed`.

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
        How far a close may be ahead of the clock.
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
        self._source = BarType(self._id, bar_type.spec, AggregationSource.EXTERNAL)
        self._external = bar_type.is_externally_aggregated()
        self._interval: int = bar_type.spec.get_interval_ns()
        self._at_open = stamped_at_open(self._type, settings.stamped_at, live)
        self._source_at_open = stamped_at_open(self._source, settings.stamped_at, live)
        self._ports = ports
        self._trades = trades
        self._live = live
        self._repairs = live and settings.warm_up
        self._skew_ns = max(max_clock_skew_ns, MILLISECOND_NS)  # by which some venues stamp closes early
        self._late_ns = int(settings.late_bars * self._interval)
        self._warmup_bars = settings.warmup_bars
        self._pacing = RequestPacing(int(settings.timeout_seconds * 1e9), self._interval)

        self._started_ns = 0
        self._last = 0  # close of the last bar taken
        self._alive = 0
        self._overlap = 0  # bars that closed until then are expected to be delivered again
        self._refused: Bar | None = None

        # While bars and trades wait for history: what is held back, with its time and that of its arrival.
        self._holding = False
        self._waiting = False
        self._pumping = False
        self._held: deque[tuple[int, int, Bar | TradeTick]] = deque()
        self._history: dict[int, Bar] = {}
        self._answers: deque[tuple[int, bool]] = deque()
        self._requests = 0  # sent so far
        self._outstanding = 0  # sent and not answered so far
        self._settled_ns = -1  # what arrived until then is taken as it is

        self._ids = RecentIds(settings.trade_ids)
        self._newest: TradeTick | None = None  # as the cache is walked back to
        self._ahead: deque[TradeTick] = deque()  # taken before they were delivered
        self._last_trade = 0
        self._trades_after = 0  # earlier ones are known
        self._reconnected = 0  # when trades were delivered again, as upon a new subscription
        self._sane_until = 0
        self._slot_open = self._slot_close = 0
        self._slots: set[int] = set()  # bar lengths since the epoch in which trades were taken

    @property
    def is_warming_up(self) -> bool:
        """Whether bars and trades are held back until history has come."""
        return self._holding

    @property
    def last_alive_ns(self) -> int:
        """Close of the last bar that shows that data comes in."""
        return self._alive

    @property
    def last_trade_ns(self) -> int:
        """Time of the latest trade that was taken."""
        return self._last_trade

    def start(self) -> None:
        """Go on after what is known already, and request what is missing."""
        now = self._ports.now()
        self._started_ns = now
        self._last = self._alive = self._overlap = self._ports.last_close(self._id)
        if self._live:
            self._last_trade = self._trades_after = self._ports.last_trade_ns(self._id)
            if self._last_trade:
                self._enter_slot(self._last_trade)
        if self._repairs and self._last + self._interval <= now:
            self._ask(now)

    def on_bar(self, bar: Bar) -> None:
        """Take a bar that was delivered, or hold it back."""
        close = close_ns(bar.ts_event, self._interval, self._at_open)
        now = self._ports.now()
        if self._holding:
            self._hold(now, close, bar)
        elif not self._judge(now, close, bar):
            self._hold(now, close, bar)
            self._pump()

    def on_historical_bar(self, bar: Bar) -> None:
        """Keep a bar of the answer to a request, until the answer is complete."""
        if not self._outstanding or bar.bar_type != self._source:
            return
        close = close_ns(bar.ts_event, self._interval, self._source_at_open)
        # One that is still open has an end to come.
        if self._last < close <= self._ports.now():
            self._history[close] = bar

    def on_trade(self, tick: TradeTick) -> None:
        """Take a trade that was delivered, or hold it back."""
        ahead = self._ahead
        if ahead:
            if tick == ahead[0]:
                ahead.popleft()
                return
            ahead.clear()
        self._newest = tick
        self._admit(tick)

    def catch_up(self) -> None:
        """Take what the cache holds and was not delivered yet: a signal may come out of the same bar or trade."""
        if self._holding:
            return
        if self._trades:
            self._catch_up_trades()
        self._catch_up_bars()

    def check(self, now: int) -> None:
        """Give up a request that was not answered in time; repeat one whose pause is over."""
        if self._pacing.is_overdue(now):
            self._give_up(now)
        if self._pacing.wanted and self._pacing.may_ask(now):
            self._ask(now)

    def _catch_up_trades(self) -> None:
        cache, newest = self._ports.cache, self._newest
        missed: list[TradeTick] = []
        while (tick := cache.trade_tick(self._id, len(missed))) is not None:
            if newest is not None and tick == newest:
                break
            missed.append(tick)
        for tick in reversed(missed):
            self._ahead.append(tick)
            self._newest = tick
            self._admit(tick)

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
            # Answers to requests, also to those of others, are in the cache as well, with candles among them that were
            # open then: live, only what was made after its close, and will not have to wait.
            if self._live and not close <= bar.ts_init <= now:
                continue
            if close > min(bar.ts_init, now) + self._skew_ns:  # refused when it was delivered, or about to be
                return
            if self._doubt(now, close) is not None:
                return
            if close > self._last and not self._was_refused(bar):
                self._overlap = max(self._overlap, close)
                self._take_bar(bar, close)

    def _judge(self, arrival: int, close: int, bar: Bar) -> bool:
        """Take a bar, or pass over it; return False where it has to wait for history."""
        if close <= self._last:
            if close > self._overlap:
                self._ports.note(
                    "repeated_bar", f"{bar} was taken before, or comes after a later one; passed over"
                )
        elif close > arrival + self._skew_ns:
            self._ports.note(
                "unclosed_bar",
                f"{bar} would close {(close - arrival) / 1e9:.3f} s after the clock's time; passed over: check the "
                "clock, and `feed.stamped_at`",
            )
        elif self._was_refused(bar):
            pass  # when it was in the cache, or in an earlier delivery
        elif arrival > self._settled_ns and (doubt := self._doubt(arrival, close)) is not None:
            if self._pacing.wanted or self._pacing.may_ask(self._ports.now()):
                return False
            self._ports.note(
                f"{doubt}_kept", f"{bar} {_DOUBTS[doubt]}, and is taken as it is, since asking was of no use"
            )
            self._take_bar(bar, close)
        else:
            self._take_bar(bar, close)
        return True

    def _doubt(self, arrival: int, close: int) -> str | None:
        """Return why bars before this one may be missing, or a part of its own time; None where all is well."""
        if not self._repairs:
            return None
        if self._pacing.wanted:
            return "no_history"
        if not self._external:  # the first one began before the subscription
            return "partial_bar" if close - self._interval < self._started_ns else None
        if self._last > 0 and close - self._last > self._interval + self._interval // 2:
            return "missing_bars"
        # After an outage the adapter's first bar is what it knew before.
        if arrival - close > self._late_ns:
            return "late_bar"
        return "reconnected" if close <= self._reconnected + self._skew_ns else None

    def _was_refused(self, bar: Bar) -> bool:
        return self._refused is not None and bool(bar == self._refused)

    def _take_bar(self, bar: Bar, close: int, *, stands_for_trades: bool = False) -> None:
        before = self._last
        # At once: what follows may publish, and a signal in answer would find this bar in the cache.
        self._last = close
        try:
            accepted = self._ports.take_bar(self._id, close, bar, stands_for_trades)
        except Exception as e:
            self._ports.note("error in on_bar", f"taking {bar} failed: {e!r}")
            self._last = max(before, self._ports.last_close(self._id))
            accepted = self._last >= close
        if not accepted:
            self._last = before
            self._refused = bar
            return
        if not self._live or self._external or stands_for_trades or bar.volume.as_double() > 0.0:
            # After an outage internal aggregation goes on with bars without volume.
            self._alive = close
        if len(self._slots) > _MAX_SLOTS:
            self._slots = {slot for slot in self._slots if slot * self._interval > close}

    def _admit(self, tick: TradeTick) -> None:
        """Take a trade, hold it back, or pass over one that is known."""
        ts: int = tick.ts_event
        if not self._live:
            if ts > self._last_trade:
                self._last_trade = ts
            self._take_trade(tick, ts)
            return
        if self._source_at_open:
            ts = (ts + MILLISECOND_NS // 2) // MILLISECOND_NS * MILLISECOND_NS
        if not self._ids.add(tick.trade_id.value):
            self._reconnected = self._ports.now()
            self._ports.note("repeated_trade", f"{tick} was delivered before; passed over")
        elif self._holding:
            self._hold(self._ports.now(), ts, tick)
        else:
            self._enter(tick, ts)

    def _enter(self, tick: TradeTick, ts: int) -> None:
        """Take a trade, unless a bar stood for it or its time cannot be."""
        if ts <= self._trades_after:
            return
        if ts > self._sane_until:
            self._sane_until = self._ports.now() + self._skew_ns
            if ts > self._sane_until:
                self._ports.note("future_trade", f"{tick} is from the future; passed over: check the clock")
                return
        if not self._slot_open < ts <= self._slot_close:
            self._enter_slot(ts)
        if ts > self._last_trade:
            self._last_trade = ts
        self._take_trade(tick, ts)

    def _take_trade(self, tick: TradeTick, ts: int) -> None:
        try:
            self._ports.take_trade(tick, ts)
        except Exception as e:
            self._ports.note("error in on_trade_tick", f"taking {tick} failed: {e!r}")

    def _enter_slot(self, ts: int) -> None:
        slot = self._slot_of(ts)
        self._slots.add(slot)
        self._slot_open, self._slot_close = (slot - 1) * self._interval, slot * self._interval

    def _slot_of(self, ts: int) -> int:
        """Return the number of the bar that a time falls into, at its close included."""
        return -(-ts // self._interval)

    def _hold(self, now: int, time: int, item: Bar | TradeTick) -> None:
        self._held.append((now, time, item))
        if self._pacing.is_overdue(now):  # should nobody check
            self._give_up(now)

    def _ask(self, now: int) -> None:
        self._waiting = self._holding = True
        bars = self._warmup_bars or self._ports.warmup_bars(self._id)
        reach = (min(bars, MAX_HISTORY_BARS) + _REQUEST_MARGIN_BARS) * self._interval
        self._requests += 1
        self._outstanding += 1
        number = self._requests
        self._pacing.asked(now)
        try:
            self._ports.request(
                self._source, max(self._last, now - reach, 0), lambda: self._on_answer(number, now)
            )
        except Exception as e:
            self._ports.note("error in requesting bars", f"requesting {self._source} failed: {e!r}")
            self._give_up(now)

    def _on_answer(self, number: int, asked_ns: int) -> None:
        self._outstanding -= 1
        self._answers.append((asked_ns, number == self._requests))
        try:
            self._pump()
        except (
            Exception
        ) as e:  # or it would be raised into the engine; without an answer the request times out
            self._ports.note(
                "error in requesting bars", f"taking an answer about {self._source} failed: {e!r}"
            )

    def _give_up(self, now: int) -> None:
        self._ports.note(
            "no_history",
            f"past bars of {self._source} were not delivered within {self._pacing.timeout_ns / 1e9:g} s",
        )
        self._pacing.unanswered(now)
        # A bar on top of missing ones would make it impossible to insert them: it waits for the next attempt.
        if not (self._pacing.wanted and any(isinstance(item, Bar) for _, _, item in self._held)):
            self._waiting = False
        self._pump()

    def _pump(self) -> None:
        """Work off answers, then what is held back, until history is awaited (again)."""
        if self._pumping:
            return
        self._pumping = self._holding = True
        try:
            while True:
                if self._answers:
                    self._work_off_answer(*self._answers.popleft())
                elif self._waiting or not self._held:
                    break
                else:
                    self._work_off_held()
        finally:
            self._pumping = False
            self._holding = self._waiting

    def _work_off_held(self) -> None:
        arrival, time, item = self._held.popleft()
        if not isinstance(item, Bar):
            self._enter(item, time)
        elif not self._judge(arrival, time, item):
            self._held.appendleft((arrival, time, item))
            self._waiting = True
            now = self._ports.now()
            if self._pacing.may_ask(now):
                doubt = self._doubt(arrival, time)
                if doubt in _DOUBTS:
                    self._ports.note(doubt, f"{item} {_DOUBTS[doubt]}; past bars are requested")
                self._ask(now)

    def _work_off_answer(self, asked_ns: int, is_newest: bool) -> None:
        history, self._history = self._history, {}
        held = {time: item for _, time, item in self._held if isinstance(item, Bar)}
        news = False
        for close in sorted(history):
            # One that closed after the request may have been read before it closed.
            if not self._last < close <= asked_ns:
                continue
            bar = history[close]
            news = news or close not in held or not _is_alike(held[close], bar)
            stands = self._trades and self._slot_of(close) not in self._slots
            if stands:
                self._trades_after = max(self._trades_after, close)
            elif self._trades:
                self._release_trades(close)
            self._overlap = max(self._overlap, close)
            self._take_bar(bar, close, stands_for_trades=stands)
        if is_newest:
            verified = 0 < self._reconnected <= asked_ns
            if verified:  # which is of use, even where nothing was amiss
                self._reconnected = 0
            self._pacing.answered(self._ports.now(), news=news or verified)
            self._settled_ns = max(self._settled_ns, asked_ns)
            self._waiting = False

    def _release_trades(self, until: int) -> None:
        """Take the trades held back that belong before a bar's close."""
        held, self._held = self._held, deque()
        rest: deque[tuple[int, int, Bar | TradeTick]] = deque()
        for arrival, time, item in held:
            if isinstance(item, Bar) or time > until:
                rest.append((arrival, time, item))
            else:
                self._enter(item, time)
        rest.extend(self._held)
        self._held = rest


def _is_alike(a: Bar, b: Bar) -> bool:
    """Whether two bars say the same, however they are stamped."""
    return bool(
        a.open == b.open
        and a.high == b.high
        and a.low == b.low
        and a.close == b.close
        and a.volume == b.volume
    )
