import copy
import inspect
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import USDC
from nautilus_trader.model.data import CustomData, DataType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import ClientId, InstrumentId, Symbol, Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.serialization.arrow.serializer import ArrowSerializer
from nautilus_trader.serialization.serializer import MsgSpecSerializer

from ml4t_actor.messages import (
    REASON_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    Action,
    Barrier,
    EnrichedSignal,
    EnrichedSignalFields,
    ModelUpdate,
    SignalData,
    SignalOutcome,
    Status,
)

BTC = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
T = 1_700_000_000_000_000_000
INT64_MAX = 2**63 - 1

SIGNAL = {
    "instrument_id": BTC,
    "signal": 1,
    "strength": 0.7,
    "source": "trend",
    "signal_id": "trend-1",
    "ts_event": T,
    "ts_init": T + 5,
}
ENRICHED = SIGNAL | {
    "meta_confidence": 0.6,
    "toxicity": 0.2,
    "vpin": 0.3,
    "regime_weight": 0.8,
    "regime": 2,
    "volatility": 0.012,
    "model_version": "v0001",
    "status": "ok",
    "latency_ns": 12_345,
    "base_odds": 0.45,
    "confidence_low": 0.52,
    "confidence_high": 0.67,
    "expected_return": 4.2,
    "break_even": 0.57,
}
# Which what is older may lack.
LATER = ("base_odds", "confidence_low", "confidence_high", "expected_return", "break_even")
OUTCOME = {
    "instrument_id": BTC,
    "signal": -1,
    "source": "trend",
    "signal_id": "trend-1",
    "meta_confidence": 0.6,
    "model_version": "v0001",
    "status": "ok",
    "barrier": "profit",
    "label": 1,
    "ret": 0.012,
    "bars": 17,
    "weight": 0.4,
    "ts_event": T,
    "ts_init": T + 5,
}
UPDATE = {
    "action": "promoted",
    "version": "v0002",
    "previous_version": "v0001",
    "trigger": "accuracy",
    "reason": "accuracy of the last 1,000 outcomes 0.43, 0.55 in validation",
    "n": 500,
    "champion_log_loss": 0.7,
    "challenger_log_loss": 0.68,
    "baseline_log_loss": 0.69,
    "improvement": 0.02,
    "improvement_low": 0.005,
    "ts_event": T,
    "ts_init": T + 5,
}
KINDS = [(SignalData, SIGNAL), (EnrichedSignal, ENRICHED), (SignalOutcome, OUTCOME), (ModelUpdate, UPDATE)]

printable = st.characters(exclude_categories=["C", "Z"], include_characters=" ")
texts = st.text(printable, min_size=1, max_size=TEXT_LENGTH_MAX)
units = st.floats(0.0, 1.0)
nanoseconds = st.integers(0, INT64_MAX)
signal_fields = {
    "instrument_id": st.sampled_from(
        [BTC, InstrumentId.from_str("ETH/USDT.BINANCE"), InstrumentId.from_str("A.B.C")]
    ),
    "signal": st.sampled_from([-1, 0, 1]),
    "strength": units,
    "source": texts,
    "signal_id": texts,
    "ts_event": nanoseconds,
    "ts_init": nanoseconds,
}
enriched_fields = signal_fields | {
    "meta_confidence": units,
    "toxicity": units,
    "vpin": units,
    "regime_weight": units,
    "regime": st.integers(-1, INT64_MAX),
    "volatility": st.floats(0.0, allow_infinity=False, allow_nan=False),
    "model_version": st.just("") | texts,
    "status": st.sampled_from([*Status, *(s.value for s in Status)]),
    "latency_ns": nanoseconds,
    "base_odds": units,
    "confidence_low": units,
    "confidence_high": units,
    "expected_return": st.floats(allow_infinity=False, allow_nan=True),
    "break_even": units,
}
outcome_fields = {
    **{name: signal_fields[name] for name in ("instrument_id", "source", "signal_id", "ts_event", "ts_init")},
    "signal": st.sampled_from([-1, 1]),
    "meta_confidence": units,
    "model_version": st.just("") | texts,
    "status": st.sampled_from([*Status, *(s.value for s in Status)]),
    "barrier": st.sampled_from([b for b in Barrier if b != "unresolved"]),
    "label": st.sampled_from([0, 1]),
    "ret": st.floats(allow_infinity=False, allow_nan=False),
    "bars": nanoseconds,
    "weight": units,
}
finite = st.floats(allow_infinity=False, allow_nan=False)
update_fields = {
    "action": st.sampled_from([*Action]),
    "version": st.just("") | texts,
    "previous_version": st.just("") | texts,
    "trigger": texts,
    "reason": st.text(printable, max_size=REASON_LENGTH_MAX),
    "n": nanoseconds,
    **{name: finite for name in UPDATE if name.endswith("_loss") or name.startswith("improvement")},
    "ts_event": nanoseconds,
    "ts_init": nanoseconds,
}
FIELDS = {
    SignalData: signal_fields,
    EnrichedSignal: enriched_fields,
    SignalOutcome: outcome_fields,
    ModelUpdate: update_fields,
}
messages = st.one_of(*(st.builds(cls, **fields) for cls, fields in FIELDS.items()))


@pytest.mark.parametrize("encoding", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
@pytest.mark.parametrize("timestamps_as_str", [False, True], ids=["plain", "external_stream"])
@given(message=messages)
@settings(deadline=None, max_examples=60)
def test_nautilus_serializer_returns_an_equal_message(encoding, timestamps_as_str, message):
    serializer = MsgSpecSerializer(encoding=encoding, timestamps_as_str=timestamps_as_str)
    raw = serializer.serialize(message)

    if timestamps_as_str:
        assert encoding.decode(raw)["ts_event"] == str(message.ts_event)
    back = serializer.deserialize(raw)
    assert type(back) is type(message)
    assert back == message
    assert hash(back) == hash(message)


@given(message=messages)
@settings(deadline=None)
def test_bytes_dict_pickle_and_copy_return_an_equal_message(message):
    cls = type(message)
    assert cls.from_bytes(message.to_bytes()) == message
    assert cls.from_dict(message.to_dict()) == message
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.deepcopy(message) == message


@given(message=messages)
@settings(deadline=None)
def test_a_stream_entry_read_without_nautilus_serializer_is_accepted(message):
    values = message.to_dict() | {"ts_event": str(message.ts_event), "ts_init": str(message.ts_init)}
    assert type(message).from_dict(values) == message


@pytest.mark.parametrize(("cls", "fields"), FIELDS.items())
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_arrow_returns_equal_messages_one_by_one_and_in_a_batch(cls, fields, data):
    written = data.draw(st.lists(st.builds(cls, **fields), min_size=1, max_size=4))
    table = ArrowSerializer.serialize_batch(written, cls)
    assert ArrowSerializer.deserialize(cls, table) == written
    one = ArrowSerializer.serialize(written[0], cls)
    assert ArrowSerializer.deserialize(cls, pa.Table.from_batches([one])) == written[:1]
    assert table.schema == one.schema
    wrapped = ArrowSerializer.serialize_batch([CustomData(DataType(cls), x) for x in written], cls)
    assert wrapped.schema == table.schema
    assert ArrowSerializer.deserialize(cls, wrapped) == written


@pytest.mark.parametrize(("cls", "fields"), KINDS[:3])  # a model's news are of no instrument
def test_a_catalog_returns_equal_messages_by_instrument_and_time(tmp_path, cls, fields):
    eth = InstrumentId.from_str("ETH-USD-PERP.HYPERLIQUID")
    written = [
        cls(
            **fields
            | {"instrument_id": instrument_id, "signal_id": f"s-{i}", "ts_event": T + i, "ts_init": T + i}
        )
        for instrument_id in (BTC, eth)
        for i in range(20)
    ]
    catalog = ParquetDataCatalog(str(tmp_path))
    catalog.write_data(written[:20])
    catalog.write_data([CustomData(DataType(cls), x) for x in written[20:]])

    read = [x.data for x in catalog.custom_data(cls)]
    assert sorted(read, key=repr) == sorted(written, key=repr)
    assert [x.data for x in catalog.query(cls, identifiers=[BTC.value], start=T + 5, end=T + 7)] == written[
        5:8
    ]


@pytest.mark.parametrize("value", [1.0, np.int64(1), np.float32(1.0), np.int8(1)])
def test_an_integral_number_is_a_signal(value):
    signal = SignalData(**SIGNAL | {"signal": value}).signal
    assert (type(signal), signal) == (int, 1)


@pytest.mark.parametrize("value", [1, np.float64(1.0), np.float32(1.0), np.int64(1)])
def test_any_real_number_is_a_strength_or_a_volatility(value):
    strength = SignalData(**SIGNAL | {"strength": value}).strength
    assert (type(strength), strength) == (float, 1.0)
    volatility = EnrichedSignal(**ENRICHED | {"volatility": value}).volatility
    assert (type(volatility), volatility) == (float, 1.0)


@pytest.mark.parametrize("value", [7, np.int64(7)])
def test_numpy_integers_are_times(value):
    message = EnrichedSignal(
        **ENRICHED | {"ts_event": value, "ts_init": value, "latency_ns": value, "regime": value}
    )
    assert {type(x) for x in (message.ts_event, message.ts_init, message.latency_ns, message.regime)} == {int}
    assert message.ts_event == 7


def test_a_numpy_string_becomes_a_plain_one_so_that_it_can_be_serialized():
    signal = SignalData(**SIGNAL | {"source": np.str_("trend")})
    assert type(signal.source) is str
    assert SignalData.from_bytes(signal.to_bytes()) == signal


def test_an_instrument_can_be_named_by_its_string():
    assert SignalData(**SIGNAL | {"instrument_id": BTC.value}) == SignalData(**SIGNAL)


def test_status_is_a_member_however_it_is_given():
    assert EnrichedSignal(**ENRICHED | {"status": "stale_data"}).status is Status.STALE_DATA
    assert EnrichedSignal(**ENRICHED | {"status": Status.STALE_DATA}).status is Status.STALE_DATA
    assert type(EnrichedSignal(**ENRICHED).to_dict()["status"]) is str


def test_the_fields_of_an_enriched_signal_are_the_same_wherever_they_are_listed():
    fields = [*ENRICHED]
    assert sorted(EnrichedSignalFields.__struct_fields__) == sorted(fields)
    assert sorted(inspect.signature(EnrichedSignal).parameters) == sorted(fields)
    given = [name for name in inspect.signature(EnrichedSignal.from_signal).parameters if name != "signal"]
    assert sorted(given) == sorted({*fields} - {*SIGNAL} | {"ts_init"})


def test_primitives_of_an_enriched_signal_are_its_fields_in_the_order_of_the_class():
    message = EnrichedSignal(**ENRICHED | {"status": Status.LATE})
    before = copy.deepcopy(message)
    expected = {
        "instrument_id": "BTC-USD-PERP.HYPERLIQUID", "signal": 1, "strength": 0.7, "source": "trend",
        "signal_id": "trend-1", "meta_confidence": 0.6, "toxicity": 0.2, "vpin": 0.3, "regime_weight": 0.8,
        "regime": 2, "volatility": 0.012, "model_version": "v0001", "status": "late", "latency_ns": 12_345,
        "base_odds": 0.45, "confidence_low": 0.52, "confidence_high": 0.67,
        "expected_return": 4.2, "break_even": 0.57,
        "type": "EnrichedSignal", "ts_event": T, "ts_init": T + 5,
    }  # fmt: skip
    enriched = EnrichedSignal.from_signal(
        SignalData(**SIGNAL),
        **{name: value for name, value in ENRICHED.items() if name not in SIGNAL} | {"status": "late"},
    )
    for one in (message, enriched):
        assert [*one.to_dict().items()] == [*expected.items()]
        assert {type(value) for value in one.to_dict().values()} == {str, int, float}
    assert message == before


def test_ts_init_may_be_before_ts_event():
    assert SignalData(**SIGNAL | {"ts_init": T - 1}).ts_init == T - 1


NAN, INF = float("nan"), float("inf")
BAD_UNITS = [
    NAN,
    INF,
    -INF,
    -1e-12,
    1.0 + 1e-12,
    True,
    np.True_,
    "0.5",
    None,
    10**400,
    np.float64("nan"),
    0.5j,
]
BAD_INTEGERS = [True, np.True_, 1.0, 1.5, NAN, INF, "x", None, 2**63, 10**5000, -2]
BAD_TEXTS = ["", "x" * (TEXT_LENGTH_MAX + 1), "a\nb", "a\x00b", "\ud800", 5, None, b"x", ["x"]]
BAD_SIGNAL: dict[str, list[object]] = {
    "instrument_id": [*BAD_TEXTS, "BTC", ".X", "A.", "a\nb.X", InstrumentId(Symbol("a\nb"), Venue("X"))],
    "signal": [2, -2, 0.5, NAN, INF, True, False, np.True_, "1", None, 10**400, 10**5000, [1], 1 + 0j],
    "strength": BAD_UNITS,
    "source": BAD_TEXTS,
    "signal_id": BAD_TEXTS,
    "ts_event": [*BAD_INTEGERS, -1],
    "ts_init": [*BAD_INTEGERS, -1],
}
BAD_ENRICHED: dict[str, list[object]] = BAD_SIGNAL | {
    "meta_confidence": BAD_UNITS,
    "toxicity": BAD_UNITS,
    "vpin": BAD_UNITS,
    "regime_weight": BAD_UNITS,
    "regime": BAD_INTEGERS,
    "volatility": [-1e-9, NAN, INF, np.float32(INF), np.float32(NAN), True, "0.1", None, 10**400],
    "model_version": [x for x in BAD_TEXTS if x != ""],
    "status": ["", "OK", "fine", None, 1, ["ok"]],
    "latency_ns": [*BAD_INTEGERS, -1],
    "base_odds": BAD_UNITS,
    "confidence_low": BAD_UNITS,
    "confidence_high": BAD_UNITS,
    "expected_return": [INF, -INF, np.float32(INF), True, "0.1", 10**400, 0.5j, [1.0]],
    "break_even": BAD_UNITS,
}
BAD_NUMBERS: list[object] = [NAN, INF, -INF, np.float32(INF), True, "0.1", None, 10**400, 0.5j]
BAD_OUTCOME: dict[str, list[object]] = {
    **{name: BAD_SIGNAL[name] for name in ("instrument_id", "source", "signal_id", "ts_event", "ts_init")},
    "signal": [0, *BAD_SIGNAL["signal"]],
    "meta_confidence": BAD_UNITS,
    "model_version": BAD_ENRICHED["model_version"],
    "status": BAD_ENRICHED["status"],
    "barrier": ["", "PROFIT", "up", None, 1, ["profit"]],
    "label": [-1, 2, 0.5, NAN, True, "1", None, 10**400, [1]],
    "ret": BAD_NUMBERS,
    "bars": [*BAD_INTEGERS, -1],
    "weight": BAD_UNITS,
}
BAD_UPDATE: dict[str, list[object]] = {
    "action": ["", "Promoted", "up", None, 1, ["promoted"]],
    "version": BAD_ENRICHED["model_version"],
    "previous_version": BAD_ENRICHED["model_version"],
    "trigger": BAD_TEXTS,
    "reason": ["x" * (REASON_LENGTH_MAX + 1), "a\nb", 5, None],
    "n": [*BAD_INTEGERS, -1],
    **{name: BAD_NUMBERS for name in UPDATE if name.endswith("_loss") or name.startswith("improvement")},
    "ts_event": [*BAD_INTEGERS, -1],
    "ts_init": [*BAD_INTEGERS, -1],
}
REFUSED = [
    pytest.param(cls, fields, name, value, id=f"{cls.__name__}-{name}-{i}")
    for (cls, fields), bad in zip(KINDS, (BAD_SIGNAL, BAD_ENRICHED, BAD_OUTCOME, BAD_UPDATE), strict=True)
    for name, values in bad.items()
    for i, value in enumerate(values)
]


@pytest.mark.parametrize(("cls", "fields", "name", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_field_with_a_short_message(cls, fields, name, value):
    with pytest.raises(ValueError, match=rf"^`{name}` was .*must be ") as refused:
        cls(**fields | {name: value})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(("cls", "fields", "name", "value"), REFUSED)
def test_the_same_value_is_refused_in_a_dict(cls, fields, name, value):
    values = cls(**fields).to_dict() | {name: value}
    with pytest.raises(ValueError, match=rf"^`{name}` was .*must be "):
        cls.from_dict(values)


def test_a_refusal_names_the_value_and_the_rule():
    with pytest.raises(ValueError, match=r"^`strength` was 1\.5, must be a number in \[0, 1\]$"):
        SignalData(**SIGNAL | {"strength": 1.5})
    with pytest.raises(ValueError, match=r"^`signal` was 2, must be -1, 0 or 1$"):
        SignalData(**SIGNAL | {"signal": 2})


@pytest.mark.parametrize(("cls", "fields"), KINDS)
def test_every_missing_field_is_named(cls, fields):
    whole = cls(**fields).to_dict()
    for name in fields.keys() - {*LATER}:
        with pytest.raises(ValueError, match=rf"^{cls.__name__} has no value for `{name}`$"):
            cls.from_dict({k: v for k, v in whole.items() if k != name})


@pytest.mark.parametrize(("cls", "fields"), KINDS)
@pytest.mark.parametrize("extra", ["note", "_ts_event", "self", 5])
def test_an_unknown_field_is_named(cls, fields, extra):
    with pytest.raises(ValueError, match=rf"^`field` was {extra!r}, must be one of those of {cls.__name__}"):
        cls.from_dict(cls(**fields).to_dict() | {extra: 1})


OLDER = {name: value for name, value in ENRICHED.items() if name not in LATER}
FAILS_CLOSED = {
    "base_odds": 0.0,
    "confidence_low": 0.0,
    "confidence_high": 1.0,
    "expected_return": NAN,
    "break_even": 1.0,
}


@pytest.mark.parametrize("encoding", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
def test_what_an_older_producer_sends_is_read_and_fails_closed(encoding):
    message = EnrichedSignal(**OLDER)
    sent = {name: value for name, value in message.to_dict().items() if name not in LATER}
    assert EnrichedSignal.from_dict(sent) == message == EnrichedSignal(**ENRICHED | FAILS_CLOSED)
    read = MsgSpecSerializer(encoding=encoding, timestamps_as_str=True).deserialize(
        encoding.encode(sent | {"ts_event": str(T), "ts_init": str(T + 5)})
    )
    assert read == message
    assert EnrichedSignal.from_dict(sent | {"base_odds": 0.3}).base_odds == 0.3
    whole = EnrichedSignal.from_signal(SignalData(**SIGNAL), meta_confidence=0.6, status="ok")
    assert whole == EnrichedSignal.from_signal(
        SignalData(**SIGNAL), meta_confidence=0.6, status="ok", **FAILS_CLOSED
    )
    assert math.isnan(whole.expected_return)


@pytest.mark.parametrize("unknown", [NAN, np.float64(NAN), np.float32(NAN), None, -NAN])
def test_an_expected_return_that_is_not_known_is_null_in_json_and_equal_wherever_it_comes_from(unknown):
    message = EnrichedSignal(**ENRICHED | {"expected_return": unknown})
    assert type(message.expected_return) is float
    assert math.isnan(message.expected_return)
    raw = msgspec.json.encode(message.to_dict())

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(raw, parse_constant=no_constant)["expected_return"] is None
    assert EnrichedSignal.from_dict(json.loads(raw)) == message
    again = pickle.loads(pickle.dumps(message))
    assert again == message
    assert hash(again) == hash(message)
    assert message != EnrichedSignal(**ENRICHED)
    assert EnrichedSignal(**ENRICHED) != message


def older_file(catalog, first, messages):
    """Write a catalog's file as it was before there were these fields."""
    [folder] = {path.parent for path in catalog.rglob("*.parquet")}
    rows = [{k: v for k, v in m.to_dict().items() if k not in LATER} for m in messages]
    schema = pa.schema([field for field in EnrichedSignal._schema if field.name not in LATER])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{first}.parquet")


@pytest.mark.parametrize("older_first", [True, False])
def test_a_catalog_with_an_older_file_is_read(tmp_path, older_first):
    catalog = ParquetDataCatalog(str(tmp_path))
    new = [EnrichedSignal(**ENRICHED | {"ts_event": T + i, "ts_init": T + i}) for i in range(3)]
    catalog.write_data(new)
    start = T - 10 if older_first else T + 10
    old = [EnrichedSignal(**OLDER | {"ts_event": start + i, "ts_init": start + i}) for i in range(3)]
    name = "_".join(
        pd.Timestamp(t).isoformat().replace(":", "-").replace(".", "-") + "Z" for t in (start, start + 2)
    )
    older_file(tmp_path, name, old)
    read = sorted((x.data for x in catalog.query(EnrichedSignal)), key=lambda m: m.ts_event)
    if older_first:
        # Nautilus reads the columns of the first file: what the newer one tells beyond them is passed over.
        new = [
            EnrichedSignal(**ENRICHED | FAILS_CLOSED | {"ts_event": m.ts_event, "ts_init": m.ts_init})
            for m in new
        ]
        assert read == old + new
    else:
        assert read == new + old


def test_the_dict_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"^`type` was 'EnrichedSignal', must be 'SignalData'$"):
        SignalData.from_dict(EnrichedSignal(**ENRICHED).to_dict())


@pytest.mark.parametrize("value", ["", "-1", "1.5", "١٢", "9" * 20, " 1", "1_0", "2023-11-14T22:13:20Z"])
def test_a_timestamp_string_that_is_not_plain_digits_is_refused(value):
    with pytest.raises(ValueError, match=r"^`ts_event` was "):
        SignalData.from_dict(SignalData(**SIGNAL).to_dict() | {"ts_event": value})


@pytest.mark.parametrize("cls", FIELDS)
@given(
    raw=st.binary(max_size=40) | st.recursive(st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
@settings(deadline=None)
def test_arbitrary_bytes_raise_nothing_but_value_error(cls, raw):
    with pytest.raises(ValueError):
        cls.from_bytes(raw)


@pytest.mark.parametrize("raw", [b"\x91" * 100_000, msgspec.msgpack.encode([1]), b"", b"\xc1"])
def test_deep_or_foreign_msgpack_is_a_value_error(raw):
    with pytest.raises(ValueError):
        SignalData.from_bytes(raw)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@pytest.mark.parametrize(("cls", "fields"), KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_a_hostile_dict_is_refused_or_makes_a_valid_message(cls, fields, data):
    changes = data.draw(
        st.dictionaries(st.sampled_from([*fields, "type", "x"]), scalars | st.lists(scalars), min_size=1)
    )
    try:
        message = cls.from_dict(cls(**fields).to_dict() | changes)
    except ValueError:
        return
    assert cls.from_bytes(message.to_bytes()) == message


@pytest.mark.parametrize(("cls", "fields"), KINDS)
def test_messages_differ_if_any_field_does(cls, fields):
    message = cls(**fields)
    other = {
        "instrument_id": "ETH.X",
        "signal": -1,
        "strength": 0.71,
        "source": "other",
        "signal_id": "other",
        "meta_confidence": 0.61,
        "toxicity": 0.21,
        "vpin": 0.31,
        "regime_weight": 0.81,
        "regime": -1,
        "volatility": 0.0,
        "model_version": "",
        "status": "late",
        "latency_ns": 0,
        "base_odds": 0.46,
        "confidence_low": 0.51,
        "confidence_high": 0.68,
        "expected_return": -4.2,
        "break_even": 0.58,
        "barrier": "stop",
        "label": 0,
        "ret": -0.012,
        "bars": 18,
        "weight": 0.41,
        "action": "rejected",
        "version": "",
        "previous_version": "",
        "trigger": "age",
        "reason": "",
        "n": 0,
        "champion_log_loss": 0.0,
        "challenger_log_loss": 0.0,
        "baseline_log_loss": 0.0,
        "improvement": 0.0,
        "improvement_low": 0.0,
        "ts_event": T - 1,
        "ts_init": T,
    }
    for name in fields:
        value = -other[name] if (cls, name) == (SignalOutcome, "signal") else other[name]
        assert message != cls(**fields | {name: value}), name
    assert message == cls(**fields)
    assert len({message, cls(**fields)}) == 1


def test_a_signal_does_not_equal_its_enrichment():
    assert SignalData(**SIGNAL) != EnrichedSignal(**ENRICHED)
    assert SignalData(**SIGNAL) != SIGNAL


@pytest.mark.parametrize(("cls", "fields"), KINDS)
@pytest.mark.parametrize("name", ["strength", "_ts_event", "note"])
def test_messages_cannot_be_changed(cls, fields, name):
    message = cls(**fields)
    with pytest.raises(FrozenInstanceError):
        setattr(message, name, 0.1)
    assert message == cls(**fields)


@pytest.mark.parametrize(("cls", "fields"), KINDS)
def test_repr_shows_every_field_and_time(cls, fields):
    shown = repr(cls(**fields))
    assert all(f"{name}=" in shown for name in fields)
    assert "2023-11-14T22:13:20" in shown


def test_no_name_is_a_prefix_of_another_since_topics_are_prefix_patterns():
    names = [cls.__name__ for cls in FIELDS]
    assert [(a, b) for a in names for b in names if a != b and a.startswith(b)] == []


def test_only_what_is_unresolved_has_no_label():
    unresolved = SignalOutcome(**OUTCOME | {"barrier": "unresolved", "label": -1, "ret": 0.0})
    assert SignalOutcome.from_bytes(unresolved.to_bytes()) == unresolved
    with pytest.raises(
        ValueError, match=r"^`label` was 1, must be 0 or 1, or -1 where and only where `barrier`"
    ):
        SignalOutcome(**OUTCOME | {"barrier": "unresolved"})


@given(message=st.builds(EnrichedSignal, **enriched_fields), ts_signal=nanoseconds)
@settings(deadline=None)
def test_from_signal_equals_the_constructor(message, ts_signal):
    values = {name: getattr(message, name) for name in ENRICHED}
    signal = SignalData(**{name: values.pop(name) for name in SIGNAL} | {"ts_init": ts_signal})

    assert EnrichedSignal.from_signal(signal, **values, ts_init=message.ts_init) == message
    assert EnrichedSignal.from_signal(signal, **values).ts_init == ts_signal


def test_from_signal_leaves_the_signal_alone_and_fails_closed():
    signal = SignalData(**SIGNAL)
    enriched = EnrichedSignal.from_signal(signal, meta_confidence=0.5, status="no_model")

    assert signal == SignalData(**SIGNAL)
    assert not enriched.is_ok
    assert (enriched.toxicity, enriched.vpin, enriched.regime_weight) == (1.0, 1.0, 0.0)
    assert (enriched.regime, enriched.volatility, enriched.model_version) == (-1, 0.0, "")


@pytest.mark.parametrize("status", list(Status))
def test_only_ok_is_ok(status):
    assert EnrichedSignal(**ENRICHED | {"status": status}).is_ok == (status == "ok")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{i}")
        for name, values in BAD_ENRICHED.items()
        if name not in BAD_SIGNAL
        for i, value in enumerate(values)
    ],
)
def test_from_signal_refuses_what_the_constructor_refuses(name, value):
    values = {k: v for k, v in ENRICHED.items() if k not in SIGNAL} | {name: value}
    with pytest.raises(ValueError, match=rf"^`{name}` was "):
        EnrichedSignal.from_signal(SignalData(**SIGNAL), **values)


class Listener(Actor):
    def __init__(self, subscribe: Callable[["Listener"], None]) -> None:
        super().__init__()
        self._subscribe = subscribe
        self.seen: list[object] = []

    def on_start(self) -> None:
        self._subscribe(self)

    def on_data(self, data: object) -> None:
        self.seen.append(data)


def by_client(listener: Listener) -> None:
    listener.subscribe_data(DataType(SignalData), client_id=ClientId("ML4T"))


def by_bus(listener: Listener) -> None:
    listener.msgbus.subscribe(topic=f"data.{DataType(SignalData).topic}", handler=listener.handle_data)


@pytest.mark.parametrize("subscribe", [by_client, by_bus])
def test_a_backtest_engine_hands_custom_data_to_an_actor(subscribe):
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    try:
        engine.add_venue(Venue("HYPERLIQUID"), OmsType.NETTING, AccountType.MARGIN, [Money(1_000, USDC)])
        signals = [SignalData(**SIGNAL | {"signal_id": f"s-{i}", "ts_init": T + i}) for i in range(3)]
        wrapped = [CustomData(DataType(SignalData), x) for x in signals]
        engine.add_data(wrapped, client_id=ClientId("ML4T"))
        listener = Listener(subscribe)
        engine.add_actor(listener)
        engine.run()
        assert listener.seen == signals
    finally:
        engine.dispose()
