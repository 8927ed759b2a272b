"""What makes an `ActorHealth` out of plain values: a window of latencies, and the rules for what is wrong."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import msgspec
import numpy as np

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.messages.health import (
    COUNTS_LENGTH_MAX,
    ERROR_LENGTH_MAX,
    NEVER,
    PROBLEMS_LENGTH_MAX,
    ActorHealth,
    LinkState,
)
from ml4t_actor.settings import MAX_BAR_AGE_BARS

_CREDENTIALS = re.compile(r"(://)[^\s/@]*@")
_LATENCY_QUANTILES = (0.5, 0.99)


class Latency(NamedTuple):
    """Quantiles of the latencies in a window, nanoseconds; all 0 without any."""

    n: int
    p50_ns: int
    p99_ns: int
    max_ns: int


_NO_LATENCY = Latency(0, 0, 0, 0)


class LatencyWindow:
    """Keep the newest latencies, in a ring of fixed size.

    Adding one costs some 0.1 us and allocates nothing, so that the hot path can afford it.

    Parameters
    ----------
    size : int, default 4096
        How many are kept.

    Examples
    --------
    >>> window = LatencyWindow(100)
    >>> for ns in range(1, 301):
    ...     window.add(ns)
    >>> window.latency()
    Latency(n=100, p50_ns=250, p99_ns=299, max_ns=300)
    """

    def __init__(self, size: int = 4096) -> None:
        if size < 1:
            raise ValueError(f"`size` was {size}, must be at least 1")
        self._ring = np.zeros(size, dtype=np.int64)
        self._size = size
        self._next = 0
        self._full = False

    def __len__(self) -> int:
        return self._size if self._full else self._next

    def add(self, ns: int) -> None:
        """Keep a latency in nanoseconds in place of the oldest one."""
        at = self._next
        self._ring[at] = ns
        at += 1
        if at == self._size:
            self._next = 0
            self._full = True
        else:
            self._next = at

    def latency(self) -> Latency:
        """Return median, 99th percentile and maximum: by nearest rank, so each is one that was measured."""
        n = len(self)
        if not n:
            return _NO_LATENCY
        # Of the whole ring where it is full: the order of a ring does not matter to its quantiles.
        values = self._ring[:n]
        p50, p99 = np.quantile(values, _LATENCY_QUANTILES, method="inverted_cdf")
        return Latency(n, int(p50), int(p99), int(values.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedVitals:
    """The feed of one instrument.

    Attributes
    ----------
    interval_ns : int
        Length of its bars.
    last_bar_ns, last_trade_ns : int
        Times of the newest bar and trade, UNIX nanoseconds; 0 before the first.
    trades : bool
        Whether its trades are subscribed to.
    warm : bool
        Whether features and VPIN have seen enough.
    """

    interval_ns: int
    last_bar_ns: int = 0
    last_trade_ns: int = 0
    trades: bool = False
    warm: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkVitals:
    """A stream's connection to Redis.

    Attributes
    ----------
    state : LinkState
        How it stands.
    error : str
        Why it is not connected.
    """

    state: LinkState = LinkState.OFF
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What the actor knows of itself at one moment.

    Attributes
    ----------
    feeds : mapping of str to FeedVitals
        By instrument.
    model_version : str
        "" if none serves.
    model_label_ns : int
        Newest outcome that the model was trained on, UNIX nanoseconds; 0 for none.
    last_signal_ns, last_outcome_ns : int
        UNIX nanoseconds; 0 for none yet.
    inbound, outbound : LinkVitals
        The two streams.
    outbox_depth, ledger_rows, open_signals : int
        Queue depths, see `ActorHealth`.
    ledger_error : str
        Why the ledger cannot be written now; "" if it can.
    retraining : bool
        Whether a challenger is being trained.
    counts : mapping of str to mapping of str to int
        Since the start, by group and kind. Groups with a rule: ``signals`` by status, ``actor`` (every kind that begins
        with "error"), and ``dropped`` in any. Other groups and kinds are reported and not evaluated.
    latency : Latency
        Of the enrichments.
    """

    feeds: Mapping[str, FeedVitals] = field(default_factory=dict)
    model_version: str = ""
    model_label_ns: int = 0
    last_signal_ns: int = 0
    last_outcome_ns: int = 0
    inbound: LinkVitals = LinkVitals()
    outbound: LinkVitals = LinkVitals()
    outbox_depth: int = 0
    ledger_rows: int = 0
    open_signals: int = 0
    ledger_error: str = ""
    retraining: bool = False
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    latency: Latency = _NO_LATENCY


class HealthReporter:
    """Make an `ActorHealth` out of `Vitals`, and say what is wrong and what to do about it.

    What is wrong now (a stale feed, no model, Redis away) is a problem while it lasts; what was counted (drops, errors,
    late enrichments) for `recent_seconds` after it last happened, so that one who looks now and then does not miss it.

    Parameters
    ----------
    actor_id : str
        Of the actor.
    started_ns : int
        The actor's start, UNIX nanoseconds.
    max_bar_age_bars : float, default 3.0
        A feed whose last bar is older than this, in bar lengths, is stale.
    max_trade_age_seconds : float, default 300.0
        So is one whose last trade is older, where trades are subscribed to.
    recent_seconds : float, default 300.0
        How long something counted stays a problem.
    """

    def __init__(
        self,
        actor_id: str,
        started_ns: int,
        *,
        max_bar_age_bars: float = MAX_BAR_AGE_BARS,
        max_trade_age_seconds: float = 300.0,
        recent_seconds: float = 300.0,
    ) -> None:
        self.actor_id = actor_id
        self.started_ns = started_ns
        self.max_bar_age_bars = max_bar_age_bars
        self.max_trade_age_seconds = max_trade_age_seconds
        self.recent_seconds = recent_seconds
        self._package_version = _version_of("ml4t_actor")
        self._nautilus_version = _version_of("nautilus_trader")
        self._earlier: deque[tuple[int, dict[str, dict[str, int]]]] = deque([(started_ns, {})])

    def report(self, vitals: Vitals, now_ns: int) -> ActorHealth:
        """Return how the actor is at `now_ns`, UNIX nanoseconds."""
        counts = {
            _plain(group, 40): {_plain(kind, 80): int(n) for kind, n in kinds.items()}
            for group, kinds in vitals.counts.items()
        }
        problems = "; ".join(
            [*self._standing_problems(vitals, now_ns), *self._counted_problems(counts, now_ns)]
        )
        feeds = vitals.feeds.values()
        latency = vitals.latency
        return ActorHealth(
            actor_id=_plain(self.actor_id, 128),
            package_version=self._package_version,
            nautilus_version=self._nautilus_version,
            model_version=vitals.model_version,
            uptime_seconds=self._uptime_seconds(now_ns),
            bar_age_seconds=_worst_age(now_ns, [feed.last_bar_ns for feed in feeds]),
            trade_age_seconds=_worst_age(now_ns, [feed.last_trade_ns for feed in feeds if feed.trades]),
            signal_age_seconds=_age(now_ns, vitals.last_signal_ns),
            outcome_age_seconds=_age(now_ns, vitals.last_outcome_ns),
            model_label_age_seconds=_age(now_ns, vitals.model_label_ns),
            outbox_depth=vitals.outbox_depth,
            ledger_rows=vitals.ledger_rows,
            open_signals=vitals.open_signals,
            inbound=vitals.inbound.state,
            inbound_error=_plain(vitals.inbound.error, ERROR_LENGTH_MAX),
            outbound=vitals.outbound.state,
            outbound_error=_plain(vitals.outbound.error, ERROR_LENGTH_MAX),
            retraining=vitals.retraining,
            counts=_encoded({group: dict(kinds) for group, kinds in counts.items()}),
            latency_n=latency.n,
            latency_p50_ns=latency.p50_ns,
            latency_p99_ns=latency.p99_ns,
            latency_max_ns=latency.max_ns,
            ok=not problems,
            problems=_plain(problems, PROBLEMS_LENGTH_MAX),
            ts_event=now_ns,
            ts_init=now_ns,
        )

    def _uptime_seconds(self, now_ns: int) -> float:
        return max(now_ns - self.started_ns, 0) / SECOND_NS

    def _standing_problems(self, vitals: Vitals, now_ns: int) -> list[str]:
        problems = []
        uptime = self._uptime_seconds(now_ns)
        for name, feed in vitals.feeds.items():
            interval = feed.interval_ns / SECOND_NS
            bar_limit = self.max_bar_age_bars * interval
            kinds = [("bar", feed.last_bar_ns, bar_limit, f", expected every {interval:g} s")]
            if feed.trades:
                kinds.append(("trade", feed.last_trade_ns, self.max_trade_age_seconds, ""))
            for kind, last_ns, limit, expected in kinds:
                age = _age(now_ns, last_ns)
                if age == NEVER and uptime > limit:
                    problems.append(f"no {kind} of {name} since the start{expected}: check the data feed")
                elif age > limit:
                    problems.append(f"no {kind} of {name} for {age:.0f} s{expected}: check the data feed")
        if cold := [name for name, feed in vitals.feeds.items() if not feed.warm]:
            problems.append(f"{', '.join(cold)} are warming up: wait for past bars, or more of the present")
        if not vitals.model_version:
            problems.append("no model serves: train one into `model_path`")
        for direction, link in (("inbound", vitals.inbound), ("outbound", vitals.outbound)):
            if link.state == LinkState.CONNECTING:
                error = _plain(link.error, ERROR_LENGTH_MAX)
                reason = f" ({error})" if error else ""
                problems.append(
                    f"the {direction} stream is not connected to Redis{reason}: check the server and the settings"
                )
        if vitals.ledger_error:
            error = _plain(vitals.ledger_error, ERROR_LENGTH_MAX)
            problems.append(
                f"the ledger cannot be written ({error}), {vitals.ledger_rows:,} rows wait: check disk and folder"
            )
        return problems

    def _counted_problems(self, counts: dict[str, dict[str, int]], now_ns: int) -> list[str]:
        horizon_ns = now_ns - round(self.recent_seconds * SECOND_NS)
        earlier = self._earlier
        # The newest that is older than the window: what rose since then is recent.
        while len(earlier) > 1 and earlier[1][0] <= horizon_ns:
            earlier.popleft()
        before = earlier[0][1]
        earlier.append((now_ns, counts))
        problems = []
        for group, kinds in counts.items():
            for kind, count in kinds.items():
                risen = count - before.get(group, {}).get(kind, 0)
                remedy = _remedy(group, kind)
                if risen > 0 and remedy is not None:
                    problems.append(f"{remedy} ({risen:,} lately, {count:,} since the start)")
        return problems


def _remedy(group: str, kind: str) -> str | None:
    """Return what is wrong and what to do where more of `kind` were counted; None where nothing is."""
    if kind == "dropped":
        if group == "ledger":
            return "the ledger has dropped rows: free the disk, or raise `ledger.buffer_rows`"
        if group == "outbound":
            return (
                "enriched signals were dropped before Redis took them: check Redis, or raise `redis.outbox`"
            )
        return f"{group} has dropped entries: look into the log"
    if group == "signals":
        if kind == "late":
            return "enrichments took longer than `inference_timeout_ms`: look for load on the machine"
        if kind == "error":
            return "enrichments have failed: look into the log, and report it"
    if group == "actor" and kind.startswith("error"):
        return f"{kind}: look into the log, and report it"
    return None


def _age(now_ns: int, then_ns: int) -> float:
    """Return the seconds since then; 0.0 where clocks differ, `NEVER` for 0."""
    return max(now_ns - then_ns, 0) / SECOND_NS if then_ns > 0 else NEVER


def _worst_age(now_ns: int, times_ns: list[int]) -> float:
    """Return the greatest age; `NEVER` if one has not happened yet, which is worse than any age."""
    if not times_ns or min(times_ns) <= 0:
        return NEVER
    return _age(now_ns, min(times_ns))


def _plain(value: str, longest: int) -> str:
    """Return `value` printable, without the credentials of an address, and no longer than allowed."""
    printable = "".join(c if c.isprintable() else " " for c in value)
    masked = _CREDENTIALS.sub(r"\1***@", printable)
    return masked if len(masked) <= longest else f"{masked[: longest - 3]}..."


def _encoded(counts: dict[str, dict[str, int]]) -> str:
    """Return JSON no longer than allowed: where there are too many kinds, the rarest go."""
    encoded = msgspec.json.encode(counts).decode()
    while len(encoded) > COUNTS_LENGTH_MAX:
        by_count = sorted((n, group, kind) for group, kinds in counts.items() for kind, n in kinds.items())
        if not by_count:
            return "{}"
        for _, group, kind in by_count[: len(by_count) // 2 + 1]:
            del counts[group][kind]
        encoded = msgspec.json.encode(counts).decode()
    return encoded


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # from a checkout, not installed
        return "unknown"
