"""A feed with a clock, Nautilus's real cache and everything that goes in and out kept, for tests."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import TradeId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.test_kit.stubs.component import TestComponentStubs

from ml4t_actor.feed import MarketFeed, Ports
from ml4t_actor.settings import FeedSettings

S = 1_000_000_000
MINUTE = 60 * S
SKEW = S
EPOCH = 1_753_000_020 * S  # on the minute
EXTERNAL = BarType.from_str("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL")
INTERNAL = BarType.from_str("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-INTERNAL")
COMPOSITE = BarType.from_str("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-INTERNAL@1-SECOND-EXTERNAL")
BITFINEX = BarType.from_str("BTCUSD.BITFINEX-1-MINUTE-LAST-EXTERNAL")
ID = EXTERNAL.instrument_id


def at(minute: float) -> int:
    return EPOCH + int(minute * 60) * S


def make_bar(bar_type, ts_event, ts_init=None, price=100.0, volume=1.0, high=None):
    prices = [Price(p, 1) for p in (price, price if high is None else high, price, price)]
    return Bar(bar_type, *prices, Quantity(volume, 2), ts_event, ts_event if ts_init is None else ts_init)


def make_trade(number, ts, ts_init=None, instrument_id=ID, size=1.0):
    side = AggressorSide.BUYER if number % 2 else AggressorSide.SELLER
    return TradeTick(
        instrument_id, Price(100.0, 1), Quantity(size, 2), side, TradeId(str(number)), ts, ts_init or ts
    )


class _Cache:
    """Nautilus's cache, through a port that can be made to fail."""

    def __init__(self, cache, port: Callable[..., Any]) -> None:
        self.bar = port("cache", cache.bar)
        self.trade_tick = port("cache", cache.trade_tick)


@dataclass
class Rig:
    """A feed with a clock, Nautilus's cache, and everything that goes in and out kept."""

    bar_type: BarType = EXTERNAL
    live: bool = True
    trades: bool = False
    now: int = at(0)
    last_close: int = 0
    last_trade: int = 0
    warmup: int = 10
    settings: FeedSettings = field(default_factory=FeedSettings)

    def __post_init__(self):
        self.cache = TestComponentStubs.cache()
        self.given_bars: list[tuple[int, Bar, bool, int]] = []
        self.given_trades: list[tuple[TradeTick, int]] = []
        self.order: list[Bar | TradeTick] = []
        self.requests: list[tuple[BarType, int, object, int]] = []
        self.counts: Counter[str] = Counter()
        self.accept = lambda bar: True
        self._failing: set[str] = set()
        self.feed = MarketFeed(
            [self.bar_type],
            self.settings,
            Ports(
                cache=_Cache(self.cache, self._port),
                now=self._port("now", lambda: self.now),
                on_bar=self._port("on_bar", lambda *given: self.on_bar(*given)),
                on_trade=self._port("on_trade", lambda *given: self.on_trade(*given)),
                last_close=self._port("last_close", lambda _: max([self.last_close, *self.closes])),
                last_trade_ns=self._port("last_trade_ns", lambda _: self.last_trade),
                request_bars=self._port("request_bars", lambda *given: self.request_bars(*given)),
                report_problem=self._port("report_problem", lambda *given: self.report_problem(*given)),
                warmup_bars=self._port("warmup_bars", lambda _: self.warmup),
            ),
            trades=self.trades,
            live=self.live,
            max_clock_skew_ns=SKEW,
        )

    def _port(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name in self._failing:
                raise RuntimeError(f"planted in {name}")
            return function(*args)

        return call

    def fail_in(self, *ports: str) -> None:
        """Let everything that the feed is connected to by these names raise from now on, and nothing else."""
        assert {*ports} <= {port.name for port in fields(Ports)}
        self._failing = {*ports}

    @property
    def instrument_id(self):
        return self.bar_type.instrument_id

    @property
    def closes(self):
        return [close for close, _, _, _ in self.given_bars]

    @property
    def standing(self):
        return [close for close, _, stands, _ in self.given_bars if stands]

    @property
    def trade_ids(self):
        return [int(tick.trade_id.value) for tick, _ in self.given_trades]

    @property
    def warming(self):
        return self.feed.is_warming_up(self.instrument_id)

    # What the feed is connected to; a test may put another function in its place.

    def request_bars(self, bar_type, start, done):
        self.requests.append((bar_type, start, done, self.now))

    def report_problem(self, kind, _message):
        self.counts[kind] += 1

    def on_trade(self, tick, ts):
        self.given_trades.append((tick, ts))
        self.order.append(tick)

    def on_bar(self, instrument_id, close, bar, stands):
        assert instrument_id == self.instrument_id
        if not self.accept(bar):
            return False
        self.given_bars.append((close, bar, stands, self.now))
        self.order.append(bar)
        return True

    def live_bar(self, close, *, deliver=True, **kwargs):
        """Let a bar that closed at `close` arrive now, stamped as its source does."""
        at_open = (
            self.live and self.bar_type.is_externally_aggregated() and "HYPERLIQUID" in str(self.bar_type)
        )
        bar = make_bar(self.bar_type.standard(), close - (MINUTE if at_open else 0), self.now, **kwargs)
        self.cache.add_bar(bar)
        if deliver:
            self.feed.on_bar(bar)
        return bar

    def trade(self, number, ts, *, deliver=True):
        tick = make_trade(number, ts, self.now, self.instrument_id)
        self.cache.add_trade_tick(tick)
        if deliver:
            self.feed.on_trade(tick)
        return tick

    def answer(self, closes, index=-1, **kwargs):
        """Deliver an answer as the data engine does: into the cache first, one by one, then call back."""
        bar_type, _, done, _ = self.requests[index]
        offset = MINUTE if "HYPERLIQUID" in str(bar_type) else 0
        for close in closes:
            bar = make_bar(bar_type, close - offset, **kwargs)
            self.cache.add_bar(bar)
            self.feed.on_historical_bar(bar)
        done()

    def tick_to(self, now):
        self.now = now
        self.feed.check(now)


def started(closes=(), **kwargs):
    """Return a live rig whose history has come."""
    rig = Rig(**kwargs)
    rig.feed.start()
    rig.answer([at(m) for m in closes] or [at(0)])
    return rig
