"""What is to happen in a history, drawn from its seed before it begins."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

COINS = ("BTC", "ETH", "SOL")
BAR_S = 5.0
HOUR_S = 3_600.0
START_NS = 1_800_000_000 * 1_000_000_000 // 86_400_000_000_000 * 86_400_000_000_000  # a UTC midnight
EQUITY = 100_000.0
ORDER_TIMEOUT_S = 8.0
_QUIET_FOR_FUNDING_S = 10.0

_TEXTS = {
    "market": "Insufficient margin to place order.",
    "limit": "Too many open orders.",
    "trigger": "Invalid TP/SL price.",
    "reduce_only": "Too many requests.",
}


@dataclass(frozen=True)
class Happening:
    """What happens at a time, in seconds from the start."""

    at: float
    kind: str
    data: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} " + " ".join(f"{k}={v}" for k, v in self.data.items())


@dataclass(frozen=True)
class Plan:
    """A history: its settings, and what happens in it.

    Attributes
    ----------
    seed : int
        All follows from it.
    seconds : float
        How long signals come and faults happen; then comes quiet.
    start_ns : int
        When it begins.
    volatility : float
        Of the signals; of the prices too, over a horizon.
    submit_rate : int
        Orders a second that the engine lets through.
    strategy : dict[str, object]
        Fields of the strategy's configuration.
    happenings : list[Happening]
        In order.
    """

    seed: int
    seconds: float
    start_ns: int
    volatility: float
    submit_rate: int
    strategy: dict[str, Any]
    happenings: list[Happening]

    @property
    def has_records(self) -> bool:
        """Whether the venue can be asked for its records; where not, nothing tells a transfer in every case."""
        transfers = any(h.kind in ("flow", "hide") for h in self.happenings)
        return transfers or random.Random(f"records {self.seed}").random() < 0.7

    @property
    def hand(self) -> dict[str, float]:
        """Positions held by hand before the start: the share of equity of each coin, with its sign."""
        return {h.data["coin"]: h.data["share"] for h in self.happenings if h.kind == "hand"}


def draw(seed: int) -> Plan:
    """Return the history of a seed."""
    rng = random.Random(f"plan {seed}")
    seconds = rng.uniform(200.0, 360.0)
    leverage = rng.choice((0.5, 1.0, 1.5, 2.0))
    limits = {
        "max_leverage": leverage,
        "max_position_fraction": rng.choice((0.5, 1.0)),
        "max_daily_loss": rng.choice((0.01, 0.02, 0.05)),
        "stop_loss": 0.03,
    }
    strategy = {
        "labels": {
            "horizon_bars": rng.randint(5, 14),
            "profit_barrier": 1.0,
            "stop_barrier": 1.0,
            "cost": 0.0,
        },
        "limits": limits,
        "order_timeout": ORDER_TIMEOUT_S,
        "check_interval": rng.choice((5.0, 15.0)),
        "close_on_stop": rng.random() < 0.7,
        "fraction": rng.choice((0.5, 1.0)),
    }
    across_midnight = rng.random() < 0.2
    begin_s = 86_400 - rng.uniform(60, 150) if across_midnight else 30_000.0
    money = random.Random(f"money {seed}")
    if not across_midnight and money.random() < 0.4:
        begin_s = 9 * HOUR_S - money.uniform(30, 150)
    plan = Plan(
        seed,
        seconds,
        START_NS + round(begin_s * 1e9),
        rng.uniform(0.004, 0.010),
        rng.choice((3, 5, 10, 100)),
        strategy,
        [],
    )
    signals = _signals(rng, plan)
    plan.happenings.extend(signals)
    plan.happenings.extend(_faults(rng, plan, [h.at for h in signals]))
    plan.happenings.extend(_money(money, plan, HOUR_S - begin_s % HOUR_S))
    plan.happenings.sort(key=lambda h: h.at)
    return plan


def _signals(rng: random.Random, plan: Plan) -> list[Happening]:
    """Signals for all coins at once, for one of them, repeated ones, old ones and those of the future."""
    out: list[Happening] = []
    past: list[Happening] = []
    at, number = 8.0, 0
    together, repeats = rng.choice((0.2, 0.6)), rng.choice((0.0, 0.15))
    while at < plan.seconds:
        coins = COINS if rng.random() < together else (rng.choice(COINS),)
        for coin in coins:
            if past and rng.random() < repeats:
                old = rng.choice(past)
                out.append(Happening(at, "signal", old.data | {"age": 0.0, "again": True}))
                continue
            number += 1
            data = {
                "coin": coin,
                "side": rng.choice((1, 1, -1, -1, 0)),
                "source": rng.choice(("one", "one", "one", "two")),
                "id": f"s{number}",
                "confidence": round(rng.uniform(0.75, 1.0), 2),
                "status": rng.choices(("ok", "late", "error", "expired"), (85, 5, 5, 5))[0],
                "age": rng.choices((0.0, 1.0, 3_600.0, 86_400.0, -60.0, -86_400.0), (80, 10, 3, 3, 2, 2))[0],
                "off_thread": rng.random() < 0.1,
            }
            out.append(Happening(at, "signal", data))
            past.append(out[-1])
        at += rng.expovariate(1 / 7.0) + (0.3 if rng.random() < 0.9 else 0.0)
    return out


def _faults(rng: random.Random, plan: Plan, signals: list[float]) -> list[Happening]:
    """Faults, most of them about the time of a signal, where they do most harm."""
    out: list[Happening] = []
    if rng.random() < 0.12:
        coin = rng.choice(COINS)
        out.append(
            Happening(
                0.0, "hand", {"coin": coin, "share": round(rng.choice((-1, 1)) * rng.uniform(0.1, 0.4), 3)}
            )
        )
    if rng.random() < 0.2:
        return out  # a calm one
    kinds = {
        "reject": 2, "lose": 2, "part": 2, "mute": 1, "silent": 1, "slow": 2, "cut": 2, "kill": 2, "stop": 2,
        "flow": 1, "jump": 1, "quotes": 1, "info": 1,
    }  # fmt: skip
    some = rng.sample(list(kinds), rng.randint(2, 6))
    for _ in range(rng.randint(2, 9)):
        kind = rng.choices(some, [kinds[k] for k in some])[0]
        at = rng.uniform(10.0, plan.seconds)
        if rng.random() < 0.7:
            before = kind not in ("kill", "stop", "cut")
            at = max(
                rng.choice(signals) + (-rng.uniform(0.0, 2.0) if before else rng.uniform(0.01, 1.0)), 1.0
            )
        out.append(Happening(at, kind, _fault(rng, kind)))
    return out


def _money(rng: random.Random, plan: Plan, to_hour_s: float) -> list[Happening]:
    """Funding at the full hour; transfers while the node is down, and those that are as large as a loss."""
    rates = {coin: rng.choice((-0.004, -0.0005, 0.0000125, 0.0005, 0.002)) for coin in COINS}
    out = [Happening(to_hour_s, "funding", rates)] if to_hour_s < plan.seconds + _QUIET_FOR_FUNDING_S else []
    for end in [h for h in plan.happenings if h.kind in ("kill", "stop")]:
        if rng.random() < 0.3:
            at = end.at + rng.uniform(-1.0, end.data["seconds"] + 2.0)
            out.append(
                Happening(max(at, 1.0), "flow", {"share": rng.choice((-0.8, -0.02, 0.005, 0.02, 2.0))})
            )
    while rng.random() < 0.3:
        out.append(Happening(rng.uniform(20.0, plan.seconds), "hide", {"sigmas": rng.choice((1.0, 2.5))}))
    return out


def _fault(rng: random.Random, kind: str) -> dict[str, Any]:
    seconds = round(rng.uniform(2.0, 25.0), 1)
    if kind == "reject":
        what = rng.choice(list(_TEXTS))
        return {"seconds": seconds, "what": what, "text": _TEXTS[what]}
    if kind == "lose":
        return {"seconds": seconds, "what": rng.choice(("market", "limit", "trigger", "reduce_only"))}
    if kind == "part":
        return {"seconds": seconds, "fraction": rng.choice((0.2, 0.5, 0.8))}
    if kind == "slow":
        return {
            "seconds": seconds,
            "delay": rng.choice((1.0, 3.0, 7.0)),
            "way": rng.choice(("there", "back")),
        }
    if kind in ("kill", "stop"):
        return {"seconds": round(rng.choice((0.5, 3.0, 20.0, 45.0)), 1)}
    if kind == "flow":
        return {"share": rng.choice((-0.8, -0.3, 0.5, 2.0))}
    if kind == "jump":
        return {"coin": rng.choice(COINS), "sigmas": rng.choice((-2.5, -1.5, 1.5, 2.5))}
    return {"seconds": seconds}


def log_step(plan: Plan, step_s: float) -> float:
    """Return the standard deviation of a price's steps."""
    horizon_s = plan.strategy["labels"]["horizon_bars"] * BAR_S
    return plan.volatility * math.sqrt(step_s / horizon_s)
