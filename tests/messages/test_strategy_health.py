"""What the strategy reports of itself: the message."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.serialization.serializer import MsgSpecSerializer

from ml4t_actor.messages import StrategyHealth
from ml4t_actor.messages.strategy_health import NAMES_LENGTH_MAX

INSTRUMENTS = st.sampled_from(["BTC-USD-PERP.HYPERLIQUID", 'a "quoted" μ.X', "ETH-USD-PERP.HYPERLIQUID"])
QUANTITIES = st.decimals(-1_000_000, 1_000_000, allow_nan=False, places=9)


def health(foreign: object = (), unsettled: object = (), problems: str = "", ts: int = 0) -> StrategyHealth:
    return StrategyHealth(
        strategy_id="EnrichedSignalStrategy-000",
        foreign_positions=msgspec.json.encode(dict(foreign)).decode(),
        unsettled_entries=msgspec.json.encode(dict(unsettled)).decode(),
        ok=not problems,
        problems=problems,
        ts_event=ts,
        ts_init=ts,
    )


@pytest.mark.parametrize("encoding", [msgspec.msgpack, msgspec.json])
@given(
    foreign=st.dictionaries(INSTRUMENTS, QUANTITIES),
    unsettled=st.dictionaries(st.sampled_from(["a", "b"]), INSTRUMENTS),
    problems=st.sampled_from(["", "this; that"]),
)
def test_it_comes_back_from_the_message_bus_equal_and_exact(encoding, foreign, unsettled, problems):
    serializer = MsgSpecSerializer(encoding=encoding, timestamps_as_str=True)
    report = health(foreign, unsettled, problems, ts=1_700_000_000_000_000_000)
    came = serializer.deserialize(serializer.serialize(report))
    assert came == report == StrategyHealth.from_bytes(report.to_bytes())
    assert came.foreign_by_instrument == foreign
    assert came.unsettled_by_order == unsettled


def test_it_comes_back_from_a_catalog_equal(tmp_path):
    reports = [health(ts=1), health({"X.Y": Decimal("0.1")}, problems="this", ts=2)]
    catalog = ParquetDataCatalog(tmp_path)
    catalog.write_data(reports)
    assert [item.data for item in catalog.custom_data(StrategyHealth)] == reports


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy_id", ""),
        ("foreign_positions", "[]"),
        ("foreign_positions", '{"a":"b"}'),
        ("foreign_positions", "{" * 10_000),
        ("foreign_positions", f'{{"{"a" * NAMES_LENGTH_MAX}":"1"}}'),
        ("unsettled_entries", '{"a":1}'),
        ("unsettled_entries", None),
        ("ok", False),
        ("ok", 1),
        ("problems", "one"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field if field != "problems" else "ok"):
        StrategyHealth.from_dict({**health().to_dict(), field: value})
