"""A venue's spread and the slippage of stops, and the quotes at which orders meet the next price."""

from collections.abc import Sequence

from nautilus_trader.backtest.config import FillModelConfig, SimulationModuleConfig
from nautilus_trader.backtest.models import FillModel
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.component import Logger, TimeEvent
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.core.data import Data
from nautilus_trader.core.message import Event
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import Bar, BookOrder, QuoteTick
from nautilus_trader.model.enums import BookType, OrderSide, OrderType
from nautilus_trader.model.events import OrderPendingCancel, OrderPendingUpdate, OrderSubmitted
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Price
from nautilus_trader.model.orders import Order

MIN_LATENCY_NS = (
    1_000  # an order that is as late as a quote at the open could come before another market's quote
)
ARRIVALS = 3
"""How many latencies one bar has to have room for."""

_TAKING = (OrderType.MARKET, OrderType.STOP_MARKET)


class FrictionConfig(FillModelConfig, frozen=True):
    """Configures `FrictionFillModel`.

    Parameters
    ----------
    spread_bp, stop_slippage_bp : float, default 0.0
        As in `TradingCosts`.
    """

    spread_bp: float = 0.0
    stop_slippage_bp: float = 0.0


class ArrivalsConfig(ActorConfig, frozen=True):
    """Configures `Arrivals`.

    Parameters
    ----------
    latency_ns : int
        Of the venue's latency model, nanoseconds.
    """

    latency_ns: int


class FrictionFillModel(FillModel):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Fills market orders half a spread from the price, and stops beyond their trigger besides.

    Bars have one price at a time, which Nautilus takes for bid and ask. A stop that a bar ran through is filled at its
    trigger, one that price jumped over at the open behind the gap (`Opens` knows it), each made worse by slippage
    and half the spread. Limit orders wait for the price, and are filled at their own, as Nautilus does. Prices are
    rounded to the instrument's precision.
    """

    def __init__(self, config: FrictionConfig) -> None:
        super().__init__(config=config)
        self._half_spread = 0.5e-4 * config.spread_bp
        self._slippage = 1e-4 * config.stop_slippage_bp
        self.opens: dict[InstrumentId, float] = {}
        self.closes: dict[InstrumentId, float] = {}

    def get_orderbook_for_fill_simulation(
        self, instrument: Instrument, order: Order, best_bid: Price, best_ask: Price
    ) -> OrderBook | None:
        """Return a book of one level on the order's other side, or None where the order is filled as ever."""
        if order.order_type not in _TAKING:
            return None
        buys = order.side == OrderSide.BUY
        price, worse = (best_ask.as_double(), 1.0) if buys else (best_bid.as_double(), -1.0)
        share = self._half_spread
        if (
            order.order_type == OrderType.MARKET
        ):  # after a target is filled Nautilus's quote may stay there for a while
            price = self.closes.get(instrument.id, price)
        else:
            furthest = max if buys else min
            opened = self.opens.get(instrument.id, price)
            price = furthest(order.trigger_price.as_double(), opened)
            share += self._slippage
        book = OrderBook(instrument.id, BookType.L2_MBP)
        other_side = OrderSide.SELL if buys else OrderSide.BUY
        level = instrument.make_price(price * (1.0 + worse * share))
        book.add(BookOrder(other_side, level, order.quantity, 1), 0, 0)
        return book


class Opens(SimulationModule):  # type: ignore[misc]
    """Tells the venue's `FrictionFillModel` each bar's open and close, and each quote, before the venue handles it."""

    def __init__(self, config: SimulationModuleConfig | None = None) -> None:
        super().__init__(config or SimulationModuleConfig())

    def pre_process(self, data: Data) -> None:
        """Keep what a stop is filled at that price jumps over, and what a market order is that comes afterwards."""
        model = self.exchange.fill_model
        if isinstance(data, Bar):
            instrument_id = data.bar_type.instrument_id
            model.opens[instrument_id], model.closes[instrument_id] = (
                data.open.as_double(),
                data.close.as_double(),
            )
        elif isinstance(data, QuoteTick):
            model.opens[data.instrument_id] = model.closes[data.instrument_id] = data.bid_price.as_double()

    def process(self, ts_now: int) -> None:
        """Do nothing: fills are made by the venue."""

    def log_diagnostics(self, logger: Logger) -> None:
        """Log nothing."""

    def reset(self) -> None:
        """Forget all prices."""
        self.exchange.fill_model.opens.clear()
        self.exchange.fill_model.closes.clear()


class Arrivals(Actor):  # type: ignore[misc]
    """Lets what is sent at a bar's close reach a late venue when it is due, not with the next data after that.

    Nautilus looks at what is on its way when data or a timer come. A timer that is set while it does so after the last
    one before the next data would come too late: so there are as many from the beginning as one thing may need that
    leads to another, an exit, the entry that waited for it, and the exit that follows where its stop is refused.
    """

    def __init__(self, config: ArrivalsConfig) -> None:
        super().__init__(config)
        self._latency_ns = config.latency_ns
        self._due: tuple[int, ...] = ()

    def on_start(self) -> None:
        """Listen to what strategies send."""
        self.msgbus.subscribe(topic="events.order.*", handler=self._expect)

    def on_stop(self) -> None:
        """Send nothing on: the engine ends with this time."""
        self.msgbus.unsubscribe(topic="events.order.*", handler=self._expect)

    def _expect(self, event: Event) -> None:
        if not isinstance(event, OrderSubmitted | OrderPendingCancel | OrderPendingUpdate):
            return
        now = self.clock.timestamp_ns()
        if now in self._due:  # it follows from what came first
            return
        due = tuple(now + self._latency_ns * n for n in range(1, ARRIVALS + 1))
        if due != self._due:
            self._due = due
            for ts in due:
                self.clock.set_time_alert_ns(f"arrival {ts}", ts, callback=self._arrive)

    def _arrive(self, event: TimeEvent) -> None:
        """Do nothing: the engine looks at the venue after each timer."""


def opening_quotes(bars: Sequence[Bar], instrument: Instrument, interval_ns: int) -> list[QuoteTick]:
    """Return a quote at each bar's open, one nanosecond after the close before: what a late order is filled at.

    Parameters
    ----------
    bars : sequence of Bar
        Of one instrument, stamped at their closes.
    instrument : Instrument
        The instrument.
    interval_ns : int
        The bars' length, nanoseconds.
    """
    smallest = instrument.size_increment
    quotes = []
    for bar in bars:
        ts, size = bar.ts_event - interval_ns + 1, max(bar.volume, smallest)
        quotes.append(QuoteTick(instrument.id, bar.open, bar.open, size, size, ts, ts))
    return quotes
