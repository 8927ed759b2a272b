"""The stub's account: orders, their matching against the played book, positions and what the user is sent."""

import itertools
from collections.abc import Callable
from decimal import Decimal

from examples.venue.orders import COINS, LEVERAGE, Order, Top, kinds, now_ms, reached
from examples.venue.payloads import Action, CancelRequest, Fill, Message, ModifyRequest, OrderRequest
from examples.venue.records import Records, TransferKind
from examples.venue.tape import SIZE_DECIMALS, price_text, size_text
from examples.venue.terms import Terms

TAKER_FEE, MAKER_FEE = Decimal("0.00045"), Decimal("0.00015")
FUNDING_RATE = Decimal("0.0000125")  # of an hour: what the venue charges where price and index agree
_ZERO = Decimal(0)
_MIN_NOTIONAL = 10
_MARGIN_LEVERAGE = 20


class _RefusedError(Exception):
    """An order is refused, for the reason that the venue gives."""


class Exchange:
    """Carries out the venue's actions and matches orders; what the user is to be sent goes to `outbox`.

    Attributes
    ----------
    mode : {'filled', 'resting', 'rejected', 'silent', 'mute'}
        What becomes of new orders: matched; rested whatever their time in force; refused; lost on the way, unanswered;
        or matched without a word to the user, who has to ask.
    reject : dict[str, str]
        Refuse orders of a kind ('market', 'limit', 'trigger', 'reduce_only') with this message.
    lose : list[str]
        Orders of these kinds get lost on the way.
    fill_fraction : float
        How much of an immediate order is filled.
    auto_cancel : bool
        Whether reduce-only orders are cancelled when the position is closed.
    """

    def __init__(
        self, top: Callable[[str], Top], equity: float, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._top, self._now_ms = top, clock_ms
        self._oids, self._tids = itertools.count(140_000_000_001), itertools.count(500_000_000_001)
        self.cash = Decimal(str(equity))  # accountValue is this plus the signed value of positions
        self.positions: dict[str, tuple[Decimal, Decimal]] = {}
        self.terms = Terms()
        self.records = Records(clock_ms)
        self.orders: dict[int, Order] = {}
        self.fills: list[Fill] = []
        self.outbox: list[Message] = []
        self.mode = "filled"
        self.reject: dict[str, str] = {}
        self.lose: list[str] = []
        self.fill_fraction = 1.0
        self.auto_cancel = False

    def execute(self, action: Action) -> Message:
        """Carry out an action and return the venue's answer."""
        kind = action["type"]
        if kind == "order":
            return _answer("order", self._place(action["orders"], action.get("grouping", "na")))
        if kind in ("cancel", "cancelByCloid"):
            return _answer("cancel", [self._cancel(request) for request in action["cancels"]])
        if kind == "batchModify":
            return _answer("order", [self._modify(request) for request in action["modifies"]])
        if kind == "modify":
            status = self._modify({"oid": action["oid"], "order": action["order"]})
            if "error" in status:
                return {"status": "err", "response": status["error"]}
        if kind == "updateLeverage":
            mode = "cross" if action["isCross"] else "isolated"
            self.terms.leverage[COINS[action["asset"]]] = (mode, action["leverage"])
        return {"status": "ok", "response": {"type": "default"}}

    def is_lost(self, action: Action) -> bool:
        """Return whether the action does not arrive."""
        given = {kind for request in action.get("orders", ()) for kind in kinds(request)}
        return self.mode == "silent" or not given.isdisjoint(self.lose)

    def match(self, coin: str) -> None:
        """Fill and trigger what the coin's prices have reached."""
        top = self._top(coin)
        for order in [o for o in self.orders.values() if o.is_open and o.coin == coin]:
            if order.status == "waiting" or not order.is_open:
                continue
            if order.trigger is not None and order.status == "open":
                if reached(order, top.last):
                    self._trigger(order)
            elif (order.is_buy and min(top.ask, top.last) <= order.price) or (
                not order.is_buy and max(top.bid, top.last) >= order.price
            ):
                self._fill(order, order.price, order.left, taker=False)

    def trade(self, coin: str, is_buy: bool, size: str) -> None:
        """Trade at the market, as the user might from elsewhere."""
        price = self._top(coin).last * Decimal("1.05" if is_buy else "0.95")
        request: OrderRequest = {
            "a": COINS.index(coin),
            "b": is_buy,
            "p": str(price),
            "s": size,
            "r": False,
            "t": {"limit": {"tif": "Ioc"}},
        }
        self._match_now(self._order(request))

    def fund(self, coin: str, usdc: Decimal, rate: Decimal = FUNDING_RATE) -> None:
        """Pay funding for a position; it is charged where `usdc` is negative."""
        self.cash += usdc
        self.terms.fund(coin, usdc)
        self.records.fund(coin, usdc, self.positions.get(coin, (_ZERO, _ZERO))[0], rate)

    def fund_all(self, rate: Decimal = FUNDING_RATE) -> None:
        """Pay an hour's funding for each position: at a rate above 0 the longs pay."""
        for coin, (size, _) in self.positions.items():
            self.fund(coin, round(-size * self._top(coin).last * rate, 6), rate)

    def transfer(self, amount: Decimal, kind: TransferKind) -> None:
        """Pay into the account, or out of it where the amount is negative."""
        self.cash += amount
        self.records.transfer(amount, kind)

    def value(self) -> tuple[Decimal, Decimal]:
        """Return account value and gross notional, in USDC."""
        held = [(size, self._top(coin).last) for coin, (size, _) in self.positions.items()]
        gross = sum((abs(size) * price for size, price in held), _ZERO)
        return self.cash + sum((size * price for size, price in held), _ZERO), gross

    def clearinghouse(self) -> Message:
        """Return the answer to `clearinghouseState`."""
        value, gross = self.value()
        used = gross / _MARGIN_LEVERAGE
        summary = {
            "accountValue": f"{value:.6f}",
            "totalNtlPos": f"{gross:.6f}",
            "totalRawUsd": f"{self.cash:.6f}",
            "totalMarginUsed": f"{used:.6f}",
        }
        return {
            "marginSummary": summary,
            "crossMarginSummary": summary,
            "crossMaintenanceMarginUsed": f"{gross / 80:.6f}",
            "withdrawable": f"{max(value - max(used, gross / 10), _ZERO):.6f}",
            "assetPositions": [self._position(coin) for coin in self.positions],
            "time": self._now_ms(),
        }

    def open_orders(self) -> list[dict[str, object]]:
        """Return the answer to `frontendOpenOrders`."""
        return [o.full() for o in self.orders.values() if o.is_open and o.status != "waiting"]

    def order_status(self, oid: int | str) -> Message:
        """Return the answer to `orderStatus`, by the venue's or the client's id."""
        for order in self.orders.values():
            if oid in (order.oid, order.cloid):
                status = {"status": order.status, "statusTimestamp": order.changed_ms}
                return {"status": "order", "order": {"order": order.full(), **status}}
        return {"status": "unknownOid"}

    def _position(self, coin: str) -> Message:
        size, entry = self.positions[coin]
        price = self._top(coin).last
        profit = size * (price - entry)
        mode, leverage = self.terms.of(coin)
        margin = abs(size) * price / leverage
        liquidation = self.terms.liquidation_price(coin, size, entry)
        funding = str(self.terms.funding_since_open(coin))
        return {
            "type": "oneWay",
            "position": {
                "coin": coin,
                "szi": size_text(coin, float(size)),
                "leverage": {"type": mode, "value": leverage},
                "entryPx": price_text(coin, float(entry)),
                "positionValue": f"{abs(size) * price:.6f}",
                "unrealizedPnl": f"{profit:.6f}",
                "returnOnEquity": f"{profit / margin:.6f}",
                "liquidationPx": None if liquidation is None else price_text(coin, float(liquidation)),
                "marginUsed": f"{margin:.6f}",
                "maxLeverage": LEVERAGE[coin],
                "cumFunding": {"allTime": funding, "sinceOpen": funding, "sinceChange": funding},
            },
        }

    def _place(self, requests: list[OrderRequest], grouping: str) -> list[Message | str]:
        statuses: list[Message | str] = []
        placed: list[Order] = []
        for request in requests:
            try:
                self._check_mode(request)
                order = self._order(request)
                parent = placed[0] if grouping == "normalTpsl" and placed else None
                if parent is not None:
                    order.parent, order.status = parent, "waiting"
                    statuses.append("waitingForFill")
                else:
                    self._check(order)
                    self.orders[order.oid] = order
                    statuses.append(self._start(order))
            except _RefusedError as refusal:
                statuses.append({"error": f"{refusal} asset={request['a']}"})
                if grouping == "normalTpsl" and not placed:
                    return statuses
                continue
            self.orders[order.oid] = order
            placed.append(order)
        children = placed[1:] if grouping == "normalTpsl" else placed if grouping == "positionTpsl" else []
        for child in children:
            child.siblings = [other for other in children if other is not child]
        if placed:
            self._activate_children(placed[0])
        return statuses

    def _check_mode(self, request: OrderRequest) -> None:
        for kind in kinds(request):
            if kind in self.reject:
                raise _RefusedError(self.reject[kind])
        if self.mode == "rejected":
            raise _RefusedError("Insufficient margin to place order.")

    def _order(self, request: OrderRequest) -> Order:
        size = Decimal(request["s"])
        now = self._now_ms()
        return Order(
            next(self._oids),
            COINS[request["a"]],
            request["b"],
            Decimal(request["p"]),
            size,
            size,
            request["r"],
            request["t"].get("limit", {}).get("tif"),
            request["t"].get("trigger"),
            request.get("c"),
            now,
            changed_ms=now,
        )

    def _check(self, order: Order) -> None:
        top = self._top(order.coin)
        if order.size <= 0:
            raise _RefusedError("Order has zero size.")
        trigger = None if order.trigger is None else Decimal(order.trigger["triggerPx"])
        for price in (order.price,) if trigger is None else (order.price, trigger):
            if price <= 0:
                raise _RefusedError("Order has invalid price.")
            digits = len(price.normalize().as_tuple().digits)
            if price != price.to_integral_value() and digits > 5:
                raise _RefusedError("Price must be divisible by tick size.")
        held = self.positions.get(order.coin, (_ZERO, _ZERO))[0]
        if order.reduce_only and (held == 0 or (held > 0) == order.is_buy):
            raise _RefusedError("Reduce only order would increase position.")
        if not order.reduce_only and order.size * top.last < _MIN_NOTIONAL:
            raise _RefusedError(f"Order must have minimum value of ${_MIN_NOTIONAL}.")
        if order.trigger is not None and reached(order, top.last):
            raise _RefusedError("Invalid TP/SL price.")
        value, gross = self.value()
        if not order.reduce_only and gross + order.size * top.last > value * LEVERAGE[order.coin]:
            raise _RefusedError("Insufficient margin to place order.")

    def _start(self, order: Order) -> Message:
        """Match a new order, or let it rest; return what the answer says of it."""
        if order.trigger is not None or self.mode == "resting":
            self._set_status(order, "open")
            return {"resting": {"oid": order.oid}}
        if order.tif != "Ioc" and not self._crosses(order):
            self._set_status(order, "open")
            return {"resting": {"oid": order.oid}}
        before = len(self.fills)
        self._match_now(order)
        if len(self.fills) == before:
            raise _RefusedError("Order could not immediately match against any resting orders.")
        done = order.size - order.left
        price = self.fills[-1]["px"]
        return {"filled": {"totalSz": size_text(order.coin, float(done)), "avgPx": price, "oid": order.oid}}

    def _crosses(self, order: Order) -> bool:
        top = self._top(order.coin)
        return order.price >= top.ask if order.is_buy else order.price <= top.bid

    def _match_now(self, order: Order) -> None:
        """Fill at the best price what may be filled at once; the rest is cancelled."""
        top = self._top(order.coin)
        step = Decimal(1).scaleb(-SIZE_DECIMALS[order.coin])
        size = (order.left * Decimal(str(self.fill_fraction))) // step * step
        if self._crosses(order) and size > 0:
            self._fill(order, top.ask if order.is_buy else top.bid, size, taker=True)
        if order.is_open:
            order.tif = "Ioc"
            self._set_status(order, "canceled" if order.left < order.size else "iocCancelRejected")

    def _trigger(self, order: Order) -> None:
        self._set_status(order, "triggered")
        if order.trigger is not None and order.trigger["isMarket"]:
            self._match_now(order)
        elif self._crosses(order):  # a limit order from now on: what is not filled rests
            top = self._top(order.coin)
            self._fill(order, top.ask if order.is_buy else top.bid, order.left, taker=True)

    def _fill(self, order: Order, price: Decimal, size: Decimal, *, taker: bool) -> None:
        held, _ = self.positions.get(order.coin, (_ZERO, _ZERO))
        if order.reduce_only:
            size = min(size, abs(held)) if held * order.sign < 0 else _ZERO
            if size == 0:
                self._set_status(order, "reduceOnlyCanceled")
                return
        fee = size * price * (TAKER_FEE if taker else MAKER_FEE)
        self.cash -= order.sign * size * price + fee
        profit, now_held = self._change_position(order, price, size)
        order.left -= size
        fill: Fill = {
            "coin": order.coin,
            "px": price_text(order.coin, float(price)),
            "sz": size_text(order.coin, float(size)),
            "side": "B" if order.is_buy else "A",
            "time": self._now_ms(),
            "startPosition": size_text(order.coin, float(held)),
            "dir": _direction(held, now_held, order.is_buy),
            "closedPnl": f"{profit:.6f}",
            "hash": f"0x{order.oid:064x}",
            "oid": order.oid,
            "crossed": taker,
            "fee": f"{fee:.6f}",
            "tid": next(self._tids),
            "cloid": order.cloid,
            "feeToken": "USDC",
            "twapId": None,
        }
        self.fills.append(fill)
        self.outbox.append({"channel": "user", "data": {"fills": [fill]}})
        self._end_filled(order, now_held)

    def _change_position(self, order: Order, price: Decimal, size: Decimal) -> tuple[Decimal, Decimal]:
        """Add a fill to the position; return the profit that it realises, and the size held then."""
        held, entry = self.positions.get(order.coin, (_ZERO, _ZERO))
        closing = min(size, abs(held)) if held * order.sign < 0 else _ZERO
        now_held = held + order.sign * size
        if now_held == 0:
            self.positions.pop(order.coin, None)
            self.terms.forget(order.coin)
        elif closing == 0:
            average = (abs(held) * entry + size * price) / abs(now_held)
            self.positions[order.coin] = (now_held, average)
        else:
            self.positions[order.coin] = (now_held, entry if now_held * held > 0 else price)
        return closing * (price - entry) * (1 if held > 0 else -1), now_held

    def _end_filled(self, order: Order, now_held: Decimal) -> None:
        """Set the status of an order that had a fill, and of those that it ends."""
        if order.left == 0:
            self._set_status(order, "filled")
        elif order.reduce_only and now_held == 0:
            self._set_status(order, "reduceOnlyCanceled")
        for sibling in order.siblings:
            if sibling.is_open:
                self._set_status(sibling, "siblingFilledCanceled")
        if now_held == 0 and self.auto_cancel:
            for other in self.orders.values():
                if other.is_open and other.reduce_only and other.coin == order.coin:
                    self._set_status(other, "reduceOnlyCanceled")

    def _activate_children(self, parent: Order) -> None:
        for child in self.orders.values():
            if child.parent is parent and child.status == "waiting":
                self._set_status(child, "open" if parent.left < parent.size else "canceled")

    def _cancel(self, request: CancelRequest) -> Message | str:
        wanted = request.get("o", request.get("cloid"))
        for order in self.orders.values():
            if wanted in (order.oid, order.cloid) and order.is_open:
                self._set_status(order, "canceled")
                return "success"
        return {"error": "Order was never placed, already canceled, or filled."}

    def _modify(self, request: ModifyRequest) -> Message:
        old = next((o for o in self.orders.values() if request["oid"] in (o.oid, o.cloid)), None)
        if old is None or not old.is_open:
            return {"error": "Cannot modify canceled or filled order"}
        try:
            new = self._order(request["order"])
            self._check(new)
        except _RefusedError as refusal:
            return {"error": str(refusal)}
        self._set_status(old, "canceled")
        self.orders[new.oid] = new
        return self._start(new)

    def _set_status(self, order: Order, status: str) -> None:
        order.status, order.changed_ms = status, self._now_ms()
        self.orders.setdefault(order.oid, order)
        self.outbox.append({"channel": "orderUpdates", "data": [order.update()]})


def _answer(kind: str, statuses: list[Message | str]) -> Message:
    return {"status": "ok", "response": {"type": kind, "data": {"statuses": statuses}}}


def _direction(before: Decimal, after: Decimal, is_buy: bool) -> str:
    if before * after < 0:
        return "Short > Long" if is_buy else "Long > Short"
    side = "Long" if before + after > 0 else "Short"
    return f"{'Open' if abs(after) > abs(before) else 'Close'} {side}"
