"""How the node stops while the venue owes it an answer: as a real process, on the stub of the venue."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.venue import Venue
from tests.support.node_files import BTC, KEY
from tests.support.paths import ROOT
from tests.support.waiting import end_of, until

pytestmark = pytest.mark.slow

BARS = f"{BTC}-1-MINUTE-LAST-EXTERNAL"
# Publishes one enriched signal, when there are a bar and a quote.
PUBLISHER = r"""
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.model.data import BarType, DataType
from ml4t_actor.messages import EnrichedSignal

class OneSignalConfig(ActorConfig, frozen=True):
    bar_type: str = ""

class OneSignal(Actor):
    def on_start(self):
        self.bars = 0
        self.subscribe_bars(BarType.from_str(self.config.bar_type))

    def on_bar(self, bar):
        self.bars += 1
        if self.bars != 3:
            return
        now = self.clock.timestamp_ns()
        self.publish_data(DataType(EnrichedSignal), EnrichedSignal(
            instrument_id=bar.bar_type.instrument_id, signal=1, strength=1.0, source="test", signal_id="1",
            meta_confidence=1.0, toxicity=0.0, vpin=0.1, regime_weight=1.0, regime=0, volatility=0.01,
            model_version="v1", status="ok", latency_ns=0, ts_event=now, ts_init=now))
"""


@pytest.fixture
def venue() -> Iterator[Venue]:
    with Venue("--candle-ms", "500", "--virtual-candles", "1000") as venue:
        yield venue


class Node:
    """The node's own command in a folder, with the strategy and what gives it a signal."""

    def __init__(self, folder: Path, venue: Venue, **strategy: object) -> None:
        (folder / "one_signal.py").write_text(PUBLISHER)
        raw = json.loads((ROOT / "configs" / "hyperliquid_testnet.json").read_bytes())
        raw |= {"timeout_connection": 8.0, "timeout_post_stop": 0.2}
        raw["logging"] = {"log_colors": False, "use_pyo3": True}
        for group in ("data_clients", "exec_clients"):
            config = raw[group]["HYPERLIQUID"]["config"]
            config |= {"base_url_ws": venue.base_url_ws, "http_timeout_secs": 3}
            config["instrument_provider"] = {"load_ids": [BTC]}
        raw["exec_clients"]["HYPERLIQUID"]["config"]["ws_post_timeout_secs"] = 60
        raw["exec_engine"] |= {
            "reconciliation_startup_delay_secs": 0.1,
            "reconciliation_instrument_ids": [BTC],
            "inflight_check_interval_ms": 0,
        }
        raw["actors"] = [
            {
                "actor_path": "one_signal:OneSignal",
                "config_path": "one_signal:OneSignalConfig",
                "config": {"bar_type": BARS},
            }
        ]
        raw["strategies"][0]["config"] |= {
            "bar_types": [BARS],
            "order_timeout": 4.0,
            "max_quote_drift": 0.1,
            "journal_path": str(folder / "orders.sqlite"),
            **strategy,
        }
        (folder / "node.json").write_text(json.dumps(raw))
        self.output = folder / "output"
        environment = os.environ | venue.env
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "HYPERLIQUID_TESTNET_PK": KEY,
        }
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ml4t_actor.node", str(folder / "node.json")],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        end_of(self.process)
        if error[0] is not None:
            print(self.output.read_text()[-20_000:])

    def until(self, condition, what: str) -> None:
        until(condition, what, lambda: self.output.stat().st_size)

    def stop(self) -> tuple[int, str]:
        """Ask the node to stop; return its exit code and the last line of what it wrote."""
        self.process.terminate()
        code = end_of(self.process)
        return code, self.output.read_text().strip().splitlines()[-1]


def position(venue: Venue) -> float:
    return float(venue.state()["positions"].get("BTC", 0.0))


def test_an_entry_that_is_filled_and_not_answered_is_closed_before_the_node_ends(tmp_path, venue):
    with Node(tmp_path, venue) as node:
        venue.control("orders", mode="mute")
        node.until(lambda: position(venue) > 0, "the fill")
        venue.control("orders", mode="filled")
        code, _ = node.stop()
        assert code == 0
    assert position(venue) == 0
    assert venue.state()["orders"] == []


def test_an_entry_that_is_answered_late_is_protected_where_positions_are_to_stay(tmp_path, venue):
    with Node(tmp_path, venue, close_on_stop=False) as node:
        venue.control("set", post_delay_ms=2_000)
        node.until(lambda: venue.log("post"), "the entry")
        code, _ = node.stop()
        assert code == 0
    [stop] = [order for order in venue.state()["orders"] if order["isTrigger"]]
    assert float(stop["sz"]) == position(venue) > 0


def test_where_the_venue_does_not_answer_at_all_the_last_line_names_what_is_left(tmp_path, venue):
    with Node(tmp_path, venue) as node:
        venue.control("orders", mode="mute")
        node.until(lambda: position(venue) > 0, "the fill")
        venue.control("orders", mode="silent")
        venue.control("set", info_status=500)
        code, last = node.stop()
        assert code == 1
        assert position(venue) > 0
        assert BTC in last
        assert "left at the venue" in last
