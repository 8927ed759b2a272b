"""The same histories on the stand-in venue: the real node, adapter and sockets, in compressed real time.

What is to happen follows from the seed; when exactly does not, so that a history here does not replay exactly.
"""

import math
import random
import tempfile
import threading
import time
from collections import deque
from decimal import Decimal
from signal import SIGTERM
from typing import Any

from examples.venue import Venue as StandInServer
from ml4t_actor.messages import EnrichedSignal
from tests.support.order_histories.client import instrument_id
from tests.support.order_histories.history import Result
from tests.support.order_histories.invariants import Checks
from tests.support.order_histories.plan import COINS, EQUITY, Happening, Plan, draw, log_step
from tests.support.order_histories.stand_in_venue import StandInVenue
from tests.support.trader import Trader

# Short ones, with five faults and more: all kinds of them are among them.
SEEDS = (3, 23, 25, 29, 36, 43, 45, 49, 60, 64, 65, 74, 83, 86, 88, 94, 95, 98, 105, 109)
SPEED = 8.0
QUIET_S = 40.0  # not compressed: Nautilus gives up an order after as long
ORDER_TIMEOUT_S = 4.0
_STEP_S = 0.25
_SLOWNESS_S = 4.0  # of a machine that runs several of these, in addition to the timeout
_RECONNECT_S = 6.0
_AGREE_S = 15.0
_AGAIN_S = 1.0
STRATEGY_ID = "EnrichedSignalStrategy-T"
_FEEDS = ("bbo", "l2Book", "trades", "candle")


class Life:
    """One life of the node, which takes a while to begin and to end."""

    def __init__(self, venue: StandInServer, settings: dict[str, Any]) -> None:
        self._trader = Trader(venue, **settings)
        self._state: dict[str, Any] = {}
        self.started = False
        self.failure: BaseException | None = None
        self.left: str | None = None
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._start)
        self._thread.start()

    def _start(self) -> None:
        try:
            self._trader.__enter__()
            self.started = True
        except BaseException as e:
            self.failure = e

    def publish(self, side: int, **fields: object) -> None:
        """Publish an enriched signal inside the node."""
        self._trader.publish(side, **fields)

    def look(self) -> None:
        """Ask the node for its state."""
        self._state = self._trader.state()

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._thread.join()
        self.started = False
        if self.failure is None:
            self.errors = [line for line in self._trader.log().splitlines() if _is_error(line)]
            self._trader.__exit__(None, None, None)

    def stop(self) -> None:
        """Stop it as SIGTERM does."""
        self._thread.join()
        code = self._trader.stop(SIGTERM)
        ended = self._trader.events("ended")
        problems = ended[-1]["problems"] if ended else [f"exit code {code}, and no last word"]
        self.left = "; ".join(problems) or None
        self.kill()

    def held(self, coin: str) -> Decimal:
        """Return what the cache held at the last look, nothing before the first."""
        position = self._state.get("positions", {}).get(str(instrument_id(coin)))
        return Decimal(0) if position is None else Decimal(str(position[1]))

    def resting(self, coin: str) -> list[int]:
        """Return the venue's ids of the orders that might rest and were open at the last look."""
        orders = (o for o in self._state["orders"] if o["instrument"] == str(instrument_id(coin)))
        return sorted(int(o["venue_id"]) for o in orders if o["rests"] and o["venue_id"] != "None")

    @property
    def n_errors(self) -> int:
        """How often a handler of the strategy had raised at the last look."""
        return int(self._state.get("counts", {}).get("error", 0))

    @property
    def counts(self) -> dict[str, int]:
        """The strategy's counts at the last look."""
        return dict(self._state.get("counts", {}))

    def day_result(self) -> float | None:
        """Return what the strategy took the day's trading to have made at the last look."""
        result: float | None = self._state["day_result"]
        return result


def _is_error(line: str) -> bool:
    """Return whether a line of the log tells of an error, or belongs to the traceback of one."""
    return "[ERROR]" in line or not line.startswith("20")


class StandInHistory:
    """One history on a stand-in of its own."""

    def __init__(self, plan: Plan, server: StandInServer, folder: str) -> None:
        self.plan, self._server = plan, server
        self._began_s = time.monotonic()
        self.violations: list[str] = []
        self.result = Result(plan.seed, self.violations)
        self.venue = self.market = StandInVenue(server)
        self.checks = Checks(self, ORDER_TIMEOUT_S + _SLOWNESS_S, _STEP_S)
        self._rng = random.Random(f"stand-in {plan.seed}")
        self._settings = _settings(plan, folder)
        self._due: deque[tuple[float, Any, tuple[Any, ...]]] = deque()
        self._stopping: threading.Thread | None = None
        self.life: Life | None = None
        self._faults: dict[str, int] = {}

    def now_s(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self._began_s

    def now_ns(self) -> int:
        """Return the node's time."""
        return self.venue.now_ns()

    def log(self, text: str) -> None:
        """Write a line of the history."""
        self.result.lines.append(f"{self.now_s():9.3f} {text}")

    def run(self) -> Result:
        """Run it to its end."""
        try:
            self._run()
        finally:
            if self._stopping is not None:
                self._stopping.join()
            if self.life is not None:
                self.life.kill()
                self._end(0.0)
        self.result.entries = len(self.checks.entries)
        return self.result

    def _run(self) -> None:
        for coin, share in self.plan.hand.items():
            size = abs(share) * EQUITY / self.market.last(coin)
            self._server.control("trade", coin=coin, side="buy" if share > 0 else "sell", size=f"{size:.2f}")
            self.venue.look()
            self.checks.hand[coin] = self.venue.held(coin)
        self._start()
        self._wait_for_start()
        begun = self.now_s()
        for happening in self.plan.happenings:
            if happening.kind != "hand":
                self._at(begun + happening.at / SPEED, self._happen, happening)
        end = begun + self.plan.seconds / SPEED
        while self.now_s() < end:
            self._step()
        self._heal()
        while self.now_s() < end + QUIET_S or self.life is None or not self.life.started:
            self._step()
            if self.now_s() > end + 4 * QUIET_S:
                break
        self._settle()

    def _settle(self) -> None:
        """Let venue and node agree, which both change while they are looked at."""
        life = self.life
        end = self.now_s() + _AGREE_S
        while life is not None and life.started:
            self._step()
            life.look()
            if not list(self.checks.disagreements()) or self.now_s() > end:
                self.result.counts = life.counts
                break
        self.checks.at_quiet()

    def _step(self) -> None:
        """Let time pass, prices move, and what is due happen."""
        begun = time.monotonic()
        while self._due and self._due[0][0] <= self.now_s():
            _, function, arguments = self._due.popleft()
            function(*arguments)
        sd = log_step(self.plan, SPEED * _STEP_S)
        for coin in COINS:
            self._server.control("move", coin=coin, factor=math.exp(self._rng.gauss(0.0, sd)))
        self.venue.look(self.checks.on_sent)
        if self.life is not None and self.life.failure is not None:  # as a supervisor does
            self.log(f"the node did not start: {str(self.life.failure)[:200]!r}")
            self._end(_AGAIN_S)
        self.checks.on_step()
        time.sleep(max(_STEP_S - (time.monotonic() - begun), 0.0))

    def _at(self, due_s: float, function: Any, *arguments: Any) -> None:
        self._due.append((due_s, function, arguments))
        self._due = deque(sorted(self._due, key=lambda each: each[0]))

    def _wait_for_start(self) -> None:
        while self.life is None or not self.life.started:
            self._step()

    def _happen(self, happening: Happening) -> None:
        kind, data = happening.kind, happening.data
        if kind == "signal":
            self._signal(data)
            return
        self.log(str(happening))
        if kind == "jump":
            self._move(data["coin"], data["sigmas"])
        elif kind == "hide":
            self._hide_loss(data["sigmas"])
        elif kind == "flow":
            self._transfer(data["share"] * self.venue.equity())
        elif kind == "funding":
            for coin in COINS:
                notional = float(self.venue.held(coin)) * self.market.last(coin)
                if notional:
                    self._server.control("fund", coin=coin, usdc=f"{-notional * data[coin]:.6f}")
        elif kind == "kill":
            self._kill(data["seconds"])
        elif kind == "stop":
            self._stop(data["seconds"])
        else:
            self._faults[kind] = self._faults.get(kind, 0) + 1
            self.venue.begin(kind, data)
            self._at(self.now_s() + max(data["seconds"] / SPEED, _STEP_S), self._cease, kind, data)

    def _cease(self, kind: str, data: dict[str, Any]) -> None:
        self.log(f"end of {kind}")
        self._faults[kind] -= 1
        self.venue.cease(kind, data, last=self._faults[kind] == 0)
        if kind == "cut" and self._faults[kind] == 0:
            self._at(self.now_s() + _RECONNECT_S, self._connected)

    def _connected(self) -> None:
        if not self._faults.get("cut"):
            self.venue.is_cut = False
            self.checks.on_connected()

    def _signal(self, data: dict[str, Any]) -> None:
        if self.life is None or not self.life.started or self._stopping is not None:
            return
        ts = time.time_ns() - int(data["age"] * 1e9)
        fields = {
            "signal": data["side"], "strength": 1.0, "source": data["source"], "signal_id": data["id"],
            "meta_confidence": data["confidence"], "toxicity": 0.0, "vpin": 0.1, "regime_weight": 1.0, "regime": 0,
            "volatility": self.plan.volatility, "model_version": "v1", "status": data["status"], "latency_ns": 0,
            "ts_event": ts, "ts_init": max(ts, 0),
        }  # fmt: skip
        of = instrument_id(data["coin"])
        self.log(f"signal {data['coin']} {data['side']} {data['id']} {data['status']} age {data['age']}")
        self.checks.on_signal(EnrichedSignal(instrument_id=of, **fields), STRATEGY_ID)
        self.life.publish(data["side"], **fields, instrument_id=str(of))

    def _move(self, coin: str, sigmas: float) -> None:
        """Move a price by as many standard deviations of a horizon."""
        self._server.control("move", coin=coin, factor=math.exp(sigmas * self.plan.volatility))
        self.venue.look(self.checks.on_sent)

    def _transfer(self, usdc: float) -> None:
        """Pay into the account, or out of it as far as the venue lets one."""
        amount = round(max(usdc, -self.venue.withdrawable), 2)
        self._server.control("transfer", amount=amount)
        self.checks.day.pay_in(amount)
        self.log(f"transfer of {amount}")
        self.venue.look(self.checks.on_sent)

    def _hide_loss(self, sigmas: float) -> None:
        """Move the price against the largest position, and pay in what that loses."""
        coin = max(COINS, key=lambda each: abs(float(self.venue.held(each))) * self.market.last(each))
        loss = float(self.venue.held(coin)) * self.market.last(coin)
        sigmas = -math.copysign(sigmas, loss)
        loss *= math.expm1(sigmas * self.plan.volatility)
        self._move(coin, sigmas)
        self._transfer(-loss)

    def _start(self) -> None:
        if self.life is None:
            self.log("start of a life")
            self.life = Life(self._server, self._settings)
            self.checks.on_start(self.life)

    def _kill(self, seconds: float) -> None:
        if self.life is None or not self.life.started or self._stopping is not None:
            return
        self.life.look()
        self.life.kill()
        self._end(seconds / SPEED)

    def _end(self, seconds: float) -> None:
        """A life has ended; the next begins after a while."""
        assert self.life is not None
        for line in self.life.errors:
            self.log(f"    {line}")
        self.checks.on_end()
        self.life = None
        self._at(self.now_s() + seconds, self._start)

    def _stop(self, seconds: float) -> None:
        if self.life is None or not self.life.started or self._stopping is not None:
            return
        self.log("SIGTERM")
        self._stopping = threading.Thread(target=self.life.stop)
        self._stopping.start()
        self._at(self.now_s() + _STEP_S, self._await_stop, seconds)

    def _await_stop(self, seconds: float) -> None:
        stopping, life = self._stopping, self.life
        assert stopping is not None
        assert life is not None
        if stopping.is_alive():
            self._at(self.now_s() + _STEP_S, self._await_stop, seconds)
            return
        self._stopping = None
        self.venue.look(self.checks.on_sent)
        self.checks.after_stop(life.left)
        self._end(seconds / SPEED)

    def _heal(self) -> None:
        self.log("quiet")
        for _, function, arguments in list(self._due):
            if function == self._cease:
                self._cease(*arguments)
        self._due = deque(each for each in self._due if each[1] not in (self._cease, self._happen))


def _settings(plan: Plan, folder: str) -> dict[str, Any]:
    return {
        "strategy": {
            **plan.strategy,
            "risk_target": None,  # as in `node.py`
            "bar_types": [f"{instrument_id(coin)}-1-MINUTE-LAST-EXTERNAL" for coin in COINS],
            "journal_path": f"{folder}/orders.sqlite",
            "order_timeout": ORDER_TIMEOUT_S,
            "check_interval": 3.0,
            "cooldown_bars": 0,  # a bar is a minute by the clock, and a second at the stand-in
        },
        "engine": {"open_check_interval_secs": 2.0, "reconciliation_startup_delay_secs": 2.0},
        "stops_as_node": True,
    }


def run_on_stand_in(seed: int) -> Result:
    """Run the history of a seed on a stand-in of its own."""
    plan = draw(seed)
    arguments = ("--candle-ms", "1000", "--virtual-candles", "1000", "--synthetic")
    with tempfile.TemporaryDirectory() as folder, StandInServer(*arguments) as server:
        return StandInHistory(plan, server, folder).run()
