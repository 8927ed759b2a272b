"""Runs a history: the node on the venue's model, with what the plan has happen, and the checks after every event."""

import asyncio
import math
import tempfile
import threading
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ml4t_actor.messages import EnrichedSignal
from tests.support.order_histories.client import instrument_id
from tests.support.order_histories.invariants import Checks
from tests.support.order_histories.loop import SECOND_NS, DeadlockError, VirtualClock, VirtualLoop
from tests.support.order_histories.market import STEP_S, Market
from tests.support.order_histories.node import STRATEGY_ID, Node
from tests.support.order_histories.plan import BAR_S, COINS, ORDER_TIMEOUT_S, Happening, Plan, draw
from tests.support.order_histories.threads import no_threads
from tests.support.order_histories.venue import VenueModel

QUIET_S = 100.0
_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None  # in memory: nothing is to outlive the process
_BAR_NS = int(BAR_S * SECOND_NS)


@dataclass
class Result:
    """What came of a history."""

    seed: int
    violations: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    entries: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class History:
    """One history."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self.plan = plan
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop, plan.start_ns)
        self.market = Market(plan)
        self.venue = VenueModel(plan, self.loop, self.clock, self.market)
        self.node: Node | None = None
        self.result = Result(plan.seed)
        self.journal = str(Path(folder) / "orders.sqlite")
        self.checks = Checks(self, ORDER_TIMEOUT_S, STEP_S)
        self._quotes = True
        self._faults: dict[str, int] = {}
        self.lives = 0

    @property
    def violations(self) -> list[str]:
        """What did not hold."""
        return self.result.violations

    def now_s(self) -> float:
        """Return the seconds since it began."""
        return self.loop.elapsed

    def now_ns(self) -> int:
        """Return the node's time."""
        return self.clock.timestamp_ns()

    def log(self, text: str) -> None:
        """Write a line of the history."""
        self.result.lines.append(f"{self.loop.elapsed:9.3f} {text}")

    def run(self) -> Result:
        """Run it to its end."""
        asyncio.set_event_loop(self.loop)
        try:
            with no_threads(self.plan.seed, self.loop, self.clock) as self._journals:
                self.loop.run_until_complete(self._run())
        except DeadlockError as e:
            self.checks.violate("storm", str(e))
        finally:
            self._journals.kill()
            asyncio.set_event_loop(None)
            self.loop.drop_all()
            self.loop.close()
        return self.result

    async def _run(self) -> None:
        for coin, share in self.plan.hand.items():
            held = self.venue.trade_by_hand(coin, share)
            self.checks.hand[coin] = held
            self.log(f"by hand {coin} {held}")
        self._start()
        for happening in self.plan.happenings:
            if happening.kind != "hand":
                self.loop.call_at(happening.at, self._happen, happening)
        self.loop.call_at(self.plan.seconds, self._heal)
        end = self.plan.seconds + QUIET_S
        first_bar_ns = (self.plan.start_ns // _BAR_NS + 1) * _BAR_NS
        self.loop.call_at((first_bar_ns - self.plan.start_ns) / 1e9 + 0.05, self._bars, first_bar_ns)
        while self.loop.time() < end:
            await asyncio.sleep(STEP_S)
            self.venue.step()
            if self.node is not None and self._quotes and not self.venue.is_cut:
                for coin in COINS:
                    self.node.quote(coin)
            self.checks.on_step()
            if self.node is not None and self.node.crash:
                self.checks.violate("crash", self.node.crash)
                return
        self.checks.at_quiet()
        self.result.entries = len(self.checks.entries)
        if self.node is not None:
            self.result.counts = dict(self.node.strategy.counts)
            self.node.kill()

    def _bars(self, closed_ns: int) -> None:
        if self.node is not None and self._quotes and not self.venue.is_cut:
            for coin in COINS:
                self.node.bar(coin, closed_ns - _BAR_NS)
        self.loop.call_later(BAR_S, self._bars, closed_ns + _BAR_NS)

    def _happen(self, happening: Happening) -> None:
        if happening.kind == "signal":
            self._signal(happening.data)
            return
        self.log(str(happening))
        data = happening.data
        if happening.kind == "jump":
            self._jump(data["coin"], data["sigmas"])
        elif happening.kind == "flow":
            self._transfer(data["share"] * self.venue.equity())
        elif happening.kind == "hide":
            self._hide_loss(data["sigmas"])
        elif happening.kind == "funding":
            self.venue.pay_funding(data)
        elif happening.kind == "kill":
            self._end(data["seconds"])
        elif happening.kind == "stop":
            self.loop.create_task(self._stop(data["seconds"]))
        else:
            self._begin(happening.kind, data)
            self.loop.call_later(data["seconds"], self._cease, happening.kind, data)

    def _jump(self, coin: str, sigmas: float) -> None:
        """Move a price by as many standard deviations of a horizon."""
        horizon = self.plan.strategy["labels"]["horizon_bars"] * BAR_S / STEP_S
        self.market.move(coin, sigmas * self.market.step_sd * horizon**0.5)
        self.venue.match(coin)

    def _transfer(self, usdc: float) -> None:
        """Pay into the account, or out of it as far as the venue lets one."""
        amount = Decimal(str(round(usdc, 2)))
        amount = max(amount, -Decimal(self.venue.exchange.clearinghouse()["withdrawable"]))  # type: ignore[arg-type]
        self.venue.exchange.transfer(amount, "deposit" if amount > 0 else "withdraw")
        self.checks.day.pay_in(float(amount))
        self.log(f"transfer of {amount}")

    def _hide_loss(self, sigmas: float) -> None:
        """Move the price against the largest position, and pay in what that loses."""
        coin = max(COINS, key=lambda each: abs(self.venue.held(each)) * Decimal(self.market.last(each)))
        before = self.venue.equity()
        self._jump(coin, -math.copysign(sigmas, self.venue.held(coin)))
        self._transfer(before - self.venue.equity())

    def _signal(self, data: dict[str, Any]) -> None:
        now = self.clock.timestamp_ns()
        ts = now - int(data["age"] * SECOND_NS)
        enriched = EnrichedSignal(
            instrument_id=instrument_id(data["coin"]), signal=data["side"], strength=1.0, source=data["source"],
            signal_id=data["id"], meta_confidence=data["confidence"], toxicity=0.0, vpin=0.1, regime_weight=1.0,
            regime=0, volatility=self.plan.volatility, model_version="v1", status=data["status"], latency_ns=0,
            ts_event=ts, ts_init=max(ts, 0),
        )  # fmt: skip
        self.checks.on_signal(enriched, STRATEGY_ID)
        if self.node is not None and self.node.started:
            self.log(
                f"signal {data['coin']} {data['side']} {data['source']}/{data['id']} {data['status']} age {data['age']}"
            )
            self.node.signal(enriched, off_thread=data["off_thread"])

    def _begin(self, kind: str, data: dict[str, Any]) -> None:
        exchange = self.venue.exchange
        self._faults[kind] = self._faults.get(kind, 0) + 1
        if kind == "reject":
            exchange.reject[data["what"]] = data["text"]
        elif kind == "lose":
            exchange.lose.append(data["what"])
        elif kind == "part":
            exchange.fill_fraction = data["fraction"]
        elif kind in ("mute", "silent"):
            exchange.mode = kind
        elif kind == "slow":
            self.venue.delay[data["way"]] = data["delay"]
        elif kind == "cut":
            self.venue.cut()
        elif kind == "quotes":
            self._quotes = False
        elif kind == "info":
            self.venue.info_fails = True

    def _cease(self, kind: str, data: dict[str, Any]) -> None:
        self._faults[kind] -= 1
        self.log(f"end of {kind}")
        exchange = self.venue.exchange
        if kind == "reject":
            exchange.reject.pop(data["what"], None)
        elif kind == "lose":
            exchange.lose.remove(data["what"])
        elif self._faults[kind] > 0:
            return
        elif kind == "part":
            exchange.fill_fraction = 1.0
        elif kind in ("mute", "silent"):
            exchange.mode = "filled"
        elif kind == "slow":
            self.venue.delay.update(there=0.0, back=0.0)
        elif kind == "cut":
            self.venue.mend()
            self.checks.on_connected()
        elif kind == "quotes":
            self._quotes = True
        elif kind == "info":
            self.venue.info_fails = False

    def _start(self) -> None:
        if self.node is not None:
            return
        self.lives += 1
        self.log(f"start of life {self.lives}")
        self.node = Node(
            self.plan,
            self.loop,
            VirtualClock(self.loop, self.plan.start_ns),
            self.venue,
            self.journal,
            self.lives,
        )
        self.checks.on_start(self.node)
        self.node.client.on_sent = self.checks.on_sent
        self._watch(self.node)
        self.node.start()

    def _watch(self, node: Node) -> None:
        """Write down what becomes of orders, and see on which thread signals are decided."""
        decide, home = node.strategy.stage.execute, threading.get_ident()

        def execute(*arguments: Any, **keywords: Any) -> Any:
            if threading.get_ident() != home:
                self.checks.violate("thread", "a signal is decided off the event thread")
            return decide(*arguments, **keywords)

        def on_event(event: Any) -> None:
            what = f"{event.last_qty} at {event.last_px}" if hasattr(event, "last_px") else ""
            what = getattr(event, "reason", None) or what
            order = event.client_order_id.value[:20]
            if "-" in order:  # made up by Nautilus's reconciliation, at random
                order = "reconciled"
            self.log(f"  {type(event).__name__} {event.instrument_id.symbol} {order} {what}")

        node.strategy.stage.execute = execute
        node.bus.subscribe(topic="events.order.*", handler=on_event)

    def _end(self, seconds: float) -> None:
        if self.node is None:
            return
        self.node.kill()
        self._journals.kill()
        self.checks.on_end()
        self.node = None
        self.loop.call_later(seconds, self._start)

    async def _stop(self, seconds: float) -> None:
        """Stop as the node does at SIGTERM: the strategy first; after a while the rest."""
        node = self.node
        if node is None or not node.started:
            return
        self.checks.on_stop()
        left = await node.stop()
        if self.node is node:
            self.checks.after_stop(left)
            node.run(node.strategy.dispose)
            self._end(seconds)

    def _heal(self) -> None:
        self.log("quiet")
        self._start()


def run(seed: int) -> Result:
    """Run the history of a seed."""
    plan = draw(seed)
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        history = History(plan, folder)
        result = history.run()
        for failure in history.loop.failures:
            result.violations.append(f"callback: {failure}")
    return result
