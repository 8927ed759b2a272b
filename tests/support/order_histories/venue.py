"""The model of the venue and of the way to it: the stand-in's exchange, behind delays, losses and cuts."""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextvars import copy_context
from decimal import Decimal
from typing import Any

from examples.venue.exchange import Exchange
from examples.venue.orders import LEVERAGE
from examples.venue.payloads import Action, Message
from tests.support.order_histories.loop import VirtualClock, VirtualLoop
from tests.support.order_histories.market import Market, size_step
from tests.support.order_histories.plan import COINS, EQUITY, Plan

POST_TIMEOUT_S = 5.0


class Connection:
    """A node's connection: it is cut with the node, and everything on its way to the node with it."""

    def __init__(self, on_user_message: Callable[[Message], None]) -> None:
        self._context = copy_context()
        self._on_user_message = on_user_message
        self.is_up = True
        self.generation = 0  # messages of before a cut never come

    def deliver(self, message: Message) -> None:
        """Hand the node a message, in its own context."""
        self._context.copy().run(self._on_user_message, message)


class VenueModel:
    """Carries out what the nodes send, and tells them.

    Attributes
    ----------
    exchange : Exchange
        The stand-in's own.
    on_action : list[Callable[[Action, Message | None], None]]
        Called after each action, with the answer; None where it did not arrive.
    on_change : list[Callable[[], None]]
        Called after whatever may have changed orders or positions.
    """

    def __init__(self, plan: Plan, loop: VirtualLoop, clock: VirtualClock, market: Market) -> None:
        self._loop, self.market = loop, market
        self._rng = random.Random(f"venue {plan.seed}")
        self.exchange = Exchange(market.top, EQUITY, clock.timestamp_ms)
        self.connection: Connection | None = None
        self.is_cut = False
        self.info_fails = False
        self.delay = {"there": 0.0, "back": 0.0}
        self._context = copy_context()  # not a node's, with which it would end
        self._last_arrival = {"there": 0.0, "back": 0.0}
        self.on_action: list[Callable[[Action, Message | None], None]] = []
        self.on_change: list[Callable[[], None]] = []

    def connect(self, on_user_message: Callable[[Message], None]) -> Connection:
        """Return a new connection, in place of any before it."""
        self.connection = Connection(on_user_message)
        self.connection.is_up = not self.is_cut
        return self.connection

    def disconnect(self) -> None:
        """End the connection; what was sent over it still arrives."""
        if self.connection is not None:
            self.connection.is_up = False
            self.connection.generation += 1
        self.connection = None

    def cut(self) -> None:
        """Cut the connection: what is on its way to the node is lost."""
        self.is_cut = True
        if self.connection is not None:
            self.connection.is_up = False
            self.connection.generation += 1

    def mend(self) -> None:
        """Let the node connect again."""
        self.is_cut = False
        if self.connection is not None:
            self.connection.is_up = True

    async def post(self, connection: Connection, action: Action) -> Message:
        """Send an action and return the answer, as the adapter's WebSocket does; `OSError` or `TimeoutError` else."""
        if not connection.is_up:
            self._report_action(action, None)
            await asyncio.sleep(0.01)
            raise OSError("transport error: not connected")
        answer: asyncio.Future[Message] = self._loop.create_future()
        generation = connection.generation
        lost = self._rng.random()

        def arrive() -> None:
            if (connection.generation != generation and lost < 0.5) or self.exchange.is_lost(action):
                self._report_action(action, None)
            else:
                result = self.exchange.execute(action)
                self._report_action(action, result)
                if self.exchange.mode == "mute":
                    self.exchange.outbox.clear()
                else:
                    self._send(connection, lambda: answer.done() or answer.set_result(result))
                self.flush()
            self._changed()

        self._later("there", arrive)
        return await asyncio.wait_for(answer, POST_TIMEOUT_S)

    async def info[T](self, read: Callable[[], T]) -> T:
        """Return what the venue answers over HTTP."""
        await asyncio.sleep(self._rng.uniform(0.02, 0.2))
        if self.info_fails or self.is_cut:
            raise ValueError("transport error: /info does not answer")
        result = read()
        await asyncio.sleep(self._rng.uniform(0.02, 0.2))
        return result

    def query(self, request: Message) -> object:
        """Return the answer of `/info` at once, for a caller that waits elsewhere."""
        if self.info_fails or self.is_cut:
            raise OSError("transport error: /info does not answer")
        kind = request["type"]
        if kind == "orderStatus":
            return self.exchange.order_status(request["oid"])  # type: ignore[arg-type]
        if kind == "clearinghouseState":
            return self.exchange.clearinghouse()
        if kind in ("openOrders", "frontendOpenOrders"):
            return self.exchange.open_orders()
        if kind == "userFunding":
            return self.exchange.records.funding(request)  # type: ignore[arg-type]
        if kind == "userNonFundingLedgerUpdates":
            return self.exchange.records.transfers(request)  # type: ignore[arg-type]
        if kind == "allMids":
            return {coin: str(self.market.last(coin)) for coin in COINS}
        if kind == "meta":
            return {"universe": [{"name": coin, "maxLeverage": LEVERAGE[coin]} for coin in COINS]}
        if kind == "activeAssetData":
            return self.exchange.terms.active_asset(request)  # type: ignore[arg-type]
        if kind in ("userFills", "userFillsByTime"):
            return list(self.exchange.fills)
        raise ValueError(f"the model does not know the query {kind!r}")

    def step(self) -> None:
        """Move the market, and match."""
        self.market.step()
        self.match(*COINS)

    def match(self, *coins: str) -> None:
        """Fill and trigger what the prices have reached."""
        for coin in coins:
            self.exchange.match(coin)
        if self.exchange.mode == "mute":
            self.exchange.outbox.clear()
        self.flush()
        self._changed()

    def pay_funding(self, rates: Mapping[str, float]) -> None:
        """Pay funding as the venue does at each full hour: longs pay, where the rate is positive."""
        for coin in COINS:
            notional = self.held(coin) * Decimal(str(self.market.last(coin)))
            if notional:
                self.exchange.fund(coin, round(-notional * Decimal(str(rates[coin])), 6))

    def trade_by_hand(self, coin: str, share: float) -> Decimal:
        """Open a position as the user might from elsewhere; return it."""
        size = Decimal(str(abs(share) * EQUITY / self.market.last(coin))).quantize(size_step(coin))
        self.exchange.trade(coin, share > 0, str(size))
        self.exchange.outbox.clear()
        return self.held(coin)

    @property
    def books(self) -> Exchange:
        """Orders and fills."""
        return self.exchange

    @property
    def takes_orders(self) -> bool:
        """Whether it neither refuses nor loses nor delays orders, and answers."""
        exchange = self.exchange
        faults = (exchange.reject, exchange.lose, *self.delay.values(), self.is_cut)
        return exchange.mode == "filled" and not any(faults)

    def held(self, coin: str) -> Decimal:
        """Return the position."""
        return self.exchange.positions.get(coin, (Decimal(0), Decimal(0)))[0]

    def equity(self) -> float:
        """Return the account's value."""
        return float(self.exchange.value()[0])

    def flush(self) -> None:
        """Send the user what has become of orders."""
        pushes, self.exchange.outbox = self.exchange.outbox, []
        connection = self.connection
        if connection is None or not connection.is_up:
            return  # nobody is there; it is not sent later
        for push in pushes:
            self._send(connection, lambda push=push: connection.deliver(push))

    def _send(self, connection: Connection, deliver: Callable[[], object]) -> None:
        generation = connection.generation

        def arrive() -> None:
            if connection.is_up and connection.generation == generation:
                deliver()

        self._later("back", arrive)

    def _later(self, way: str, arrive: Callable[[], None]) -> None:
        """Call after a drawn delay, but in the order of sending: it is one stream each way."""
        at = self._loop.time() + self._rng.uniform(0.01, 0.25) + self.delay[way]
        at = self._last_arrival[way] = max(at, self._last_arrival[way] + 1e-6)
        self._loop.call_at(at, arrive, context=self._context)

    def _report_action(self, action: Action, answer: Message | None) -> None:
        for observer in self.on_action:
            observer(action, answer)

    def _changed(self) -> None:
        for observer in self.on_change:
            observer()


def order_of(answer: Any) -> int | None:
    """Return the venue's id of a placed order, None if it was refused."""
    status = answer["response"]["data"]["statuses"][0]
    for kind in ("resting", "filled"):
        if kind in status:
            return int(status[kind]["oid"])
    return None
