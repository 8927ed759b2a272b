"""The sandbox as it is shipped: live data of the stub, orders simulated inside the node, nothing sent to the venue."""

from pathlib import Path

import pytest

from tests.support.live_node import Rig, rig

pytestmark = pytest.mark.slow

FAST = ("--candle-ms", "300", "--virtual-candles", "1500")


def orders(node: Rig, tag: str, kind: str = "OrderFilled") -> list[dict[str, str]]:
    """Return the events of the orders of a purpose."""
    return [event for event in node.order_events(kind) if tag in event["tags"]]


def test_a_signal_becomes_a_simulated_trade_and_a_stop_ends_it_cleanly(tmp_path: Path) -> None:
    with rig(tmp_path / "rig", *FAST, config="hyperliquid_sandbox.json", coins=("BTC", "ETH")) as node:
        node.started()
        answer = node.ask("BTC", 1)
        assert answer.status == "ok"
        node.until(lambda: orders(node, "TAKE_PROFIT", "OrderAccepted"), "stop and target")
        [entry] = orders(node, "ENTRY")
        [stop] = orders(node, "STOP_LOSS", "OrderAccepted")
        [target] = orders(node, "TAKE_PROFIT", "OrderAccepted")
        assert [event["quantity"] for event in (stop, target)] == [entry["last_qty"]] * 2

        node.venue.control("move", coin="BTC", factor=1.03)
        node.until(lambda: orders(node, "TAKE_PROFIT"), "the target's fill")
        node.until(lambda: orders(node, "STOP_LOSS", "OrderCanceled"), "the end of the stop that is left")

        node.ask("ETH", -1)
        node.until(lambda: len(orders(node, "TAKE_PROFIT", "OrderAccepted")) == 2, "a second position")
        assert node.stop() == 0
        fills = node.order_events("OrderFilled")
        held = dict.fromkeys(("BTC", "ETH"), 0.0)
        for fill in fills:
            sign = 1.0 if fill["order_side"] == "BUY" else -1.0
            held[fill["instrument_id"].partition("-")[0]] += sign * float(fill["last_qty"])
        assert held["BTC"] == pytest.approx(0.0)
        # Closed at the stop. The simulation fills no more than the quote's size, which may be thin: then each further
        # exit is for what is left, until the stop's time is over.
        sold = (f for f in fills if f["instrument_id"].startswith("ETH") and f["order_side"] == "SELL")
        left, exits = sum(float(f["last_qty"]) for f in sold), _exits(node, "ETH")
        for order_id, quantity in exits:
            assert quantity == pytest.approx(left)
            filled = sum(float(f["last_qty"]) for f in fills if f["client_order_id"] == order_id)
            assert filled > 0.0
            left -= filled
        assert held["ETH"] == pytest.approx(-left)
        assert left == pytest.approx(0.0) or len(exits) > 1
        assert not node.venue.log("post")
        assert not node.venue.log("exchange")


def _exits(node: Rig, coin: str) -> list[tuple[str, float]]:
    """Return id and quantity of a coin's exits at market, in order."""
    return [
        (event["client_order_id"], float(event["quantity"]))
        for event in node.order_events("OrderSubmitted")
        if event["instrument_id"].startswith(coin) and not event["tags"]
    ]


def test_after_a_kill_the_simulated_account_is_flat_and_is_traded_again(tmp_path: Path) -> None:
    with rig(tmp_path / "rig", *FAST, config="hyperliquid_sandbox.json", coins=("BTC",)) as node:
        node.started()
        node.ask("BTC", 1)
        node.until(lambda: orders(node, "TAKE_PROFIT", "OrderAccepted"), "a position")
        node.kill()
        node.started()
        assert node.ask("BTC", 1).status == "ok"
        node.until(lambda: len(orders(node, "ENTRY")) == 2, "an entry of the second life")
        node.until(lambda: len(orders(node, "STOP_LOSS", "OrderAccepted")) == 2, "its stop")
        assert node.stop() == 0
