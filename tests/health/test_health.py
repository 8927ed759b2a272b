"""What the actor reports of itself: the message, the window of latencies, and the rules for what is wrong."""

import json
import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.serialization.serializer import MsgSpecSerializer

from ml4t_actor import data
from ml4t_actor.health.reporter import FeedVitals, HealthReporter, Latency, LatencyWindow, LinkVitals, Vitals
from ml4t_actor.messages import NEVER, ActorHealth, LinkState
from ml4t_actor.messages.health import COUNTS_LENGTH_MAX, ERROR_LENGTH_MAX, PROBLEMS_LENGTH_MAX

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 1_700_000_000 * SECOND
BTC = "BTC-USD-PERP.HYPERLIQUID"
ETH = "ETH-USD-PERP.HYPERLIQUID"


def reporter(**kwargs) -> HealthReporter:
    return HealthReporter("TRADER-001.ML4TActor-000", START, **kwargs)


def vitals(now: int, **changes) -> Vitals:
    """Return vitals with which nothing is wrong."""
    well = {
        "feeds": {
            BTC: FeedVitals(
                interval_ns=MINUTE, last_bar_ns=now - 30 * SECOND, last_trade_ns=now - SECOND, trades=True
            )
        },
        "model_version": "v000001-0123456789ab",
        "inbound": LinkVitals(state=LinkState.CONNECTED),
        "outbound": LinkVitals(state=LinkState.CONNECTED),
        "counts": {"signals": {"ok": 5}},
    }
    return Vitals(**{**well, **changes})


def health(**changes) -> ActorHealth:
    now = START + 600 * SECOND
    return reporter().report(vitals(now, **changes), now)


def report_at(seconds: float, **changes) -> ActorHealth:
    now = START + round(seconds * SECOND)
    return reporter().report(vitals(now, **changes), now)


class TestMessage:
    def full(self) -> ActorHealth:
        return health(
            model_label_ns=START,
            last_signal_ns=START + 599 * SECOND,
            ledger_error="disk full",
            ledger_rows=3,
            outbox_depth=4,
            open_signals=5,
            retraining=True,
            counts={"signals": {"ok": 2**53, 'a "quoted" μ': 1}, "inbound": {"malformed": 7}},
            latency=Latency(10, 20_000, 30_000, 40_000),
        )

    def test_comes_back_from_bytes_equal(self):
        report = self.full()
        assert ActorHealth.from_bytes(report.to_bytes()) == report

    @pytest.mark.parametrize("encoding", [msgspec.msgpack, msgspec.json])
    def test_comes_back_from_the_message_bus_equal(self, encoding):
        serializer = MsgSpecSerializer(encoding=encoding, timestamps_as_str=True)
        report = self.full()
        assert serializer.deserialize(serializer.serialize(report)) == report

    def test_comes_back_from_a_catalog_equal(self, tmp_path):
        report = [self.full(), report_at(700)]
        catalog = ParquetDataCatalog(tmp_path)
        catalog.write_data(report)
        assert [item.data for item in catalog.custom_data(ActorHealth)] == report

    def test_counts_come_back_as_they_went_in(self):
        counts = {"signals": {"ok": 3, "no_model": 1}, "actor": {"error in on_bar": 2}, "outbound": {}}
        assert health(counts=counts).counts_by_kind == counts

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("uptime_seconds", math.nan),
            ("bar_age_seconds", -0.5),
            ("signal_age_seconds", math.inf),
            ("outbox_depth", -1),
            ("latency_p50_ns", 1.5),
            ("inbound", "perhaps"),
            ("outbound", None),
            ("retraining", 1),
            ("counts", "[]"),
            ("counts", '{"a": {"b": -1}}'),
            ("counts", '{"a": {"b": "c"}}'),
            ("counts", "{" * 10_000),
            ("ok", False),
            ("problems", "one"),
            ("inbound_error", "line\nbreak"),
            ("problems", "x" * (PROBLEMS_LENGTH_MAX + 1)),
        ],
    )
    def test_a_wrong_value_is_refused_by_name(self, field, value):
        with pytest.raises(ValueError, match=field if field != "problems" else "ok|problems"):
            ActorHealth.from_dict({**health().to_dict(), field: value})

    def test_no_message_is_a_prefix_of_another(self):
        names = [name for name in data.__all__ if hasattr(getattr(data, name), "from_bytes")]
        assert "ActorHealth" in names
        assert not [(a, b) for a in names for b in names if a != b and b.startswith(a)]


class TestLatencyWindow:
    @given(
        size=st.integers(1, 50),
        values=st.lists(st.integers(0, 2**62), max_size=200),
    )
    def test_quantiles_are_those_of_the_newest_by_nearest_rank(self, size, values):
        window = LatencyWindow(size)
        for value in values:
            window.add(value)
        kept = sorted(values[-size:])
        n = len(kept)
        expected = (
            Latency(n, kept[math.ceil(0.5 * n) - 1], kept[math.ceil(0.99 * n) - 1], kept[-1])
            if n
            else Latency(0, 0, 0, 0)
        )
        assert window.latency() == expected
        assert len(window) == n

    def test_no_size_is_refused(self):
        with pytest.raises(ValueError, match="size"):
            LatencyWindow(0)


class TestAges:
    def test_are_those_of_the_instrument_that_waits_longest(self):
        now = START + 600 * SECOND
        report = health(
            feeds={
                BTC: FeedVitals(interval_ns=MINUTE, last_bar_ns=now - 20 * SECOND),
                ETH: FeedVitals(
                    interval_ns=MINUTE, last_bar_ns=now - 50 * SECOND, last_trade_ns=now - SECOND, trades=True
                ),
            },
            last_signal_ns=now - 7 * SECOND,
            last_outcome_ns=now - 8 * SECOND,
            model_label_ns=now - 9 * SECOND,
        )
        assert report.uptime_seconds == 600.0
        assert (report.bar_age_seconds, report.trade_age_seconds) == (50.0, 1.0)
        assert (report.signal_age_seconds, report.outcome_age_seconds, report.model_label_age_seconds) == (
            7.0,
            8.0,
            9.0,
        )

    def test_what_has_not_happened_has_none(self):
        report = health(feeds={BTC: FeedVitals(interval_ns=MINUTE)})
        assert {report.bar_age_seconds, report.trade_age_seconds, report.signal_age_seconds} == {NEVER}

    def test_a_time_ahead_of_the_clock_is_no_negative_age(self):
        assert health(last_signal_ns=START + 601 * SECOND).signal_age_seconds == 0.0


class TestProblems:
    def test_of_one_that_is_well_there_are_none(self):
        report = health()
        assert report.ok
        assert report.problems == ""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"model_version": ""}, ["no model", "model_path"]),
            (
                {
                    "feeds": {
                        "ETH.X": FeedVitals(interval_ns=MINUTE, last_bar_ns=START + 600 * SECOND, warm=False)
                    }
                },
                ["ETH.X", "warming up"],
            ),
            ({"inbound": LinkVitals(state=LinkState.CONNECTING)}, ["inbound", "Redis"]),
            (
                {"outbound": LinkVitals(state=LinkState.CONNECTING, error="connection refused")},
                ["outbound", "connection refused"],
            ),
            ({"ledger_error": "disk full", "ledger_rows": 1234}, ["ledger", "disk full", "1,234"]),
            ({"counts": {"ledger": {"dropped": 5}}}, ["ledger", "dropped", "buffer_rows", "5"]),
            ({"counts": {"outbound": {"dropped": 5}}}, ["Redis", "dropped", "redis.outbox"]),
            ({"counts": {"tape": {"dropped": 5}}}, ["tape", "dropped"]),
            ({"counts": {"signals": {"late": 2}}}, ["inference_timeout_ms"]),
            ({"counts": {"signals": {"error": 2}}}, ["failed"]),
            ({"counts": {"actor": {"error in on_bar": 2}}}, ["error in on_bar"]),
        ],
    )
    def test_are_reported_with_what_is_wrong(self, changes, words):
        report = health(**changes)
        assert not report.ok
        for word in words:
            assert word in report.problems

    @pytest.mark.parametrize(
        "changes",
        [
            {"counts": {"signals": {"no_model": 3, "novel_input": 4, "expired": 1}}},
            {"counts": {"inbound": {"malformed": 9, "oversized": 1}, "actor": {"repeated": 4}}},
            {"inbound": LinkVitals(), "outbound": LinkVitals()},
            {"feeds": {}},
        ],
    )
    def test_are_not_reported_of_what_the_outside_does_or_nobody_wants(self, changes):
        assert health(**changes).ok

    @pytest.mark.parametrize(("age", "stale"), [(179, False), (181, True)])
    def test_a_bar_that_does_not_come_is_reported_with_its_instrument(self, age, stale):
        now = START + 600 * SECOND
        feeds = {
            BTC: FeedVitals(interval_ns=MINUTE, last_bar_ns=now - SECOND),
            ETH: FeedVitals(interval_ns=MINUTE, last_bar_ns=now - age * SECOND),
        }
        report = health(feeds=feeds)
        assert report.ok is not stale
        assert (ETH in report.problems) is stale
        assert BTC not in report.problems

    def test_trades_that_do_not_come_are_reported_where_they_are_subscribed_to(self):
        now = START + 600 * SECOND
        silent = {"interval_ns": MINUTE, "last_bar_ns": now, "last_trade_ns": now - 301 * SECOND}
        assert health(feeds={BTC: FeedVitals(**silent)}).ok
        assert "no trade" in health(feeds={BTC: FeedVitals(**silent, trades=True)}).problems

    @pytest.mark.parametrize(("uptime", "ok"), [(170, True), (190, False)])
    def test_a_first_bar_has_its_time_to_come(self, uptime, ok):
        assert report_at(uptime, feeds={BTC: FeedVitals(interval_ns=MINUTE)}).ok is ok

    def test_what_was_counted_is_reported_for_a_while_and_again_when_it_goes_on(self):
        source = reporter(recent_seconds=300.0)
        dropped = Counter({"dropped": 0})
        report = {}
        for seconds in range(10, 2_000, 10):
            if seconds == 500:
                dropped["dropped"] += 3
            if seconds == 1_500:
                dropped["dropped"] += 1
            now = START + seconds * SECOND
            report[seconds] = source.report(vitals(now, counts={"ledger": dropped}), now)
        bad = {seconds for seconds, one in report.items() if not one.ok}
        assert bad == {s for s in report if 500 <= s < 500 + 300 or 1_500 <= s < 1_500 + 300}
        assert "(3 lately, 3 since the start)" in report[500].problems
        assert "(1 lately, 4 since the start)" in report[1_500].problems

    def test_counts_are_copied_when_reported_and_not_shared(self):
        counts = Counter(ok=1)
        report = health(counts={"signals": counts})
        counts["ok"] = 2
        assert report.counts_by_kind == {"signals": {"ok": 1}}


class TestWhatComesFromOutside:
    def test_credentials_of_an_address_are_not_reported(self):
        report = health(
            inbound=LinkVitals(state=LinkState.CONNECTING, error="cannot reach redis://me:hunter2@host:1"),
            ledger_error="https://me:hunter2@host",
        )
        assert "hunter2" not in json.dumps(report.to_dict())
        assert "redis://***@host:1" in report.inbound_error

    @given(
        error=st.text(max_size=2_000),
        kinds=st.dictionaries(st.text(max_size=300), st.integers(0, 2**62), max_size=30),
        group=st.sampled_from(["signals", "actor", "inbound"]) | st.text(max_size=100),
    )
    def test_whatever_it_is_it_can_be_reported(self, error, kinds, group):
        link = LinkVitals(state=LinkState.CONNECTING, error=error)
        report = health(inbound=link, ledger_error=error, counts={group: kinds})
        assert len(report.inbound_error) <= ERROR_LENGTH_MAX
        assert ActorHealth.from_bytes(report.to_bytes()) == report

    def test_of_too_many_kinds_the_most_frequent_are_reported(self):
        kinds = {f"error {i} {'x' * 60}": i for i in range(5_000)}
        report = health(counts={"actor": kinds})
        kept = report.counts_by_kind["actor"]
        assert len(report.counts) <= COUNTS_LENGTH_MAX
        assert len(kept) > 50
        assert set(kept.values()) == set(range(5_000 - len(kept), 5_000))
