"""A venue with one account, and a live equity that follows it by what Nautilus's adapter for Hyperliquid reports."""

from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from nautilus_trader.accounting.accounts.margin import MarginAccount
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.common.factories import OrderFactory
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.currencies import BTC as BTC_COIN
from nautilus_trader.model.currencies import ETH as ETH_COIN
from nautilus_trader.model.currencies import USD, USDC
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.events import AccountState, OrderRejected, PositionClosed
from nautilus_trader.model.identifiers import (
    AccountId,
    ClientOrderId,
    InstrumentId,
    PositionId,
    StrategyId,
    Symbol,
    TradeId,
    TraderId,
)
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import AccountBalance, MarginBalance, Money, Price, Quantity
from nautilus_trader.model.position import Position
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.test_kit.stubs.events import TestEventStubs

from ml4t_actor.strategy.account.exposure import Exposure, account_key
from ml4t_actor.strategy.account.live_equity import LiveEquity
from ml4t_actor.strategy.account.reservations import Reservations
from ml4t_actor.strategy.account.statements import AccountStatement, Fill, Funding, Holding, Transfer
from tests.support.statements import without_threads

SECOND = 1_000_000_000
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
# Half past eight, so that no full hour is near.
START = 20_000 * 24 * HOUR + 8 * HOUR + 30 * MINUTE
TRADER, STRATEGY, OTHER = TraderId("T-1"), StrategyId("S-1"), StrategyId("EXTERNAL")
ACCOUNT = AccountId("HYPERLIQUID-master")
FEE = Decimal("0.00045")


def perpetual(coin: str, base, venue: str = "HYPERLIQUID") -> CryptoPerpetual:
    return CryptoPerpetual(
        InstrumentId.from_str(f"{coin}-USD-PERP.{venue}"), Symbol(coin), base, USD, USDC, False, 1, 5,
        Price.from_str("0.1"), Quantity.from_str("0.00001"), 0, 0,
    )  # fmt: skip


BTC, ETH = perpetual("BTC", BTC_COIN), perpetual("ETH", ETH_COIN)


@dataclass
class Desk:
    """A venue with one account, and what a node knows of it; the venue's cash lacks the value of positions."""

    max_daily_loss: float = 0.05
    account_id: AccountId = ACCOUNT
    cash: Decimal = Decimal(100_000)
    held: dict = field(default_factory=dict)
    marks: dict = field(default_factory=lambda: {BTC.id: 50_000.0, ETH.id: 2_000.0})
    closes: dict = field(default_factory=lambda: {BTC.id: 50_000.0, ETH.id: 2_000.0})
    leverage: int = 20
    is_calculated: bool = False
    is_asked: bool = True  # for its records
    transferred: list = field(default_factory=list)
    paid: list = field(default_factory=list)
    fills: list = field(default_factory=list)
    fails: bool = False

    def __post_init__(self) -> None:
        self.due: list = []
        self.clock, self.cache, self.log = TestClock(), Cache(), Mock()
        self.clock.set_time(START)
        self.bus = MessageBus(TRADER, self.clock)
        self.portfolio = Portfolio(self.bus, self.cache, self.clock)
        self.factory = OrderFactory(TRADER, STRATEGY, self.clock)
        for instrument in (BTC, ETH):
            self.cache.add_instrument(instrument)
        self.strategy = SimpleNamespace(
            id=STRATEGY, cache=self.cache, portfolio=self.portfolio, clock=self.clock, msgbus=self.bus, log=self.log
        )  # fmt: skip
        exposure = Exposure(self.strategy, self.closes, Reservations(), dict, 0.05, 0.0)
        self.counted = Mock()
        sources = {"HYPERLIQUID": SimpleNamespace(statement=self.statement)} if self.is_asked else {}
        with pytest.MonkeyPatch.context() as patch:
            without_threads(patch, self.call_later, self.clock.timestamp_ns)
            self.equity = LiveEquity(
                self.strategy,
                exposure,
                self.max_daily_loss,
                sources,
                lambda function: function(),
                self.counted,
            )
        self.questions = self.n = 0

    def start(self) -> "Desk":
        self.report()
        self.equity.start(lambda function, *arguments: function(*arguments), [BTC, ETH])
        self.marked()
        self.wait(0.1)
        return self

    def call_later(self, delay_s: float, function, *arguments) -> None:
        self.due.append(
            (self.clock.timestamp_ns() + int(delay_s * SECOND), len(self.due), function, arguments)
        )

    def statement(self, since_ms: int, symbols, fills_since_ms: int | None) -> AccountStatement:
        """Answer as the venue does: by its own account, and what it has recorded."""
        self.questions += 1
        if self.fails:
            raise OSError("no answer")
        coins = {BTC.id: "BTC", ETH.id: "ETH"}
        held = {coins[i]: Holding(q, q * Decimal(str(self.marks[i]))) for i, q in self.held.items()}
        now = self.clock.timestamp_ns() // 1_000_000
        transfers = tuple(t for t in self.transferred if since_ms < t.ts_ms <= now)
        paid = tuple(p for p in self.paid if since_ms < p.ts_ms <= now)
        fills = tuple(f for f in self.fills if fills_since_ms is not None and fills_since_ms < f.ts_ms <= now)
        return AccountStatement("USDC", now, self.cash, held, transfers, paid, fills=fills)

    def transfer(self, amount, kind: str = "") -> None:
        """Pay into the account at the venue, or out of it, and have it recorded there."""
        amount = Decimal(str(amount))
        self.cash += amount
        kind = kind or ("deposit" if amount > 0 else "withdraw")
        ts_ms = self.clock.timestamp_ns() // 1_000_000
        self.transferred.append(Transfer(ts_ms, kind, amount, str(len(self.transferred))))

    def fund(self, amount) -> None:
        """Pay funding; the account is charged where it is negative."""
        self.cash += Decimal(str(amount))
        self.paid.append(Funding(self.clock.timestamp_ns() // 1_000_000, "BTC", Decimal(str(amount))))

    def value(self) -> Decimal:
        """Return what the account is worth at the venue's prices."""
        return self.cash + sum(q * Decimal(str(self.marks[i])) for i, q in self.held.items())

    def marked(self) -> Decimal:
        return self.equity.mark(BTC)

    def day_open(self) -> Decimal:
        return self.equity.day_open(account_key(BTC))

    def wait(self, seconds: float) -> None:
        """Let time pass, in which what is asked is answered."""
        end = self.clock.timestamp_ns() + int(seconds * SECOND)
        while self.due and min(self.due)[0] <= end:
            due = min(self.due)
            self.due.remove(due)
            self.clock.set_time(max(due[0], self.clock.timestamp_ns()))
            due[2](*due[3])
        self.clock.set_time(end)

    def price(self, instrument, price: float, *, closed: bool = True) -> None:
        """Move the price at the venue, its quote, and with a bar's close what is known here."""
        self.marks[instrument.id] = price
        if closed:
            self.closes[instrument.id] = price
        self.quote(instrument, price)

    def quote(self, instrument, price: float) -> None:
        one, now = Quantity.from_str("1.00000"), self.clock.timestamp_ns()
        bid, ask = instrument.make_price(price - 0.5), instrument.make_price(price + 0.5)
        self.cache.add_quote_tick(QuoteTick(instrument.id, bid, ask, one, one, now, now))

    def report(self) -> None:
        """Send what the adapter makes of the venue's `clearinghouseState`."""
        value = self.value()
        gross = sum((abs(q) * Decimal(str(self.marks[i])) for i, q in self.held.items()), Decimal(0))
        used = gross / self.leverage
        free = max(value - max(used, gross / 10), Decimal(0))
        self.send(max(self.cash, Decimal(0), free), free, used)

    def send(self, total: Decimal, free: Decimal, used: Decimal, *, reported: bool = True) -> None:
        total, free = round(total, 6), round(free, 6)
        margin = Money(round(used, 6), USDC)
        margins = [MarginBalance(margin, margin, None)] if used > 0 else []
        now = self.clock.timestamp_ns()
        balance = AccountBalance(Money(total, USDC), Money(total - free, USDC), Money(free, USDC))
        event = AccountState(
            self.account_id, AccountType.MARGIN, None, reported, [balance], margins, {}, UUID4(), now, now
        )
        if self.cache.account(self.account_id) is None:
            # Nautilus would calculate it itself once any backtest of this process had a venue of that name.
            self.cache.add_account(MarginAccount(event, self.is_calculated))
        self.portfolio.update_account(event)

    def settled(self) -> Decimal:
        """Report, and mark when the report has settled."""
        self.wait(10)
        for instrument in (BTC, ETH):
            self.quote(instrument, self.marks[instrument.id])
        self.report()
        self.wait(3)
        self.marked()
        self.wait(7)
        return self.marked()

    def fill_at_venue(self, instrument, quantity: str, price: float) -> Decimal:
        """Fill an order at the venue; return the fee."""
        size, at = Decimal(quantity), Decimal(str(price))
        fee = abs(size) * at * FEE
        self.cash -= size * at + fee
        ts_ms = self.clock.timestamp_ns() // 1_000_000
        self.fills.append(Fill(ts_ms, instrument.raw_symbol.value, size, at, fee))
        now_held = self.held.get(instrument.id, Decimal(0)) + size
        self.held = {i: q for i, q in {**self.held, instrument.id: now_held}.items() if q}
        return fee

    def fill_here(self, instrument, quantity: str, price: float, fee: Decimal, strategy=STRATEGY) -> None:
        """Learn of the fill; a price of zero is how Nautilus makes one up."""
        self.n += 1
        side = OrderSide.BUY if Decimal(quantity) > 0 else OrderSide.SELL
        order = OrderFactory(TRADER, strategy, self.clock).market(
            instrument.id, side, instrument.make_qty(abs(Decimal(quantity))),
            client_order_id=ClientOrderId(f"O-{self.n}"),
        )  # fmt: skip
        position_id = PositionId(f"{instrument.id}-{strategy}")
        filled = TestEventStubs.order_filled(
            order, instrument, strategy, self.account_id, trade_id=TradeId(str(self.n)), position_id=position_id,
            last_px=instrument.make_price(price), commission=Money(round(fee, 6), USDC),
        )  # fmt: skip
        self.bus.publish(f"events.order.{strategy}", filled)
        position = self.cache.position(position_id)
        if position is None or position.is_closed:
            position = Position(instrument, filled)
            self.cache.add_position(position, OmsType.NETTING)
        else:
            position.apply(filled)
            self.cache.update_position(position)
        if position.is_closed:
            closed = PositionClosed.create(position, filled, UUID4(), self.clock.timestamp_ns())
            self.bus.publish(f"events.position.{strategy}", closed)
            if strategy == STRATEGY:  # as the strategy passes its own on
                self.equity.on_position_closed(closed)

    def trade(self, instrument, quantity: str, price: float, strategy=STRATEGY) -> None:
        fee = self.fill_at_venue(instrument, quantity, price)
        self.fill_here(instrument, quantity, price, fee, strategy)

    def send_order(self, instrument) -> object:
        """Send an order, of which nothing is known here until `lose`."""
        order = self.factory.market(instrument.id, OrderSide.BUY, instrument.make_qty(1))
        self.cache.add_order(order)
        order.apply(
            TestEventStubs.order_submitted(order, account_id=ACCOUNT, ts_event=self.clock.timestamp_ns())
        )
        self.cache.update_order(order)
        return order

    def lose(self, order) -> None:
        """Learn that the venue has not answered an order: what became of it is not known."""
        now = self.clock.timestamp_ns()
        event = OrderRejected(
            TRADER, STRATEGY, order.instrument_id, order.client_order_id, self.account_id, "UNKNOWN", UUID4(), now, now
        )  # fmt: skip
        order.apply(event)
        self.cache.update_order(order)
        self.bus.publish(f"events.order.{STRATEGY}", event)

    def transfers(self) -> list[str]:
        return [call.args[0].split(" of ")[0] for call in self.log.warning.call_args_list]
