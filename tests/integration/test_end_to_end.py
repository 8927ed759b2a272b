"""End to end on loopback: a signal in Redis becomes an order at the venue, a position, and an outcome in the ledger.

The node is the project's own command with NautilusTrader's unpatched adapter; see `tests.support.live_node`.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml4t_actor.ledger import LedgerReader
from ml4t_actor.recording import EndFrame, StateFrame, read_recording
from tests.support.live_node import (
    CONFIDENCE,
    HORIZON_BARS,
    MINUTE_NS,
    Rig,
    instrument,
    rig,
    told_bars,
)
from tests.support.paths import ROOT
from tests.support.waiting import until

# A candle takes 0.3 s; they begin 1,500 minutes ago, so that there is a long past and none is of the future.
FAST = ("--candle-ms", "300", "--virtual-candles", "1500")


# They begin 200 minutes ago, so that a state is not too old to be taken up again.
RECENT = ("--candle-ms", "500", "--virtual-candles", "200")


class TestTrading:
    def test_a_signal_in_redis_becomes_a_trade_and_an_outcome(self, tmp_path: Path) -> None:
        with rig(tmp_path / "rig", *FAST) as node:
            node.started()
            long = node.open("BTC", 1)
            short = node.open("ETH", -1)
            patient = node.open("SOL", 1)
            for answer in (long, short, patient):
                assert answer.model_version.startswith("v000001-")
                assert abs(answer.meta_confidence - CONFIDENCE) < 0.1
                assert 0.0 <= answer.toxicity < 1.0
                assert answer.volatility > 0.0
            _check_barriers(node, "BTC", long)
            _check_barriers(node, "ETH", short)

            # SOL's first, which takes the longest to come: out at the horizon, by the bars.
            node.reach("BTC", "target")
            node.reach("ETH", "stop")
            node.until(lambda: node.is_flat("BTC") and node.is_flat("ETH"), "the barriers' fills")
            assert _profit(node, "BTC") > 0.0 > _profit(node, "ETH")
            node.until(lambda: node.is_flat("SOL"), "the horizon's end")

            node.open("SOL", -1)
            zero = node.ask("SOL", 0)
            assert (zero.status, zero.meta_confidence) == ("ok", 0.5)
            node.until(lambda: node.is_flat("SOL"), "the zero signal's close")
            assert [len(node.entries(coin)) for coin in ("BTC", "ETH", "SOL")] == [1, 1, 2]

            names = [long.signal_id, short.signal_id, patient.signal_id]
            node.until(lambda: all(node.rows()[name]["label"] is not None for name in names), "the outcomes")
            node.check_answers()
            node.check_bars()
            node.check_trades()
            table = LedgerReader(node.ledger).signals().set_index("signal_id")
            assert table.loc[names[:2], ["barrier", "label"]].to_numpy().tolist() == [[1, 1], [-1, 0]]
            assert table.loc[names[0], "ret"] > 0.0 > table.loc[names[1], "ret"]
            assert table.loc[names[2], "bars"] == HORIZON_BARS or table.loc[names[2], "barrier"] != 0
            assert pd.isna(table.loc[zero.signal_id, "label"])  # being flat is no trade
            assert node.stop() == 0
            node.check_answers()
            assert node.leaks() == []


def _check_barriers(node: Rig, coin: str, answer: Any) -> None:
    """Assert that stop and target lie on either side of the fill, about one volatility away."""
    stop, target = node.exits(coin)
    assert stop is not None
    assert target is not None
    fill = float(node.fills(coin)[0]["px"])
    away = fill * answer.volatility
    for price, side in (
        (float(target["limitPx"]), answer.signal),
        (float(stop["triggerPx"]), -answer.signal),
    ):
        assert 0.3 * away < side * (price - fill) < 1.7 * away


def _profit(node: Rig, coin: str) -> float:
    return sum(float(fill["closedPnl"]) for fill in node.fills(coin))


# With nothing but a loopback interface, which it first has to bring up: SIOCSIFFLAGS with IFF_UP | IFF_RUNNING.
_ALONE = """
import fcntl, socket, struct, sys
import pytest
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sH22x", b"lo", 0x41))
    assert sock.connect_ex(("192.0.2.1", 443)) == 101, "the network is reachable"
sys.exit(pytest.main(sys.argv[1:]))
"""


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0


class TestAlone:
    @pytest.mark.slow
    @pytest.mark.skipif(not _can_unshare(), reason="no network namespaces here")
    def test_nothing_but_loopback_is_needed(self) -> None:
        test = f"{__file__}::TestTrading"
        done = subprocess.run(
            ["unshare", "-rn", sys.executable, "-c", _ALONE, test, "-q", "-p", "no:cacheprovider"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert "1 passed" in done.stdout


class TestFrozenFeed:
    @pytest.mark.slow
    def test_a_frozen_feed_fails_closed(self, tmp_path: Path) -> None:
        """On the clock's own minutes, with the limits of the configuration as it is shipped but for the age of bars."""
        with rig(tmp_path / "rig", actor={"max_bar_age_bars": 1.2, "feed": {}}) as node:
            node.started()
            node.open("BTC", 1)
            node.venue.control("feed", paused=True)
            node.until(lambda: node.ask("ETH", 1, strength=0.0).status == "stale_data", "stale data")
            refused = node.ask("ETH", 1)
            assert (refused.status, refused.meta_confidence, refused.toxicity) == ("stale_data", 0.5, 1.0)
            assert node.is_protected("BTC")
            assert node.ask("BTC", 0).status == "stale_data"
            node.until(lambda: node.is_flat("BTC"), "an exit all the same")
            assert node.entries("ETH") == []
            # The adapter has a part of a candle from before, and none of those since.
            node.venue.control("feed", paused=False)
            node.until(lambda: _new_bars(node, 0), "all bars since")
            node.check_bars()
            assert node.ask("ETH", 1, strength=0.0).status == "ok"
            node.check_answers()
            assert node.stop() == 0
            assert node.leaks() == []


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Return a node that all faults but its own death are tried on, one after the other."""
    with rig(tmp_path_factory.mktemp("faults") / "rig", *FAST) as node:
        yield node.started()
        assert node.stop() == 0
        node.check_answers()
        node.check_bars()
        node.check_trades()
        assert node.leaks() == []


@pytest.fixture
def healed(node: Rig) -> Iterator[Rig]:
    """Assert afterwards that all goes on as if nothing had happened."""
    yield node
    node.until(lambda: _new_bars(node), "new bars of all instruments")
    for coin in node.coins:
        assert node.ask(coin, 0).status == "ok"
        node.until(lambda coin=coin: node.is_flat(coin), f"no position in {coin}")
    node.check_answers()
    node.check_bars()
    node.check_trades()
    assert node.errors() == []


def _new_bars(node: Rig, behind: int = 3) -> bool:
    """Whether the newest bar of each instrument is so many bars behind the venue's, at most."""
    bars = node.bars()
    return all(bars[coin][-1][0] >= max(told_bars(node.venue, coin)) - behind * 60_000 for coin in node.coins)


@pytest.mark.slow
class TestFaults:
    @pytest.mark.parametrize("mode", ["close", "abort"])
    def test_connections_that_are_dropped_come_back(self, healed: Rig, mode: str) -> None:
        node, venue = healed, healed.venue
        node.open("BTC", 1)
        n_entries = len(node.entries("BTC"))
        since = len(venue.log())
        node.cut("drop", mode=mode)
        # Meanwhile the position is safe, and answers go on.
        assert node.is_protected("BTC")
        assert node.ask("ETH", 1, strength=0.0).status == "ok"
        node.until(lambda: len(_subscribed(node)) >= 3 * len(node.coins), "all subscriptions again")
        assert venue.log("open", since)
        node.reach("BTC", "target")
        node.until(lambda: node.is_flat("BTC"), "the target's fill")
        assert len(node.entries("BTC")) == n_entries

    def test_an_exit_that_was_filled_unheard_is_not_repeated(self, healed: Rig) -> None:
        node, venue = healed, healed.venue
        node.open("BTC", -1)
        before = len(node.fills("BTC"))
        venue.control("set", accept=False)
        node.cut("drop", mode="abort")
        node.reach("BTC", "stop")
        until(lambda: node.position("BTC") == 0.0, "the stop's fill")
        time.sleep(0.5)
        venue.control("set", accept=True)
        node.until(lambda: node.is_flat("BTC"), "an end of the target, too")
        node.open("BTC", 1)
        assert len(node.fills("BTC")) == before + 2

    def test_malformed_frames_are_passed_over(self, healed: Rig) -> None:
        node, venue = healed, healed.venue
        kinds = (
            "truncated",
            "not_json",
            "binary",
            "wrong_types",
            "nan",
            "unknown_channel",
            "unknown_coin",
            "empty",
        )
        for how in kinds:
            venue.control("malformed", how=how)
            assert node.ask("ETH", 1, strength=0.0).status == "ok"
        for coin in node.coins:
            for text in _altered(venue_text := _candle(node, coin)):
                assert text != venue_text
                venue.control("send", text=text)
        node.open("ETH", 1)
        node.reach("ETH", "target")
        node.until(lambda: node.is_flat("ETH"), "the target's fill")

    def test_candles_that_are_not_streamed_come_from_the_history(self, healed: Rig) -> None:
        node = healed
        requests = len(_history_requests(node))
        for coin, n in (("BTC", 1), ("ETH", 5)):
            node.cut("skip_candles", coin=coin, count=n)
        node.cut("drop", mode="abort")
        node.until(lambda: len(_history_requests(node)) >= requests + 2, "requests for past bars")
        node.open("ETH", 1)

    def test_trades_that_are_repeated_are_taken_once(self, healed: Rig) -> None:
        node, venue = healed, healed.venue
        repeated = node.count("actor", "repeated_trade")
        venue.control("feed", duplicates=3)
        try:
            node.until(lambda: node.count("actor", "repeated_trade") > repeated + 10, "repeated trades")
            assert node.ask("BTC", 1, strength=0.0).status == "ok"
        finally:
            venue.control("feed", duplicates=0)
        seen = len(node.trade_ids())
        node.cut("drop", mode="close")  # recent trades are told again upon subscribing
        node.until(lambda: len(node.trade_ids()) > seen + 10, "new trades")

    def test_a_slow_venue_holds_up_no_answer(self, healed: Rig) -> None:
        node, venue = healed, healed.venue
        venue.control("set", info_delay_ms=1_000, post_delay_ms=1_500)
        try:
            node.cut("skip_candles", coin="BTC", count=2)
            opening = node.ask("SOL", 1)
            # Bars wait for the history, and SOL's signals for the order under way.
            assert [node.ask("BTC", 1, strength=0.0).status for _ in range(5)] == ["ok"] * 5
            closing = node.ask("SOL", 0)
            assert closing.ts_init - opening.ts_init < MINUTE_NS
            node.until(lambda: node.is_flat("SOL") and len(node.fills("SOL")) >= 2, "SOL's entry and exit")
        finally:
            venue.control("set", info_delay_ms=0, post_delay_ms=0)
        sizes = [float(fill["sz"]) * (1 if fill["side"] == "B" else -1) for fill in node.fills("SOL")]
        assert sum(sizes) == pytest.approx(0.0)

    def test_a_venue_that_falls_silent_for_a_while(self, healed: Rig) -> None:
        node, venue = healed, healed.venue
        node.open("SOL", 1)
        node.cut("set", frozen=True)
        try:
            answers = [node.ask(coin, 1, strength=0.0) for coin in node.coins for _ in range(3)]
            assert {answer.status for answer in answers} == {"ok"}
            assert node.is_protected("SOL")
        finally:
            venue.control("set", frozen=False)
        node.reach("SOL", "stop")
        node.until(lambda: node.is_flat("SOL"), "the stop's fill")

    def test_redis_restarted_and_killed_in_the_midst(self, healed: Rig) -> None:
        node = healed
        node.open("BTC", 1)
        for end in (node.redis.stop, node.redis.kill, node.redis.kill):
            node.send("ETH", 1, strength=0.0)
            end()
            if end is node.redis.stop:  # what trades goes on
                node.reach("BTC", "target")
                node.until(lambda: node.is_flat("BTC"), "the target's fill")
            time.sleep(0.2)
            node.redis.start()
            for _ in range(5):
                node.send("ETH", 1, strength=0.0)
        node.check_answers()


def _subscribed(node: Rig) -> list[str]:
    names = [name for names in node.venue.state()["connections"].values() for name in names]
    return [name for name in names if name.startswith(("trades:", "candle:", "bbo:"))]


def _history_requests(node: Rig) -> list[Any]:
    return [entry for entry in node.venue.log("info") if entry["body"]["type"] == "candleSnapshot"]


def _candle(node: Rig, coin: str) -> str:
    told = node.venue.info(
        type="candleSnapshot",
        req={"coin": coin, "interval": "1m", "startTime": 0, "endTime": time.time_ns() // 1_000_000},
    )
    return json.dumps({"channel": "candle", "data": told[-1]})


def _altered(text: str) -> Iterator[str]:
    """Iterate over broken versions of a candle's message."""
    yield text[: len(text) // 2]
    for name, value in (("c", "NaN"), ("o", None), ("v", "1e999"), ("t", "soon"), ("i", "7m")):
        message = json.loads(text)
        message["data"][name] = value
        yield json.dumps(message)


@pytest.mark.slow
class TestRestarts:
    def test_killed_with_an_open_position(self, tmp_path: Path) -> None:
        with rig(tmp_path / "rig", *RECENT) as node:
            node.started()
            node.open("BTC", 1)
            node.open("ETH", -1)
            before = {coin: node.exits(coin) for coin in ("BTC", "ETH")}
            node.until(lambda: "s1" in node.rows(), "the ledger's rows")
            node.kill()
            # Signals that are written meanwhile, one of them twice.
            late = [node.send("SOL", 1), node.send("SOL", 0, name="zero")]
            node.publisher.publish(instrument("SOL"), 0, 1.0, "outside", "zero")
            node.reach("ETH", "target")
            until(lambda: node.position("ETH") == 0.0, "the fill that nobody hears of")
            node.started()
            answers = [node.answer(name) for name in late]
            assert {answer.status for answer in answers} <= {"ok", "warming_up", "stale_data"}
            node.until(lambda: node.is_flat("ETH"), "the end of ETH's stop")
            assert node.exits("BTC") == before["BTC"]  # the very orders
            assert len(node.entries("BTC")) == len(node.entries("ETH")) == 1
            node.until(lambda: node.is_flat("SOL"), "no position in SOL")
            node.reach("BTC", "target")
            node.until(lambda: node.is_flat("BTC"), "the target's fill")
            node.until(
                lambda: all(node.rows()[name]["label"] is not None for name in ("s0", "s1")), "the outcomes"
            )
            rows = node.rows()
            assert [(rows[name]["barrier"], rows[name]["label"]) for name in ("s0", "s1")] == [(1, 1), (1, 1)]
            # What is traded anew is followed as ever.
            node.open("ETH", 1)
            node.reach("ETH", "stop")
            node.until(lambda: node.is_flat("ETH"), "the stop's fill")
            node.check_answers()
            assert node.stop() == 0
            for coin, bars in node.bars().items():
                told = told_bars(node.venue, coin)
                assert [bar for bar in bars if told.get(bar[0]) != bar] == []
            assert node.leaks() == []

    @pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
    def test_stopped_and_started_warm(self, tmp_path: Path, by: signal.Signals) -> None:
        with rig(tmp_path / "rig", *RECENT, strategy={"close_on_stop": False}) as node:
            node.started()
            node.open("BTC", 1)
            assert node.stop(by) == 0
            assert node.is_protected("BTC")  # left, as it was told to
            *_, last = read_recording(node.tapes()[-1])[1]
            assert isinstance(last, EndFrame)
            node.check_answers()
            missed = node.send("ETH", 1, strength=0.0)
            # Without any history: what it knew is what it knows.
            node.venue.control("set", info_fail=["candleSnapshot"])
            node.started()
            assert node.answer(missed).status == "ok"
            assert node.ask("BTC", 1, strength=0.0).status == "ok"
            states = [f for f in read_recording(node.tapes()[-1])[1] if isinstance(f, StateFrame)]
            assert {frame.instrument_id for frame in states} == {instrument(coin) for coin in node.coins}
            node.venue.control("set", info_fail=[])
            node.reach("BTC", "target")
            node.until(lambda: node.is_flat("BTC"), "the target's fill")
            assert len(node.entries("BTC")) == 1
            node.until(lambda: node.rows()["s0"]["label"] == 1, "the outcome")
            node.check_answers()
            assert node.stop(by) == 0
            bars = node.bars()
            for coin in node.coins:  # over both lives: each once
                closes = [bar[0] for bar in bars[coin]]
                assert closes == [closes[0] + 60_000.0 * i for i in range(len(closes))]
            node.check_bars()
            assert node.leaks() == []
