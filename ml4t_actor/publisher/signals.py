"""The rules of a signal's values: those of `ml4t_actor.SignalData`, which needs NautilusTrader, once more."""

import time
import uuid
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TypeGuard

from ml4t_actor.streams.codec import SIGNAL_TYPE, Scalar

TEXT_LENGTH_MAX = 128
REQUIRED = ("instrument_id", "signal", "strength", "source")
OPTIONAL = ("signal_id", "ts_event", "ts_init")

_INT64_MAX = 2**63 - 1


def checked_signal(values: Mapping[str, object]) -> dict[str, Scalar]:
    """Return a signal's fields as they are sent, by the rules of `ml4t_actor.SignalData`.

    Parameters
    ----------
    values : mapping
        With the arguments of `SignalPublisher.publish`, and perhaps `ts_init`.

    Raises
    ------
    ValueError
        If one is missing, unknown or breaks its rule.
    """
    for name in values:
        if name not in REQUIRED and name not in OPTIONAL:
            raise ValueError(f"`{shown(name)}` is no field of a signal: {', '.join(REQUIRED + OPTIONAL)}")
    for name in REQUIRED:
        if name not in values:
            raise ValueError(f"a signal has no value for `{name}`")
    now = time.time_ns()
    signal_id, ts_event, ts_init = (values.get(name) for name in OPTIONAL)
    return {
        "type": SIGNAL_TYPE,
        "instrument_id": _instrument(values["instrument_id"]),
        "signal": _side(values["signal"]),
        "strength": _unit("strength", values["strength"]),
        "source": _text("source", values["source"]),
        "signal_id": uuid.uuid4().hex if signal_id is None else _text("signal_id", signal_id),
        "ts_event": now if ts_event is None else _time("ts_event", ts_event),
        "ts_init": now if ts_init is None else _time("ts_init", ts_init),
    }


def _refused(name: str, value: object, rule: str) -> ValueError:
    return ValueError(f"`{name}` was {shown(value)}, {rule}")


def shown(value: object) -> str:
    """Return a value for a message: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # an integer of thousands of digits
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= TEXT_LENGTH_MAX and value.isprintable():
        return str.__str__(value)
    raise _refused(name, value, f"must be a string of 1 to {TEXT_LENGTH_MAX} printable characters")


def _instrument(value: object) -> str:
    name = _text("instrument_id", value)
    symbol, dot, venue = name.rpartition(".")
    if not (dot and symbol.strip() and venue.strip() and venue.isascii()):
        raise _refused("instrument_id", value, "must be SYMBOL.VENUE, such as BTC-USD-PERP.HYPERLIQUID")
    return name


def _is_number(value: object, kind: type) -> TypeGuard[float]:
    return isinstance(value, kind) and not isinstance(value, bool)


def _side(value: object) -> int:
    if _is_number(value, Real) and value in (-1, 0, 1):
        return int(value)
    raise _refused("signal", value, "must be -1, 0 or 1")


def _unit(name: str, value: object) -> float:
    if _is_number(value, Real) and 0.0 <= value <= 1.0:
        return float(value)
    raise _refused(name, value, "must be a number in [0, 1]")


def _time(name: str, value: object) -> int:
    if _is_number(value, Integral) and 0 <= int(value) <= _INT64_MAX:
        return int(value)
    raise _refused(name, value, "must be UNIX nanoseconds, an integer of at least 0 that fits in 64 bits")
