"""The strategy in a real `TradingNode`, through the unpatched Hyperliquid adapter, on the stub of the venue."""

import json
import math
import time
from collections.abc import Iterator
from signal import SIGKILL
from typing import Any

import pytest

from examples.venue import Venue
from ml4t_actor.strategy.__main__ import main
from tests.support.live_trading import SETTINGS, Case, heal
from tests.support.trader import Trader
from tests.support.waiting import end_of, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with Venue("--candle-ms", "1000", "--virtual-candles", "1000") as venue:
        venue.control("leverage", coin="BTC", mode="isolated", value=20)  # lasts for 3.75 %
        yield venue
        assert venue.errors() == ""


@pytest.fixture
def other() -> Iterator[Venue]:
    """A venue of its own: two nodes on one account would each take up what the other opens."""
    with Venue("--candle-ms", "1000", "--virtual-candles", "1000") as venue:
        yield venue


@pytest.fixture(scope="module")
def node(venue: Venue) -> Iterator[Trader]:
    with Trader(venue, strategy=SETTINGS) as trader:
        trader.until(lambda: len(trader.events("bar")) > 1, "bars")
        yield trader


@pytest.fixture
def desk(node: Trader, venue: Venue) -> Iterator["Case"]:
    """The node, flat and at a venue without faults, before and after the test."""
    case = Case(node, venue)
    yield case
    heal(venue)
    node.publish(0)
    case.until(lambda: not case.venue.state()["posts_waiting"], "an answer to all that was sent")
    case.until(lambda: not case.venue.state()["positions"], "a flat account")
    case.until(lambda: not case.venue.state()["orders"], "no orders at the venue")
    case.until(lambda: not (state := node.state())["positions"] and not state["busy"], "a flat and idle node")


def kind_of(order: dict[str, Any]) -> str:
    limit = order["t"].get("limit")
    name = "stop" if limit is None else "market" if limit["tif"] == "Ioc" else "limit"
    return f"{name}{' reducing' if order['r'] else ''}"


@pytest.mark.parametrize("side", [1, -1])
def test_stop_and_target_are_sent_when_the_entry_is_filled_for_its_quantity(side, desk):
    quantity = desk.enter(side)
    assert math.copysign(1, quantity) == side
    entry, stop, target = desk.sent()
    assert [kind_of(o) for o in (entry, stop, target)] == ["market", "stop reducing", "limit reducing"]
    assert [o["b"] for o in (entry, stop, target)] == [side == 1, side == -1, side == -1]
    assert [float(o["s"]) for o in (entry, stop, target)] == [abs(quantity)] * 3
    filled = next(e for e in desk.venue.log("user", desk.begun) if e["body"]["channel"] == "user")
    posts = desk.venue.log("post", desk.begun)
    assert posts[0]["n"] < filled["n"] < posts[1]["n"]
    price = float(entry["p"]) / (1 + 0.005 * side)  # the quote, from which the adapter makes a limit
    trigger = float(stop["t"]["trigger"]["triggerPx"])
    assert trigger == pytest.approx(price * math.exp(-side * 0.01), rel=5e-4)
    assert float(stop["p"]) == pytest.approx(trigger * (1 - 0.05 * side), rel=1e-4)  # 0.5 % by the adapter
    assert (stop["t"]["trigger"]["tpsl"], stop["t"]["trigger"]["isMarket"]) == ("sl", False)
    assert float(target["p"]) == pytest.approx(price * math.exp(side * 0.01), rel=5e-4)


@pytest.mark.parametrize("auto_cancel", [False, True])
@pytest.mark.parametrize(("side", "toward"), [(1, "stop"), (1, "target"), (-1, "stop"), (-1, "target")])
def test_when_one_exit_fills_the_other_is_cancelled(side, toward, auto_cancel, desk):
    desk.venue.control("orders", auto_cancel=auto_cancel)
    desk.enter(side)
    factor = math.exp(0.013 * side * (1 if toward == "target" else -1))
    desk.move(factor)
    desk.until_flat()
    fills = [
        e["body"]["data"]["fills"][0]
        for e in desk.venue.log("user", desk.begun)
        if e["body"]["channel"] == "user"
    ]
    assert len(fills) == 2
    assert fills[1]["crossed"] == (toward == "stop")
    assert len(desk.sent()) == 3
    assert not any(name.startswith("exit") for name in desk.counts)
    desk.move(1 / factor)


def test_a_zero_signal_closes_and_cancels_afterwards(desk):
    quantity = desk.enter()
    desk.node.publish(0)
    desk.until_flat()
    close = desk.sent()[3]
    assert kind_of(close) == "market reducing"
    assert float(close["s"]) == quantity
    assert len(desk.sent()) == 4
    posts = [e["action"] for e in desk.venue.log("post", desk.begun)]
    assert [p["type"] for p in posts[-2:]] == ["cancelByCloid"] * 2
    assert desk.counts["exit_signal"] == 1


def test_an_opposite_signal_reverses_with_exits_of_its_own(desk):
    desk.enter(1)
    desk.node.publish(-1)
    desk.until(lambda: desk.position() < 0 and len(desk.orders()) == 2, "the other side with its exits")
    kinds = [kind_of(o) for o in desk.sent()]
    assert kinds == ["market", "stop reducing", "limit reducing", "market reducing", *kinds[:3]]
    assert {o["side"] for o in desk.orders()} == {"B"}


def test_an_expired_signal_opens_nothing(desk):
    desk.node.publish(1, status="expired")
    desk.until(lambda: desk.counts.get("expired"), "the refusal")
    assert desk.sent() == []


def test_nothing_is_opened_that_its_own_margin_would_let_be_liquidated_before_its_stop(desk):
    desk.until(lambda: desk.node.state()["is_stated"], "a statement, with the terms")
    desk.signal(1, volatility=0.045)
    desk.until(lambda: desk.counts.get("refuse"), "the refusal")
    assert "liquidation before the stop: the position's own margin lasts for 0.03797" in desk.node.log()
    desk.enter(volatility=0.03)
    desk.node.publish(0)
    desk.until_flat()


def test_a_part_that_is_filled_is_protected_and_closed(desk):
    desk.venue.control("orders", fill_fraction=0.4)
    quantity = desk.enter()
    entry, stop, target = desk.sent()
    assert quantity == pytest.approx(0.4 * float(entry["s"]), rel=1e-3)
    assert float(stop["s"]) == float(target["s"]) == quantity
    desk.venue.control("orders", fill_fraction=1.0)
    desk.node.publish(0)
    desk.until_flat()
    assert float(desk.sent()[3]["s"]) == quantity


def test_an_exit_that_is_filled_in_parts_is_asked_for_until_the_position_is_gone(desk):
    desk.enter()
    desk.venue.control("orders", fill_fraction=0.5)
    desk.node.publish(0)
    desk.until(lambda: len(desk.sent()) > 5, "further exits")
    desk.venue.control("orders", fill_fraction=1.0)
    desk.until_flat()
    assert {kind_of(o) for o in desk.sent()[3:]} == {"market reducing"}


def test_after_a_refused_entry_nothing_is_left_and_the_next_is_taken(desk):
    desk.venue.control("orders", mode="rejected")
    desk.signal(1)
    desk.until(lambda: desk.node.events("OrderRejected")[-1:], "the refusal")
    assert len(desk.sent()) == 1
    desk.venue.control("orders", mode="filled")
    desk.until(lambda: desk.counts.get("open") == 1, "the decision")
    desk.enter()


def test_a_position_whose_stop_is_refused_is_closed_at_once(desk):
    desk.venue.control("orders", reject={"trigger": "Invalid TP/SL price."})
    desk.signal(1)
    desk.until(lambda: desk.counts.get("exit_no_stop"), "the exit")
    desk.until_flat()
    assert "is left: no_stop" in desk.node.log()


def test_a_position_whose_stop_is_not_answered_is_closed(desk):
    desk.venue.control("orders", lose=["trigger"])
    desk.signal(1)
    desk.until(lambda: desk.position() > 0, "the entry")
    desk.until(lambda: desk.counts.get("exit_no_stop"), "the exit")
    desk.until_flat()


def test_a_position_whose_stop_is_cancelled_at_the_venue_is_closed_at_once(desk):
    desk.enter()
    stop = next(o for o in desk.orders() if o["isTrigger"])
    desk.venue.control("cancel", oid=stop["oid"])
    desk.until(lambda: desk.counts.get("exit_no_stop"), "the exit")
    desk.until_flat()


def test_an_exit_that_the_venue_refuses_is_asked_for_until_it_is_filled(desk):
    desk.venue.control("orders", reject={"reduce_only": "Too many orders."})
    desk.signal(1)
    desk.until(lambda: desk.counts.get("exit_again", 0) > 1, "further attempts")
    assert desk.position() > 0
    heal(desk.venue)
    desk.until_flat()


def test_an_entry_that_was_lost_on_the_way_is_given_up(desk):
    desk.venue.control("orders", mode="silent")
    desk.signal(1)
    desk.until(lambda: desk.counts.get("unknown_entry"), "the doubt")
    assert desk.position() == 0
    desk.venue.control("orders", mode="filled")
    desk.until(
        lambda: "OrderRejected" in {e["kind"] for e in desk.node.reports[desk.reports_before :]},
        "the verdict",
    )
    desk.enter()
    assert all(o["r"] for o in desk.sent()[1:-3])


def test_an_entry_that_was_filled_without_a_word_is_undone(desk):
    desk.venue.control("orders", mode="mute")
    desk.signal(1)
    desk.until(lambda: desk.position() > 0, "the fill")
    desk.venue.control("orders", mode="filled")
    desk.until(lambda: desk.counts.get("unknown_entry"), "the doubt")
    desk.until_flat()
    desk.until(
        lambda: "would increase position" in json.dumps(desk.venue.log("answer", desk.begun)), "the verdict"
    )
    desk.enter()
    assert [kind_of(o) for o in desk.sent()[:3]] == ["market", "market reducing", "market reducing"]


def test_an_entry_that_is_answered_late_is_not_forgotten(desk):
    desk.venue.control("set", post_delay_ms=7_000)
    desk.signal(1)
    desk.until(lambda: desk.counts.get("unknown_entry"), "the doubt")
    desk.venue.control("set", post_delay_ms=0)
    desk.until(desk.fills, "the fill")
    desk.until(lambda: len(desk.fills()) > 1, "its end")
    desk.until_flat()
    assert [fill["side"] for fill in desk.fills()] == ["B", "A"]


def test_after_a_cut_the_position_is_still_looked_after(desk):
    desk.enter()
    desk.venue.control("drop", mode="abort")
    desk.until(lambda: len(desk.venue.log("open", desk.begun)) == 2, "both connections again")
    desk.until(lambda: len(desk.venue.log("subscribe", desk.begun)) >= 4, "the subscriptions")
    desk.node.publish(0)
    desk.until_flat()
    assert desk.counts["exit_signal"] == 1


def test_a_stop_that_is_filled_while_the_connection_is_cut_is_learnt_from_the_venue(desk):
    desk.enter()
    desk.venue.control("set", accept=False)
    desk.venue.control("drop", mode="abort")
    desk.venue.control("move", coin="BTC", factor=math.exp(-0.013))
    desk.until(lambda: desk.position() == 0, "the stop's fill")
    desk.venue.control("set", accept=True)
    desk.until_flat()
    assert "exit_horizon" not in desk.counts
    desk.move(math.exp(0.013))
    desk.enter()  # although Nautilus has made up a fill at a price of zero
    equity = desk.node.state()["equity"]
    assert equity == pytest.approx(desk.venue.state()["account_value"], rel=2e-3)


def test_an_exit_that_was_filled_without_a_word_is_learnt_from_the_venue(desk):
    desk.enter()
    desk.venue.control("orders", mode="mute")
    desk.node.publish(0)
    desk.until(lambda: desk.position() == 0, "the fill")
    desk.venue.control("orders", mode="filled")
    desk.until(lambda: desk.counts.get("not_at_venue"), "the venue's word that there is no position")
    desk.until_flat()
    desk.enter()


def test_without_quotes_nothing_is_opened_but_positions_are_left(other):
    settings = SETTINGS | {"max_quote_age": 1.0}
    with Trader(other, strategy=settings) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        case.enter()
        other.control("feed", without=["bbo"])
        seen = len(node.events("bar"))
        case.until(lambda: len(node.events("bar")) > seen + 3, "time to pass")
        node.publish(0)
        case.until_flat()
        close = case.sent()[3]
        assert kind_of(close) == "market reducing"
        last = node.events("bar")[-1]["close"]
        assert float(close["p"]) == pytest.approx(0.95 * last, rel=0.003)
        node.publish(1)
        case.until(lambda: case.counts.get("no_quote"), "the refusal")
        assert len(case.sent()) == 4


@pytest.mark.parametrize("silent", [False, True], ids=["bars", "no bars"])
def test_the_horizon_ends_by_bars_or_by_the_clock(silent, other):
    # A candle takes a second here, but three minutes by the clock would be too long for a test: so bars of a second.
    horizon_bars = 12 if silent else 4  # by the clock long enough to enter and to silence the feed
    settings = SETTINGS | {"labels": {"horizon_bars": horizon_bars, "cost": 0.0}}
    if silent:
        settings["bar_types"] = ["BTC-USD-PERP.HYPERLIQUID-1-SECOND-LAST-INTERNAL"]
    with Trader(other, strategy=settings, data_engine={"time_bars_build_with_no_updates": False}) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        case.enter()
        if silent:
            other.control("feed", paused=True)
        case.until_flat()
        assert case.counts["exit_horizon"] == 1
        kinds = [report["kind"] for report in node.reports if report["kind"] in ("bar", "OrderSubmitted")]
        entry, exit_ = (kinds.index("OrderSubmitted"), len(kinds) - 1 - kinds[::-1].index("OrderSubmitted"))
        bars = kinds[entry:exit_].count("bar")
        assert bars < horizon_bars if silent else 4 <= bars <= 5


@pytest.mark.parametrize("what", ["both", "no stop", "no position"])
def test_a_position_is_taken_up_after_a_kill(what, other, tmp_path):
    settings = SETTINGS | {"journal_path": str(tmp_path / "orders.sqlite")}
    with Trader(other, strategy=settings) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        quantity = case.enter(-1)
        node.stop(SIGKILL)
    assert case.position() == quantity
    stop = next(o for o in case.orders() if o["isTrigger"])  # is at the other while there is no node
    if what == "no stop":
        other.control("cancel", oid=stop["oid"])
    elif what == "no position":
        other.control("trade", coin="BTC", side="buy", size=str(-quantity))
    with Trader(other, strategy=settings) as node:
        again = Case(node, other)
        again.counts_before = {}
        if what == "both":
            again.until(lambda: again.counts.get("taken_up"), "the position")
            assert node.state()["positions"] == {
                "BTC-USD-PERP.HYPERLIQUID": ["EnrichedSignalStrategy-T", quantity]
            }
            assert len(again.orders()) == 2
            # Nautilus's balance is twice the equity here: it lacks the value of the short position.
            value = other.state()["account_value"]
            assert node.state()["equity"] == pytest.approx(value, rel=0.002)
            other.control("move", coin="BTC", factor=math.exp(0.013))
            again.until_flat()
            assert again.sent() == []
            other.control("move", coin="BTC", factor=math.exp(-0.013))
        else:
            again.until_flat()
            assert again.counts == ({"taken_up": 1, "exit_no_stop": 1} if what == "no stop" else {})
        again.until(lambda: len(node.events("bar")) > 1, "bars")
        again.enter(signal_id="of this life")  # trades on
        node.publish(0)
        again.until_flat()


@pytest.mark.parametrize("side", [1, -1])
def test_a_stop_is_filled_in_a_gap_of_some_percent_while_there_is_no_node(side, other):
    with Trader(other, strategy=SETTINGS) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        case.enter(side)
        node.stop(SIGKILL)
    other.control("move", coin="BTC", factor=math.exp(-side * 0.04))
    until(lambda: case.position() == 0, "the stop's fill", lambda: len(other.log("user")))


def test_a_target_that_is_lost_while_there_is_no_node_is_sent_again(other, tmp_path):
    settings = SETTINGS | {"journal_path": str(tmp_path / "orders.sqlite")}
    with Trader(other, strategy=settings) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        quantity = case.enter()
        node.stop(SIGKILL)
    target = next(o for o in case.orders() if not o["isTrigger"])
    other.control("cancel", oid=target["oid"])
    with Trader(other, strategy=settings) as node:
        again = Case(node, other)
        again.until(lambda: len(again.orders()) == 2, "the target")
        [new] = again.sent()
        assert kind_of(new) == "limit reducing"
        assert float(new["s"]) == quantity == again.position()
        assert float(new["p"]) == pytest.approx(float(target["limitPx"]), rel=1e-3)


@pytest.mark.parametrize("adopts", [False, True])
def test_a_position_that_was_opened_by_hand_is_left_alone_unless_it_is_adopted(adopts, other):
    other.control("trade", coin="BTC", side="buy", size="0.1")
    with Trader(other, strategy=SETTINGS | {"adopt_positions": adopts}) as node:
        case = Case(node, other)
        if adopts:
            case.until_flat()  # it has no stop
        else:
            case.until(lambda: len(node.events("bar")) > 3, "bars")
            node.publish(1)
            case.until(lambda: node.state()["counts"].get("foreign_position", 0) > 1, "the refusal")
            assert node.events("health")[-1]["foreign_positions"] == '{"BTC-USD-PERP.HYPERLIQUID":"0.10000"}'
            assert (
                "0.10000 of its position is not the strategy's own" in node.events("health")[-1]["problems"]
            )
            assert node.stop() == 0
            assert case.sent() == []
            assert case.position() == 0.1
            assert "BTC-USD-PERP.HYPERLIQUID is not traded" in node.log()


def test_a_strategy_does_not_start_in_a_node_that_does_not_reconcile(other):
    other.control("trade", coin="BTC", side="buy", size="0.1")
    with Trader(other, strategy=SETTINGS, engine={"reconciliation": False}) as node:
        assert end_of(node.process) != 0
        assert "does not trade in a node that does not learn of its positions at the start" in node.log()
        assert "`exec_engine.reconciliation` is false: set it to true" in node.log()
    assert other.log("post") == []
    assert float(other.state()["positions"]["BTC"]) == 0.1


def test_a_clean_stop_closes_and_cancels(other):
    with Trader(other, strategy=SETTINGS) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        case.enter()
        assert "set `timeout_post_stop` to 18, or run it by" in node.log()  # it is not run by our command
        assert node.stop() == 0
    assert case.position() == 0
    assert case.orders() == []


def test_a_stop_that_is_to_leave_positions_leaves_them_with_their_stop(other, tmp_path):
    settings = SETTINGS | {"journal_path": str(tmp_path / "orders.sqlite")}
    with Trader(other, strategy=settings | {"close_on_stop": False}) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        quantity = case.enter()
        assert node.stop() == 0
    assert case.position() == quantity
    assert len(case.orders()) == 2
    with Trader(other, strategy=settings) as node:
        node.publish(0, signal_id="of this life")
        Case(node, other).until_flat()


def test_an_instrument_that_the_venue_does_not_list_is_not_traded(other):
    other.control("set", missing=["BTC"])
    with Trader(other, strategy=SETTINGS) as node:
        node.publish(1)
        Case(node, other).until(lambda: node.state()["counts"].get("not_traded_here"), "the signal")
        assert other.log("post") == []
        assert "BTC-USD-PERP.HYPERLIQUID is not in the cache" in node.log()


def test_nothing_is_opened_on_bars_that_have_stopped_coming(other):
    settings = SETTINGS | {
        "bar_types": ["BTC-USD-PERP.HYPERLIQUID-1-SECOND-LAST-INTERNAL"],
        "max_quote_age": 60.0,
    }
    with Trader(other, strategy=settings, data_engine={"time_bars_build_with_no_updates": False}) as node:
        case = Case(node, other)
        case.until(lambda: len(node.events("bar")) > 1, "bars")
        other.control("feed", paused=True)
        case.until(lambda: time.time() > node.events("bar")[-1]["t"] + 13, "two bars and ten seconds")
        node.publish(1)
        case.until(lambda: case.counts.get("stale_bars"), "the refusal")
        assert case.sent() == []


def test_a_withdrawal_is_seen_with_a_position_open_and_the_next_entry_is_sized_by_what_is_left(
    other, tmp_path, capsys
):
    settings = SETTINGS | {"journal_path": str(tmp_path / "orders.sqlite")}
    with Trader(other, strategy=settings) as trader:
        case = Case(trader, other)
        trader.until(lambda: len(trader.events("bar")) > 1, "bars")
        case.enter(1)
        before = trader.state()["equity"]
        other.control("transfer", amount=-80_000.0)
        trader.until(lambda: trader.state()["equity"] < 0.5 * before, "the withdrawal, by the next report")
        after = trader.state()
        assert after["equity"] == pytest.approx(before - 80_000.0, rel=0.02)
        assert "exit_no_stop" not in after["counts"]
        trader.publish(0)
        case.until_flat()
        quantity = case.enter(-1)
        price = trader.events("bar")[-1]["close"]
        # Half of what is left; and no loss of 80 % was taken for the day's, which would allow no entry.
        assert -quantity * price == pytest.approx(0.5 * after["equity"], rel=0.03)
        assert "withdraw of -80000.00 USDC at HYPERLIQUID" in trader.log()
        trader.stop(SIGKILL)
    assert "transferred -80000.00, funding +0.000000, by the venue's records up to" in day_of(
        settings, capsys
    )


def test_funding_and_what_nothing_explains_count_against_the_day_and_are_shown(other, tmp_path, capsys):
    settings = SETTINGS | {
        "journal_path": str(tmp_path / "orders.sqlite"),
        "limits": {"max_position_fraction": 0.1, "max_daily_loss": 0.05},
    }
    with Trader(other, strategy=settings) as trader:
        case = Case(trader, other)
        trader.until(lambda: len(trader.events("bar")) > 1, "bars")
        trader.until(lambda: trader.state()["is_stated"], "a first statement")
        case.enter(1)
        other.control("fund", coin="BTC", usdc="-1500")
        other.control("cash", amount=-4_000.0)
        trader.until(lambda: "funding of -1500.000000 USDC" in trader.log(), "the funding, by its record")
        assert "USDC at HYPERLIQUID that no trade, funding or transfer explains are lost" in trader.log()
        trader.publish(0)
        case.until_flat()
        trader.publish(1, signal_id="halted")
        case.until(lambda: case.counts.get("refuse"), "the refusal")
        trader.stop(SIGKILL)
    day = day_of(settings, capsys)
    assert "transferred +0.00, funding -1500.000000" in day
    # To a cent: Nautilus rounds profits to one.
    unexplained = day.split("unexplained ")[1].split(",")[0]
    assert float(unexplained) == pytest.approx(-4_000.0, abs=0.02)
    assert day.endswith("halted: its loss has reached the limit")


def test_what_was_withdrawn_while_the_node_was_down_is_no_loss_of_the_day(other, tmp_path):
    settings = SETTINGS | {
        "journal_path": str(tmp_path / "orders.sqlite"),
        "limits": {"max_position_fraction": 0.5, "max_daily_loss": 0.05},
    }
    with Trader(other, strategy=settings) as trader:
        case = Case(trader, other)
        trader.until(lambda: len(trader.events("bar")) > 1, "bars")
        trader.until(lambda: trader.state()["is_stated"], "a first statement")
        case.enter(1)  # by then it is in the journal
        trader.publish(0)
        case.until_flat()
        trader.stop(SIGKILL)
    other.control("transfer", amount=-80_000.0)
    with Trader(other, strategy=settings) as trader:
        case = Case(trader, other)
        trader.until(lambda: len(trader.events("bar")) > 1, "bars")
        trader.until(
            lambda: "withdraw of -80000.00 USDC at HYPERLIQUID" in trader.log(), "the venue's records"
        )
        quantity = case.enter(1)
        price = trader.events("bar")[-1]["close"]
        assert quantity * price == pytest.approx(0.5 * 20_000, rel=0.03)
        trader.publish(0)
        case.until_flat()
        trader.stop()
        day = trader.log().rpartition("HYPERLIQUID USDC  ")[2]
        assert "transferred -80000.00, funding +0.000000, by the venue's records up to" in day


def day_of(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the journal's command says of the account's day."""
    assert main([str(settings["journal_path"])]) == 0
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("HYPERLIQUID USDC"))
