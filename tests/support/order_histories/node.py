"""A node around the strategy: Nautilus's cache, bus, portfolio and engines, and the client in the adapter's place."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import MessageBus
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.live.config import LiveExecEngineConfig, LiveRiskEngineConfig
from nautilus_trader.live.execution_engine import LiveExecutionEngine
from nautilus_trader.live.risk_engine import LiveRiskEngine
from nautilus_trader.model.currencies import BTC, ETH, USD, USDC
from nautilus_trader.model.data import Bar, BarType, QuoteTick
from nautilus_trader.model.enums import OrderType, TimeInForce
from nautilus_trader.model.identifiers import Symbol, TraderId
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Price, Quantity
from nautilus_trader.portfolio.portfolio import Portfolio

from examples.venue.tape import SIZE_DECIMALS
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.node.hyperliquid_statements import HyperliquidStatements
from ml4t_actor.node.run import _Runner
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig, RiskLimits
from ml4t_actor.strategy.account.exposure import account_key
from tests.support.order_histories.client import ModelClient, instrument_id
from tests.support.order_histories.loop import VirtualClock, VirtualLoop
from tests.support.order_histories.plan import BAR_S, COINS, Plan
from tests.support.order_histories.threads import ModelInfo, ModelOrders
from tests.support.order_histories.venue import VenueModel

ADOPT_POSITIONS = False
STRATEGY_ID = "EnrichedSignalStrategy-001"
_ADDRESS = f"0x{'1' * 40}"
_BASES = {"BTC": BTC, "ETH": ETH, "SOL": Currency.from_str("SOL")}
_LIFE: ContextVar[int] = ContextVar("life", default=0)


def instrument(coin: str) -> CryptoPerpetual:
    """Return the coin's instrument as the adapter lists it."""
    decimals = SIZE_DECIMALS[coin]
    return CryptoPerpetual(
        instrument_id=instrument_id(coin),
        raw_symbol=Symbol(coin),
        base_currency=_BASES[coin],
        quote_currency=USD,
        settlement_currency=USDC,
        is_inverse=False,
        price_precision=6 - decimals,
        size_precision=decimals,
        price_increment=Price(Decimal(1).scaleb(decimals - 6), 6 - decimals),
        size_increment=Quantity(Decimal(1).scaleb(-decimals), decimals),
        ts_event=0,
        ts_init=0,
    )


def bar_type(coin: str) -> str:
    """Return the text of the coin's bar type."""
    return f"{instrument_id(coin)}-{BAR_S:.0f}-SECOND-LAST-EXTERNAL"


class _NoExit:
    """In a node an exception within an engine ends the process."""

    crashed: str = ""

    def _handle_queue_exception(self, e: Exception, queue_name: str) -> None:
        self.crashed = f"{type(self).__name__}, queue {queue_name}: {e!r}"


class _RiskEngine(_NoExit, LiveRiskEngine):  # type: ignore[misc]
    pass


class _ExecutionEngine(_NoExit, LiveExecutionEngine):  # type: ignore[misc]
    pass


class Node:
    """One life of the node.

    Whatever runs in it runs in its context, so that a kill finds it.

    Attributes
    ----------
    started : bool
        The strategy runs.
    """

    def __init__(
        self, plan: Plan, loop: VirtualLoop, clock: VirtualClock, venue: VenueModel, journal: str, life: int
    ) -> None:
        self._loop, self.clock, self._venue, self._life = loop, clock, venue, life
        self._context = copy_context()
        self._context.run(_LIFE.set, life)
        self._context.run(self._build, plan, loop, clock, venue, journal)

    def _build(
        self, plan: Plan, loop: VirtualLoop, clock: VirtualClock, venue: VenueModel, journal: str
    ) -> None:
        self.bus = MessageBus(trader_id=TraderId("CHECK-001"), clock=clock)
        self.cache = Cache(database=None)
        parts: dict[str, Any] = {"msgbus": self.bus, "cache": self.cache, "clock": clock}
        self.portfolio = Portfolio(**parts)
        self.risk = _RiskEngine(
            loop=loop,
            portfolio=self.portfolio,
            config=LiveRiskEngineConfig(max_order_submit_rate=f"{plan.submit_rate}/00:00:01"),
            **parts,
        )
        ids = [instrument_id(coin) for coin in COINS]
        self.engine = _ExecutionEngine(
            loop=loop,
            config=LiveExecEngineConfig(
                reconciliation=True,
                reconciliation_instrument_ids=ids,
                open_check_interval_secs=5.0,
                reconciliation_startup_delay_secs=2.0,
            ),
            **parts,
        )
        self.client = ModelClient(venue, InstrumentProvider(), loop=loop, **parts)
        self.engine.register_client(self.client)
        for coin in COINS:
            self.cache.add_instrument(instrument(coin))
        self.bus.register(endpoint="DataEngine.execute", handler=lambda command: None)
        self.strategy = EnrichedSignalStrategy(strategy_config(plan, journal))
        self.engine.register_external_order_claims(self.strategy)
        # Of its own, as in a node: a strategy that stops cancels all timers of its clock.
        self.strategy.register(
            trader_id=self.bus.trader_id,
            portfolio=self.portfolio,
            **parts | {"clock": VirtualClock(loop, plan.start_ns)},
        )
        self.strategy.use_order_statuses("HYPERLIQUID", ModelOrders(venue))
        if plan.has_records:
            self.strategy.use_statements("HYPERLIQUID", HyperliquidStatements(ModelInfo(venue), _ADDRESS))
        self.started = False
        self.is_dead = False
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, reconcile and start."""
        self._starting = self._loop.create_task(self._start(), context=self._context.copy())

    async def _start(self) -> None:
        self.engine.start()
        self.risk.start()
        while not self.is_dead:
            self.client.connect()
            for _ in range(100):
                await asyncio.sleep(0.1)
                if self.client.is_connected:
                    break
            if self.client.is_connected:
                break  # else the node would end, and be started again
        if await self.engine.reconcile_execution_state():
            self.portfolio.initialize_orders()
            self.portfolio.initialize_positions()
            self.strategy.start()
            self.started = True

    def run[*Arguments](self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call in the node's context."""
        self._context.copy().run(function, *arguments)

    def quote(self, coin: str) -> None:
        """Deliver the venue's best prices."""
        top, now = self._venue.market.top(coin), self.clock.timestamp_ns()
        of = self.cache.instrument(instrument_id(coin))
        size = of.make_qty(1.0)
        tick = QuoteTick(of.id, of.make_price(top.bid), of.make_price(top.ask), size, size, now, now)
        self.cache.add_quote_tick(tick)
        if self.started:
            self.run(lambda: self.bus.publish(topic=f"data.quotes.{of.id.venue}.{of.id.symbol}", msg=tick))

    def bar(self, coin: str, opened_ns: int) -> None:
        """Deliver the bar that has just closed; as the adapter does, with its open time."""
        of = self.cache.instrument(instrument_id(coin))
        price = of.make_price(self._venue.market.last(coin))
        kind = BarType.from_str(bar_type(coin))
        bar = Bar(kind, price, price, price, price, of.make_qty(1.0), opened_ns, self.clock.timestamp_ns())
        self.cache.add_bar(bar)
        if self.started:
            self.run(lambda: self.bus.publish(topic=f"data.bars.{kind}", msg=bar))

    def signal(self, enriched: EnrichedSignal, *, off_thread: bool) -> None:
        """Deliver a signal, from a thread of its own if need be."""
        if not self.started:
            return

        def publish() -> None:
            self.bus.publish(topic=f"data.{EnrichedSignal.__name__}", msg=enriched)

        if not off_thread:
            self.run(publish)
            return
        thread = threading.Thread(
            target=self.run, args=(publish,)
        )  # joined at once, so that nothing runs beside it
        thread.start()
        thread.join()

    async def stop(self) -> str | None:
        """Stop trading as `python -m ml4t_actor.node` does at SIGTERM; return what its last line would say is left."""
        trader = SimpleNamespace(
            is_running=self.strategy.is_running,
            stop=lambda: self.run(self.strategy.stop),
            strategies=lambda: [self.strategy],
            check_residuals=lambda: None,
        )
        runner: Any = _Runner(
            SimpleNamespace(kernel=SimpleNamespace(trader=trader)),
            SimpleNamespace(timeout_post_stop=2.0),
            [],
        )
        await runner._stop_trading()
        left: str | None = runner._unprotected()
        return left

    def kill(self) -> None:
        """End without a word, as SIGKILL does."""
        self.is_dead = True
        self.started = False
        self._venue.disconnect()
        for handle in (*self._loop.pending(), *asyncio.all_tasks(self._loop)):
            if _context_of(handle).get(_LIFE) == self._life:
                handle.cancel()

    @property
    def crash(self) -> str:
        """What would have ended the process."""
        return str(self.engine.crashed or self.risk.crashed)

    def held(self, coin: str) -> Decimal:
        """Return what the cache holds, of all strategies."""
        positions = self.cache.positions_open(instrument_id=instrument_id(coin))
        return sum((p.signed_decimal_qty() for p in positions), Decimal(0))

    def resting(self, coin: str) -> list[int]:
        """Return the venue's ids of the orders that may rest and that the cache has for open."""
        orders = self.cache.orders_open(instrument_id=instrument_id(coin))
        return sorted(
            int(o.venue_order_id.value) for o in orders if o.venue_order_id is not None and _rests(o)
        )

    @property
    def n_errors(self) -> int:
        """How often a handler of the strategy raised."""
        return int(self.strategy.counts["error"])

    def day_result(self) -> float | None:
        """Return what the strategy takes the day's trading to have made, None where it has not looked yet."""
        equity, known = self.strategy._equity, self.cache.instrument(instrument_id(COINS[0]))
        now = equity.mark(known)
        key = account_key(known)
        return None if key not in equity.opening else float(now - equity.day_open(key))


def strategy_config(plan: Plan, journal: str) -> EnrichedSignalStrategyConfig:
    """Return the strategy's configuration in a history."""
    fields = dict(plan.strategy)
    labels, limits = LabelSettings(**fields.pop("labels")), RiskLimits(**fields.pop("limits"))
    return EnrichedSignalStrategyConfig(
        bar_types=[bar_type(coin) for coin in COINS],
        oms_type="NETTING",
        order_id_tag="001",
        labels=labels,
        limits=limits,
        journal_path=journal,
        adopt_positions=ADOPT_POSITIONS,
        risk_target=None,  # the limits are what histories run into
        **fields,
    )


def _rests(order: Any) -> bool:
    """Return whether an order may rest; of an immediate one the adapter never reports that the rest was cancelled."""
    return bool(order.order_type != OrderType.MARKET and order.time_in_force != TimeInForce.IOC)


def _context_of(handle: Any) -> Context:
    context: Context = handle.get_context()
    return context
