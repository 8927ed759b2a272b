"""The live execution on a test clock, with Nautilus's own engines and a client that a test speaks for."""

import heapq
import itertools
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.config import RiskEngineConfig
from nautilus_trader.execution.client import ExecutionClient
from nautilus_trader.execution.engine import ExecutionEngine
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar, BarType, QuoteTick
from nautilus_trader.model.enums import AccountType, LiquiditySide, OmsType, OrderSide
from nautilus_trader.model.identifiers import (
    AccountId,
    ClientId,
    InstrumentId,
    TradeId,
    TraderId,
    Venue,
    VenueOrderId,
)
from nautilus_trader.model.objects import AccountBalance, Money, Price, Quantity
from nautilus_trader.model.orders import Order
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.risk.engine import RiskEngine

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.execution.live_execution import LiveExecution
from tests.support.nodes import instrument

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
VENUE = Venue("HYPERLIQUID")


def instrument_id(coin: str) -> InstrumentId:
    return InstrumentId.from_str(f"{coin}-USD-PERP.{VENUE}")


class Loop:
    """As much of an event loop as the strategy uses, on the test clock."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, Callable[..., object], tuple[object, ...]]] = []

    def call_later(self, delay_s: float, function: Callable[..., object], *arguments: object) -> None:
        due_ns = self.clock.timestamp_ns() + round(delay_s * SECOND_NS)
        heapq.heappush(self._due, (due_ns, next(self._numbers), function, arguments))

    def call_soon_threadsafe(self, function: Callable[..., object], *arguments: object) -> None:
        self.call_later(0.0, function, *arguments)

    def is_closed(self) -> bool:
        return False

    def run_until(self, end_ns: int) -> None:
        """Call what is due until then, in its order."""
        while self._due and self._due[0][0] <= end_ns:
            due_ns, _, function, arguments = heapq.heappop(self._due)
            if due_ns > self.clock.timestamp_ns():
                self._set_time(due_ns)
            function(*arguments)
        self._set_time(max(end_ns, self.clock.timestamp_ns()))

    def _set_time(self, now_ns: int) -> None:
        for handler in self.clock.advance_time(now_ns):
            handler.handle()


class Client(ExecutionClient):
    """Keeps the commands that it is given; a test says what becomes of it."""

    def __init__(self, bus: MessageBus, cache: Cache, clock: TestClock) -> None:
        super().__init__(
            client_id=ClientId(VENUE.value),
            venue=VENUE,
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            base_currency=None,
            msgbus=bus,
            cache=cache,
            clock=clock,
        )
        self.submitted: list[Order] = []
        self.cancelled: list[Order] = []
        self.queried: list[Order] = []
        self.answer: Callable[[Order], None] = lambda _order: None
        self._numbers = itertools.count(1)
        self._set_account_id(AccountId(f"{VENUE}-master"))
        self._set_connected(True)

    def submit_order(self, command: Any) -> None:
        order = command.order
        self.submitted.append(order)
        self.generate_order_submitted(
            order.strategy_id, order.instrument_id, order.client_order_id, self._now
        )
        self.answer(order)

    def cancel_order(self, command: Any) -> None:
        self.cancelled.append(self._cache.order(command.client_order_id))

    def query_order(self, command: Any) -> None:
        self.queried.append(self._cache.order(command.client_order_id))

    @property
    def _now(self) -> int:
        return self._clock.timestamp_ns()

    def report_account(self, equity: float) -> None:
        zero, total = Money(0, USDT), Money(equity, USDT)
        self.generate_account_state([AccountBalance(total, zero, total)], [], True, self._now)

    def accept(self, order: Order) -> None:
        number = VenueOrderId(f"V{next(self._numbers)}")
        self.generate_order_accepted(
            order.strategy_id, order.instrument_id, order.client_order_id, number, self._now
        )

    def reject(self, order: Order, reason: str) -> None:
        self.generate_order_rejected(
            order.strategy_id, order.instrument_id, order.client_order_id, reason, self._now
        )

    def cancel(self, order: Order) -> None:
        self.generate_order_canceled(
            order.strategy_id, order.instrument_id, order.client_order_id, order.venue_order_id, self._now
        )

    def fill(self, order: Order, price: float = 100.0, part: float = 1.0, since_s: float = 0.0) -> None:
        """Fill a part of what is left, as was done so long ago; an order that was not accepted yet is first."""
        if order.venue_order_id is None:
            self.accept(order)
        quantity = Quantity(float(order.leaves_qty) * part, order.quantity.precision)
        self.generate_order_filled(
            strategy_id=order.strategy_id,
            instrument_id=order.instrument_id,
            client_order_id=order.client_order_id,
            venue_order_id=order.venue_order_id,
            venue_position_id=None,
            trade_id=TradeId(f"T{next(self._numbers)}"),
            order_side=order.side,
            order_type=order.order_type,
            last_qty=quantity,
            last_px=Price(price, 3),
            quote_currency=USDT,
            commission=Money(0, USDT),
            liquidity_side=LiquiditySide.TAKER,
            ts_event=self._now - round(since_s * SECOND_NS),
        )


class OnTestClock(EnrichedSignalStrategy):
    """The strategy with its live execution, on a test clock."""

    loop: Loop

    def on_start(self) -> None:
        super().on_start()
        self._event_loop, self._event_thread = self.loop, threading.get_ident()
        self._execution = LiveExecution(
            self, self.config, self.counts, self._guard, self.loop, self._bar_types, self._journal
        )
        self._execution.start(self._instruments)


class Desk:
    """A strategy that trades coins of one venue.

    Parameters
    ----------
    coins : tuple of str
        What is traded.
    submit_rate : str
        Of Nautilus's risk engine.
    before : Callable, optional
        What is done to the desk before the strategy starts.
    **config : object
        Of the strategy.
    """

    def __init__(
        self,
        *coins: str,
        submit_rate: str = "100/00:00:01",
        before: Callable[["Desk"], None] = lambda _desk: None,
        **config: Any,
    ) -> None:
        self.coins = coins or ("BTC",)
        self.clock = TestClock()
        self.clock.set_time(START_NS)
        self.loop, self.cache = Loop(self.clock), Cache(database=None)
        self.bus = MessageBus(trader_id=TraderId("TESTER-001"), clock=self.clock)
        portfolio = Portfolio(msgbus=self.bus, cache=self.cache, clock=self.clock)
        self.engine = ExecutionEngine(msgbus=self.bus, cache=self.cache, clock=self.clock)
        self.risk = RiskEngine(
            portfolio=portfolio,
            msgbus=self.bus,
            cache=self.cache,
            clock=self.clock,
            config=RiskEngineConfig(max_order_submit_rate=submit_rate),
        )
        self.client = Client(self.bus, self.cache, self.clock)
        self.engine.register_client(self.client)
        for coin in self.coins:
            self.cache.add_instrument(instrument(instrument_id(coin)))
        self.client.report_account(100_000.0)
        self.bar_types = {
            coin: BarType.from_str(f"{instrument_id(coin)}-1-MINUTE-LAST-EXTERNAL") for coin in self.coins
        }
        settings = {
            "bar_types": [str(each) for each in self.bar_types.values()],
            "labels": {"horizon_bars": 100, "cost": 0.0},
            "limits": {"max_position_fraction": 0.2, "max_daily_loss": 0.5},
            "order_timeout": 4.0,
            "max_quote_drift": 0.01,
            "max_quote_age": 3_600.0,
            "sizing": "flat",
            "risk_target": None,  # a size is a share of equity
            **config,
        }
        self.strategy = OnTestClock(EnrichedSignalStrategyConfig.parse(_json(settings)))
        self.strategy.loop = self.loop
        self.strategy.register(
            trader_id=self.bus.trader_id,
            portfolio=portfolio,
            msgbus=self.bus,
            cache=self.cache,
            clock=self.clock,
        )
        self.engine.register_external_order_claims(self.strategy)
        self.engine.start()
        self.risk.start()
        before(self)
        self.strategy.start()
        self._signals = itertools.count(1)
        for coin in self.coins:
            self.bar(coin, 100.0)
            self.quote(coin, 100.0)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.strategy.counts)

    @property
    def sent(self) -> list[Order]:
        return self.client.submitted

    def bar(self, coin: str, close: float) -> None:
        price = Price(close, 3)
        now = self.clock.timestamp_ns()
        bar = Bar(self.bar_types[coin], price, price, price, price, Quantity(1, 3), now, now)
        self.cache.add_bar(bar)
        self.strategy.handle_bar(bar)

    def quote(self, coin: str, price: float) -> None:
        now, size = self.clock.timestamp_ns(), Quantity(1, 3)
        tick = QuoteTick(
            instrument_id(coin), Price(price - 0.001, 3), Price(price + 0.001, 3), size, size, now, now
        )
        self.cache.add_quote_tick(tick)

    def signal(self, side: int, coin: str = "BTC", **changes: Any) -> None:
        now = self.clock.timestamp_ns()
        fields = {
            "instrument_id": instrument_id(coin), "signal": side, "strength": 1.0, "source": "test",
            "signal_id": str(next(self._signals)), "meta_confidence": 1.0, "toxicity": 0.0, "vpin": 0.1,
            "regime_weight": 1.0, "regime": 0, "volatility": 0.01, "model_version": "v1", "status": "ok",
            "latency_ns": 0, "ts_event": now, "ts_init": now,
        }  # fmt: skip
        self.loop.call_later(0.0, self.strategy.handle_data, EnrichedSignal(**(fields | changes)))
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until(self.clock.timestamp_ns() + round(seconds * SECOND_NS))

    def of(self, tag: str, coin: str = "BTC") -> list[Order]:
        """Return the orders that were sent with a tag."""
        return [o for o in self.sent if tag in (o.tags or []) and o.instrument_id == instrument_id(coin)]

    def closing(self, coin: str = "BTC") -> list[Order]:
        """Return the orders that were sent to close or reduce at once."""
        return [
            o for o in self.sent if o.instrument_id == instrument_id(coin) and o.is_reduce_only and not o.tags
        ]

    def held(self, coin: str = "BTC") -> Decimal:
        positions = self.cache.positions_open(instrument_id=instrument_id(coin))
        return sum((p.signed_decimal_qty() for p in positions), Decimal(0))

    def works(self) -> None:
        """Let the venue accept stops and targets, and fill the rest, from now on."""

        def answer(order: Order) -> None:
            rests = order.has_trigger_price or "TAKE_PROFIT" in (order.tags or [])
            (self.client.accept if rests else self.client.fill)(order)

        self.client.answer = answer

    def enter(self, side: int = 1, coin: str = "BTC", **changes: Any) -> Decimal:
        """Enter, and return the quantity when stop and target rest at the venue."""
        self.works()
        self.signal(side, coin, **changes)
        self.wait(0.5)
        assert len(self.of("STOP_LOSS", coin)) == len(self.of("TAKE_PROFIT", coin)) == 1
        return self.held(coin)


def _json(settings: dict[str, Any]) -> bytes:
    return msgspec.json.encode(settings)


def held_before(desk: Desk, quantity: float, coin: str = "BTC") -> None:
    """Give the node a position that no order of this life has opened, as its reconciliation does."""
    side = OrderSide.BUY if quantity > 0 else OrderSide.SELL
    order = desk.strategy.order_factory.market(instrument_id(coin), side, Quantity(abs(quantity), 3))
    desk.cache.add_order(order)
    desk.client.generate_order_submitted(
        order.strategy_id, order.instrument_id, order.client_order_id, desk.clock.timestamp_ns()
    )
    desk.client.fill(order)
