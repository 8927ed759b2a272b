"""In place of Nautilus's adapter for Hyperliquid: sends what it sends, and reports what it reports.

Restated from its source (1.231.0) and from what it was seen to report on the stand-in: open orders come as limit orders
without a trigger; a query without the venue's id finds open orders only; a fill that is learnt by a query has no price;
an order that was not answered stays submitted.
"""

import asyncio
import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.core.nautilus_pyo3 import ClientOrderId as CloidSource
from nautilus_trader.core.nautilus_pyo3 import hyperliquid_cloid_from_client_order_id
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.reports import FillReport, OrderStatusReport, PositionStatusReport
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.model.currencies import USDC
from nautilus_trader.model.enums import (
    AccountType,
    LiquiditySide,
    OmsType,
    OrderSide,
    OrderStatus,
    OrderType,
    PositionSide,
    TimeInForce,
)
from nautilus_trader.model.identifiers import (
    AccountId,
    ClientId,
    ClientOrderId,
    InstrumentId,
    TradeId,
    Venue,
    VenueOrderId,
)
from nautilus_trader.model.objects import AccountBalance, MarginBalance, Money, Price, Quantity

from examples.venue.orders import COINS
from examples.venue.payloads import Action, OrderRequest
from examples.venue.tape import price_text
from tests.support.order_histories.venue import VenueModel

VENUE = Venue("HYPERLIQUID")
ACCOUNT = AccountId("HYPERLIQUID-master")
_SLIPPAGE = Decimal("0.005")
_MARKET_TYPES = (OrderType.MARKET, OrderType.STOP_MARKET, OrderType.MARKET_IF_TOUCHED)
_STATUSES = {
    "open": OrderStatus.ACCEPTED,
    "waiting": OrderStatus.ACCEPTED,
    "triggered": OrderStatus.TRIGGERED,
    "filled": OrderStatus.FILLED,
    "iocCancelRejected": OrderStatus.REJECTED,
}


def instrument_id(coin: str) -> InstrumentId:
    """Return the coin's instrument."""
    return InstrumentId.from_str(f"{coin}-USD-PERP.HYPERLIQUID")


def cloid(client_order_id: str) -> str:
    """Return what the venue knows an order by."""
    return str(hyperliquid_cloid_from_client_order_id(CloidSource(client_order_id)))


class ModelClient(LiveExecutionClient):
    """The execution client.

    Parameters
    ----------
    venue : VenueModel
        Where it sends to.
    **parts : object
        Of the base class: loop, bus, cache and clock.
    """

    def __init__(self, venue: VenueModel, provider: InstrumentProvider, **parts: Any) -> None:
        super().__init__(
            client_id=ClientId("HYPERLIQUID"),
            venue=VENUE,
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            base_currency=None,
            instrument_provider=provider,
            **parts,
        )
        self._set_account_id(ACCOUNT)
        self._model, self._model_clock = venue, parts["clock"]
        self._accepted: set[str] = set()
        self._terminal: set[str] = set()
        self._trades: set[str] = set()
        self._cloids: dict[str, str] = {}
        self.on_sent: Callable[[OrderRequest], None] = lambda request: None

    async def _connect(self) -> None:
        await self._update_account()
        await self._await_account_registered(log_registered=False)
        for order in self._cache.orders(venue=VENUE):
            if not order.is_closed:
                self._cloids[cloid(order.client_order_id.value)] = order.client_order_id.value
        self._connection = self._model.connect(self._on_user_message)

    async def _disconnect(self) -> None:
        await asyncio.sleep(1.0)
        self._model.disconnect()

    async def _update_account(self) -> None:
        state: Any = await self._model.info(self._model.exchange.clearinghouse)
        summary = state["crossMarginSummary"]
        total, free = Decimal(summary["totalRawUsd"]), Decimal(state["withdrawable"])
        total = max(total, free) if total >= 0 else total  # as it was seen to, whatever it means
        balance = AccountBalance(Money(total, USDC), Money(total - free, USDC), Money(free, USDC))
        used = Money(Decimal(summary["totalMarginUsed"]), USDC)
        margins = [MarginBalance(used, used)] if used.as_decimal() else []
        self.generate_account_state([balance], margins, True, self._model_clock.timestamp_ns())

    async def _query_account(self, command: object) -> None:
        try:
            await self._update_account()
        except Exception as e:
            self._log.error(f"Failed to query account state: {e}")

    # Orders out

    async def _submit_order(self, command: Any) -> None:
        order = command.order
        if order.is_closed:
            return
        self.generate_order_submitted(
            order.strategy_id, order.instrument_id, order.client_order_id, self._model_clock.timestamp_ns()
        )
        key = order.client_order_id.value
        self._cloids[cloid(key)] = key
        try:
            request = self._request(order)
            self.on_sent(request)
            answer: Any = await self._model.post(
                self._connection, {"type": "order", "orders": [request], "grouping": "na"}
            )
        except (TimeoutError, OSError):
            return  # it may have arrived: awaits what the WebSocket or a query says
        except ValueError as e:
            self._reject(order, str(e))
            return
        status = answer["response"]["data"]["statuses"][0]
        if "error" in status:
            self._reject(order, status["error"])
        elif "resting" in status:
            self._accept(order, VenueOrderId(str(status["resting"]["oid"])))
        elif "filled" in status:
            self._terminal.add(key)  # the fill itself comes by the user's events

    async def _submit_order_list(self, command: Any) -> None:
        raise NotImplementedError("the live strategy sends no order lists")

    async def _modify_order(self, command: Any) -> None:
        raise NotImplementedError("the live strategy modifies no orders")

    async def _cancel_order(self, command: Any) -> None:
        order = self._cache.order(command.client_order_id)
        key = command.client_order_id.value
        sent = key if key.startswith("0x") and len(key) == 34 else cloid(key)
        coin = COINS.index(command.instrument_id.symbol.value.split("-")[0])
        action: Action = {"type": "cancelByCloid", "cancels": [{"asset": coin, "cloid": sent}]}  # type: ignore[typeddict-unknown-key]
        try:
            answer: Any = await self._model.post(self._connection, action)
        except (TimeoutError, OSError):
            return
        status = answer["response"]["data"]["statuses"][0]
        if status != "success":
            self.generate_order_cancel_rejected(
                command.strategy_id,
                command.instrument_id,
                command.client_order_id,
                order.venue_order_id if order is not None else command.venue_order_id,
                status["error"],
                self._model_clock.timestamp_ns(),
            )

    def _request(self, order: Any) -> OrderRequest:
        price: Decimal = order.price.as_decimal() if order.has_price else self._market_price(order)
        request = {
            "a": COINS.index(order.instrument_id.symbol.value.split("-")[0]),
            "b": order.side == OrderSide.BUY,
            "p": str(_five_digits(price)),
            "s": str(order.quantity),
            "r": order.is_reduce_only,
            "c": cloid(order.client_order_id.value),
        }
        if order.order_type in (OrderType.STOP_MARKET, OrderType.STOP_LIMIT):
            trigger = str(_five_digits(order.trigger_price.as_decimal()))
            is_market = order.order_type == OrderType.STOP_MARKET
            return request | {"t": {"trigger": {"triggerPx": trigger, "isMarket": is_market, "tpsl": "sl"}}}
        immediate = order.order_type == OrderType.MARKET or order.time_in_force == TimeInForce.IOC
        return request | {"t": {"limit": {"tif": "Ioc" if immediate else "Gtc"}}}

    def _market_price(self, order: Any) -> Decimal:
        """Return the price 0.5 % beyond trigger or quote, however old that is."""
        buy = order.side == OrderSide.BUY
        if order.order_type == OrderType.STOP_MARKET:
            base = order.trigger_price.as_decimal()
        else:
            quote = self._cache.quote_tick(order.instrument_id)
            if quote is None:
                raise ValueError(f"No cached quote available for {order.instrument_id}")
            base = (quote.ask_price if buy else quote.bid_price).as_decimal()
        price = _five_digits(base * (1 + _SLIPPAGE if buy else 1 - _SLIPPAGE))
        step = Decimal(1).scaleb(-self._cache.instrument(order.instrument_id).price_precision)
        return price.quantize(step, ROUND_CEILING if buy else ROUND_FLOOR).normalize()

    # Events in

    def _on_user_message(self, message: Any) -> None:
        if message["channel"] == "user":
            for fill in message["data"]["fills"]:
                self._on_fill(fill)
        else:
            for update in message["data"]:
                self._on_update(update)

    def _on_update(self, update: Any) -> None:
        venue_order_id = VenueOrderId(str(update["order"]["oid"]))
        order = self._own(update["order"].get("cloid"), venue_order_id)
        status = _STATUSES.get(update["status"], OrderStatus.CANCELED)
        if order is None:
            report = self._order_report(update["order"]["oid"])
            report.price = Price(
                Decimal(update["order"]["limitPx"]),
                self._cache.instrument(report.instrument_id).price_precision,
            )
            self._send_order_status_report(report)
        elif status == OrderStatus.ACCEPTED:
            self._accept(order, venue_order_id)
        elif status == OrderStatus.FILLED:
            self._terminal.add(order.client_order_id.value)
        elif status == OrderStatus.REJECTED:
            self._reject(order, update["status"])
        elif status == OrderStatus.CANCELED and order.client_order_id.value not in self._terminal:
            self._terminal.add(order.client_order_id.value)
            self.generate_order_canceled(
                order.strategy_id,
                order.instrument_id,
                order.client_order_id,
                venue_order_id,
                self._model_clock.timestamp_ns(),
            )
        elif status == OrderStatus.TRIGGERED and order.order_type == OrderType.STOP_LIMIT:
            self.generate_order_triggered(
                order.strategy_id,
                order.instrument_id,
                order.client_order_id,
                venue_order_id,
                self._model_clock.timestamp_ns(),
            )

    def _on_fill(self, fill: Any) -> None:
        report = self._fill_report(fill)
        if report.trade_id.value in self._trades:
            return
        self._trades.add(report.trade_id.value)
        order = self._own(fill["cloid"], report.venue_order_id)
        if order is None:
            self._send_fill_report(report)
            return
        self._accept(order, report.venue_order_id)
        instrument = self._cache.instrument(order.instrument_id)
        self.generate_order_filled(
            strategy_id=order.strategy_id,
            instrument_id=order.instrument_id,
            client_order_id=order.client_order_id,
            venue_order_id=report.venue_order_id,
            venue_position_id=None,
            trade_id=report.trade_id,
            order_side=order.side,
            order_type=order.order_type,
            last_qty=report.last_qty,
            last_px=report.last_px,
            quote_currency=instrument.quote_currency,
            commission=report.commission,
            liquidity_side=report.liquidity_side,
            ts_event=report.ts_event,
        )

    def _own(self, sent: str | None, venue_order_id: VenueOrderId) -> Any | None:
        """Return the order in the cache, None where no strategy has it."""
        key = ClientOrderId(self._cloids.get(sent, sent)) if sent else None
        if key is None or not self._cache.strategy_id_for_order(key):
            key = self._cache.client_order_id(venue_order_id)
        return None if key is None else self._cache.order(key)

    def _accept(self, order: Any, venue_order_id: VenueOrderId) -> None:
        key = order.client_order_id.value
        if key in self._accepted or key in self._terminal:
            return
        self._accepted.add(key)
        self.generate_order_accepted(
            order.strategy_id,
            order.instrument_id,
            order.client_order_id,
            venue_order_id,
            self._model_clock.timestamp_ns(),
        )

    def _reject(self, order: Any, reason: str) -> None:
        key = order.client_order_id.value
        if key in self._terminal:
            return
        self._terminal.add(key)
        self.generate_order_rejected(
            order.strategy_id, order.instrument_id, order.client_order_id, reason, self._model_clock.timestamp_ns()
        )  # fmt: skip

    # Reports

    async def generate_order_status_report(self, command: Any) -> OrderStatusReport | None:
        orders = self._model.exchange.orders
        try:
            if command.venue_order_id is not None:
                oid = int(command.venue_order_id.value)
                return await self._model.info(lambda: self._order_report(oid) if oid in orders else None)
            sent = cloid(command.client_order_id.value)

            def read() -> OrderStatusReport | None:
                found = [o.oid for o in orders.values() if o.cloid == sent and o.is_open]
                return self._order_report(found[0]) if found else None

            return await self._model.info(read)
        except ValueError as e:
            self._log.error(f"Failed to generate OrderStatusReport: {e}")
            return None

    async def generate_order_status_reports(self, command: Any) -> list[OrderStatusReport]:
        orders = self._model.exchange.orders
        return await self._list(lambda: [self._order_report(o.oid) for o in orders.values() if o.is_open])

    async def generate_fill_reports(self, command: Any) -> list[FillReport]:
        return await self._list(lambda: [self._fill_report(fill) for fill in self._model.exchange.fills])

    async def generate_position_status_reports(self, command: Any) -> list[PositionStatusReport]:
        def read() -> list[PositionStatusReport]:
            wanted = command.instrument_id
            held = [(instrument_id(coin), coin, *at) for coin, at in self._model.exchange.positions.items()]
            return [
                self._position_report(i, size, Decimal(price_text(coin, float(entry))))
                for i, coin, size, entry in held
                if wanted in (None, i)
            ]

        return await self._list(read)

    async def _list[T](self, read: Callable[[], list[T]]) -> list[T]:
        try:
            return await self._model.info(read)
        except ValueError as e:
            self._log.error(f"Failed to generate reports: {e}")
            return []

    def _order_report(self, oid: int) -> OrderStatusReport:
        order, now = self._model.exchange.orders[oid], self._model_clock.timestamp_ns()
        status = _STATUSES.get(order.status, OrderStatus.CANCELED)
        known = None if order.cloid is None else ClientOrderId(self._cloids.get(order.cloid, order.cloid))
        instrument = self._cache.instrument(instrument_id(order.coin))
        venue_order_id = VenueOrderId(str(oid))
        if known is None or not self._cache.strategy_id_for_order(known):
            known = self._cache.client_order_id(venue_order_id) or known
        return OrderStatusReport(
            account_id=ACCOUNT,
            instrument_id=instrument.id,
            venue_order_id=venue_order_id,
            order_side=OrderSide.BUY if order.is_buy else OrderSide.SELL,
            order_type=OrderType.LIMIT,
            time_in_force=TimeInForce.GTC,
            order_status=status,
            quantity=instrument.make_qty(order.size),
            filled_qty=instrument.make_qty(order.size - order.left),
            report_id=UUID4(),
            ts_accepted=order.placed_ms * 1_000_000,
            ts_last=order.changed_ms * 1_000_000,
            ts_init=now,
            client_order_id=known,
            price=Price(order.price, instrument.price_precision) if order.is_open else None,
            reduce_only=order.reduce_only,
        )

    def _fill_report(self, fill: Any) -> FillReport:
        instrument = self._cache.instrument(instrument_id(fill["coin"]))
        venue_order_id = VenueOrderId(str(fill["oid"]))
        return FillReport(
            account_id=ACCOUNT,
            instrument_id=instrument.id,
            venue_order_id=venue_order_id,
            trade_id=TradeId(str(fill["tid"])),
            order_side=OrderSide.BUY if fill["side"] == "B" else OrderSide.SELL,
            last_qty=Quantity(Decimal(fill["sz"]), instrument.size_precision),
            last_px=Price(Decimal(fill["px"]), instrument.price_precision),
            commission=Money(Decimal(fill["fee"]), USDC),
            liquidity_side=LiquiditySide.TAKER if fill["crossed"] else LiquiditySide.MAKER,
            report_id=UUID4(),
            ts_event=fill["time"] * 1_000_000,
            ts_init=self._model_clock.timestamp_ns(),
            client_order_id=self._cache.client_order_id(venue_order_id),
        )

    def _position_report(self, of: InstrumentId, size: Decimal, entry: Decimal) -> PositionStatusReport:
        instrument, now = self._cache.instrument(of), self._model_clock.timestamp_ns()
        return PositionStatusReport(
            account_id=ACCOUNT,
            instrument_id=of,
            position_side=PositionSide.LONG if size > 0 else PositionSide.SHORT,
            quantity=Quantity(abs(size), instrument.size_precision),
            report_id=UUID4(),
            ts_last=now,
            ts_init=now,
            avg_px_open=entry,
        )


def _five_digits(value: Decimal) -> Decimal:
    """Round as the adapter does: the venue takes five significant digits."""
    factor = Decimal(10) ** (4 - math.floor(math.log10(abs(float(value)))))
    return (value * factor).quantize(Decimal(1)) / factor
