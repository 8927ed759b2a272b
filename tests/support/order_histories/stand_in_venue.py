"""The stand-in venue as the invariants look at it: by its own state, and the record of what it was sent."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from examples.venue import Venue as Server
from examples.venue.orders import Order
from examples.venue.payloads import Action, Message, OrderRequest

_FEEDS = ("bbo", "l2Book", "trades", "candle")
_REMEMBERED_S = 100.0


class StandInVenue:
    """Looks at the stand-in every now and then.

    Attributes
    ----------
    orders : dict[int, Order]
        The open ones, by the venue's id.
    fills : list[dict]
        All so far.
    withdrawable : float
        How much of the account may be withdrawn.
    is_cut : bool
        Whether the node may still have to connect again.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.orders: dict[int, Order] = {}
        self.fills: list[Any] = []
        self.on_action: list[Callable[[Action, Message | None], None]] = []
        self.on_change: list[Callable[[], None]] = []
        self.is_cut = False
        self.withdrawable = 0.0
        self._equity = 0.0
        self._read = 0
        self._as_of_ms: float | None = None  # for what was sent then; else now
        self._unanswered: dict[int, Action] = {}
        self._past: deque[tuple[float, dict[str, float]]] = deque()
        self._reject: dict[str, str] = {}
        self._lose: list[str] = []
        self._mode, self._slow = "filled", False
        self._answers = True  # as the record has it, up to where it was read
        self.look()

    @property
    def books(self) -> "StandInVenue":
        """Orders and fills."""
        return self

    @property
    def takes_orders(self) -> bool:
        """Whether it neither refuses nor loses nor delays orders, and answers."""
        return self._mode == "filled" and not (self._reject or self._lose or self._slow or self.is_cut)

    def look(self, on_sent: Callable[[OrderRequest], None] = lambda request: None) -> None:
        """Learn what has happened; call back with each order that was sent meanwhile."""
        state: Any = self._server.state()
        record = self._server.log(since=self._read)[: state["log"] - self._read]  # up to the state
        self._read += len(record)
        self.fills = state["fills"]
        for entry in record:
            self._replay(entry, on_sent)
        self._as_of_ms = None
        self.orders = {order["oid"]: _order(order) for order in state["orders"]}
        self._equity = float(state["account_value"])
        prices = {coin: top[2] for coin, top in state["prices"].items()}
        now = time.monotonic()
        self._past.append((now, prices))
        while self._past[0][0] < now - _REMEMBERED_S:
            self._past.popleft()
        gross = sum(abs(float(size)) * prices[coin] for coin, size in state["positions"].items())
        self.withdrawable = max(self._equity - gross / 10.0, 0.0)
        for observer in self.on_change:
            observer()

    def _replay(self, entry: Mapping[str, Any], on_sent: Callable[[OrderRequest], None]) -> None:
        kind = entry["kind"]
        if kind == "control" and "mode" in entry:
            self._answers = entry["mode"] == "filled"
        elif kind == "post":
            action = entry["action"]
            self._as_of_ms = entry["t"] * 1e3
            for request in action.get("orders", ()):
                on_sent(request)
            if self._answers:
                self._unanswered[entry["nonce"]] = action
            else:
                self._tell(action, None)
        elif kind == "answer" and entry["nonce"] in self._unanswered:
            self._tell(self._unanswered.pop(entry["nonce"]), entry["body"])

    def _tell(self, action: Action, answer: Message | None) -> None:
        for observer in self.on_action:
            if action["type"] in ("order", "cancel", "cancelByCloid"):
                observer(action, answer)

    def now_ns(self) -> int:
        """Return the time; while the record is read, that of the entry."""
        return time.time_ns() if self._as_of_ms is None else round(self._as_of_ms * 1e6)

    def held(self, coin: str) -> Decimal:
        """Return the position, by the fills."""
        end = self._as_of_ms
        sizes = (
            Decimal(fill["sz"]) if fill["side"] == "B" else -Decimal(fill["sz"])
            for fill in self.fills
            if fill["coin"] == coin and (end is None or fill["time"] < int(end))
        )
        return sum(sizes, Decimal(0))

    def equity(self) -> float:
        """Return the account's value."""
        return self._equity

    def last(self, coin: str) -> float:
        """Return the last price."""
        return self._past[-1][1][coin]

    def extremes(self, coin: str, seconds: float) -> tuple[float, float]:
        """Return the lowest and the highest price of the last seconds."""
        since = self._past[-1][0] - seconds
        prices = [prices[coin] for at, prices in self._past if at >= since]
        return min(prices), max(prices)

    def begin(self, kind: str, data: Mapping[str, Any]) -> None:
        """Begin a fault."""
        control = self._server.control
        if kind == "reject":
            self._reject[data["what"]] = data["text"]
            control("orders", reject=self._reject)
        elif kind == "lose":
            self._lose.append(data["what"])
            control("orders", lose=self._lose)
        elif kind == "part":
            control("orders", fill_fraction=data["fraction"])
        elif kind in ("mute", "silent"):
            self._mode = kind
            control("orders", mode=kind)
        elif kind == "slow":
            self._slow = True
            control("set", post_delay_ms=min(data["delay"], 3.0) * 500.0)
        elif kind == "cut":
            self.is_cut = True
            control("set", accept=False)
            control("drop", mode="abort")
        elif kind == "quotes":
            control("feed", without=list(_FEEDS))
        elif kind == "info":
            control("set", info_status=500)

    def cease(self, kind: str, data: Mapping[str, Any], *, last: bool) -> None:
        """End a fault; the last of its kind or not."""
        control = self._server.control
        if kind == "reject":
            self._reject.pop(data["what"], None)
            control("orders", reject=self._reject)
        elif kind == "lose":
            self._lose.remove(data["what"])
            control("orders", lose=self._lose)
        elif not last:
            return
        elif kind == "part":
            control("orders", fill_fraction=1.0)
        elif kind in ("mute", "silent"):
            self._mode = "filled"
            control("orders", mode="filled")
        elif kind == "slow":
            self._slow = False
            control("set", post_delay_ms=0)
        elif kind == "cut":
            control("set", accept=True)
        elif kind == "quotes":
            control("feed", without=[])
        elif kind == "info":
            control("set", info_status=200)


def _order(full: Mapping[str, Any]) -> Order:
    """Return an open order of `frontendOpenOrders`."""
    is_buy, trigger = full["side"] == "B", None
    if full["isTrigger"]:
        trigger = {"triggerPx": full["triggerPx"], "isMarket": "Market" in full["orderType"], "tpsl": "sl"}
    return Order(
        full["oid"],
        full["coin"],
        is_buy,
        Decimal(full["limitPx"]),
        Decimal(full["origSz"]),
        Decimal(full["sz"]),
        full["reduceOnly"],
        full["tif"],
        trigger,  # type: ignore[arg-type]
        full["cloid"],
        full["timestamp"],
    )
