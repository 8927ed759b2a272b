"""What is known of the market now, live: whether it is fresh, and at what price a position can be closed."""

from collections import Counter
from collections.abc import Mapping

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.nautilus.model import (
    BarType,
    ClientOrderId,
    InstrumentId,
    OrderSide,
    Quantity,
    QuoteTick,
    TimeInForce,
)
from ml4t_actor.nautilus.trading import Order, Strategy
from ml4t_actor.strategy.orders.trade import Plan

_BAR_DELAY_NS = 10_000_000_000
_STALE_QUOTE_SLIPPAGE = 0.05


class LiveMarket:
    """Quotes and bars as far as they are fresh, by when they came.

    Parameters
    ----------
    strategy : Strategy
        For its cache, clock and orders.
    max_quote_age : float
        Seconds after which a quote is not fresh any more.
    counts : Counter[str]
        Of bars that were ignored.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    """

    def __init__(
        self,
        strategy: Strategy,
        max_quote_age: float,
        counts: Counter[str],
        bar_types: Mapping[InstrumentId, BarType],
    ) -> None:
        self._strategy, self._counts, self._bar_types = strategy, counts, bar_types
        self._max_quote_age_ns = int(max_quote_age * SECOND_NS)
        self._last_close_ns: dict[InstrumentId, int] = {}
        self._bar_arrival_ns: dict[InstrumentId, int] = {}

    def subscribe(self, instrument_id: InstrumentId) -> None:
        """Subscribe to quotes; the first bar is due from now on."""
        self._bar_arrival_ns[instrument_id] = self._strategy.clock.timestamp_ns()
        self._strategy.subscribe_quote_ticks(instrument_id)

    def accept_bar(self, instrument_id: InstrumentId, closed_ns: int) -> bool:
        """Record that a bar came; whether it is newer than those before."""
        self._bar_arrival_ns[instrument_id] = self._strategy.clock.timestamp_ns()
        if closed_ns <= self._last_close_ns.get(instrument_id, 0):
            self._counts["old_bar"] += 1
            return False
        self._last_close_ns[instrument_id] = closed_ns
        return True

    def pre_trade_check(self, instrument_id: InstrumentId, plan: Plan) -> str:
        """Return why the market does not allow an entry now, or an empty string."""
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        silent_ns = self._strategy.clock.timestamp_ns() - self._bar_arrival_ns.get(instrument_id, 0)
        if silent_ns > 2 * interval_ns + _BAR_DELAY_NS:
            return "stale_bars"
        quote = self.fresh_quote(instrument_id)
        if quote is None:
            return "no_quote"
        low, high = sorted((plan.stop, plan.target))
        return "" if low < quote.bid_price <= quote.ask_price < high else "left_barriers"

    def fresh_quote(self, instrument_id: InstrumentId) -> QuoteTick | None:
        """Return the last quote if it is fresh and valid, else None."""
        quote = self._strategy.cache.quote_tick(instrument_id)
        if quote is None or self._strategy.clock.timestamp_ns() - quote.ts_init > self._max_quote_age_ns:
            return None
        return quote if 0 < quote.bid_price <= quote.ask_price else None

    def entry_price(self, instrument_id: InstrumentId, side: int) -> float | None:
        """Return what an entry would be filled at now, None without a fresh quote."""
        quote = self.fresh_quote(instrument_id)
        return None if quote is None else float(quote.ask_price if side > 0 else quote.bid_price)

    def reducing_order(
        self, instrument_id: InstrumentId, side: OrderSide, quantity: Quantity, order_id: ClientOrderId
    ) -> Order:
        """Return an order that closes at once.

        At the market, or without a fresh quote by an immediate limit order 5 % beyond the last known price: the adapter
        makes a market order an immediate limit order 0.5 % beyond the quote in the cache, however old, and sends none
        where there is no quote at all.
        """
        factory = self._strategy.order_factory
        price = self._last_price(instrument_id)
        if price is None or self.fresh_quote(instrument_id) is not None:
            return factory.market(instrument_id, side, quantity, reduce_only=True, client_order_id=order_id)
        instrument = self._strategy.cache.instrument(instrument_id)
        limit = price * (
            1.0 + _STALE_QUOTE_SLIPPAGE if side == OrderSide.BUY else 1.0 - _STALE_QUOTE_SLIPPAGE
        )
        return factory.limit(
            instrument_id,
            side,
            quantity,
            instrument.make_price(limit),
            time_in_force=TimeInForce.IOC,
            reduce_only=True,
            client_order_id=order_id,
        )

    def _last_price(self, instrument_id: InstrumentId) -> float | None:
        """Return the newer of the last quote's middle and the last bar's close, else what a position was entered at."""
        cache = self._strategy.cache
        quote, bar = cache.quote_tick(instrument_id), cache.bar(self._bar_types[instrument_id])
        if quote is not None and (bar is None or quote.ts_init >= bar.ts_init):
            return (float(quote.bid_price) + float(quote.ask_price)) / 2
        if bar is not None:
            return float(bar.close)
        entered = (float(p.avg_px_open) for p in cache.positions_open(instrument_id=instrument_id))
        return next((price for price in entered if price > 0.0), None)
