"""An order as the stub knows it."""

import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from examples.venue.payloads import Message, OrderRequest, Trigger
from examples.venue.tape import SIZE_DECIMALS, price_text, size_text

COINS = tuple(SIZE_DECIMALS)
LEVERAGE = {"BTC": 40, "ETH": 25, "SOL": 20}
_ORDER_TYPES = {
    None: "Limit",
    ("sl", True): "Stop Market",
    ("sl", False): "Stop Limit",
    ("tp", True): "Take Profit Market",
    ("tp", False): "Take Profit Limit",
}


class Top(NamedTuple):
    """Best prices of a book, and the last trade's."""

    bid: Decimal
    ask: Decimal
    last: Decimal


@dataclass(eq=False)
class Order:
    """An order as the venue knows it; `left` is what is not filled."""

    oid: int
    coin: str
    is_buy: bool
    price: Decimal
    size: Decimal
    left: Decimal
    reduce_only: bool
    tif: str | None
    trigger: Trigger | None
    cloid: str | None
    placed_ms: int
    status: str = "open"
    changed_ms: int = 0
    parent: "Order | None" = None
    siblings: list["Order"] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it can still be filled."""
        return self.status in ("open", "triggered", "waiting")

    @property
    def sign(self) -> int:
        """1 to buy, -1 to sell."""
        return 1 if self.is_buy else -1

    def basic(self) -> dict[str, object]:
        """Return the part of an order that the channel `orderUpdates` has."""
        fields: dict[str, object] = {
            "coin": self.coin,
            "side": "B" if self.is_buy else "A",
            "limitPx": price_text(self.coin, float(self.price)),
            "sz": size_text(self.coin, float(self.left)),
            "oid": self.oid,
            "timestamp": self.placed_ms,
            "origSz": size_text(self.coin, float(self.size)),
        }
        return fields if self.cloid is None else fields | {"cloid": self.cloid}

    def full(self) -> dict[str, object]:
        """Return an order as in `frontendOpenOrders` and `orderStatus`."""
        trigger = self.trigger
        condition = "N/A"
        if trigger is not None:
            below = (trigger["tpsl"] == "sl") != self.is_buy
            condition = f"Price {'below' if below else 'above'} {trigger['triggerPx']}"
        return self.basic() | {
            "triggerCondition": condition,
            "isTrigger": trigger is not None,
            "triggerPx": "0.0" if trigger is None else str(trigger["triggerPx"]),
            "children": [],
            "isPositionTpsl": False,
            "reduceOnly": self.reduce_only,
            "orderType": _ORDER_TYPES[None if trigger is None else (trigger["tpsl"], trigger["isMarket"])],
            "tif": self.tif,
            "cloid": self.cloid,
        }

    def update(self) -> Message:
        """Return a message's item in the channel `orderUpdates`."""
        return {"order": self.basic(), "status": self.status, "statusTimestamp": self.changed_ms}


def now_ms() -> int:
    """Return the clock's time."""
    return time.time_ns() // 1_000_000


def reached(order: Order, price: Decimal) -> bool:
    """Return whether the price has reached the order's trigger: a stop against, a target with the position."""
    assert order.trigger is not None
    trigger = Decimal(order.trigger["triggerPx"])
    below = (order.trigger["tpsl"] == "sl") != order.is_buy
    return price <= trigger if below else price >= trigger


def kinds(request: OrderRequest) -> list[str]:
    """Return the kinds of order that a request is: 'market', 'limit' or 'trigger', and 'reduce_only'."""
    limit = request["t"].get("limit")
    kind = "trigger" if limit is None else "market" if limit["tif"] == "Ioc" else "limit"
    return [kind, "reduce_only"] if request["r"] else [kind]
