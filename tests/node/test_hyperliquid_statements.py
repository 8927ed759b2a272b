"""An account's statement by the venue's own records: of answers that were recorded, of a server, and of the stub."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest

from examples.venue import Venue
from ml4t_actor.node.hyperliquid_account import InfoClient
from ml4t_actor.node.hyperliquid_statements import HyperliquidStatements, _Delta, effect_of
from ml4t_actor.strategy.account.day_opening import opening_equity
from ml4t_actor.strategy.account.statements import Fill, Funding, Holding, Transfer
from ml4t_actor.strategy.journal.order_journal import UnsettledOpening

OWN, OTHER = f"0x{'aB' * 20}", f"0x{'1' * 40}"
STATE = {"marginSummary": {"accountValue": "1000.5"}, "assetPositions": [], "time": 2_000_000_000_000}

# Of the mainnet's answers, as the venue's own Python SDK (tests/cassettes) and github.com/nktkas/hyperliquid have them.
RECORDED = [
    ({"type": "deposit", "usdc": "2703997.4500000002"}, "2703997.4500000002"),
    ({"type": "withdraw", "usdc": "35.0", "nonce": 1732867345893, "fee": "1.0"}, "-35.0"),
    ({"type": "accountClassTransfer", "usdc": "12.0", "toPerp": False}, "-12.0"),
    ({"type": "accountClassTransfer", "usdc": "12.0", "toPerp": True}, "12.0"),
    ({"type": "internalTransfer", "usdc": "1.0", "user": OWN, "destination": OTHER, "fee": "0.0"}, "-1.0"),
    ({"type": "internalTransfer", "usdc": "1.0", "user": OTHER, "destination": OWN, "fee": "0.0"}, "1.0"),
    ({"type": "subAccountTransfer", "usdc": "10.0", "user": OTHER, "destination": OWN}, "10.0"),
    ({"type": "subAccountTransfer", "usdc": "10.0", "user": OWN, "destination": OTHER}, "-10.0"),
    ({"type": "vaultDeposit", "vault": OTHER, "usdc": "212.46"}, "-212.46"),
    ({"type": "vaultCreate", "vault": OTHER, "usdc": "100.0", "fee": "100.0"}, "-100.0"),
    (
        {
            "type": "vaultWithdraw", "vault": OTHER, "user": OWN, "requestedUsd": "770.6", "commission": "0.0",
            "closingCost": "0.0", "basis": "684.4", "netWithdrawnUsd": "770.5",
        },
        "770.5",
    ),
    (
        {
            "type": "spotTransfer", "token": "USDC", "amount": "10.5", "usdcValue": "10.5", "user": OWN,
            "destination": OTHER, "fee": "1.0", "nativeTokenFee": "0.0", "nonce": None, "feeToken": "",
        },
        "0",
    ),
    ({"type": "spotGenesis", "token": "PURR", "amount": "402349.0"}, "0"),
    ({"type": "cStakingTransfer", "token": "HYPE", "amount": "3000.0", "isDeposit": False}, "0"),
]  # fmt: skip
LIQUIDATION = {
    "type": "liquidation", "liquidatedNtlPos": "145.503", "accountValue": "0.330377", "leverageType": "Cross",
    "liquidatedPositions": [{"coin": "WIF", "szi": "-510.0"}],
}  # fmt: skip


def effect(delta: dict[str, Any]) -> Decimal | None:
    return effect_of(msgspec.convert(delta, _Delta, strict=False), OWN.lower())


@pytest.mark.parametrize(("delta", "amount"), RECORDED)
def test_a_record_says_what_was_moved_into_the_margin_account(delta, amount):
    assert effect(delta) == Decimal(amount)


@pytest.mark.parametrize("token", ["USDC", "HYPE"])
@pytest.mark.parametrize("source_dex", ["", "spot", "xyz"])
@pytest.mark.parametrize("destination_dex", ["", "spot", "xyz"])
@pytest.mark.parametrize(("user", "destination"), [(OWN, OTHER), (OTHER, OWN), (OWN, OWN)])
def test_what_is_sent_counts_where_it_leaves_or_enters_the_margin_account(
    token, source_dex, destination_dex, user, destination
):
    delta = {
        "type": "send", "user": user, "destination": destination, "sourceDex": source_dex,
        "destinationDex": destination_dex, "token": token, "amount": "25.77", "usdcValue": "25.77", "fee": "0.0",
        "nativeTokenFee": "0.0", "nonce": 1769021417642, "feeToken": "",
    }  # fmt: skip
    expected = Decimal(0)
    if token == "USDC":
        expected -= Decimal("25.77") if (user, source_dex) == (OWN, "") else 0
        expected += Decimal("25.77") if (destination, destination_dex) == (OWN, "") else 0
    assert effect(delta) == expected


@pytest.mark.parametrize(
    "delta",
    [
        LIQUIDATION,
        {"type": "rewardsClaim", "amount": "2.48", "token": "USDC"},
        {"type": "vaultDistribution", "vault": OTHER, "usdc": "5.0"},
        {"type": "vaultLeaderCommission", "user": OWN, "usdc": "5.0"},
        {"type": "somethingNew", "usdc": "5.0"},
        {"type": "deposit"},
        {"type": "withdraw"},
        {"type": "accountClassTransfer", "usdc": "5.0"},
        {"type": "internalTransfer", "usdc": "5.0", "user": OTHER, "destination": OTHER},
        {"type": "send", "token": "USDC", "amount": "5.0", "user": OWN, "destination": OTHER},
    ],
)
def test_what_a_record_does_not_say_is_not_guessed(delta):
    assert effect(delta) is None


@contextmanager
def serving(answers: dict[str, Any], requests: list[dict[str, Any]]) -> Iterator[InfoClient]:
    """Answer each type of query; records by their times, at most 500 at once, as the venue does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(query)
            answer = answers[query["type"]]
            if "startTime" in query and isinstance(answer, list):
                answer = [r for r in answer if query["startTime"] <= r["time"] <= query["endTime"]][:500]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield InfoClient(f"http://127.0.0.1:{server.server_port}/info")
    finally:
        server.shutdown()
        thread.join(20.0)
        server.server_close()


def payment(ts_ms: int, coin: str, usdc: str) -> dict[str, Any]:
    delta = {"type": "funding", "coin": coin, "usdc": usdc, "szi": "1", "fundingRate": "0", "nSamples": None}
    return {"time": ts_ms, "hash": f"0x{0:064x}", "delta": delta}


def test_a_statement_is_cash_positions_and_what_was_recorded_up_to_its_time():
    now = STATE["time"]
    position = {
        "coin": "ETH", "szi": "-2.5", "positionValue": "5000.25", "entryPx": "1900.0", "unrealizedPnl": "1",
        "leverage": {"type": "cross", "value": 20}, "liquidationPx": None,
    }  # fmt: skip
    state = STATE | {"assetPositions": [{"type": "oneWay", "position": position}]}
    deposits = [
        {
            "time": now + offset,
            "hash": f"0x{offset + 10}",
            "delta": {"type": "deposit", "usdc": str(offset + 10)},
        }
        for offset in (-5, -4, 0, 1)
    ]
    ours = [*deposits, {"time": now, "hash": "0xff", "delta": LIQUIDATION}]
    paid = [payment(now - 5, "BTC", "-1"), payment(now, "ETH", "0.25"), payment(now + 1, "ETH", "7")]
    answers = {"clearinghouseState": state, "userFunding": paid, "userNonFundingLedgerUpdates": ours}
    requests: list[dict[str, Any]] = []
    with serving(answers, requests) as client:
        statement = HyperliquidStatements(client, OWN).statement(now - 5, ())
    assert (statement.currency, statement.ts_ms) == ("USDC", now)
    assert statement.cash == Decimal("1000.5") + Decimal("5000.25")
    assert statement.held == {"ETH": Holding(Decimal("-2.5"), Decimal("-5000.25"))}
    assert statement.transfers == (
        Transfer(now - 4, "deposit", Decimal(6), "0x6"),
        Transfer(now, "deposit", Decimal(10), "0x10"),
        Transfer(now, "liquidation", None, "0xff"),
    )
    assert statement.funding == (Funding(now, "ETH", Decimal("0.25")),)
    assert statement.terms == {}
    assert {request["user"] for request in requests} == {OWN}


def fill(ts_ms: int, number: int, coin: str = "BTC", side: str = "B") -> dict[str, Any]:
    """A fill as the venue's documentation of `userFillsByTime` has it."""
    return {
        "closedPnl": "0.0", "coin": coin, "crossed": False, "dir": "Open Long", "hash": f"0x{0:064x}", "oid": 90542681,
        "px": "18435.5", "side": side, "startPosition": "26.86", "sz": "93.53", "time": ts_ms, "fee": "-0.01",
        "feeToken": "USDC", "builderFee": "0.01", "tid": number,
    }  # fmt: skip


def test_fills_of_the_margin_account_are_in_it_where_they_are_wanted():
    now = STATE["time"]
    fills = [fill(now - 9, 1), fill(now - 8, 2), fill(now - 8, 3, "ETH", "A"), fill(now, 4), fill(now + 1, 5)]
    fills += [fill(now, 6, "@107"), fill(now, 7, "PURR/USDC"), fill(now, 8, "xyz:GOLD")]
    answers = {
        "clearinghouseState": STATE,
        "userFunding": [],
        "userNonFundingLedgerUpdates": [],
        "userFillsByTime": fills,
    }
    requests: list[dict[str, Any]] = []
    with serving(answers, requests) as client:
        source = HyperliquidStatements(client, OWN)
        assert source.statement(now, (), None).fills == ()
        assert "userFillsByTime" not in {request["type"] for request in requests}
        statement = source.statement(now, (), now - 9)
    size, price, fee = Decimal("93.53"), Decimal("18435.5"), Decimal("-0.01")
    assert statement.fills == (
        Fill(now - 8, "BTC", size, price, fee, "2"),
        Fill(now - 8, "ETH", -size, price, fee, "3"),
        Fill(now, "BTC", size, price, fee, "4"),
    )


def test_fills_that_are_alike_all_count():
    fills = [fill(1_000 + i // 100, i) for i in range(1_200)]
    answers = {
        "clearinghouseState": STATE,
        "userFunding": [],
        "userNonFundingLedgerUpdates": [],
        "userFillsByTime": fills,
    }
    with serving(answers, []) as client:
        assert len(set(HyperliquidStatements(client, OWN).statement(0, (), 0).fills)) == 1_200


def test_more_records_than_an_answer_has_are_asked_for_in_parts():
    """Also where an answer ends amid records of one time."""
    coins = [f"C{i}" for i in range(37)]
    paid = [payment(1_000 + hour, coin, f"-{hour}.{i}") for hour in range(30) for i, coin in enumerate(coins)]
    answers = {"clearinghouseState": STATE, "userFunding": paid, "userNonFundingLedgerUpdates": []}
    requests: list[dict[str, Any]] = []
    with serving(answers, requests) as client:
        statement = HyperliquidStatements(client, OWN).statement(0, ())
    assert len(statement.funding) == len(paid) == 1_110
    assert sum(p.amount for p in statement.funding) == sum(Decimal(p["delta"]["usdc"]) for p in paid)
    assert [request["type"] for request in requests].count("userFunding") == 3


def test_what_cannot_be_asked_for_in_whole_is_no_statement():
    paid = [
        payment(1_000, f"C{i}", "-1") for i in range(501)
    ]  # the venue has no way to ask for the last of them
    answers = {"clearinghouseState": STATE, "userFunding": paid, "userNonFundingLedgerUpdates": []}
    with serving(answers, []) as client, pytest.raises(ValueError, match="500 were found"):
        HyperliquidStatements(client, OWN).statement(0, ())


def test_an_answer_that_is_none_is_no_statement():
    for wrong in (
        {"clearinghouseState": None},
        {"userFunding": {}},
        {"userNonFundingLedgerUpdates": [{"time": 1}]},
    ):
        answers = {"clearinghouseState": STATE, "userFunding": [], "userNonFundingLedgerUpdates": []} | wrong
        with serving(answers, []) as client, pytest.raises(msgspec.ValidationError):
            HyperliquidStatements(client, OWN).statement(0, ())


def test_the_stub_gives_one_of_its_own_account():
    with Venue() as venue:
        client = InfoClient(venue.control_url.replace("/_venue", "/info"))
        source = HyperliquidStatements(client, OWN)
        since = time.time_ns() // 1_000_000 - 1
        venue.control("trade", coin="BTC", side="buy", size="0.5")
        venue.control("transfer", amount=-250.5)
        venue.control("transfer", amount=100, kind="accountClassTransfer")
        venue.control("fund", coin="BTC", usdc="-2.5")
        venue.control("fund_all", rate="0.0001")
        venue.control("cash", amount=-7)
        venue.control("leverage", coin="BTC", mode="isolated", value=5)
        statement = source.statement(since, ["BTC"])
        transfers = [(each.kind, each.amount) for each in statement.transfers]
        assert transfers == [("withdraw", Decimal("-250.5")), ("accountClassTransfer", Decimal(100))]
        assert [each.symbol for each in statement.funding] == ["BTC", "BTC"]
        assert statement.funding[0].amount == Decimal("-2.5")
        price = statement.held["BTC"].value / statement.held["BTC"].quantity
        assert float(statement.funding[1].amount) == pytest.approx(-0.5 * float(price) * 0.0001, rel=0.01)
        assert float(statement.cash) == pytest.approx(venue.state()["cash"], abs=1e-5)
        assert statement.terms["BTC"].isolated
        assert statement.terms["BTC"].leverage == 5
        later = source.statement(statement.ts_ms, ())
        opening = UnsettledOpening(since, {"BTC": Decimal(1)})
        [bought] = source.statement(since, (), since).fills
        assert (bought.symbol, bought.quantity) == ("BTC", Decimal("0.5"))
        stated = source.statement(since, (), since)
        paid_in = sum(
            (each.amount for each in (*stated.transfers, *stated.funding) if each.amount), Decimal(0)
        )
        # What it began with, less what was taken without a record.
        assert opening_equity(opening, stated, paid_in) == pytest.approx(
            Decimal(100_000) - 7, abs=Decimal("1e-4")
        )
        assert (later.transfers, later.funding, later.terms) == ((), (), {})
