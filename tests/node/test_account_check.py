"""What `--check` says of an account: room for the limits, the venue's terms, and who else uses it."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from nautilus_trader.model.currencies import BTC, USD
from nautilus_trader.model.identifiers import Symbol
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Money, Price, Quantity

from examples.venue import Venue
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.node.account import AccountState, AssetTerms, HeldPosition, RestingOrder
from ml4t_actor.node.account_check import check_account
from ml4t_actor.node.config import StrategyPlan
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding
from ml4t_actor.node.hyperliquid_account import InfoClient, read_account
from ml4t_actor.node.own_orders import OwnOrders, read_own_orders
from ml4t_actor.strategy import EnrichedSignalStrategyConfig, RiskLimits
from ml4t_actor.strategy.journal.order_journal import EntryIntent, JournalError
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal
from ml4t_actor.strategy.orders.order_ids import Leg, order_id
from tests.support.waiting import until

ID = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
INSTRUMENT = CryptoPerpetual(
    instrument_id=ID,
    raw_symbol=Symbol("BTC"),
    base_currency=BTC,
    quote_currency=USD,
    settlement_currency=Currency.from_str("USDC"),
    is_inverse=False,
    price_precision=1,
    size_precision=5,
    price_increment=Price.from_str("0.1"),
    size_increment=Quantity.from_str("0.00001"),
    min_notional=Money(10, USD),
    ts_event=0,
    ts_init=0,
)
CROSS = AssetTerms(Decimal(100_000), leverage=20, max_leverage=40, isolated=False)
NOTHING_OWN = OwnOrders({}, frozenset())
SHIPPED = {"max_leverage": 1.0, "max_position_fraction": 0.25, "max_daily_loss": 0.02, "stop_loss": 0.02}


def strategy(limits: dict[str, float] | None = None, **config: object) -> StrategyPlan:
    bars = [f"{ID}-1-MINUTE-LAST-EXTERNAL"]
    limit = RiskLimits(**{**SHIPPED, **(limits or {})})
    return StrategyPlan("Mine-001", EnrichedSignalStrategyConfig(bar_types=bars, limits=limit, **config))


def account(
    equity: int = 100_000,
    terms: AssetTerms = CROSS,
    positions: tuple[HeldPosition, ...] = (),
    orders: tuple[RestingOrder, ...] = (),
) -> AccountState:
    money = Decimal(equity)
    return AccountState("USDC", money, money, positions, orders, {"BTC": terms}, Decimal("-1.5"), 7)


def check(
    state: AccountState, plan: StrategyPlan | None = None, own: OwnOrders | None = NOTHING_OWN
) -> list[Finding]:
    return list(check_account(state, [plan or strategy()], {ID: INSTRUMENT}, own))


def of(findings: list[Finding], *levels: str) -> list[str]:
    return [f"{finding.subject}: {finding.message}" for finding in findings if finding.level in levels]


def held(quantity: str, coin: str = "BTC") -> HeldPosition:
    return HeldPosition(coin, Decimal(quantity), Decimal(100_000), None, Decimal("0.25"))


def own_of(quantity: str) -> OwnOrders:
    number = Decimal(quantity)
    return OwnOrders({str(ID): (min(number, Decimal(0)), max(number, Decimal(0)))}, frozenset({"0xmine"}))


def test_terms_funding_and_equity_are_reported():
    reported = check(account())
    assert not of(reported, WARN, FAIL)
    text = "\n".join(of(reported, PASS))
    for words in (
        "equity 100,000.00 USDC",
        "funding paid in the last 7 days: 1.50",
        "notional of an order at least 10.00 USD",
        "price step 0.1",
        "size step 0.00001",
        "cross margin at leverage 20 of 40",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("state", "limits", "config", "level", "reported"),
    [
        (account(equity=0), {}, {}, FAIL, "equity 0.00"),
        (
            account(equity=30),
            {},
            {},
            FAIL,
            "`limits.max_position_fraction` allows 7.50, the smallest order is 10.00",
        ),
        (account(), {"max_notional_per_order": 9.0}, {}, FAIL, "`limits.max_notional_per_order` allows 9.00"),
        (account(equity=500), {}, {"fraction": 0.01, "risk_target": None}, FAIL, "`fraction` allows 5.00"),
        # Of 50, a tenth of the year's volatility of a half makes 10, and a hair less too little.
        (
            account(equity=50),
            {"max_position_fraction": 0.5},
            {"risk_target": 0.09},
            WARN,
            "at an annual volatility of 50% `risk_target` allows 9.00, the smallest order is 10.00",
        ),
        (
            account(equity=5_000, terms=AssetTerms(Decimal(10**9), 20, 40, isolated=False)),
            {},
            {},
            FAIL,
            "the smallest order is 10,000.00",
        ),
        (account(), {"max_position_fraction": 30.0}, {}, WARN, "leverage is set to 20"),
        (
            account(),
            {"max_leverage": 10.0, "stop_loss": 0.1},
            {},
            FAIL,
            "is liquidated after a move of about 8.8%",
        ),
        (
            account(terms=AssetTerms(Decimal(100_000), 40, 40, isolated=True)),
            {},
            {},
            FAIL,
            "its position is liquidated after a move of about 1.2%, before the stop at 2.0%",
        ),
        (account(), {"stop_loss": 5e-7}, {}, FAIL, "less than one price step"),
    ],
)
def test_a_limit_that_cannot_work_is_named(state, limits, config, level, reported):
    messages = of(check(state, strategy(limits, **config)), level)
    assert any(reported in message for message in messages), messages


@pytest.mark.parametrize(
    ("quantity", "own", "foreign"),
    [
        ("0.5", NOTHING_OWN, "0.5"),
        ("-0.5", NOTHING_OWN, "-0.5"),
        ("0.5", own_of("0.5"), None),
        ("0.2", own_of("0.5"), None),  # what a stop has left
        ("0.7", own_of("0.5"), "0.2"),
        ("-0.5", own_of("0.5"), "-0.5"),
    ],
)
def test_a_position_held_by_hand_is_named(quantity, own, foreign):
    reported = check(account(positions=(held(quantity),)), own=own)
    [finding] = [each for each in reported if each.subject == "positions"]
    assert finding.level == (PASS if foreign is None else WARN)
    assert f"{ID}: {quantity}" in finding.message
    if foreign is not None:
        assert f"{foreign} of it is not the strategy's" in finding.message
        assert "not traded" in finding.message


def test_a_position_that_is_to_be_adopted_is_said_to_be_taken_over():
    reported = check(account(positions=(held("0.5"),)), strategy(adopt_positions=True))
    [message] = of(reported, WARN)
    assert "takes it over" in message


def test_a_position_of_an_instrument_that_is_not_traded_is_named():
    [message] = of(check(account(positions=(held("1", "DOGE"),))), WARN)
    assert message.startswith("positions: DOGE: 1 at")
    assert "not traded here" in message


def test_orders_of_others_are_named():
    orders = tuple(
        RestingOrder("BTC", name, client_id, Decimal("-0.1"), Decimal(110_000), reduces)
        for name, client_id, reduces in (
            ("7", None, False),
            ("8", "0xother", False),
            ("9", "0xmine", False),
            ("10", "0xexit", True),  # of a position that is the strategy's own
        )
    )
    by_hand, by_others = of(check(account(orders=orders), own=own_of("0.5")), WARN)
    assert "order 7, -0.1 at 110000, was sent by hand" in by_hand
    assert "order 8" in by_others
    assert "another program" in by_others


def test_what_reduces_a_position_of_others_is_theirs():
    order = RestingOrder("BTC", "7", "0xexit", Decimal("-0.1"), Decimal(110_000), reduces=True)
    [message] = of(check(account(orders=(order,))), WARN)
    assert "order 7" in message


def test_while_a_node_runs_nothing_is_called_foreign():
    reported = check(account(positions=(held("0.5"),)), own=None)
    assert not of(reported, WARN, FAIL)


class TestOwnOrders:
    INTENT = EntryIntent("the-entry", "me", "1", str(ID), 1, Decimal("0.5"), 7)

    def read(self, plan: StrategyPlan) -> OwnOrders:
        return read_own_orders([plan], "HYPERLIQUID-master", lambda name: f"0x{name}")

    def test_are_those_of_the_journals(self, tmp_path):
        path = tmp_path / "orders.sqlite"
        plan = strategy(journal_path=str(path))
        assert self.read(plan) == ({}, set())
        durable: list[bool] = []
        journal = SqliteJournal(path, lambda function: function(), pytest.fail)
        journal.record_quantity(str(ID), Decimal("-0.2"))
        journal.begin_entry(self.INTENT, lambda: durable.append(True))
        until(lambda: durable, "the entry to be durable")
        with pytest.raises(JournalError, match="in use"):
            self.read(plan)
        assert journal.close(10.0)
        own = self.read(plan)
        assert own.held == {str(ID): (Decimal("-0.2"), Decimal("0.5"))}  # the entry's end is not known
        stop = order_id("HYPERLIQUID-master", plan.name, "me", "1", Leg.STOP, 2)
        assert {"0xthe-entry", f"0x{stop}"} <= set(own.client_ids)
        self.change(path, lambda journal: journal.end_entry("the-entry"))
        assert self.read(plan).held == {str(ID): (Decimal("-0.2"), Decimal(0))}

    def change(self, path: Path, change: Callable[[SqliteJournal], None]) -> None:
        journal = SqliteJournal(path, lambda function: function(), pytest.fail)
        change(journal)
        assert journal.close(10.0)


def test_hyperliquids_account_is_read_as_the_venue_has_it():
    with Venue() as venue:
        venue.control("leverage", coin="BTC", mode="isolated", value=10)
        venue.control("trade", coin="BTC", side="buy", size="0.5")
        venue.control("fund", coin="BTC", usdc="-2.5")
        price = venue.state()["prices"]["BTC"][2]
        venue.control("order", coin="ETH", side="sell", size="1", price="9000")
        state = read_account(InfoClient(venue.control_url.replace("/_venue", "/info")), "0x0", ["BTC", "ETH"])
        [position] = state.positions
        assert (position.symbol, position.quantity, position.funding) == (
            "BTC",
            Decimal("0.5"),
            Decimal("2.5"),
        )
        # 1/10 of margin, of which 1/80 maintains it.
        assert float(position.liquidation_price) == pytest.approx(
            price * (1 - (0.1 - 1 / 80) / (1 - 1 / 80)), rel=0.01
        )
        [order] = state.orders
        assert (order.symbol, order.client_id, order.quantity) == ("ETH", None, Decimal(-1))
        assert (order.price, order.reduces) == (Decimal(9000), False)
        assert state.funding == Decimal("-2.5")
        assert (state.terms["BTC"].leverage, state.terms["BTC"].max_leverage) == (10, 40)
        assert state.terms["BTC"].isolated
        assert not state.terms["ETH"].isolated
        assert float(state.terms["BTC"].price) == pytest.approx(price, rel=0.01)
        assert 0 < state.withdrawable < state.equity < 100_000
