"""The stub's market: the tape played on the present clock, and the books, trades and candles that come of it."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial

from examples.venue.candles import INTERVALS, CandleClock, Candles
from examples.venue.orders import Top
from examples.venue.payloads import Bbo, Book, Level, Message, Trade
from examples.venue.tape import SIZE_DECIMALS, Event, Tape, price_text

RECENT_TRADES = 50
"""How many trades are remembered, to be replayed on subscribing."""


class Market:
    """Plays the tape over and over; `publish` is called with what a subscriber of a channel is to get.

    Attributes
    ----------
    paused : bool
        Play nothing; time goes on.
    without : set[str]
        Channels on which nothing is sent.
    duplicates : int
        Send each message of trades that many more times.
    skip : dict[str, int]
        So many of a coin's next candles are not streamed.
    """

    def __init__(
        self,
        tape: Tape,
        clock: CandleClock,
        publish: Callable[[str, Message | Callable[[], Message]], Awaitable[None]],
        moved: Callable[[str], None],
        speed: float = 1.0,
    ) -> None:
        self.tape = tape
        self.paused = False
        self.without: set[str] = set()
        self.duplicates = 0
        self.skip = dict.fromkeys(SIZE_DECIMALS, 0)
        self.factor = dict.fromkeys(SIZE_DECIMALS, 1.0)
        self.trades: dict[str, deque[Trade]] = {coin: deque(maxlen=RECENT_TRADES) for coin in SIZE_DECIMALS}
        self.books: dict[str, Book] = {}
        self.loops = 0
        self._clock, self._publish, self._moved, self._speed = clock, publish, moved, speed
        self._last: dict[str, str] = {}
        self._bbo: dict[str, list[Level]] = {}
        first = tape.first_prices()
        self.candles = {
            coin: Candles(coin, clock.first_ms, first[coin], tape.minute_bars, closed_only=clock.is_virtual)
            for coin in SIZE_DECIMALS
        }
        for coin, price in first.items():
            self._last[coin] = price_text(coin, price)
        for event in tape.events():  # so that there is a book from the start
            if not isinstance(event.data, list):
                self._set_book(event.coin, event.data, time.time() * 1e3)
            if len(self.books) == len(first):
                break

    def top(self, coin: str) -> Top:
        """Return the best prices, and the last trade's."""
        bids, asks = self.books[coin]["levels"]
        return Top(Decimal(bids[0]["px"]), Decimal(asks[0]["px"]), Decimal(self._last[coin]))

    def mids(self) -> dict[str, str]:
        """Return the mid price of each coin."""
        return {c: price_text(c, float(t.bid + t.ask) / 2) for c in self.books if (t := self.top(c))}

    def bbo(self, coin: str) -> Bbo:
        """Return the message of the channel `bbo`."""
        book = self.books[coin]
        return {"coin": coin, "time": book["time"], "bbo": [levels[0] for levels in book["levels"]]}

    async def move(self, coin: str, factor: float) -> None:
        """Multiply the coin's prices by `factor` from now on, and trade once there."""
        self.factor[coin] *= factor
        now = time.time() * 1e3
        book = self.books[coin]
        levels = [[_scaled(coin, level, factor) for level in side] for side in book["levels"]]
        self.books[coin] = {"coin": coin, "time": int(now), "levels": levels}
        if self.trades[coin]:
            trade = _scaled(coin, self.trades[coin][-1], factor)
            trade["time"], trade["tid"] = int(now), trade["tid"] + 1
            await self._on_trades(coin, [trade], now)
        else:
            self._last[coin] = price_text(coin, float(self._last[coin]) * factor)
        await self._publish_book(coin)
        self._moved(coin)

    async def play(self) -> None:
        """Play the tape without end."""
        started = time.monotonic()
        while True:
            passed = self.loops * self.tape.duration_ms
            for event in self.tape.events():
                due = started + (passed + event.offset_ms) / self._speed / 1e3
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if not self.paused:
                    await self._on_event(event)
            self.loops += 1

    async def roll(self) -> None:
        """Begin a candle whenever it is time, trade or no trade."""
        while True:
            now = time.time() * 1e3
            await self._roll(now)
            await asyncio.sleep(self._clock.until_next_s(now))

    async def _on_event(self, event: Event) -> None:
        now, coin = time.time() * 1e3, event.coin
        if isinstance(event.data, list):
            shift = now - event.lag_ms - event.data[-1]["time"]
            trades = [_scaled(coin, trade, self.factor[coin]) for trade in event.data]
            for trade in trades:
                trade["time"], trade["tid"] = int(trade["time"] + shift), (trade["tid"] + self.loops) % 2**53
            await self._on_trades(coin, trades, now)
        else:
            self._set_book(coin, event.data, now - event.lag_ms)
            await self._publish_book(coin)
        self._moved(coin)

    def _set_book(self, coin: str, book: Book, at_ms: float) -> None:
        factor = self.factor[coin]
        levels = [[_scaled(coin, level, factor) for level in side] for side in book["levels"]]
        self.books[coin] = {"coin": coin, "time": int(at_ms), "levels": levels}

    async def _publish_book(self, coin: str) -> None:
        if "l2Book" not in self.without:
            await self._publish(f"l2Book:{coin}", {"channel": "l2Book", "data": self.books[coin]})
        bbo = self.bbo(coin)
        if bbo["bbo"] != self._bbo.get(coin) and "bbo" not in self.without:
            self._bbo[coin] = bbo["bbo"]
            await self._publish(f"bbo:{coin}", {"channel": "bbo", "data": bbo})

    async def _on_trades(self, coin: str, trades: list[Trade], now: float) -> None:
        await self._roll(now)
        for trade in trades:
            self.candles[coin].add(float(trade["px"]), float(trade["sz"]))
        self._last[coin] = trades[-1]["px"]
        self.trades[coin].extend(trades)
        if "trades" not in self.without:
            for _ in range(1 + self.duplicates):
                await self._publish(f"trades:{coin}", {"channel": "trades", "data": trades})
        await self._publish_candles(coin)

    async def _roll(self, now: float) -> None:
        open_ms = self._clock.open_ms(now)
        for coin, candles in self.candles.items():
            for _ in candles.roll(open_ms):
                self.skip[coin] = max(0, self.skip[coin] - 1)
                await self._publish_candles(coin)

    async def _publish_candles(self, coin: str) -> None:
        if "candle" in self.without or self.paused or self.skip[coin]:
            return
        for interval in INTERVALS:
            # Built only if somebody listens, which `publish` knows.
            await self._publish(f"candle:{coin}:{interval}", partial(self._candle_message, coin, interval))

    def _candle_message(self, coin: str, interval: str) -> Message:
        return {"channel": "candle", "data": self.candles[coin].current(interval)}


def _scaled[T: (Level, Trade)](coin: str, quote: T, factor: float) -> T:
    """Return a copy with its price multiplied; as it was recorded where the factor is 1."""
    price = quote["px"] if factor == 1.0 else price_text(coin, float(quote["px"]) * factor)
    return {**quote, "px": price}
