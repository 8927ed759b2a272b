"""What has to hold in every history, restated without the strategy's own arithmetic, and checked at the venue."""

import math
import threading
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from examples.venue.payloads import Action, Message
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.strategy.orders.order_ids import Leg, order_id
from tests.support.order_histories.client import ACCOUNT, cloid
from tests.support.order_histories.market import STEP_S
from tests.support.order_histories.plan import COINS, ORDER_TIMEOUT_S
from tests.support.order_histories.venue import order_of

if TYPE_CHECKING:
    from tests.support.order_histories.history import History
    from tests.support.order_histories.node import Node

_STRATEGY = "EnrichedSignalStrategy-001"
_DAY_NS = 86_400_000_000_000
_TOLERANCE = 0.01  # of a limit: prices move between a decision and its arrival
_REPORT_S = 80.0  # within which the node has had a report of the account
_CHECK_S = 2.0  # a second until the strategy looks, and the way to the venue
_PROTECT_S = ORDER_TIMEOUT_S + 4.0
_LEAVE_S = 32.0  # between two attempts to leave
_HALT_S = 15.0
_FRESH_S = 60.0
_SLACK = 0.004  # of equity, for fees and moves between decision and fill
_BACKOFF_S = 60.0  # the longest; 2 s, doubled by each target that was sent
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

    Attributes
    ----------
    entries : list[Entry]
        Of all lives.
    hand : dict[str, Decimal]
        Positions held by hand.
    """

    def __init__(self, history: "History") -> None:
        self._history = history
        self._plan, self._venue, self._market = history.plan, history.venue, history.market
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
        self._equities: deque[float] = deque(maxlen=int(2.0 * _REPORT_S / STEP_S))
        self._flows = 0.0
        self._day = -1
        self._day_open = math.inf
        self._day_seen_s = 0.0
        self._below_s = 0.0
        self._halted = False
        self._kinds: set[str] = set()
        self._venue.on_action.append(self._on_action)
        self._venue.on_change.append(self._on_change)

    def violate(self, name: str, text: str) -> None:
        """Record a violation; of each invariant the first only."""
        if name not in self._kinds:
            self._kinds.add(name)
            self._history.log(f"VIOLATION {name}: {text}")
            self._history.result.violations.append(f"{name}: at {self._history.loop.elapsed:.3f} s, {text}")

    # What the history tells

    def on_start(self, node: "Node") -> None:
        """A life begins."""
        self._node = node
        self._ready_s = math.inf
        decide, home = node.strategy.stage.execute, threading.get_ident()

        def execute(*arguments: Any, **keywords: Any) -> Any:
            if threading.get_ident() != home:
                self.violate("thread", "a signal is decided off the event thread")
            return decide(*arguments, **keywords)

        node.strategy.stage.execute = execute
        node.client.on_submit = self._on_submit

        def on_event(event: Any) -> None:
            what = f"{event.last_qty} at {event.last_px}" if hasattr(event, "last_px") else ""
            what = getattr(event, "reason", None) or what
            order = event.client_order_id.value[:20]
            if "-" in order:  # made up by Nautilus's reconciliation, at random
                order = "reconciled"
            self._history.log(f"  {type(event).__name__} {_coin(event.instrument_id)} {order} {what}")

        node.bus.subscribe(topic="events.order.*", handler=on_event)

    def on_end(self) -> None:
        """A life ends."""
        self._check_errors()
        self._node = None

    def on_connected(self) -> None:
        """A cut is over."""
        self._ready_s = self._history.loop.time()

    def on_flow(self, amount: float) -> None:
        """Money came or went."""
        self._flows += amount

    def on_signal(self, enriched: EnrichedSignal) -> None:
        """A signal was made."""
        of = order_id(ACCOUNT.value, _STRATEGY, enriched.source, enriched.signal_id, Leg.ENTRY, 1)
        self._by_order.setdefault(of.value, []).append(enriched)

    def on_stop(self) -> None:
        """A stop begins."""
        self._history.log("SIGTERM")

    def after_stop(self, left: str | None) -> None:
        """The node's process ends, and says what it leaves."""
        self._history.log(f"stopped, left: {left}")
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
        self._equities.append(self._venue.equity())
        self._follow_day()
        node = self._node
        if node is not None and node.started and self._ready_s == math.inf:
            self._ready_s = self._history.loop.time()
        self._check_protection()
        self._check_targets()
        self._check_errors()

    def at_quiet(self) -> None:
        """All faults are over since long: venue and node agree."""
        node = self._node
        if node is None or not node.started:
            self.violate("start", "the node does not run at the end")
            return
        exchange = self._venue.exchange
        for coin in COINS:
            held, cached = self._venue.held(coin), node.held(coin)
            if held != cached:
                self.violate("agree", f"{coin}: the venue has {held}, the node {cached}")
            if self.hand.get(coin):
                continue
            at_venue = sorted(o.oid for o in exchange.orders.values() if o.is_open and o.coin == coin)
            here = [o for o in node.cache.orders_open() if _coin(o.instrument_id) == coin and _rests(o)]
            in_cache = sorted(int(o.venue_order_id.value) for o in here if o.venue_order_id is not None)
            if at_venue != in_cache:
                self.violate("agree on orders", f"{coin}: the venue has {at_venue}, the node {in_cache}")
            if held == 0 and at_venue:
                self.violate("orphans", f"{coin}: no position, and orders {at_venue}")
            if held != 0 and not self._is_safe(coin):
                self.violate("protection at quiet", f"{coin}: {held} without a stop")
            if held != 0 and not self._has_target(coin):
                self.violate("target at quiet", f"{coin}: {held} without a target")
        if any(e.is_pending for e in self.entries):
            self.violate("agree on orders", "an entry is still on its way")

    # Orders

    def _on_submit(self, order: Any) -> None:
        coin = _coin(order.instrument_id)
        self._history.log(
            f"  send {coin} {order.side.name} {order.quantity} {order.order_type.name}"
            f"{' reduce-only' if order.is_reduce_only else ''} {order.client_order_id.value[:20]}"
            + (f" trigger {order.trigger_price}" if order.has_trigger_price else "")
            + (f" price {order.price}" if order.has_price else "")
        )
        if order.client_order_id.value in self._ids:
            self.violate("id", f"{order} has an id that was sent before")
        self._ids.add(order.client_order_id.value)
        if self.hand.get(coin):
            self.violate("hand", f"{coin} is held by hand ({self.hand[coin]}), and {order} is sent")
            return
        if order.is_reduce_only:
            if not _rests(order):
                self._left_s[coin] = self._history.loop.time()
            elif not order.has_trigger_price:
                self._targets_sent[coin] += 1
            return
        self._check_entry(coin, order)

    def _check_entry(self, coin: str, order: Any) -> None:
        copies = self._by_order.get(order.client_order_id.value)
        if copies is None:
            self.violate("reduce only", f"{order} is neither the entry of a signal nor reduce-only")
            return
        key = (copies[0].source, copies[0].signal_id)
        entry = Entry(coin, key, order.quantity.as_decimal(), cloid(order.client_order_id.value))
        if any(e.key == key for e in self.entries):
            self.violate("once", f"{key} led to a second entry")
        now = self._node.clock.timestamp_ns() if self._node is not None else 0
        ages_s = [(now - copy.ts_event) / 1e9 for copy in copies]
        if not any(-2.0 <= age_s <= _FRESH_S + 5.0 for age_s in ages_s):
            self.violate("age", f"{key} was {ages_s} s old")
        if not any(copy.status == "ok" for copy in copies):
            self.violate("status", f"{key} has status {copies[0].status}")
        self.entries.append(entry)
        self._check_limits(entry)

    def _check_limits(self, entry: Entry) -> None:
        limits = self._plan.strategy["limits"]
        best = max([*self._recent(_REPORT_S), self._venue.equity()])
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
        if not math.isfinite(self._day_open):
            return
        level = self._loss_level()
        if self._halted:
            self.violate(
                "daily loss",
                f"an entry after the loss was reached: {self._venue.equity():.0f}, limit {level:.0f}",
            )
        at_stops = self._venue.equity() - sum(self._risk(coin) for coin in COINS)
        if at_stops < level - _SLACK * best:
            self.violate(
                "reserved risk", f"at the stops {at_stops:.0f} would be left, {level:.0f} is the day's limit"
            )

    def _least_notional(self, coin: str) -> float:
        """Return the notional of position and entries on their way, at the lowest recent price."""
        quantity = abs(self._venue.held(coin) - self.hand.get(coin, Decimal(0)))
        quantity += sum((e.quantity for e in self._pending(coin)), Decimal(0))
        quantity += sum((o.left for o in self._venue.exchange.orders.values()
                         if o.is_open and o.coin == coin and not o.reduce_only), Decimal(0))  # fmt: skip
        return float(quantity) * self._market.extremes(coin, 20.0)[0]

    def _risk(self, coin: str) -> float:
        """Return the loss from here to the stops, of position and entries on their way."""
        distance = 1.0 - math.exp(-min(self._plan.volatility, self._plan.strategy["limits"]["stop_loss"]))
        held, price = self._venue.held(coin) - self.hand.get(coin, Decimal(0)), self._market.last(coin)
        entering = float(sum((e.quantity for e in self._pending(coin)), Decimal(0)))
        risk = entering * price * distance
        if held:
            stops = [o for o in self._closing(coin) if o.trigger is not None and o.status == "open"]
            if stops:
                risk += float(held) * (price - float(stops[-1].trigger["triggerPx"]))
            else:
                risk += float(abs(held)) * price * distance
        return risk

    def _pending(self, coin: str) -> list[Entry]:
        return [e for e in self.entries if e.coin == coin and e.is_pending]

    def _on_action(self, action: Action, answer: Message | None) -> None:
        if action["type"] != "order":
            self._history.log(
                f"  venue: {action['type']} " + ("lost" if answer is None else str(_statuses(answer)[0]))
            )
            return
        (request,) = action["orders"]
        coin = COINS[request["a"]]
        for entry in self.entries:
            if entry.cloid == request["c"]:
                entry.is_pending = False
        if answer is None:
            self._history.log(f"  venue: order of {coin} lost")
            return
        status = _statuses(answer)[0]
        what = f"{'buy' if request['b'] else 'sell'} {request['s']}"
        self._history.log(f"  venue: {coin} {what}: {status}; holds {self._venue.held(coin)}")
        if (
            request["r"]
            and "limit" in request["t"]
            and order_of(answer) is None
            and "increase" not in str(status)
        ):
            self._count_refusal(coin)

    def _count_refusal(self, coin: str) -> None:
        refusals, now = self._refusals[coin], self._history.loop.time()
        refusals.append(now)
        while refusals[0] < now - 20.0:
            refusals.popleft()
        if len(refusals) > _REFUSALS:
            self.violate("back off", f"{len(refusals)} exits of {coin} refused in 20 s")

    # Positions

    def _on_change(self) -> None:
        entered = {e.cloid for e in self.entries}
        for fill in self._venue.exchange.fills[-3:]:
            opens = fill["dir"].startswith("Open") or ">" in fill["dir"]
            by_hand = fill["cloid"] is None or bool(self.hand.get(fill["coin"]))
            if opens and not by_hand and fill["cloid"] not in entered:
                self.violate(
                    "reduce only", f"{fill['dir']} {fill['sz']} {fill['coin']} by an order that is no entry"
                )
        self._follow_positions()

    def _follow_positions(self) -> None:
        now = self._history.loop.time()
        for coin in COINS:
            if self._is_safe(coin):
                self._unprotected_s.pop(coin, None)
            else:
                self._unprotected_s.setdefault(coin, now)

    def _check_protection(self) -> None:
        self._follow_positions()
        node, now = self._node, self._history.loop.time()
        if node is None or not node.started or self._venue.is_cut or self._ready_s == math.inf:
            return
        for coin, since in self._unprotected_s.items():
            if self.hand.get(coin):
                continue
            due = max(since, self._ready_s) + _PROTECT_S
            if coin in self._left_s and self._left_s[coin] > since - _PROTECT_S:
                due = max(due, self._left_s[coin] + _LEAVE_S)
            if now > due:
                self.violate(
                    "protection",
                    f"{coin} {self._venue.held(coin)} without a stop for {now - since:.1f} s and not left",
                )

    def _check_targets(self) -> None:
        """A position that has its stop gets its target too, unless the venue takes none."""
        node, venue, exchange = self._node, self._venue, self._venue.exchange
        may_be = node is not None and node.started and not venue.is_cut and not any(venue.delay.values())
        may_be = may_be and not exchange.reject and not exchange.lose and exchange.mode == "filled"
        for coin in COINS:
            held = self._venue.held(coin)
            if held == 0:
                self._targets_sent[coin] = 0
            lacks = held != 0 and self._is_safe(coin) and not self._has_target(coin)
            counts = lacks and may_be and not self.hand.get(coin)
            self._no_target_s[coin] = self._no_target_s[coin] + STEP_S if counts else 0.0
            backoff_s = min(2.0 ** self._targets_sent[coin], _BACKOFF_S)
            if self._no_target_s[coin] > max(ORDER_TIMEOUT_S, backoff_s) + _CHECK_S:
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
            for o in self._venue.exchange.orders.values()
            if o.is_open and o.coin == coin and o.reduce_only and o.is_buy == (held < 0)
        ]

    # The account

    def _follow_day(self) -> None:
        node = self._node
        day = self._day_now()
        equity = self._venue.equity()
        if day != self._day:
            self._day, self._day_open, self._day_seen_s = day, math.inf, 0.0
            self._halted, self._below_s, self._flows = False, 0.0, 0.0
        if node is not None and node.started:
            self._day_seen_s += STEP_S
        if self._day_seen_s <= 15.0:
            self._day_open = min(self._day_open, equity)
        below = equity <= self._loss_level() * 0.999
        watched = node is not None and node.started and not self._venue.is_cut
        self._below_s = self._below_s + STEP_S if below and watched else 0.0
        self._halted = self._halted or self._below_s > _HALT_S

    def _loss_level(self) -> float:
        """Return the equity at which the day's loss reaches its limit, as the most lenient reading has it."""
        share = self._plan.strategy["limits"]["max_daily_loss"]
        opened = self._day_open + self._flows
        return opened - share * max(opened, self._day_open)

    def _day_now(self) -> int:
        return int((self._plan.start_ns + self._history.loop.elapsed * 1e9) // _DAY_NS)

    def _recent(self, seconds: float) -> list[float]:
        return list(self._equities)[-int(seconds / STEP_S) :]

    def _check_errors(self) -> None:
        if self._node is not None and self._node.strategy.counts["error"]:
            self.violate("error", "a handler of the strategy raised")


def _coin(of: Any) -> str:
    return str(of.symbol.value).split("-")[0]


def _rests(order: Any) -> bool:
    """Return whether an order may rest; of an immediate one the adapter never reports that the rest was cancelled."""
    return order.order_type.name != "MARKET" and order.time_in_force.name != "IOC"


def _statuses(answer: Any) -> list[Any]:
    statuses: list[Any] = answer["response"]["data"]["statuses"]
    return statuses
