"""The wire format: what NautilusTrader writes and reads, what people type, and what nobody should have sent."""

import asyncio
import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.core import nautilus_pyo3
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.serialization.serializer import MsgSpecSerializer

from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.streams.codec import (
    ENRICHED_TYPE,
    SIGNAL_TYPE,
    CodecError,
    Encoding,
    decode,
    encode,
    identity,
    node_of,
    topic_of,
)
from tests.support.redis_server import RedisServer, redis_binary
from tests.support.waiting import until

ENCODINGS: tuple[Encoding, ...] = ("msgpack", "json")
SIGNAL = SignalData(
    instrument_id="BTC-USD-PERP.HYPERLIQUID",
    signal=-1,
    strength=0.7,
    source="trénd",
    signal_id="trend-1",
    ts_event=1_700_000_000_000_000_001,
    ts_init=1_700_000_000_000_000_002,
)
ENRICHED = EnrichedSignal.from_signal(SIGNAL, meta_confidence=0.61, status="ok", model_version="v000001")
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
)
TEXTS = st.text().filter(lambda text: text.isprintable())


def serializer(encoding: Encoding) -> MsgSpecSerializer:
    """Return what a node makes of its `MessageBusConfig`."""
    return MsgSpecSerializer(
        encoding=msgspec.msgpack if encoding == "msgpack" else msgspec.json, timestamps_as_str=True
    )


def entry(payload: bytes, **fields: bytes) -> dict[bytes, bytes]:
    return {b"topic": b"data.SignalData*", b"payload": payload} | {k.encode(): v for k, v in fields.items()}


def packed(**values: Any) -> bytes:
    return msgspec.msgpack.encode({"type": "SignalData", **values})


@given(
    values=st.dictionaries(TEXTS.filter(lambda name: not name.startswith("ts_")), SCALARS),
    times=st.dictionaries(st.sampled_from(["ts_event", "ts_init", "ts_x"]), st.integers(0, 2**63 - 1)),
    encoding=st.sampled_from(ENCODINGS),
)
def test_what_is_encoded_is_decoded(
    values: dict[str, Any], times: dict[str, int], encoding: Encoding
) -> None:
    if encoding == "json":  # which has no infinity
        values = {k: v for k, v in values.items() if v not in (float("inf"), float("-inf"))}
    message = {**values, **times, "type": "Any"}
    fields = encode(message, "topic", encoding=encoding, node="n")
    assert decode(fields, wanted="Any") == message
    assert decode([part for pair in fields.items() for part in pair]) == message
    assert node_of(fields) == "n"
    payload = fields[b"payload"]
    raw = msgspec.msgpack.decode(payload) if encoding == "msgpack" else json.loads(payload)
    assert {name: raw[name] for name in times} == {name: str(value) for name, value in times.items()}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("message", [SIGNAL, ENRICHED])
def test_nautilus_reads_what_we_write_and_we_read_what_it_writes(message: Any, encoding: Encoding) -> None:
    kind = type(message).__name__
    ours = encode(message.to_dict(), topic_of(kind, message.instrument_id.value), encoding=encoding)
    assert serializer(encoding).deserialize(ours[b"payload"]) == message
    theirs = serializer(encoding).serialize(message)
    assert type(message).from_dict(decode(entry(theirs), wanted=kind)) == message


def test_the_kinds_are_the_names_of_the_classes() -> None:
    assert (SignalData.__name__, EnrichedSignal.__name__) == (SIGNAL_TYPE, ENRICHED_TYPE)


@pytest.mark.parametrize("name", ["BTC-USD-PERP.HYPERLIQUID", "A.B.C", "A..B", "A/B.C", "é.V"])
def test_a_topic_is_named_as_by_nautilus(name: str) -> None:
    instrument_id = InstrumentId.from_str(name)
    expected = f"data.SignalData.{instrument_id.venue}.{instrument_id.symbol.topic()}"
    assert topic_of("SignalData", name) == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_through_the_redis_of_nautilus_itself(tmp_path: Path, encoding: Encoding) -> None:
    """Its ingress takes our entries, the field `node` included, and we take its egress's."""
    received: list[tuple[str, Any]] = []

    async def listen(backing: Any) -> None:
        task = asyncio.ensure_future(
            backing.stream(
                lambda message: received.append(
                    (message.topic, serializer(encoding).deserialize(message.payload))
                )
            )
        )
        topic = topic_of("SignalData", SIGNAL.instrument_id.value)
        fields = encode(SIGNAL.to_dict(), topic, encoding=encoding, node="TRADER-001.ML4TActor")
        with server.client() as client:
            for _ in range(200):  # it begins to listen some time after it was told to
                client.xadd("in", fields)
                await asyncio.sleep(0.05)
                if received:
                    break
        backing.close()
        await asyncio.wait([task], timeout=5.0)

    config = {
        "database": {"type": "redis", "host": "127.0.0.1", "port": 0},
        "encoding": encoding,
        "streams_prefix": "out",
        "use_trader_prefix": False,
        "use_trader_id": False,
        "stream_per_topic": False,
        "external_streams": ["in"],
    }
    with RedisServer(tmp_path) as server, server.client() as client:
        config["database"] = {"type": "redis", "host": "127.0.0.1", "port": server.port}
        backing = nautilus_pyo3.RedisMessageBusBacking(
            nautilus_pyo3.TraderId("TRADER-001"), nautilus_pyo3.UUID4(), msgspec.json.encode(config)
        )
        backing.publish("data.EnrichedSignal*", serializer(encoding).serialize(ENRICHED))
        until(lambda: client.exists("out") and client.xlen("out"))
        ((_, fields),) = client.xrange("out")
        asyncio.run(listen(backing))
    assert EnrichedSignal.from_dict(decode(fields, wanted="EnrichedSignal")) == ENRICHED
    assert received[0] == ("data.SignalData.HYPERLIQUID.BTC-USD-PERP", SIGNAL)


def test_what_a_person_types_into_redis_cli_is_read(tmp_path: Path) -> None:
    payload = (
        '{"type": "SignalData", "instrument_id": "BTC-USD-PERP.HYPERLIQUID", "signal": -1, "strength": 0.7, '
        '"source": "trénd", "signal_id": "trend-1", '
        '"ts_event": 1700000000000000001, "ts_init": "1700000000000000002"}'
    )
    with RedisServer(tmp_path) as server, server.client() as client:
        subprocess.run(
            [
                *(redis_binary("redis-cli"), "-p", str(server.port), "XADD", "s", "*"),
                *("topic", "data.SignalData.HYPERLIQUID.BTC-USD-PERP", "payload", payload),
            ],
            check=True,
            capture_output=True,
        )
        ((_, fields),) = client.xrange("s")
    assert SignalData.from_dict(decode(fields, wanted="SignalData")) == SIGNAL


MALFORMED = {
    "no payload": {b"topic": b"t"},
    "no topic": {b"payload": packed()},
    "a field twice": [b"topic", b"t", b"payload", packed(), b"payload", packed()],
    "empty": entry(b""),
    "not a map": entry(b"[1]"),
    "a number": entry(b"\x01"),
    "cut off": entry(packed(a=1)[:-1]),
    "something behind": entry(packed(a=1) + b"\x01"),
    "a map of four billion": entry(b"\xdf\xff\xff\xff\xff"),
    "a string of four billion": entry(b"\x81\xa1a\xdb\xff\xff\xff\xff"),
    "keys that are numbers": entry(b"\x81\x01\x01"),
    "keys that are bytes": entry(b"\x81\xc4\x01a\x01"),
    "no UTF-8 in a key": entry(b"\x81\xa1\xff\x01"),
    "no UTF-8 in a value": entry(b'{"type":"SignalData","a":"\xff"}'),
    "half a surrogate pair": entry(b'{"type":"SignalData","a":"\\ud800"}'),
    "bytes": entry(packed(a=b"x")),
    "an extension": entry(b"\x81\xa1a\xd4\x01a"),
    "NaN in JSON": entry(b'{"type":"SignalData","a":NaN}'),
    "a float too large": entry(b'{"type":"SignalData","a":1e999}'),
    "an integer of 30 digits": entry(b'{"type":"SignalData","a":' + b"9" * 30 + b"}"),
    "an integer of 15,000 digits": entry(b'{"type":"SignalData","a":' + b"9" * 15_000 + b"}"),
    "a name twice, JSON": entry(b'{"type":"SignalData","a":1,"a":2}'),
    "a name twice, hidden integer": entry(
        b'{"type":"SignalData","a":' + b"9" * 4_299 + b',"type":"SignalData"}'
    ),
    "a name twice, msgpack": entry(b"\x83\xa4type\xaaSignalData\xa1a\x01\xa1a\x02"),
    "a name twice, msgpack, longer map": entry(b"\xde\x00\x03\xa4type\xaaSignalData\xa1a\x01\xa1a\x02"),
    "a name twice, msgpack, longest map": entry(
        b"\xdf\x00\x00\x00\x03\xa4type\xaaSignalData\xa1a\x01\xa1a\x02"
    ),
    "a list inside": entry(packed(a=[1])),
    "deep lists, JSON": entry(b'{"type":"SignalData","a":' + b"[" * 7_000 + b"]" * 7_000 + b"}"),
    "deep maps, JSON": entry(b'{"a":' * 2_500 + b"1" + b"}" * 2_500),
    "deep lists, msgpack": entry(b"\x82\xa4type\xaaSignalData\xa1a" + b"\x91" * 15_000 + b"\x01"),
    "a time in words": entry(packed(ts_event="2024-01-01T00:00:00Z")),
    "a time of 20 digits": entry(packed(ts_event="1" * 20)),
    "a time in other digits": entry(packed(ts_event="١٢")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(CodecError) as caught:
        decode(MALFORMED[name], wanted="SignalData", max_bytes=16_384)
    assert caught.value.kind == "malformed"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.msgpack.encode({"type": "OrderFilled"}),
        msgspec.msgpack.encode({"type": "OrderFilled", "info": {"a": [1]}}),
        msgspec.json.encode({"info": {"a": [1]}, "type": "OrderFilled"}),
        msgspec.msgpack.encode({"type": "__import__('os')", "a": 1}),
        msgspec.msgpack.encode({"type": None}),
        msgspec.msgpack.encode({"type": 1}),
        b"{}",
        b"\x80",
    ],
)
def test_another_type_is_not_called_malformed(payload: bytes) -> None:
    with pytest.raises(CodecError) as caught:
        decode(entry(payload), wanted="SignalData")
    assert caught.value.kind == "unknown_type"


@given(extra=st.integers(-3, 3))
def test_the_size_is_that_of_all_names_and_values(extra: int) -> None:
    fields = entry(packed(), other=b"xyz")
    size = sum(len(k) + len(v) for k, v in fields.items())
    if extra >= 0:
        decode(fields, max_bytes=size + extra)
    else:
        with pytest.raises(CodecError) as caught:
            decode(fields, max_bytes=size + extra)
        assert caught.value.kind == "oversized"


def mutated(raw: bytes) -> st.SearchStrategy[bytes]:
    """Return `raw` with a piece replaced."""
    at = st.integers(0, len(raw))
    return st.builds(
        lambda i, n, new: raw[:i] + new + raw[i + n :], at, st.integers(0, 4), st.binary(max_size=4)
    )


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | mutated(packed(a=1, b="x", ts_event="5"))
    | mutated(msgspec.json.encode({"type": "SignalData", "a": 1, "ts_event": "5"}))
)
def test_bytes_are_plain_values_or_an_error_of_a_kind(payload: bytes) -> None:
    with suppress(CodecError):
        values = decode(entry(payload), wanted="SignalData", max_bytes=16_384)
        assert values["type"] == "SignalData"
        assert all(
            type(k) is str and type(v) in (str, int, float, bool, type(None)) for k, v in values.items()
        )


def test_a_message_is_told_by_its_id_or_by_all_that_it_says() -> None:
    other_time = {**SIGNAL.to_dict(), "ts_init": 5}
    assert identity(SIGNAL.to_dict()) == identity(other_time) != identity(ENRICHED.to_dict())
    assert identity({**other_time, "source": "x"}) != identity(other_time)
    assert identity({"type": "T", "a": 1, "b": 2}) == identity({"b": 2, "a": 1, "type": "T"})
    assert identity({"type": "T", "a": 1}) != identity({"type": "T", "a": 2})
