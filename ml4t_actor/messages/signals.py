"""`SignalData` comes in, `EnrichedSignal` goes out."""

import math
import sys
from contextlib import suppress
from enum import StrEnum
from numbers import Real
from typing import Any, Self

import msgspec

from ml4t_actor.messages.fields import (
    identifier,
    integer,
    is_number,
    message,
    message_with_later,
    text,
    unit,
)
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.settings import refused

_FLOAT_MAX = sys.float_info.max


class Status(StrEnum):
    """Why the numbers of an `EnrichedSignal` are what they are: a model's answer, or which default."""

    OK = "ok"
    NO_MODEL = "no_model"
    WARMING_UP = "warming_up"
    STALE_DATA = "stale_data"
    BAD_FEATURES = "bad_features"
    NOVEL_INPUT = "novel_input"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    FUTURE_SIGNAL = "future_signal"
    EXPIRED = "expired"
    LATE = "late"
    ERROR = "error"


_STATUSES: dict[str, Status] = {status.value: status for status in Status}


@message
class SignalData(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """A trading signal of a primary strategy.

    Parameters
    ----------
    instrument_id : InstrumentId or str
        The instrument to trade.
    signal : int
        -1 (short), 0 (flat) or 1 (long). An integral float or numpy number is taken as that integer.
    strength : float
        How strong the signal is by its source's own measure, in [0, 1].
    source : str
        Name of what made it, 1 to 128 printable characters.
    signal_id : str
        Unique per source, 1 to 128 printable characters.
    ts_event : int, default 0
        When the signal arose, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds. May be before `ts_event` where clocks differ.

    Raises
    ------
    ValueError
        If a value breaks its rule; the message names the field, the value and the rule.

    Examples
    --------
    >>> signal = SignalData(
    ...     instrument_id="BTC-USD-PERP.HYPERLIQUID",
    ...     signal=1,
    ...     strength=0.7,
    ...     source="trend",
    ...     signal_id="trend-1",
    ...     ts_event=1_700_000_000_000_000_000,
    ...     ts_init=1_700_000_000_000_000_000,
    ... )
    >>> SignalData.from_bytes(signal.to_bytes()) == signal
    True
    """

    instrument_id: InstrumentId
    signal: int
    strength: float
    source: str
    signal_id: str

    def __init__(
        self,
        *,
        instrument_id: InstrumentId | str,
        signal: int,
        strength: float,
        source: str,
        signal_id: str,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        _set_signal(fields, instrument_id, signal, strength, source, signal_id)
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    def __hash__(self) -> int:
        return hash((self.source, self.signal_id, self._ts_event))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as primitives, with the class name under ``type``."""
        return {
            "instrument_id": self.instrument_id.value,
            "signal": self.signal,
            "strength": self.strength,
            "source": self.source,
            "signal_id": self.signal_id,
            "type": "SignalData",
            "ts_event": self._ts_event,
            "ts_init": self._ts_init,
        }


@message_with_later("base_odds", "confidence_low", "confidence_high", "expected_return", "break_even")
class EnrichedSignal(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """A signal with how far to trust it.

    Parameters
    ----------
    instrument_id, signal, strength, source, signal_id
        Of the signal, see `SignalData`.
    meta_confidence : float
        Calibrated probability in [0, 1] that acting on the signal makes money after costs.
    toxicity : float
        VPIN's percentile in its own trailing history, in [0, 1]; 1.0 where not known.
    vpin : float
        Volume-synchronised probability of informed trading, in [0, 1]; 1.0 where not known.
    regime_weight : float
        How well signals have fared in the regime that holds now, in [0, 1]; 0.0 where not known.
    regime : int
        Index of the likeliest regime, -1 where there is none.
    volatility : float
        Standard deviation of log returns scaled to the label horizon, so that a strategy can set the barriers
        that the model was trained on; 0.0 where not known.
    model_version : str
        Version of the bundle that answered, at most 128 printable characters; "" where none did.
    status : str
        A `Status`: "ok", or why values are defaults.
    latency_ns : int
        Measured time of the enrichment, nanoseconds.
    base_odds : float, default 0.0
        What the probability would be without the features, in [0, 1]: the odds of a random walk between the trade's
        barriers after its costs, recalibrated by the model; as they are where no model answered, 0.0 where not known.
    confidence_low, confidence_high : float, default 0.0 and 1.0
        Ends of a 90 % interval of `meta_confidence`, in [0, 1], for the uncertainty of the model's estimate; all of
        [0, 1] where no model answered or it knows of none.
    expected_return : float, default NaN
        What the trade is expected to make after its costs, in basis points; NaN where not known.
    break_even : float, default 1.0
        The `meta_confidence` at which a trade of this size is expected to make nothing after its costs, in [0, 1].
    ts_event : int, default 0
        When the signal arose, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule. No field can be infinite, and only `expected_return` NaN: what else is not known
        fails closed.

    See Also
    --------
    EnrichedSignal.from_signal : The cheap way, where the signal is at hand.

    Notes
    -----
    JSON has no NaN: an `expected_return` that is not known is null there, and `from_dict` takes None for it.
    """

    instrument_id: InstrumentId
    signal: int
    strength: float
    source: str
    signal_id: str
    meta_confidence: float
    toxicity: float
    vpin: float
    regime_weight: float
    regime: int
    volatility: float
    model_version: str
    status: str
    latency_ns: int
    base_odds: float
    confidence_low: float
    confidence_high: float
    expected_return: float
    break_even: float

    def __init__(
        self,
        *,
        instrument_id: InstrumentId | str,
        signal: int,
        strength: float,
        source: str,
        signal_id: str,
        meta_confidence: float,
        toxicity: float,
        vpin: float,
        regime_weight: float,
        regime: int,
        volatility: float,
        model_version: str,
        status: str,
        latency_ns: int,
        base_odds: float = 0.0,
        confidence_low: float = 0.0,
        confidence_high: float = 1.0,
        expected_return: float = math.nan,
        break_even: float = 1.0,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        _set_signal(fields, instrument_id, signal, strength, source, signal_id)
        _set_enrichment(
            fields,
            meta_confidence,
            toxicity,
            vpin,
            regime_weight,
            regime,
            volatility,
            model_version,
            status,
            latency_ns,
            base_odds,
            confidence_low,
            confidence_high,
            expected_return,
            break_even,
        )
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    @classmethod
    def from_signal(
        cls,
        signal: SignalData,
        *,
        meta_confidence: float,
        status: str,
        toxicity: float = 1.0,
        vpin: float = 1.0,
        regime_weight: float = 0.0,
        regime: int = -1,
        volatility: float = 0.0,
        model_version: str = "",
        latency_ns: int = 0,
        base_odds: float = 0.0,
        confidence_low: float = 0.0,
        confidence_high: float = 1.0,
        expected_return: float = math.nan,
        break_even: float = 1.0,
        ts_init: int | None = None,
    ) -> Self:
        """Return `signal` enriched; what is left out fails closed.

        The signal's own fields were checked when it was built and are not checked again.

        Parameters
        ----------
        signal : SignalData
            The signal, whose fields and `ts_event` are taken over.
        meta_confidence, status, toxicity, vpin, regime_weight, regime, volatility, model_version, latency_ns
            See the class.
        base_odds, confidence_low, confidence_high, expected_return, break_even
            See the class.
        ts_init : int, optional
            When the enrichment was made, UNIX nanoseconds; the signal's own `ts_init` by default.

        Raises
        ------
        ValueError
            If a value breaks its rule.
        """
        enriched = cls.__new__(cls)
        fields = enriched.__dict__
        fields.update(signal.__dict__)
        _set_enrichment(
            fields,
            meta_confidence,
            toxicity,
            vpin,
            regime_weight,
            regime,
            volatility,
            model_version,
            status,
            latency_ns,
            base_odds,
            confidence_low,
            confidence_high,
            expected_return,
            break_even,
        )
        if ts_init is not None:
            fields["_ts_init"] = integer("ts_init", ts_init)
        return enriched

    @property
    def is_ok(self) -> bool:
        """Whether every value is the model's answer and none a default."""
        return self.status == Status.OK

    def __hash__(self) -> int:
        return hash((self.source, self.signal_id, self._ts_event))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as primitives, with the class name under ``type``."""
        values = self.__dict__.copy()
        values["instrument_id"] = self.instrument_id.value
        values["status"] = values["status"].value
        values["type"] = "EnrichedSignal"
        values["ts_event"] = values.pop("_ts_event")
        values["ts_init"] = values.pop("_ts_init")
        return values


class EnrichedSignalFields(msgspec.Struct, array_like=True):
    """The fields of an `EnrichedSignal` as primitives, as `to_dict` gives them.

    Their order is that of recordings: a field that is added goes to the end, and is None in what was recorded before
    there was one.
    """

    instrument_id: str
    signal: int
    strength: float
    source: str
    signal_id: str
    meta_confidence: float
    toxicity: float
    vpin: float
    regime_weight: float
    regime: int
    volatility: float
    model_version: str
    status: str
    latency_ns: int
    ts_event: int
    ts_init: int
    base_odds: float | None = None
    confidence_low: float | None = None
    confidence_high: float | None = None
    expected_return: float | None = None
    break_even: float | None = None


def _volatility(value: object) -> float:
    if type(value) is float and 0.0 <= value <= _FLOAT_MAX:
        return value
    if is_number(value, Real):
        with suppress(OverflowError):  # an integer beyond any float
            number = float(value)  # first, since a numpy float32 would take the limit for infinity
            if 0.0 <= number <= _FLOAT_MAX:
                return number
    raise refused("volatility", value, "must be a finite number of at least 0")


def _expected_return(value: object) -> float:
    if type(value) is float and -_FLOAT_MAX <= value <= _FLOAT_MAX:
        return value
    if value is None:
        return math.nan
    if is_number(value, Real):
        with suppress(OverflowError):  # an integer beyond any float
            number = float(value)
            if number != number:
                return math.nan
            if -_FLOAT_MAX <= number <= _FLOAT_MAX:
                return number
    raise refused("expected_return", value, "must be a finite number, or NaN where it is not known")


def _side(value: object) -> int:
    if type(value) is int and -1 <= value <= 1:
        return value
    if is_number(value, Real) and value in (-1, 0, 1):
        return int(value)
    raise refused("signal", value, "must be -1, 0 or 1")


def _set_signal(
    fields: dict[str, object],
    instrument_id: object,
    signal: object,
    strength: object,
    source: object,
    signal_id: object,
) -> None:
    fields["instrument_id"] = identifier(instrument_id)
    fields["signal"] = _side(signal)
    fields["strength"] = unit("strength", strength)
    fields["source"] = text("source", source)
    fields["signal_id"] = text("signal_id", signal_id)


def _set_enrichment(
    fields: dict[str, object],
    meta_confidence: object,
    toxicity: object,
    vpin: object,
    regime_weight: object,
    regime: object,
    volatility: object,
    model_version: object,
    status: object,
    latency_ns: object,
    base_odds: object,
    confidence_low: object,
    confidence_high: object,
    expected_return: object,
    break_even: object,
) -> None:
    fields["meta_confidence"] = unit("meta_confidence", meta_confidence)
    fields["toxicity"] = unit("toxicity", toxicity)
    fields["vpin"] = unit("vpin", vpin)
    fields["regime_weight"] = unit("regime_weight", regime_weight)
    fields["regime"] = integer("regime", regime, -1)
    fields["volatility"] = _volatility(volatility)
    fields["model_version"] = text("model_version", model_version, 0)
    fields["status"] = _status(status)
    fields["latency_ns"] = integer("latency_ns", latency_ns)
    fields["base_odds"] = unit("base_odds", base_odds)
    fields["confidence_low"] = unit("confidence_low", confidence_low)
    fields["confidence_high"] = unit("confidence_high", confidence_high)
    fields["expected_return"] = _expected_return(expected_return)
    fields["break_even"] = unit("break_even", break_even)


def _status(value: object) -> Status:
    if type(value) is Status:
        return value
    if isinstance(value, str) and (status := _STATUSES.get(value)) is not None:
        return status
    raise refused("status", value, f"must be one of {', '.join(_STATUSES)}")
