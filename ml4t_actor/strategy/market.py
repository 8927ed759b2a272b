"""What is known of the market now, live: whether it is fresh, and at what price a position can be left."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ml4t_actor.nautilus.model import BarType, InstrumentId, OrderSide, Quantity, TimeInForce
from ml4t_actor.nautilus.trading import Order, Strategy
from ml4t_actor.strategy.trade import Plan

_BAR_SLACK_NS = 10_000_000_000
_BLIND_SLIPPAGE = 0.05


class LiveMarket:
    """Quotes and bars as far as they are fresh, by when they came.

    Parameters
    ----------
    strategy : Strategy
        For its cache, clock and orders.
    counts : Counter[str]
        Of bars that were passed over.
    bar_types : Mapping[InstrumentId, BarType]
        Of each instrument.
    """

    def __init__(
        self, strategy: Strategy, counts: "Counter[str]", bar_types: Mapping[InstrumentId, BarType]
    ) -> None:
        self._strategy, self._counts, self._bar_types = strategy, counts, bar_types
        self._quote_ns = int(strategy.config.max_quote_age * 1e9)
        self._closed_ns: dict[InstrumentId, int] = {}
        self._seen_ns: dict[InstrumentId, int] = {}

    def begin(self, instrument_id: InstrumentId) -> None:
        """Subscribe to quotes, and give bars time to come."""
        self._seen_ns[instrument_id] = self._strategy.clock.timestamp_ns()
        self._strategy.subscribe_quote_ticks(instrument_id)

    def is_news(self, instrument_id: InstrumentId, closed_ns: int) -> bool:
        """Note that a bar came; whether it is newer than those before."""
        self._seen_ns[instrument_id] = self._strategy.clock.timestamp_ns()
        if closed_ns <= self._closed_ns.get(instrument_id, 0):
            self._counts["old_bar"] += 1
            return False
        self._closed_ns[instrument_id] = closed_ns
        return True

    def barred(self, instrument_id: InstrumentId, plan: Plan) -> str:
        """Return why the market does not allow an entry now, or an empty string."""
        interval_ns: int = self._bar_types[instrument_id].spec.get_interval_ns()
        silent_ns = self._strategy.clock.timestamp_ns() - self._seen_ns.get(instrument_id, 0)
        if silent_ns > 2 * interval_ns + _BAR_SLACK_NS:
            return "stale_bars"
        quote = self.quote(instrument_id)
        if quote is None:
            return "no_quote"
        low, high = sorted((plan.stop, plan.target))
        return "" if low < quote.bid_price <= quote.ask_price < high else "left_barriers"

    def quote(self, instrument_id: InstrumentId) -> Any:
        """Return the last quote if it is fresh and makes sense, else None."""
        quote = self._strategy.cache.quote_tick(instrument_id)
        if quote is None or self._strategy.clock.timestamp_ns() - quote.ts_init > self._quote_ns:
            return None
        return quote if 0 < quote.bid_price <= quote.ask_price else None

    def reducing_order(self, instrument_id: InstrumentId, side: OrderSide, quantity: Quantity) -> Order:
        """Return an order that closes at once.

        At the market, or without a fresh quote by an immediate limit order 5 % beyond the last known price: the adapter
        makes a market order an immediate limit order 0.5 % beyond the quote in the cache, however old.
        """
        factory = self._strategy.order_factory
        price = self._last_price(instrument_id)
        if price is None or self.quote(instrument_id) is not None:
            return factory.market(instrument_id, side, quantity, reduce_only=True)
        instrument = self._strategy.cache.instrument(instrument_id)
        limit = price * (1.0 + _BLIND_SLIPPAGE if side == OrderSide.BUY else 1.0 - _BLIND_SLIPPAGE)
        return factory.limit(
            instrument_id,
            side,
            quantity,
            instrument.make_price(limit),
            time_in_force=TimeInForce.IOC,
            reduce_only=True,
        )

    def _last_price(self, instrument_id: InstrumentId) -> float | None:
        """Return the newer of the last quote's middle and the last bar's close."""
        cache = self._strategy.cache
        quote, bar = cache.quote_tick(instrument_id), cache.bar(self._bar_types[instrument_id])
        if quote is not None and (bar is None or quote.ts_init >= bar.ts_init):
            return (float(quote.bid_price) + float(quote.ask_price)) / 2
        return None if bar is None else float(bar.close)
