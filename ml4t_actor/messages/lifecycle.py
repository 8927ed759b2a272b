"""What becomes of signals and of models: `SignalOutcome` and `ModelUpdate`."""

import math
from contextlib import suppress
from enum import StrEnum
from numbers import Real

from ml4t_actor.messages.fields import (
    identifier,
    integer,
    is_number,
    message,
    text,
    unit,
)
from ml4t_actor.messages.signals import Status
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import refused

REASON_LENGTH_MAX = 500
"""Longest `reason` of a `ModelUpdate`."""


class Barrier(StrEnum):
    """How a signal's trade ended."""

    PROFIT = "profit"
    STOP = "stop"
    VERTICAL = "vertical"
    SIGNAL = "signal"
    UNRESOLVED = "unresolved"


class Action(StrEnum):
    """What became of a model."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    RETIRED = "retired"
    FAILED = "failed"
    SWAPPED = "swapped"
    ROLLED_BACK = "rolled_back"


@message
class SignalOutcome(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """What became of a signal: which barrier its price touched first, and whether acting on it paid.

    Parameters
    ----------
    instrument_id, signal, source, signal_id
        Of the signal, see `SignalData`; `signal` is -1 or 1.
    meta_confidence, model_version, status
        As it was enriched, see `EnrichedSignal`.
    barrier : str
        A `Barrier`: "profit", "stop", "vertical", "signal" where a later signal of its source ended it, or
        "unresolved" where the data broke off and nobody can say.
    label : int
        1 if the trade made more than its costs, 0 if not, -1 if unresolved.
    ret : float
        Gross log return in the direction of the signal; 0.0 if unresolved.
    bars : int
        Bars from entry to outcome.
    weight : float
        Average uniqueness of the label among those of its instrument, in [0, 1]; 0.0 if unresolved.
    ts_event : int, default 0
        Close of the bar that decided it, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule.
    """

    instrument_id: InstrumentId
    signal: int
    source: str
    signal_id: str
    meta_confidence: float
    model_version: str
    status: str
    barrier: str
    label: int
    ret: float
    bars: int
    weight: float

    def __init__(
        self,
        *,
        instrument_id: InstrumentId | str,
        signal: int,
        source: str,
        signal_id: str,
        meta_confidence: float,
        model_version: str,
        status: str,
        barrier: str,
        label: int,
        ret: float,
        bars: int,
        weight: float,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        fields["instrument_id"] = identifier(instrument_id)
        fields["signal"] = _integer_among("signal", signal, (-1, 1), "must be -1 or 1")
        fields["source"] = text("source", source)
        fields["signal_id"] = text("signal_id", signal_id)
        fields["meta_confidence"] = unit("meta_confidence", meta_confidence)
        fields["model_version"] = text("model_version", model_version, 0)
        fields["status"] = _one_of("status", status, Status)
        fields["barrier"] = _one_of("barrier", barrier, Barrier)
        unresolved = fields["barrier"] == Barrier.UNRESOLVED
        fields["label"] = _integer_among(
            "label",
            label,
            (-1,) if unresolved else (0, 1),
            "must be 0 or 1, or -1 where and only where `barrier` is unresolved",
        )
        fields["ret"] = _finite("ret", ret)
        fields["bars"] = integer("bars", bars)
        fields["weight"] = unit("weight", weight)
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    def __hash__(self) -> int:
        return hash((self.source, self.signal_id, self._ts_event))


@message
class ModelUpdate(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """What a retraining, a swap or a rollback came to, with the figures that decided it.

    Parameters
    ----------
    action : str
        An `Action`: "promoted"; "rejected"; "retired" (the model in use is worse than the base rate and the challenger
        no better, so that none serves); "failed" (no challenger came of it); "swapped" or "rolled_back" (by hand).
    version : str
        Of the model that serves from now on; "" if none does.
    previous_version : str
        Of the model that served until now.
    trigger : str
        What started it: the kind of a `RetrainTrigger`, or "user".
    reason : str
        In words and numbers, at most 500 printable characters.
    n : int
        Signals that champion and challenger were compared on; 0 if they were not, and all figures are then 0.0.
    champion_log_loss, challenger_log_loss, baseline_log_loss : float
        Mean log loss in nats of the model in use, of the new one, and of the constant base rate.
    improvement, improvement_low : float
        Champion's loss less the challenger's, and its lower bound; 0.0 where the signals were too few for one, which
        `reason` says.
    ts_event : int, default 0
        When it took effect, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule.
    """

    action: str
    version: str
    previous_version: str
    trigger: str
    reason: str
    n: int
    champion_log_loss: float
    challenger_log_loss: float
    baseline_log_loss: float
    improvement: float
    improvement_low: float

    def __init__(
        self,
        *,
        action: str,
        version: str,
        previous_version: str,
        trigger: str,
        reason: str,
        n: int = 0,
        champion_log_loss: float = 0.0,
        challenger_log_loss: float = 0.0,
        baseline_log_loss: float = 0.0,
        improvement: float = 0.0,
        improvement_low: float = 0.0,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        fields["action"] = _one_of("action", action, Action)
        fields["version"] = text("version", version, 0)
        fields["previous_version"] = text("previous_version", previous_version, 0)
        fields["trigger"] = text("trigger", trigger)
        fields["reason"] = text("reason", reason, 0, REASON_LENGTH_MAX)
        fields["n"] = integer("n", n)
        fields["champion_log_loss"] = _finite("champion_log_loss", champion_log_loss)
        fields["challenger_log_loss"] = _finite("challenger_log_loss", challenger_log_loss)
        fields["baseline_log_loss"] = _finite("baseline_log_loss", baseline_log_loss)
        fields["improvement"] = _finite("improvement", improvement)
        fields["improvement_low"] = _finite("improvement_low", improvement_low)
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    def __hash__(self) -> int:
        return hash((self.action, self.version, self._ts_event))


def _one_of(name: str, value: object, choices: type[StrEnum]) -> str:
    if isinstance(value, str) and value in choices:
        return choices(value).value
    raise refused(name, value, f"must be one of {', '.join(choices)}")


def _integer_among(name: str, value: object, choices: tuple[int, ...], rule: str) -> int:
    if is_number(value, Real) and value in choices:
        return int(value)
    raise refused(name, value, rule)


def _finite(name: str, value: object) -> float:
    if is_number(value, Real):
        with suppress(OverflowError):  # an integer beyond any float
            number = float(value)
            if math.isfinite(number):
                return number
    raise refused(name, value, "must be a finite number")
