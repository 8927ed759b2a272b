"""The two messages: `SignalData` comes in, `EnrichedSignal` goes out.

Both are Nautilus custom data: they travel on the message bus, through its msgpack and JSON serializer (and so
through Redis), into a `ParquetDataCatalog` and back. Both are immutable, compare by every field including the
timestamps, and check their values however they are built, so that nothing out of range can arrive from
outside the process.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, Self

import msgspec
import pyarrow as pa
from nautilus_trader.core.data import Data
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.model.data import CustomData
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.serialization.arrow.serializer import register_arrow

TEXT_LENGTH_MAX = 128
"""Longest `signal_id`, `source`, `model_version` and instrument identifier that is accepted."""

_INT64_MAX = 2**63 - 1  # the catalog's columns are int64
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
    LATE = "late"
    ERROR = "error"


_STATUSES: dict[str, Status] = {status.value: status for status in Status}


@customdataclass(frozen=True, init=False, eq=False)  # type: ignore[no-untyped-call]
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
        fields["_ts_event"] = _integer("ts_event", ts_event)
        fields["_ts_init"] = _integer("ts_init", ts_init)

    def __eq__(self, other: object) -> bool:
        return type(other) is SignalData and self.__dict__ == other.__dict__

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the signal that `values`, as made by `to_dict`, describe.

        Timestamps may be strings of digits, as in Nautilus's external streams.

        Raises
        ------
        ValueError
            If a field is missing, unknown, of the wrong type or out of range.
        """
        return cls(**_arguments("SignalData", _SIGNAL_FIELDS, values))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the signal that `to_bytes` encoded; `ValueError` if the bytes hold none."""
        return cls.from_dict(_decoded("SignalData", raw))


@customdataclass(frozen=True, init=False, eq=False)  # type: ignore[no-untyped-call]
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
    ts_event : int, default 0
        When the signal arose, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule. No field can be NaN or infinite: what is not known fails closed.

    See Also
    --------
    EnrichedSignal.from_signal : The cheap way, where the signal is at hand.
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
        )
        fields["_ts_event"] = _integer("ts_event", ts_event)
        fields["_ts_init"] = _integer("ts_init", ts_init)

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
        )
        if ts_init is not None:
            fields["_ts_init"] = _integer("ts_init", ts_init)
        return enriched

    @property
    def is_ok(self) -> bool:
        """Whether every value is the model's answer and none a default."""
        return self.status == Status.OK

    def __eq__(self, other: object) -> bool:
        return type(other) is EnrichedSignal and self.__dict__ == other.__dict__

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
            "meta_confidence": self.meta_confidence,
            "toxicity": self.toxicity,
            "vpin": self.vpin,
            "regime_weight": self.regime_weight,
            "regime": self.regime,
            "volatility": self.volatility,
            "model_version": self.model_version,
            "status": str(self.status),
            "latency_ns": self.latency_ns,
            "type": "EnrichedSignal",
            "ts_event": self._ts_event,
            "ts_init": self._ts_init,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the enriched signal that `values`, as made by `to_dict`, describe.

        Timestamps may be strings of digits, as in Nautilus's external streams.

        Raises
        ------
        ValueError
            If a field is missing, unknown, of the wrong type or out of range.
        """
        return cls(**_arguments("EnrichedSignal", _ENRICHED_FIELDS, values))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the enriched signal that `to_bytes` encoded; `ValueError` if the bytes hold none."""
        return cls.from_dict(_decoded("EnrichedSignal", raw))


_TIMESTAMPS = ("ts_event", "ts_init")
_SIGNAL_FIELDS = frozenset((*SignalData.__annotations__, *_TIMESTAMPS))
_ENRICHED_FIELDS = frozenset((*EnrichedSignal.__annotations__, *_TIMESTAMPS))


def _refused(name: str, value: object, rule: str) -> ValueError:
    try:
        shown = repr(value)
    except Exception:  # an integer of thousands of digits, or a foreign __repr__
        shown = f"a {type(value).__name__} that cannot be shown"
    if len(shown) > 100:
        shown = f"{shown[:100]}..."
    return ValueError(f"`{name}` was {shown}, {rule}")


def _is_number(value: object, kind: type) -> bool:
    """Return whether `value` is Python's or numpy's number of that kind, which a bool is not meant to be."""
    return isinstance(value, kind) and not isinstance(value, bool)


# Each check starts with the exact type that the hot path has, which settles it in one comparison.


def _unit(name: str, value: Any) -> float:
    if type(value) is float and 0.0 <= value <= 1.0:
        return value
    if _is_number(value, Real) and 0.0 <= value <= 1.0:
        return float(value)
    raise _refused(name, value, "must be a number in [0, 1]")


def _volatility(value: Any) -> float:
    if type(value) is float and 0.0 <= value <= _FLOAT_MAX:
        return value
    if _is_number(value, Real):
        with suppress(OverflowError):  # an integer beyond any float
            number = float(value)  # first, since a numpy float32 would take the limit for infinity
            if 0.0 <= number <= _FLOAT_MAX:
                return number
    raise _refused("volatility", value, "must be a finite number of at least 0")


def _integer(name: str, value: Any, low: int = 0) -> int:
    if type(value) is int and low <= value <= _INT64_MAX:
        return value
    if _is_number(value, Integral) and low <= int(value) <= _INT64_MAX:
        return int(value)
    raise _refused(name, value, f"must be an integer of at least {low} that fits in 64 bits")


def _side(value: Any) -> int:
    if type(value) is int and -1 <= value <= 1:
        return value
    if _is_number(value, Real) and value in (-1, 0, 1):
        return int(value)
    raise _refused("signal", value, "must be -1, 0 or 1")


def _text(name: str, value: Any, shortest: int = 1) -> str:
    # Printable, because these go into logs and reports; that also rules out what has no UTF-8 encoding.
    if isinstance(value, str) and shortest <= len(value) <= TEXT_LENGTH_MAX and value.isprintable():
        return value if type(value) is str else str.__str__(value)
    raise _refused(name, value, f"must be a string of {shortest} to {TEXT_LENGTH_MAX} printable characters")


def _set_signal(
    fields: dict[str, Any], instrument_id: Any, signal: Any, strength: Any, source: Any, signal_id: Any
) -> None:
    fields["instrument_id"] = _instrument_id(instrument_id)
    fields["signal"] = _side(signal)
    fields["strength"] = _unit("strength", strength)
    fields["source"] = _text("source", source)
    fields["signal_id"] = _text("signal_id", signal_id)


def _set_enrichment(
    fields: dict[str, Any],
    meta_confidence: Any,
    toxicity: Any,
    vpin: Any,
    regime_weight: Any,
    regime: Any,
    volatility: Any,
    model_version: Any,
    status: Any,
    latency_ns: Any,
) -> None:
    fields["meta_confidence"] = _unit("meta_confidence", meta_confidence)
    fields["toxicity"] = _unit("toxicity", toxicity)
    fields["vpin"] = _unit("vpin", vpin)
    fields["regime_weight"] = _unit("regime_weight", regime_weight)
    fields["regime"] = _integer("regime", regime, -1)
    fields["volatility"] = _volatility(volatility)
    fields["model_version"] = _text("model_version", model_version, 0)
    fields["status"] = _status(status)
    fields["latency_ns"] = _integer("latency_ns", latency_ns)


def _status(value: Any) -> Status:
    if type(value) is Status:
        return value
    if isinstance(value, str) and (status := _STATUSES.get(value)) is not None:
        return status
    raise _refused("status", value, f"must be one of {', '.join(_STATUSES)}")


def _instrument_id(value: InstrumentId | str) -> InstrumentId:
    if isinstance(value, InstrumentId):
        _text("instrument_id", value.value)
        return value
    text = _text("instrument_id", value)
    try:
        return InstrumentId.from_str(text)
    except ValueError as e:
        raise _refused("instrument_id", value, f"must be an InstrumentId or its string ({e})") from None


def _arguments(kind: str, fields: frozenset[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` as constructor arguments, refusing a field too many or too few."""
    arguments = dict(values)
    if (named := arguments.pop("type", kind)) != kind:
        raise _refused("type", named, f"must be '{kind}'")
    if arguments.keys() != fields:
        if missing := sorted(fields - arguments.keys()):
            raise ValueError(f"{kind} has no value for `{'`, `'.join(missing)}`")
        unknown = next(name for name in arguments if name not in fields)
        raise _refused("field", unknown, f"must be one of those of {kind}: {', '.join(sorted(fields))}")
    for name in _TIMESTAMPS:
        value = arguments[name]
        if type(value) is str and len(value) <= 19 and value.isascii() and value.isdigit():
            arguments[name] = int(value)
    return arguments


def _decoded(kind: str, raw: bytes) -> dict[str, Any]:
    try:
        values = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"bytes are not the msgpack of {kind}: {e}") from None
    if not isinstance(values, dict):
        raise _refused(kind, values, "must be a map of its fields")
    return values


def _register_batch_encoder(cls: type[Data]) -> None:
    """Let the catalog encode a list at once: Nautilus's default makes one Arrow batch per object."""
    schema: pa.Schema = cls._schema

    def encode(items: list[Any]) -> pa.RecordBatch:
        messages = [item.data if isinstance(item, CustomData) else item for item in items]
        return pa.RecordBatch.from_pylist([message.to_dict() for message in messages], schema=schema)

    register_arrow(cls, schema, batch_encoder=encode)


_register_batch_encoder(SignalData)
_register_batch_encoder(EnrichedSignal)
