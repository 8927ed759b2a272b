"""What has to hold in every history, restated without the strategy's own arithmetic, and checked at the venue."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from examples.venue.payloads import Action, Message, OrderRequest
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.strategy.orders.order_ids import Leg, order_id
from tests.support.order_histories.account import TradingDay
from tests.support.order_histories.client import ACCOUNT, cloid
from tests.support.order_histories.course import Course, Node, Prices, Venue
from tests.support.order_histories.plan import BAR_S, COINS, log_step
from tests.support.order_histories.venue import order_of

_TOLERANCE = 0.01  # of a limit: prices move between a decision and its arrival
_CHECK_S = 2.0  # a second until the strategy looks, and the way to the venue
_ANSWER_S = 4.0  # the same, where it takes two orders
_LEAVE_S = 32.0  # between two attempts to leave
_FRESH_S = 60.0
_SLACK = 0.002  # of equity, for fees and moves between decision and fill
_BACKOFF_S = 60.0  # the longest; 2 s, doubled by each target that was sent
_RESULT_USDC = 2.0
_NOISE = 0.0025  # of the notional, which is about the equity
_SIGMAS = 4.0  # that prices move at most, from one bar's close to the next
_REFUSALS = 8  # of exits of one coin in 20 s


@dataclass
class Entry:
    """An order that may open a position, as it left the node."""

    coin: str
    key: tuple[str, str]
    quantity: Decimal
    cloid: str
    is_pending: bool = True  # on its way to the venue


class Checks:
    """The invariants of one history.

    Parameters
    ----------
    course : Course
        The history.
    order_timeout_s : float
        Of the strategy.
    step_s : float
        Between two calls of `on_step`.

    Attributes
    ----------
    entries : list[Entry]
        Of all lives.
    hand : dict[str, Decimal]
        Positions held by hand.
    """

    def __init__(self, course: Course, order_timeout_s: float, step_s: float) -> None:
        self._course, self._timeout_s, self._step_s = course, order_timeout_s, step_s
        self._plan = course.plan
        self._venue: Venue = course.venue
        self._prices: Prices = course.market
        self.entries: list[Entry] = []
        self.hand: dict[str, Decimal] = {}
        self._node: Node | None = None
        self._by_order: dict[str, list[EnrichedSignal]] = {}
        self._ids: set[str] = set()
        self._unprotected_s: dict[str, float] = {}
        self._left_s: dict[str, float] = {}
        self._no_target_s = dict.fromkeys(COINS, 0.0)
        self._targets_sent = dict.fromkeys(COINS, 0)
        self._ready_s = 0.0
        self._refusals: dict[str, deque[float]] = {coin: deque() for coin in COINS}
        self.day = TradingDay(self._plan.strategy["limits"]["max_daily_loss"], step_s)
        self._n_fills = 0
        self._kinds: set[str] = set()
        self._venue.on_action.append(self._on_action)
        self._venue.on_change.append(self._on_change)

    def violate(self, name: str, text: str) -> None:
        """Record a violation; of each invariant the first only."""
        if name not in self._kinds:
            self._kinds.add(name)
            self._course.log(f"VIOLATION {name}: {text}")
            self._course.violations.append(f"{name}: at {self._course.now_s():.3f} s, {text}")

    # What the history tells

    def on_start(self, node: Node) -> None:
        """A life begins."""
        self._node = node
        self._ready_s = math.inf

    def on_end(self) -> None:
        """A life ends."""
        self._check_errors()
        self._node = None

    def on_connected(self) -> None:
        """A cut is over."""
        self._ready_s = self._course.now_s()

    def on_signal(self, enriched: EnrichedSignal, strategy_id: str) -> None:
        """A signal was made."""
        of = order_id(ACCOUNT.value, strategy_id, enriched.source, enriched.signal_id, Leg.ENTRY, 1)
        self._by_order.setdefault(cloid(of.value), []).append(enriched)

    def on_stop(self) -> None:
        """A stop begins."""
        self._course.log("SIGTERM")

    def after_stop(self, left: str | None) -> None:
        """The node's process ends, and says what it leaves."""
        self._course.log(f"stopped, left: {left}")
        for coin in COINS:
            if self.hand.get(coin) or (self._is_safe(coin) and not self._pending(coin)):
                continue
            if left is None or coin not in left:
                held, pending = self._venue.held(coin), len(self._pending(coin))
                self.violate(
                    "stop", f"exit code 0 with {coin} {held} unprotected, {pending} entries on their way"
                )

    def on_step(self) -> None:
        """Time has passed."""
        node = self._node
        runs = node is not None and node.started
        hears = runs and not self._venue.is_cut
        self.day.step(self._course.now_ns(), self._venue.equity(), self._gross(), runs=runs, hears=hears)
        if node is not None and node.started and self._ready_s == math.inf:
            self._ready_s = self._course.now_s()
        self._check_protection()
        self._check_targets()
        self._check_errors()

    def at_quiet(self) -> None:
        """All faults are over since long: venue and node agree."""
        for name, text in self.disagreements():
            self.violate(name, text)

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """Yield in what venue and node do not agree, by invariant."""
        node = self._node
        if node is None or not node.started:
            yield "start", "the node does not run at the end"
            return
        for coin in COINS:
            held, cached = self._venue.held(coin), node.held(coin)
            if held != cached:
                yield "agree", f"{coin}: the venue has {held}, the node {cached}"
            if self.hand.get(coin):
                continue
            orders = self._venue.books.orders.values()
            at_venue, in_cache = (
                sorted(o.oid for o in orders if o.is_open and o.coin == coin),
                node.resting(coin),
            )
            if at_venue != in_cache:
                yield "agree on orders", f"{coin}: the venue has {at_venue}, the node {in_cache}"
            if held == 0 and at_venue:
                yield "orphans", f"{coin}: no position, and orders {at_venue}"
            if held != 0 and not self._is_safe(coin):
                yield "protection at quiet", f"{coin}: {held} without a stop"
            if held != 0 and not self._has_target(coin):
                yield "target at quiet", f"{coin}: {held} without a target"
        if any(e.is_pending for e in self.entries):
            yield "agree on orders", "an entry is still on its way"
        yield from self._check_result(node)

    # Orders

    def on_sent(self, request: OrderRequest) -> None:
        """An order leaves the node."""
        coin, number = COINS[request["a"]], request["c"]
        assert number is not None
        what = (
            f"{coin} {'buy' if request['b'] else 'sell'} {request['s']} at {request['p']} {request['t']}"
            f"{' reduce-only' if request['r'] else ''} {number[:20]}"
        )
        self._course.log(f"  send {what}")
        if number in self._ids:
            self.violate("id", f"{what} has an id that was sent before")
        self._ids.add(number)
        if self.hand.get(coin):
            self.violate("hand", f"{coin} is held by hand ({self.hand[coin]}), and {what} is sent")
            return
        if not request["r"]:
            self._check_entry(coin, request, number, what)
        elif not _rests(request):
            self._left_s[coin] = self._course.now_s()
        elif "limit" in request["t"]:
            self._targets_sent[coin] += 1

    def _check_entry(self, coin: str, request: OrderRequest, number: str, what: str) -> None:
        copies = self._by_order.get(number)
        if copies is None:
            self.violate("reduce only", f"{what} is neither the entry of a signal nor reduce-only")
            return
        key = (copies[0].source, copies[0].signal_id)
        entry = Entry(coin, key, Decimal(request["s"]), number)
        if any(e.key == key for e in self.entries):
            self.violate("once", f"{key} led to a second entry")
        now_ns = self._course.now_ns()
        ages_s = [(now_ns - copy.ts_event) / 1e9 for copy in copies]
        if not any(-2.0 <= age_s <= _FRESH_S + 5.0 for age_s in ages_s):
            self.violate("age", f"{key} was {ages_s} s old")
        if not any(copy.status == "ok" for copy in copies):
            self.violate("status", f"{key} has status {copies[0].status}")
        self.entries.append(entry)
        self._check_limits(entry)

    def _check_limits(self, entry: Entry) -> None:
        limits = self._plan.strategy["limits"]
        best = self.day.best_equity(self._venue.equity())
        gross = sum(self._least_notional(coin) for coin in COINS)
        if "hand" in self._kinds:
            return  # whose is what there cannot be told any more
        if gross > limits["max_leverage"] * best * (1.0 + _TOLERANCE):
            self.violate(
                "leverage",
                f"{gross:.0f} with what is on its way, {limits['max_leverage']} x {best:.0f} allowed",
            )
        own = self._least_notional(entry.coin)
        if own > limits["max_position_fraction"] * best * (1.0 + _TOLERANCE):
            self.violate(
                "position", f"{entry.coin} {own:.0f}, {limits['max_position_fraction']} x {best:.0f} allowed"
            )
        self.day.roll(self._course.now_ns(), self._gross())
        level = self.day.loss_level()
        if self.day.halted:
            self.violate(
                "daily loss",
                f"an entry after the loss was reached: {self._venue.equity():.0f}, limit {level:.0f}",
            )
        at_stops = self._venue.equity() - sum(
            self._risk(coin) - self._unseen_slippage(coin) for coin in COINS
        )
        if at_stops < level - _SLACK * best:
            self.violate(
                "reserved risk", f"at the stops {at_stops:.0f} would be left, {level:.0f} is the day's limit"
            )

    def _least_notional(self, coin: str) -> float:
        """Return the notional of position and entries on their way, at the lowest recent price."""
        quantity = abs(self._venue.held(coin) - self.hand.get(coin, Decimal(0)))
        quantity += sum((e.quantity for e in self._pending(coin)), Decimal(0))
        quantity += sum((o.left for o in self._venue.books.orders.values()
                         if o.is_open and o.coin == coin and not o.reduce_only), Decimal(0))  # fmt: skip
        return float(quantity) * self._prices.extremes(coin, 20.0)[0]

    def _risk(self, coin: str) -> float:
        """Return the loss from here to the stops, of position and entries on their way."""
        distance = 1.0 - math.exp(-min(self._plan.volatility, self._plan.strategy["limits"]["stop_loss"]))
        held, price = self._venue.held(coin) - self.hand.get(coin, Decimal(0)), self._prices.last(coin)
        entering = float(sum((e.quantity for e in self._pending(coin)), Decimal(0)))
        risk = entering * price * distance
        if held:
            stops = [o for o in self._closing(coin) if o.trigger is not None and o.status == "open"]
            if stops:
                risk += float(held) * (price - float(stops[-1].trigger["triggerPx"]))
            else:
                risk += float(abs(held)) * price * distance
        return risk

    def _unseen_slippage(self, coin: str) -> float:
        """Return what stops were filled for beyond their triggers, as far as the node can't know of it.

        The day's limit is exceeded by slippage alone: it is no risk that could have been reserved. The node has no
        report of a fill as long as its cache holds what the venue does not, and no bar's close for `BAR_S` at most. On
        the stand-in, where its cache is not looked at meanwhile, the age of the fill says it alone.
        """
        node, books = self._node, self._venue.books
        if node is None or node.held(coin) == self._venue.held(coin):
            return 0.0
        since_ms, lost = self._course.now_ns() // 1_000_000 - BAR_S * 1_000.0, 0.0
        for fill in reversed(books.fills):
            if fill["time"] < since_ms:
                break
            order = books.orders.get(fill["oid"])
            if fill["coin"] == coin and order is not None and order.trigger is not None:
                beyond = float(order.trigger["triggerPx"]) - float(fill["px"])
                lost += float(fill["sz"]) * (-beyond if order.is_buy else beyond)
        return lost

    def _pending(self, coin: str) -> list[Entry]:
        return [e for e in self.entries if e.coin == coin and e.is_pending]

    def _on_action(self, action: Action, answer: Message | None) -> None:
        if action["type"] != "order":
            self._course.log(
                f"  venue: {action['type']} " + ("lost" if answer is None else str(_statuses(answer)[0]))
            )
            return
        (request,) = action["orders"]
        coin = COINS[request["a"]]
        for entry in self.entries:
            if entry.cloid == request["c"]:
                entry.is_pending = False
        if answer is None:
            self._course.log(f"  venue: order of {coin} lost")
            return
        status = _statuses(answer)[0]
        what = f"{'buy' if request['b'] else 'sell'} {request['s']}"
        self._course.log(f"  venue: {coin} {what}: {status}; holds {self._venue.held(coin)}")
        if (
            request["r"]
            and "limit" in request["t"]
            and order_of(answer) is None
            and "increase" not in str(status)
        ):
            self._count_refusal(coin)

    def _count_refusal(self, coin: str) -> None:
        refusals, now = self._refusals[coin], self._course.now_s()
        refusals.append(now)
        while refusals[0] < now - 20.0:
            refusals.popleft()
        if len(refusals) > _REFUSALS:
            self.violate("back off", f"{len(refusals)} exits of {coin} refused in 20 s")

    # Positions

    def _on_change(self) -> None:
        entered = {e.cloid for e in self.entries}
        new = self._venue.books.fills[self._n_fills :]
        self._n_fills += len(new)
        for fill in new:
            opens = fill["dir"].startswith("Open") or ">" in fill["dir"]
            by_hand = fill["cloid"] is None or bool(self.hand.get(fill["coin"]))
            if opens and not by_hand and fill["cloid"] not in entered:
                self.violate(
                    "reduce only", f"{fill['dir']} {fill['sz']} {fill['coin']} by an order that is no entry"
                )
        self._follow_positions()

    def _follow_positions(self) -> None:
        now = self._course.now_s()
        for coin in COINS:
            if self._is_safe(coin):
                self._unprotected_s.pop(coin, None)
            else:
                self._unprotected_s.setdefault(coin, now)

    def _check_protection(self) -> None:
        self._follow_positions()
        node, now = self._node, self._course.now_s()
        if node is None or not node.started or self._venue.is_cut or self._ready_s == math.inf:
            return
        protect_s = self._timeout_s + _ANSWER_S
        for coin, since in self._unprotected_s.items():
            if self.hand.get(coin):
                continue
            due = max(since, self._ready_s) + protect_s
            if coin in self._left_s and self._left_s[coin] > since - protect_s:
                due = max(due, self._left_s[coin] + _LEAVE_S)
            if now > due:
                self.violate(
                    "protection",
                    f"{coin} {self._venue.held(coin)} without a stop for {now - since:.1f} s and not left",
                )

    def _check_targets(self) -> None:
        """A position that has its stop gets its target too, unless the venue takes none, or it is being left."""
        node, venue = self._node, self._venue
        may_be = node is not None and node.started and venue.takes_orders
        for coin in COINS:
            held = self._venue.held(coin)
            if held == 0:
                self._targets_sent[coin] = 0
            lacks = held != 0 and self._is_safe(coin) and not self._has_target(coin)
            is_left = self._course.now_s() - self._left_s.get(coin, -math.inf) < _LEAVE_S
            counts = lacks and may_be and not is_left and not self.hand.get(coin)
            self._no_target_s[coin] = self._no_target_s[coin] + self._step_s if counts else 0.0
            backoff_s = min(2.0 ** self._targets_sent[coin], _BACKOFF_S)
            if self._no_target_s[coin] > max(self._timeout_s, backoff_s) + _CHECK_S:
                self.violate("target", f"{coin} {held} without a target for {self._no_target_s[coin]} s")

    def _is_safe(self, coin: str) -> bool:
        held = self._venue.held(coin)
        if held == 0:
            return True
        stops = (o.left for o in self._closing(coin) if o.trigger is not None and o.status == "open")
        return sum(stops, Decimal(0)) >= abs(held)

    def _has_target(self, coin: str) -> bool:
        return any(o.trigger is None for o in self._closing(coin))

    def _closing(self, coin: str) -> list[Any]:
        held = self._venue.held(coin)
        return [
            o
            for o in self._venue.books.orders.values()
            if o.is_open and o.coin == coin and o.reduce_only and o.is_buy == (held < 0)
        ]

    # The account

    def _check_result(self, node: Node) -> Iterator[tuple[str, str]]:
        """The node's idea of what the day's trading has made is the venue's."""
        known = node.day_result()
        if known is None:
            return
        low, high = self.day.result(self._venue.equity())
        move = _SIGMAS * log_step(self._plan, BAR_S)
        # An opening equity at closes of two bars is none that the venue ever had.
        tolerance = _RESULT_USDC + move * (self._gross() + self.day.opening_gross)
        if not self._plan.has_records:
            # A gain that nobody explains is a deposit; up to the noise of prices it is not.
            low, tolerance = -math.inf, tolerance + _NOISE * self.day.best_equity(self._venue.equity())
        if not low - tolerance <= known <= high + tolerance:
            yield "result", f"the day has made {low:.2f} to {high:.2f}, the node takes it for {known:.2f}"

    def _gross(self) -> float:
        return sum(float(abs(self._venue.held(coin))) * self._prices.last(coin) for coin in COINS)

    def _check_errors(self) -> None:
        if self._node is not None and self._node.n_errors:
            self.violate("error", "a handler of the strategy raised")


def _rests(request: OrderRequest) -> bool:
    return request["t"].get("limit", {}).get("tif") != "Ioc"


def _statuses(answer: Any) -> list[Any]:
    statuses: list[Any] = answer["response"]["data"]["statuses"]
    return statuses
