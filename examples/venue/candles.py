"""Candles: those of the past, and those that the played trades make."""

from collections.abc import Callable, Iterator

from examples.venue.payloads import Candle
from examples.venue.tape import SIZE_DECIMALS, price_text, size_text

MINUTE_MS = 60_000
INTERVALS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60}
"""Minutes of each interval."""

SNAPSHOT_LIMIT = 5_000
_PAST_MINUTES = 5 * SNAPSHOT_LIMIT

_Bar = tuple[float, float, float, float, float]


class CandleClock:
    """Which minute it is for candles.

    With `candle_ms` of 60,000 it is the clock's. Otherwise candles begin `virtual_candles` minutes in the past, and one
    takes `candle_ms`, until they have caught up with the clock, which no candle passes.
    """

    def __init__(self, started_ms: float, candle_ms: float, virtual_candles: int) -> None:
        self._started_ms = started_ms
        self._candle_ms = candle_ms
        self._virtual = candle_ms != MINUTE_MS
        lead = virtual_candles * MINUTE_MS if self._virtual else 0
        self.first_ms = int(started_ms) // MINUTE_MS * MINUTE_MS - lead

    def open_ms(self, now_ms: float) -> int:
        """Return when the minute that is now began."""
        latest = int(now_ms) // MINUTE_MS * MINUTE_MS
        if not self._virtual:
            return latest
        # One minute behind the clock's, so that a candle's end is past when it is closed.
        played = int((now_ms - self._started_ms) // self._candle_ms)
        return min(self.first_ms + played * MINUTE_MS, latest - MINUTE_MS)

    @property
    def is_virtual(self) -> bool:
        """Whether candles take another time than they say."""
        return self._virtual

    def until_next_s(self, now_ms: float) -> float:
        """Return how long, in seconds, to wait before looking for the next minute."""
        step = self._candle_ms if self._virtual else MINUTE_MS
        passed = (now_ms - self._started_ms) % step if self._virtual else now_ms % MINUTE_MS
        return float(step - passed) / 1e3 + 0.001


class Candles:
    """One coin's candles: all minutes, closed and current, of which longer ones are put together.

    Parameters
    ----------
    coin : str
        The coin.
    first_ms : int
        When the first minute begins that trades make; all before are of the past.
    first_price : float
        Price at which the past meets the first trade.
    past : callable
        Returns the past's minute bars, of which the relative moves are taken; called when first needed.
    closed_only : bool, default False
        Leave the candle in the making out of the history: where candles are not the clock's, the adapter, which goes by
        the clock, would take it for closed.
    """

    def __init__(
        self,
        coin: str,
        first_ms: int,
        first_price: float,
        past: Callable[[str], list[_Bar]],
        *,
        closed_only: bool = False,
    ) -> None:
        self.coin = coin
        self._closed_only = closed_only
        self._first_ms = first_ms
        self._first_price = float(price_text(coin, first_price))
        self._past_bars = past
        self._past: list[_Minute] | None = None
        self._unit = 10 ** SIZE_DECIMALS[coin]
        self._minutes = [_Minute(first_ms, self._first_price)]

    @property
    def open_ms(self) -> int:
        """When the current minute began."""
        return self._minutes[-1].t

    def roll(self, open_ms: int) -> Iterator[int]:
        """Go on to the minute that began at `open_ms`; yield each new minute on the way when it has begun."""
        while self._minutes[-1].t < open_ms:
            last = self._minutes[-1]
            self._minutes.append(_Minute(last.t + MINUTE_MS, last.close))
            yield self._minutes[-1].t

    def add(self, price: float, size: float) -> None:
        """Add a trade to the current minute."""
        self._minutes[-1].add(price, round(size * self._unit))

    def current(self, interval: str) -> Candle:
        """Return the candle in the making."""
        return self._build(interval, self._minutes[-1].t)[-1]

    def snapshot(self, interval: str, start_ms: int, end_ms: int) -> list[Candle]:
        """Return the newest 5,000 candles between the times, as the venue does."""
        step = INTERVALS[interval] * MINUTE_MS
        start = max(start_ms, self._minutes[-1].t - SNAPSHOT_LIMIT * step) // step * step
        candles = [c for c in self._build(interval, start) if c["t"] <= end_ms]
        if self._closed_only:
            candles = [c for c in candles if c["T"] < self.open_ms]
        return candles[-SNAPSHOT_LIMIT:]

    def _build(self, interval: str, start_ms: int) -> list[Candle]:
        step = INTERVALS[interval] * MINUTE_MS
        start = start_ms // step * step
        minutes = self._minutes[max(0, (start - self._first_ms) // MINUTE_MS) :]
        if start < self._first_ms:
            minutes = [m for m in self._history() if m.t >= start] + minutes
        candles: list[Candle] = []
        group: list[_Minute] = []
        for i, minute in enumerate(minutes):
            group.append(minute)
            if i + 1 == len(minutes) or (minute.t + MINUTE_MS) % step == 0:
                candles.append(self._candle(interval, minute.t // step * step, step, group))
                group = []
        return candles

    def _candle(self, interval: str, t: int, step: int, minutes: "list[_Minute]") -> Candle:
        return {
            "t": t,
            "T": t + step - 1,
            "s": self.coin,
            "i": interval,
            "o": price_text(self.coin, minutes[0].open),
            "c": price_text(self.coin, minutes[-1].close),
            "h": price_text(self.coin, max(m.high for m in minutes)),
            "l": price_text(self.coin, min(m.low for m in minutes)),
            "v": size_text(self.coin, sum(m.volume for m in minutes) / self._unit),
            "n": sum(m.trades for m in minutes),
        }

    def _history(self) -> "list[_Minute]":
        """Return the minutes before the first trade: the past's bars, backwards from where live prices begin."""
        if self._past is None:
            bars = self._past_bars(self.coin)
            past: list[_Minute] = []
            t, close = self._first_ms, self._first_price
            while len(past) < _PAST_MINUTES:
                for opened, high, low, closed, volume in reversed(bars):
                    t, scale = t - MINUTE_MS, close / closed
                    minute = _Minute(t, self._round(opened * scale))
                    for price in (high * scale, low * scale, close):
                        minute.add(self._round(price), 0)
                    minute.volume, minute.trades = round(volume * self._unit), max(1, round(volume))
                    past.append(minute)
                    close = minute.open
                    if len(past) == _PAST_MINUTES:
                        break
            self._past = past[::-1]
        return self._past

    def _round(self, price: float) -> float:
        return float(price_text(self.coin, price))


class _Minute:
    __slots__ = ("close", "high", "low", "open", "t", "trades", "volume")

    def __init__(self, t: int, price: float) -> None:
        self.t = t
        self.open = self.high = self.low = self.close = price
        self.volume = self.trades = 0  # in the smallest units, so that sums are exact

    def add(self, price: float, volume: int) -> None:
        if self.trades == 0 and volume:  # a minute opens at its first trade; without any it is flat
            self.open = self.high = self.low = price
        self.close = price
        self.high, self.low = max(self.high, price), min(self.low, price)
        self.volume += volume
        self.trades += volume > 0
