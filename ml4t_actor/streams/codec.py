"""One entry of a Redis stream as NautilusTrader's message bus writes and reads it.

An entry has the fields ``topic`` and ``payload``, and may have ``type``, ``encoding`` and others. The payload is the
msgpack or JSON of a message's fields with its class name under ``type``. Every ``ts_*`` is a string of digits when
written, as Nautilus's reader demands; both digits and integers are read. Which of the two encodings a payload is in
shows in its first byte: NautilusTrader 1.231 writes ``encoding=Json`` beside msgpack, so that field is not believed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

type Scalar = str | int | float | bool | None
type Encoding = Literal["msgpack", "json"]
type Fields = Mapping[bytes, bytes] | Sequence[bytes]

SIGNAL_TYPE = "SignalData"
ENRICHED_TYPE = "EnrichedSignal"

_MAP = dict[str, str | int | float | bool | None]  # flat: nothing nested can be deep
_ENCODERS: dict[Encoding, msgspec.msgpack.Encoder | msgspec.json.Encoder] = {
    "msgpack": msgspec.msgpack.Encoder(),
    "json": msgspec.json.Encoder(),
}
_FROM_MSGPACK = msgspec.msgpack.Decoder(_MAP)
_FROM_JSON = msgspec.json.Decoder(_MAP)
_JSON_STARTS = frozenset(b"{ \t\r\n")  # none of which can begin a msgpack map
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1
_DIGITS_MAX = 19
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class CodecError(ValueError):
    """An entry holds no message of the wanted kind.

    Attributes
    ----------
    kind : {'malformed', 'oversized', 'unknown_type'}
        What is wrong, to be counted by.
    """

    def __init__(self, kind: Literal["malformed", "oversized", "unknown_type"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Typed(msgspec.Struct):
    type: str


_TYPE_FROM_MSGPACK = msgspec.msgpack.Decoder(_Typed)
_TYPE_FROM_JSON = msgspec.json.Decoder(_Typed)


def topic_of(kind: str, instrument_id: str) -> str:
    """Return the topic of a message about an instrument, as NautilusTrader's data engine names it.

    Examples
    --------
    >>> topic_of("SignalData", "BTC-USD-PERP.HYPERLIQUID")
    'data.SignalData.HYPERLIQUID.BTC-USD-PERP'
    """
    symbol, _, venue = instrument_id.rpartition(".")
    root, dot, _ = symbol.partition(".")  # a composite symbol is named by its root
    return f"data.{kind}.{venue}.{root}{'*' if dot else ''}"


def encode(
    values: Mapping[str, Scalar], topic: str, *, encoding: Encoding = "msgpack", node: str = ""
) -> dict[bytes, bytes]:
    """Return the fields of the entry that carries a message.

    Parameters
    ----------
    values : mapping
        The message's fields, with its class name under ``type``.
    topic : str
        Of the message bus, see `topic_of`.
    encoding : {'msgpack', 'json'}, default 'msgpack'
        Of the payload; must be that of the reading node's `MessageBusConfig`.
    node : str
        Who writes, under ``node``, which NautilusTrader passes over; left out if empty.

    Examples
    --------
    >>> encode({"type": "SignalData", "ts_event": 1}, "data.SignalData*", encoding="json")[b"payload"]
    b'{"type":"SignalData","ts_event":"1"}'
    """
    payload = _ENCODERS[encoding].encode(
        {name: str(value) if name.startswith("ts_") else value for name, value in values.items()}
    )
    fields = {
        b"topic": topic.encode(),
        b"type": str(values["type"]).encode(),
        b"payload": payload,
        b"encoding": encoding.encode(),
    }
    if node:
        fields[b"node"] = node.encode()
    return fields


def decode(fields: Fields, *, wanted: str | None = None, max_bytes: int | None = None) -> dict[str, Scalar]:
    """Return the message that an entry carries, as plain values.

    Parameters
    ----------
    fields : mapping, or sequence of bytes
        The entry's fields, or their names and values in turn as Redis sends them.
    wanted : str, optional
        The only type that is accepted.
    max_bytes : int, optional
        Most bytes of all names and values together.

    Raises
    ------
    CodecError
        With the reason as its `kind`.
    """
    parts = [part for pair in fields.items() for part in pair] if isinstance(fields, Mapping) else fields
    if max_bytes is not None and (size := sum(map(len, parts))) > max_bytes:
        raise CodecError(
            "oversized", f"the entry has {size} bytes, of which at most {max_bytes} are accepted"
        )
    payload = _payload(parts)
    is_json = payload[:1] != b"" and payload[0] in _JSON_STARTS
    try:
        values = (_FROM_JSON if is_json else _FROM_MSGPACK).decode(payload)
        n_given = _json_pairs(payload) if is_json else _msgpack_pairs(payload)
    except _UNREADABLE as e:
        if (named := _named_type(payload, is_json)) is not None:
            _check_type(named, wanted)
        raise CodecError("malformed", f"the payload is no flat map: {_shortened(e)}") from None
    _check_type(values.get("type"), wanted)
    if n_given != len(values):
        raise CodecError("malformed", "the payload has two values for one name")
    _normalise(values)
    return values


def node_of(fields: Fields) -> str:
    """Return who wrote an entry, "" if it does not say."""
    pairs = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=False))
    return pairs.get(b"node", b"").decode(errors="replace")


def identity(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Return what identifies a message within its stream: type, source and id, else all that it says."""
    kind, source, signal_id = (values.get(name) for name in ("type", "source", "signal_id"))
    if source is not None and signal_id is not None:
        return str(kind), str(source), str(signal_id)
    return str(kind), *(f"{name}={value}" for name, value in sorted(values.items()) if name != "type")


def _check_type(kind: Scalar, wanted: str | None) -> None:
    if wanted is not None and kind != wanted:
        raise CodecError("unknown_type", f"the type is {_shortened(kind)}, not {wanted}") from None


def _normalise(values: dict[str, Scalar]) -> None:
    """Make the timestamps integers, and check the others."""
    for name, value in values.items():
        if type(value) is int and not _INTEGER_MIN <= value <= _INTEGER_MAX:
            raise CodecError("malformed", f"the integer under {_shortened(name)} does not fit in 64 bits")
        if name.startswith("ts_") and type(value) is str:
            values[name] = _timestamp(name, value)


def _payload(parts: Sequence[bytes]) -> bytes:
    names = parts[::2]
    if len(set(names)) != len(names):
        raise CodecError("malformed", "the entry has a field twice")
    for name in (b"topic", b"payload"):
        if name not in names:
            raise CodecError("malformed", f"the entry has no field '{name.decode()}'")
    return parts[2 * names.index(b"payload") + 1]


def _json_pairs(payload: bytes) -> int:
    """Return how many names a JSON object has that is known to be flat, repeated ones included."""
    return int(json.loads(payload, object_pairs_hook=len))


def _msgpack_pairs(payload: bytes) -> int:
    """Return how many names the header of a msgpack map announces."""
    first = payload[0]
    if first < 0xDE:
        return first & 0x0F
    return int.from_bytes(payload[1 : 3 if first == 0xDE else 5])


def _named_type(payload: bytes, is_json: bool) -> str | None:
    """Return the type that a payload names which is no flat map: another event of a node, perhaps."""
    try:
        return (_TYPE_FROM_JSON if is_json else _TYPE_FROM_MSGPACK).decode(payload).type
    except _UNREADABLE:
        return None


def _timestamp(name: str, value: str) -> int:
    if len(value) <= _DIGITS_MAX and value.isascii() and value.isdigit():
        return int(value)
    raise CodecError("malformed", f"`{name}` was {_shortened(value)}, must be UNIX nanoseconds")


def _shortened(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
