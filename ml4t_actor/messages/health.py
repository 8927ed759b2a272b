"""What the actor reports of itself while it runs: `ActorHealth`."""

import math
from contextlib import suppress
from enum import StrEnum
from numbers import Real
from typing import Annotated

import msgspec

from ml4t_actor.messages.fields import flag, integer, is_number, message, text
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.settings import refused

COUNTS_LENGTH_MAX = 16_384
"""Longest `counts` of an `ActorHealth`, in characters."""

PROBLEMS_LENGTH_MAX = 2_000
"""Longest `problems` of an `ActorHealth`, in characters."""

ERROR_LENGTH_MAX = 300
"""Longest `inbound_error` and `outbound_error`, in characters."""

NEVER = -1.0
"""The age of what has not happened yet."""

_DECODE_COUNTS = msgspec.json.Decoder(dict[str, dict[str, Annotated[int, msgspec.Meta(ge=0)]]]).decode


class LinkState(StrEnum):
    """How a stream's connection to Redis stands."""

    OFF = "off"
    CONNECTING = "connecting"
    CONNECTED = "connected"


@message
class ActorHealth(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """How the actor is, published on a timer in a live engine.

    Every field is a number, a bool or a string, so that it survives msgpack, JSON and the catalog. An age is in
    seconds, and -1.0 where it has not happened yet.

    Parameters
    ----------
    actor_id : str
        Trader and actor, such as ``TRADER-001.ML4TActor-000``.
    package_version, nautilus_version : str
        Of this package and of NautilusTrader.
    model_version : str
        Of the model that serves; "" if none does.
    uptime_seconds : float
        Since the actor's start.
    bar_age_seconds, trade_age_seconds : float
        Since the last bar, the last trade, of the instrument for which that is longest ago.
    signal_age_seconds, outcome_age_seconds : float
        Since the last signal came in, since the last outcome became known.
    model_label_age_seconds : float
        Since the newest outcome that the serving model was trained on.
    outbox_depth : int
        Enriched signals that wait to go to Redis.
    ledger_rows : int
        Rows that wait to be written.
    open_signals : int
        Signals whose outcome is not known yet.
    inbound, outbound : str
        The `LinkState` of each stream.
    inbound_error, outbound_error : str
        Why it is not connected, as last reported; "" for no reason.
    retraining : bool
        Whether a challenger is being trained.
    counts : str
        Since the start, as JSON: ``{"signals": {"ok": 12}, "inbound": {"malformed": 1}}``; see `counts_by_kind`.
    latency_n : int
        Enrichments in the rolling window that the latencies are of.
    latency_p50_ns, latency_p99_ns, latency_max_ns : int
        Their median, 99th percentile and maximum, nanoseconds; 0 without any.
    ok : bool
        Whether nothing is wrong.
    problems : str
        What is wrong and what to do about it, joined by "; ". "" where, and only where, `ok`.
    ts_event : int, default 0
        When it held, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule.
    """

    actor_id: str
    package_version: str
    nautilus_version: str
    model_version: str
    uptime_seconds: float
    bar_age_seconds: float
    trade_age_seconds: float
    signal_age_seconds: float
    outcome_age_seconds: float
    model_label_age_seconds: float
    outbox_depth: int
    ledger_rows: int
    open_signals: int
    inbound: str
    inbound_error: str
    outbound: str
    outbound_error: str
    retraining: bool
    counts: str
    latency_n: int
    latency_p50_ns: int
    latency_p99_ns: int
    latency_max_ns: int
    ok: bool
    problems: str

    def __init__(
        self,
        *,
        actor_id: str,
        package_version: str,
        nautilus_version: str,
        model_version: str,
        uptime_seconds: float,
        bar_age_seconds: float,
        trade_age_seconds: float,
        signal_age_seconds: float,
        outcome_age_seconds: float,
        model_label_age_seconds: float,
        outbox_depth: int,
        ledger_rows: int,
        open_signals: int,
        inbound: str,
        inbound_error: str,
        outbound: str,
        outbound_error: str,
        retraining: bool,
        counts: str,
        latency_n: int,
        latency_p50_ns: int,
        latency_p99_ns: int,
        latency_max_ns: int,
        ok: bool,
        problems: str,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        fields["actor_id"] = text("actor_id", actor_id)
        fields["package_version"] = text("package_version", package_version)
        fields["nautilus_version"] = text("nautilus_version", nautilus_version)
        fields["model_version"] = text("model_version", model_version, 0)
        fields["uptime_seconds"] = _seconds("uptime_seconds", uptime_seconds)
        fields["bar_age_seconds"] = _seconds("bar_age_seconds", bar_age_seconds)
        fields["trade_age_seconds"] = _seconds("trade_age_seconds", trade_age_seconds)
        fields["signal_age_seconds"] = _seconds("signal_age_seconds", signal_age_seconds)
        fields["outcome_age_seconds"] = _seconds("outcome_age_seconds", outcome_age_seconds)
        fields["model_label_age_seconds"] = _seconds("model_label_age_seconds", model_label_age_seconds)
        fields["outbox_depth"] = integer("outbox_depth", outbox_depth)
        fields["ledger_rows"] = integer("ledger_rows", ledger_rows)
        fields["open_signals"] = integer("open_signals", open_signals)
        fields["inbound"] = _link_state("inbound", inbound)
        fields["inbound_error"] = text("inbound_error", inbound_error, 0, ERROR_LENGTH_MAX)
        fields["outbound"] = _link_state("outbound", outbound)
        fields["outbound_error"] = text("outbound_error", outbound_error, 0, ERROR_LENGTH_MAX)
        fields["retraining"] = flag("retraining", retraining)
        fields["counts"] = _counts(counts)
        fields["latency_n"] = integer("latency_n", latency_n)
        fields["latency_p50_ns"] = integer("latency_p50_ns", latency_p50_ns)
        fields["latency_p99_ns"] = integer("latency_p99_ns", latency_p99_ns)
        fields["latency_max_ns"] = integer("latency_max_ns", latency_max_ns)
        fields["ok"] = flag("ok", ok)
        fields["problems"] = text("problems", problems, 0, PROBLEMS_LENGTH_MAX)
        if fields["ok"] != (not fields["problems"]):
            raise refused("ok", ok, f"must be {not problems}, since `problems` is {problems!r}")
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    @property
    def counts_by_kind(self) -> dict[str, dict[str, int]]:
        """What was counted since the start, by group and kind."""
        return _DECODE_COUNTS(self.counts)

    def __hash__(self) -> int:
        return hash((self.actor_id, self._ts_event))


def _seconds(name: str, value: object) -> float:
    if is_number(value, Real):
        with suppress(OverflowError):  # an integer beyond any float
            number = float(value)
            if number == NEVER or 0.0 <= number < math.inf:
                return number
    raise refused(name, value, "must be a number of seconds, or -1.0 for never")


def _link_state(name: str, value: object) -> str:
    if isinstance(value, str) and value in LinkState:
        return LinkState(value).value
    raise refused(name, value, f"must be one of {', '.join(LinkState)}")


def _counts(value: object) -> str:
    checked = text("counts", value, 2, COUNTS_LENGTH_MAX)
    try:
        _DECODE_COUNTS(checked)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise refused("counts", value, f"must be JSON of counts by group and kind ({e})") from None
    return checked
