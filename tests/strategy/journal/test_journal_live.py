"""What a live strategy does again after a kill, and what it does not: a real `TradingNode` on the stub of the venue."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from examples.venue import Venue
from tests.support.live_trading import SETTINGS, Case
from tests.support.trader import Trader

pytestmark = pytest.mark.slow


@pytest.fixture
def venue() -> Iterator[Venue]:
    """A venue without faults, of which nobody has an account yet."""
    with Venue("--candle-ms", "1000", "--virtual-candles", "1000") as venue:
        yield venue
        assert venue.errors() == ""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """The strategy's settings, with a journal that outlives a node."""
    return SETTINGS | {"journal_path": str(tmp_path / "orders.sqlite")}


def trading(node: Trader, venue: Venue) -> Case:
    case = Case(node, venue)
    case.until(lambda: len(node.events("bar")) > 1, "bars")
    return case


def asked(case: Case) -> list[str]:
    return [
        e["body"]["oid"] for e in case.venue.log("info", case.begun) if e["body"]["type"] == "orderStatus"
    ]


def test_an_entry_that_was_lost_with_its_node_is_given_up_when_the_venue_says_that_it_has_none(
    venue, settings
):
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        venue.control("orders", mode="silent")
        node.publish(1, signal_id="lost")
        case.until(lambda: case.sent(), "the entry on its way")
        lost = case.sent()[0]["c"]
        node.stop(SIGKILL)
    venue.control("orders", mode="filled")
    venue.control("set", info_fail=["orderStatus"])
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        node.publish(1, signal_id="while nothing is known")
        case.until(lambda: case.counts.get("unsettled_entry"), "the refusal")
        case.until(lambda: node.state()["counts"].get("unsettled", 0) > 1, "attempts to ask")
        assert "is not known, nothing is entered there" in node.log()
        health = node.events("health")[-1]
        [(order_id, instrument_id)] = json.loads(health["unsettled_entries"]).items()
        assert instrument_id == "BTC-USD-PERP.HYPERLIQUID"
        assert f"has not said what became of {order_id}" in health["problems"]
        assert case.sent() == []
        venue.control("set", info_fail=[])
        case.until(lambda: node.state()["counts"].get("never_sent"), "the venue's word")
        assert set(asked(case)) == {lost}
        case.until(lambda: node.events("health")[-1]["ok"], "health")
        node.publish(1, signal_id="lost")
        case.until(lambda: case.counts.get("entered_before"), "the refusal of what was begun before")
        case.enter(signal_id="another")
        node.publish(0)
        case.until_flat()


def test_a_signal_whose_entry_was_filled_without_a_word_is_not_entered_again_after_a_kill(venue, settings):
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        venue.control("orders", mode="mute")
        node.publish(1, signal_id="a")
        case.until(lambda: case.position() > 0, "the fill")
        node.stop(SIGKILL)
    venue.control("orders", mode="filled")
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        case.until_flat()  # it has no stop
        counts = node.state()["counts"]
        assert counts["exit_no_stop"] >= 1
        case.until(lambda: node.state()["counts"].get("settled") or not asked(case), "the venue's word")
        node.publish(1, signal_id="a")
        case.until(lambda: case.counts.get("entered_before"), "the refusal")
        assert case.position() == 0


def test_a_close_that_waits_for_an_order_in_flight_survives_a_kill(venue, settings):
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        case.enter(signal_id="a")
        venue.control("orders", lose=["reduce_only"])
        node.publish(0)  # its order is lost on the way
        case.until(lambda: node.state()["durable_exits"], "the exit in the journal")
        node.stop(SIGKILL)
    assert case.position() > 0
    assert len(case.orders()) == 2
    venue.control("orders", lose=[])
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        case.until_flat()
        assert "is closed, as was decided before the start" in node.log()


def test_a_second_node_on_the_journal_ends_with_an_error(venue, settings):
    with Trader(venue, strategy=settings) as node:
        trading(node, venue)
        with Trader(venue, strategy=settings) as second, pytest.raises(RuntimeError) as ended:
            second.until(lambda: False, "the end of the second node")
        assert "the node ended with 1" in str(ended.value)
        assert "is in use: another process or strategy trades with it" in str(ended.value)
        node.publish(1)
        Case(node, venue).until(lambda: len(venue.state()["orders"]) == 2, "the first one's trade")


def test_lives_of_a_day_share_its_loss(venue, settings):
    settings = settings | {"limits": {"max_position_fraction": 0.5, "max_daily_loss": 0.008}}
    refused = [live_and_lose(venue, settings, signal_id=str(life)) for life in range(3)]
    assert not refused[0]
    assert refused[2]
    # Each alone would lose half a percent of 100,000; beyond the limit comes slippage alone.
    assert venue.state()["account_value"] > 100_000 * (1 - 0.008) - 100


def live_and_lose(venue: Venue, settings: dict[str, object], signal_id: str) -> bool:
    """Enter, be stopped out and be killed; return whether the entry was refused."""
    with Trader(venue, strategy=settings) as node:
        case = trading(node, venue)
        case.until(lambda: node.state()["knows_equity"], "the venue's records of the day")
        node.publish(1, signal_id=signal_id)
        case.until(lambda: {"open", "refuse"} & set(case.counts), "the decision")
        if case.counts.get("open"):
            case.until(lambda: len(case.orders()) == 2, "stop and target")
            case.move(math.exp(-0.011))
            case.until_flat()
            case.move(math.exp(0.011))
        refused = bool(case.counts.get("refuse"))
        node.stop(SIGKILL)
    return refused
