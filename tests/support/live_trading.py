"""A live strategy on the stub of the venue, and what happened there since a case began."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from examples.venue import Venue
from tests.support.trader import Trader

BARS = "BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
SETTINGS: dict[str, Any] = {
    "bar_types": [BARS],
    "labels": {"horizon_bars": 100, "cost": 0.0},
    "limits": {"max_position_fraction": 0.5, "max_daily_loss": 0.5},
    "risk_target": None,  # the limits are what tests run into
    "order_timeout": 4.0,
    "check_interval": 3.0,
    "cooldown_bars": 0,  # a bar is a minute by the clock, and a second at the stub
}


def heal(venue: Venue) -> None:
    venue.control("orders", mode="filled", reject={}, lose=[], fill_fraction=1.0, auto_cancel=False)
    venue.control("feed", paused=False, without=[], duplicates=0)
    venue.control("set", frozen=False, accept=True, post_delay_ms=0)


class Case:
    """A node on a venue, and what happened since the case began."""

    def __init__(self, node: Trader, venue: Venue) -> None:
        self.node, self.venue = node, venue
        self.begun = venue.control("feed")
        self.reports_before = len(node.reports)
        self.counts_before = node.state()["counts"]
        self.fills_before = len(venue.state()["fills"])

    @property
    def counts(self) -> dict[str, int]:
        now = self.node.state()["counts"]
        return {
            k: n - self.counts_before.get(k, 0) for k, n in now.items() if n != self.counts_before.get(k, 0)
        }

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return self.node.until(condition, what)
        except (AssertionError, RuntimeError):
            print(self.node.log()[-20_000:])
            raise

    def sent(self) -> list[dict[str, Any]]:
        """Return the single orders that the venue was sent, in the adapter's short names."""
        actions = [entry["action"] for entry in self.venue.log("post", since=self.begun)]
        return [order for action in actions if action["type"] == "order" for order in action["orders"]]

    def cancelled(self) -> int:
        return sum(e["action"]["type"].startswith("cancel") for e in self.venue.log("post", self.begun))

    def fills(self) -> list[dict[str, Any]]:
        """Return what was filled since the case began."""
        return self.venue.state()["fills"][self.fills_before :]

    def position(self) -> float:
        return float(self.venue.state()["positions"].get("BTC", 0.0))

    def orders(self) -> list[dict[str, Any]]:
        return self.venue.state()["orders"]

    def move(self, factor: float) -> None:
        """Move the market, and wait for a bar that has closed there."""
        self.venue.control("move", coin="BTC", factor=factor)
        seen = len(self.node.events("bar"))
        self.until(lambda: len(self.node.events("bar")) > seen + 1, "a bar at the new price")

    def signal(self, side: int = 1, **fields: Any) -> None:
        """Publish a signal that may open a position, and wait until it is decided.

        One that is refused since only the venue knows yet what the account is left with is followed by another: an
        order of an earlier case may be given up as unanswered at any time.
        """
        fields.setdefault("signal_id", uuid4().hex)  # of no other case or life of the node
        name, n = fields["signal_id"], 0

        def is_decided() -> bool:
            return len(self._decisions(name)) > n

        while n == 0 or "refuse, unknown_equity" in self._decisions(name)[-1]:
            n = len(self._decisions(name))
            self.until(lambda: self.node.state()["knows_equity"], "a report of the account")
            self.node.publish(side, **fields)
            self.until(is_decided, f"the decision on {name}")
            n += 1

    def _decisions(self, name: str) -> list[str]:
        return [line for line in self.node.log().splitlines() if f": {name} of " in line]

    def enter(self, side: int = 1, **fields: Any) -> float:
        """Enter, and return the quantity when stop and target rest at the venue."""
        self.signal(side, **fields)
        self.until(lambda: len(self.orders()) == 2, "stop and target at the venue")
        return self.position()

    def until_flat(self) -> None:
        self.until(lambda: self.position() == 0, "a flat account")
        self.until(lambda: not self.orders(), "no orders at the venue")
        self.until(lambda: not self.node.state()["positions"], "a flat cache")
