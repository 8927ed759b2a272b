"""The one command that runs a node: its config, its check, and real nodes on a loopback venue as processes."""

import contextlib
import copy
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtests.synthetic import synthetic_bars
from examples.venue import Venue
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.ledger import LedgerReader
from ml4t_actor.market_data import Signals
from ml4t_actor.node import NodeConfigError, NodePlan, read_plan
from ml4t_actor.node.__main__ import main
from ml4t_actor.node.check import _check_model, _clock_finding, _clock_offset
from ml4t_actor.node.config import is_simulated
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding, print_table
from ml4t_actor.node.trading_check import check_trading
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LabelSettings, TrainingSettings, ValidationSettings
from ml4t_actor.training.loop import TrainingLoop
from tests.support.node_files import BTC, CONFIGS, ETH, KEY, changed, node_config, write
from tests.support.paths import ROOT
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import end_of, until

NODE_FILES = [
    "hyperliquid_mainnet.json",
    "hyperliquid_sandbox.json",
    "hyperliquid_testnet.json",
    "redis_node.json",
]

PROBE = r"""
from datetime import timedelta
from pathlib import Path
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.model.data import BarType, DataType
from ml4t_actor.messages import SignalData

class ProbeConfig(ActorConfig, frozen=True):
    bar_types: list[str] = []
    fail: str = ""
    signals: bool = False

class Probe(Actor):
    def on_start(self):
        if self.config.fail == "start":
            raise RuntimeError("the probe cannot start")
        for bar_type in self.config.bar_types:
            self.subscribe_bars(BarType.from_str(bar_type))
        if self.config.fail == "shutdown":
            at = self.clock.utc_now() + timedelta(seconds=0.5)
            self.clock.set_time_alert("end", at, lambda event: self.shutdown_system("the probe has had enough"))
        Path("started").write_text("")

    def on_bar(self, bar):
        if self.config.signals:
            name, now = f"{bar.bar_type}-{bar.ts_event}", self.clock.timestamp_ns()
            with Path("signals").open("a") as file:
                file.write(name + "\n")
            signal = SignalData(instrument_id=bar.bar_type.instrument_id, signal=1, strength=0.5, source="probe",
                                signal_id=name, ts_event=now, ts_init=now)
            self.publish_data(DataType(SignalData), signal)

    def on_stop(self):
        Path("stopped").write_text("")
"""


def problems_of(folder: Path, raw: object) -> list[str]:
    with pytest.raises(NodeConfigError) as caught:
        read_plan(write(folder, raw))
    assert str(caught.value)
    return caught.value.problems


class TestConfigsAsShipped:
    @pytest.fixture(params=NODE_FILES)
    def plan(self, request) -> NodePlan:
        return read_plan(CONFIGS / request.param)

    def test_are_read_with_the_real_classes(self, plan):
        assert [client.name for client in plan.data_clients] == ["HYPERLIQUID"]
        assert len(plan.actors) == 1
        assert {str(name) for name in plan.instrument_ids} == {
            f"{coin}-USD-PERP.HYPERLIQUID" for coin in ("BTC", "ETH", "SOL")
        }

    def test_load_only_the_instruments_that_are_traded(self, plan):
        for client in plan.clients:
            if is_simulated(client):
                continue
            assert client.config.instrument_provider.load_ids == frozenset(plan.instrument_ids)

    def test_stop_within_a_few_seconds(self, plan):
        assert plan.config.timeout_post_stop + plan.config.timeout_disconnection <= 10.0

    @pytest.mark.parametrize(
        ("name", "environment", "trades"),
        [
            ("hyperliquid_mainnet.json", "MAINNET", True),
            ("hyperliquid_testnet.json", "TESTNET", True),
            ("hyperliquid_sandbox.json", "MAINNET", True),
            ("redis_node.json", "MAINNET", False),
        ],
    )
    def test_are_for_the_venue_that_they_are_named_after(self, name, environment, trades):
        plan = read_plan(CONFIGS / name)
        assert {
            str(client.config.environment).upper() for client in plan.clients if not is_simulated(client)
        } == {environment}
        assert bool(plan.exec_clients) == trades == (len(plan.components) == 2)
        assert plan.actors[0].redis_enabled
        if trades:
            assert plan.config.exec_engine.reconciliation
            strategy = plan.components[1]
            assert strategy.labels == plan.actors[0].labels
            assert strategy.bar_types == plan.actors[0].bar_types
            assert strategy.limits.max_leverage <= 1.0
            assert strategy.limits.max_notional_per_order <= 10_000.0
            assert not plan.config.risk_engine.max_notional_per_order  # does nothing for margin accounts
            assert {finding.level for finding in check_trading(plan)} == {PASS}

    def test_no_two_have_the_same_trader(self):
        assert len({read_plan(CONFIGS / name).config.trader_id for name in NODE_FILES}) == len(NODE_FILES)


class TestReading:
    RAW = node_config("hyperliquid_testnet.json")
    EXEC = "exec_clients.HYPERLIQUID"
    DATA = "data_clients.HYPERLIQUID"

    @pytest.mark.parametrize(
        ("path", "value", "reported"),
        [
            ("trader_id", "x", "trader_id"),
            ("trader_id", "é-1", "trader_id"),
            ("trader_id", "x-", "trader_id"),
            ("trader_idd", "A-1", "did you mean `trader_id`"),
            ("timeout_connection", -1, "timeout_connection"),
            ("timeout_connection", "5", "timeout_connection"),
            ("environment", "backtest", "environment"),
            ("logging.log_level", "LOUD", "logging.log_level"),
            ("logging.log_component_levels", {"A": "LOUD"}, "logging.log_component_levels.A"),
            ("logging.bypass_logging", True, "logging.bypass_logging"),
            ("exec_engine.open_check_interval_secs", 0, "exec_engine.open_check_interval_secs"),
            ("risk_engine.max_notional", {}, "risk_engine.max_notional"),
            (f"{DATA}.config.environment", "moon", f"{DATA}.config.environment: was 'moon', must be one of"),
            (f"{DATA}.config.environment", 3, f"{DATA}.config.environment"),
            (f"{DATA}.config.product_types", ["perps"], f"{DATA}.config.product_types[0]"),
            (
                f"{DATA}.config.instrument_provider.load_ids",
                ["BTC"],
                f"{DATA}.config.instrument_provider.load_ids",
            ),
            (f"{DATA}.config.timeout", 1, f"{DATA}.config.timeout"),
            (f"{DATA}.factory", ..., f"{DATA}.factory: is missing"),
            (f"{DATA}.factory.path", "os:nothing", f"{DATA}.factory.path"),
            (f"{DATA}.factory.path", "pathlib:Path", f"{DATA}.factory.path"),
            (f"{DATA}.path", "no.such.module:Class", f"{DATA}.path"),
            (f"{DATA}.path", ..., f"{DATA}.path: is missing"),
            (f"{EXEC}.config.max_retries", 0, f"{EXEC}.config.max_retries"),
            (DATA, 3, DATA),
            ("data_clients", [], "data_clients"),
            ("actors", {}, "actors"),
            ("actors.0.config.default_confidence", 1.5, "actors[0].config: `default_confidence` was 1.5"),
            ("actors.0.config.labels.horizon_bars", "60", "actors[0].config.labels.horizon_bars"),
            ("actors.0.config.labels.horizon", 60, "did you mean `horizon_bars`"),
            ("actors.0.config.component_id", "é", "actors[0].config.component_id"),
            ("actors.0.actor_path", "ml4t_actor.actor:Nobody", "actors[0].actor_path"),
            ("actors.0.config_path", ..., "actors"),
            (
                "actors.0.config.bar_types",
                [f"{BTC}-100-TICK-LAST-INTERNAL"],
                "must be time bars: a model knows one bar length",
            ),
            (
                "strategies.0.config.bar_types",
                [f"{BTC}-100-TICK-LAST-INTERNAL"],
                "must be of time bars: the horizon is a time",
            ),
            ("strategies.0.config.fraction", 2.0, "strategies[0].config: `fraction` was 2.0"),
            ("strategies.0.config.limits.max_daily_loss", 2.0, "strategies[0].config.limits.max_daily_loss"),
            ("strategies.0.config.strategy_id", "x", "strategies[0].config.strategy_id"),
            ("strategies.0.config.strategy_id", "MINE-001", "strategies[0].config.strategy_id"),
        ],
    )
    def test_an_error_is_reported_with_its_path(self, tmp_path, path, value, reported):
        problems = problems_of(tmp_path, changed(self.RAW, path, value))
        assert any(reported in problem for problem in problems), problems

    def test_all_errors_are_reported_at_once(self, tmp_path):
        raw = self.RAW
        for path, value in (
            ("trader_id", "x"),
            ("timeout_connection", -1),
            (f"{self.DATA}.config.environment", "moon"),
            (f"{self.EXEC}.config.max_retries", 0),
            ("actors.0.config.trade_ticks", "yes"),
            ("actors.0.config.health.publish_seconds", -1.0),
            ("strategies.0.config.sizing", "huge"),
        ):
            raw = changed(raw, path, value)
        assert len(problems_of(tmp_path, raw)) == 7

    @pytest.mark.parametrize(
        ("text", "reported"),
        [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "JSON object"),
            ('{"trader_id": "A-1", "trader_id": "B-1"}', "given twice"),
            (" " * 1_000_001, "larger"),
        ],
    )
    def test_what_is_no_config_is_refused(self, tmp_path, text, reported):
        assert reported in problems_of(tmp_path, text)[0]

    def test_a_file_that_is_not_there_is_reported(self, tmp_path):
        with pytest.raises(NodeConfigError, match="cannot be read"):
            read_plan(tmp_path / "none.json")

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
        max_leaves=6,
    )

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(data=st.data())
    def test_whatever_is_in_a_file_it_is_a_plan_or_a_list_of_problems(self, tmp_path, data):
        raw = copy.deepcopy(self.RAW)
        at = raw
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = data.draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
                at = at[key]
                continue
            at[key] = data.draw(self.json_values)
            break
        with contextlib.suppress(NodeConfigError):
            assert isinstance(read_plan(write(tmp_path, raw)), NodePlan)


class TestSecrets:
    RAW = node_config("hyperliquid_testnet.json")
    EXEC = "exec_clients.HYPERLIQUID.config"

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (f"{EXEC}.private_key", KEY),
            (f"{EXEC}.private_key", "hunter2"),
            (f"{EXEC}.account_address", KEY),
            (f"{EXEC}.proxy_url", "http://me:hunter2@127.0.0.1:1"),
            (f"{EXEC}.api_secret", "hunter2"),
            (f"{EXEC}.API_KEY", "hunter2"),
            (f"{EXEC}.passphrase", "hunter2"),
            ("message_bus", {"database": {"type": "redis", "password": "hunter2"}}),
            ("cache", {"database": {"type": "redis", "password": ["hunter2"]}}),
            ("actors.0.config.redis.password", "hunter2"),
            ("comment", f"my key is {KEY[2:]}"),
            (KEY, 1),
        ],
    )
    def test_in_a_file_are_refused_and_not_repeated(self, tmp_path, capfd, path, value):
        path_to = write(tmp_path, changed(self.RAW, path, value))
        if path == KEY:  # a name is shown as unknown, but not this one
            path_to = write(tmp_path, changed(self.RAW, path, {"x": "hunter2", "password": "hunter2"}))
        assert main([str(path_to)]) == 2
        assert main([str(path_to), "--check"]) == 2
        reported = "".join(capfd.readouterr())
        assert "environment" in reported
        assert "hunter2" not in reported
        assert KEY[2:] not in reported

    @pytest.mark.parametrize("empty", [None, "", "  "])
    def test_left_empty_are_no_secrets(self, tmp_path, empty):
        plan = read_plan(write(tmp_path, changed(self.RAW, f"{self.EXEC}.private_key", empty)))
        assert isinstance(plan, NodePlan)

    def test_a_key_that_is_missing_is_named(self, tmp_path, capfd, monkeypatch):
        monkeypatch.delenv("HYPERLIQUID_TESTNET_PK", raising=False)
        monkeypatch.setenv("HYPERLIQUID_PK", KEY)  # the mainnet's is none for the testnet
        assert main([str(write(tmp_path, self.RAW))]) == 2
        assert "HYPERLIQUID_TESTNET_PK is not set" in capfd.readouterr().err

    def test_a_key_that_is_none_is_reported_and_not_repeated(self, tmp_path, capfd, monkeypatch):
        monkeypatch.setenv("HYPERLIQUID_PK", "0xhunter2")
        assert main([str(write(tmp_path, node_config("hyperliquid_mainnet.json")))]) == 2
        reported = "".join(capfd.readouterr())
        assert "HYPERLIQUID_PK is no private key" in reported
        assert "hunter2" not in reported


class TestClock:
    @pytest.mark.parametrize(("shift", "level"), [(0.0, PASS), (-10.0, FAIL), (10.0, FAIL)])
    def test_is_compared_with_the_date_of_an_answer(self, shift, level):
        class Handler(http.server.BaseHTTPRequestHandler):
            def date_time_string(self, timestamp=None):
                return formatdate(time.time() - shift, usegmt=True)

            def do_HEAD(self):
                self.send_error(405)

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            low, high = _clock_offset(f"http://127.0.0.1:{server.server_port}", None)
        finally:
            server.shutdown()
            server.server_close()
        assert low <= shift <= high
        finding = _clock_finding("the venue", low, high)
        assert finding.level == level
        if level == FAIL:
            words = finding.message.split()
            assert float(words[words.index("s") - 1]) == pytest.approx(10.0, abs=0.6)
            assert ("ahead" in finding.message) is (shift > 0)

    @given(middle=st.floats(-100, 100), half=st.floats(0, 2))
    def test_is_refused_only_where_it_is_off_for_certain(self, middle, half):
        finding = _clock_finding("x", middle - half, middle + half)
        assert (
            finding.level == (FAIL if abs(middle) - half > 1.0 else PASS)
            or abs(abs(middle) - half - 1.0) < 1e-9
        )


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with Venue("--candle-ms", "500") as venue:
        yield venue


@pytest.fixture
def quiet(venue: Venue) -> Iterator[Venue]:
    """Yield the venue, and put right afterwards what a test has broken."""
    yield venue
    venue.control("set", info_status=200, accept=True)


def local(venue: Venue, *, trades: bool = False, fail: str = "", actor: dict | None = None) -> dict:
    """Return a config of a node on the stub, made from the one that is shipped."""
    raw = node_config("hyperliquid_testnet.json")
    raw["logging"] = {"log_colors": False, "use_pyo3": True}
    raw |= {"timeout_connection": 8.0, "timeout_post_stop": 0.2, "strategies": []}
    raw["exec_engine"]["reconciliation_startup_delay_secs"] = 0.1
    for group in ("data_clients", "exec_clients"):
        config = raw[group]["HYPERLIQUID"]["config"]
        config |= {"base_url_ws": venue.base_url_ws, "http_timeout_secs": 3}
        config["instrument_provider"] = {"load_ids": [BTC, ETH]}
    raw["exec_engine"]["reconciliation_instrument_ids"] = [BTC, ETH]
    if not trades:
        del raw["exec_clients"]
        raw["exec_engine"] = {"reconciliation": False}
    bar_types = [f"{name}-1-MINUTE-LAST-EXTERNAL" for name in (BTC, ETH)]
    if actor is None:
        config = {"bar_types": bar_types, "fail": fail}
        raw["actors"] = [{"actor_path": "probe:Probe", "config_path": "probe:ProbeConfig", "config": config}]
    else:
        config = {"bar_types": bar_types, "redis_enabled": False, "retrain": "off", **actor}
        raw["actors"][0]["config"] = config
    return raw


class Node:
    """The command as a process, in a folder of its own."""

    def __init__(self, folder: Path, venue: Venue, raw: dict, *arguments: str, **env: str) -> None:
        (folder / "probe.py").write_text(PROBE)
        path = os.pathsep.join([str(folder), str(ROOT)])
        variables = os.environ | venue.env | {"PYTHONPATH": path, "HYPERLIQUID_TESTNET_PK": KEY} | env
        self.folder = folder
        self._log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ml4t_actor.node", str(write(folder, raw)), *arguments],
            cwd=folder,
            env={name: value for name, value in variables.items() if value},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        end_of(self.process)
        self._log.close()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, condition) -> None:
        try:
            until(lambda: condition() or self.process.poll() is not None, "the node", lambda: len(self.log))
        except AssertionError as e:
            raise AssertionError(f"{e}; the log ends:\n{self.log[-3000:]}") from None
        assert condition(), f"the node has ended:\n{self.log[-3000:]}"

    def end(self) -> int:
        try:
            return end_of(self.process)
        except AssertionError as e:
            raise AssertionError(f"{e}; the log ends:\n{self.log[-3000:]}") from None


@pytest.mark.slow
class TestRunning:
    @pytest.mark.parametrize(("sig", "use_pyo3"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
    def test_a_signal_stops_it_cleanly_within_seconds(self, tmp_path, venue, sig, use_pyo3):
        raw = local(venue, trades=True)
        raw["logging"] |= {"use_pyo3": use_pyo3, "log_level_file": "INFO", "log_directory": "logs"}
        with Node(tmp_path, venue, raw) as node:
            node.until((tmp_path / "started").exists)
            node.process.send_signal(sig)
            assert node.end() == 0
            assert (tmp_path / "stopped").exists()
        [file] = (tmp_path / "logs").iterdir()
        for log in (node.log, file.read_text()):
            assert "TradingNode: DISPOSED" in log  # to the last line
            assert KEY[2:] not in log

    def test_the_state_of_the_actor_is_saved(self, tmp_path, venue):
        # Written at the stop alone.
        actor = {"model_path": str(tmp_path / "models"), "ledger": {"flush_ms": 3_600_000}}
        raw = local(venue, actor=actor)
        [probe] = local(venue)["actors"]
        probe["config"]["signals"] = True
        raw["actors"].append(probe)
        given = tmp_path / "signals"
        with Node(tmp_path, venue, raw) as node:
            node.until(lambda: given.exists() and len(given.read_text().splitlines()) >= 3)
            node.process.terminate()
            assert node.end() == 0
        kept = LedgerReader(tmp_path / "models" / "ledger.sqlite").signals()
        assert sorted(kept["signal_id"]) == sorted(given.read_text().split())

    def test_a_signal_while_it_connects_stops_it_too(self, tmp_path, quiet):
        quiet.control("set", accept=False)
        with Node(tmp_path, quiet, local(quiet) | {"timeout_connection": 600.0}) as node:
            node.until(lambda: "Awaiting engine connections" in node.log)
            node.process.terminate()
            assert node.end() == 0
            assert not (tmp_path / "started").exists()

    def test_a_connection_that_never_comes_up_ends_it(self, tmp_path, quiet):
        quiet.control("set", accept=False)
        with Node(tmp_path, quiet, local(quiet) | {"timeout_connection": 2.0}) as node:
            assert node.end() == 1
            assert "no connection of data client HYPERLIQUID within 2 s" in node.log
            assert not (tmp_path / "started").exists()

    @pytest.mark.parametrize("trades", [False, True])
    def test_where_the_venue_gives_no_instruments_they_are_named(self, tmp_path, quiet, trades):
        quiet.control("set", info_status=500)
        with Node(tmp_path, quiet, local(quiet, trades=trades) | {"timeout_connection": 2.0}) as node:
            assert node.end() == 1
            assert f"no instrument {BTC}, {ETH}" in node.log

    def test_an_instrument_that_the_venue_does_not_have_is_named(self, tmp_path, venue):
        raw = local(venue)
        raw["actors"][0]["config"]["bar_types"][1] = "NOPE-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
        with Node(tmp_path, venue, raw) as node:
            assert node.end() == 1
            assert "no instrument NOPE-USD-PERP.HYPERLIQUID;" in node.log

    def test_a_component_that_cannot_start_ends_it_with_its_reason(self, tmp_path, venue):
        with Node(tmp_path, venue, local(venue, fail="start")) as node:
            assert node.end() == 1
            assert "the node could not start: the probe cannot start" in node.log

    def test_a_component_that_shuts_it_down_is_reported(self, tmp_path, venue):
        with Node(tmp_path, venue, local(venue, fail="shutdown")) as node:
            assert node.end() == 1
            assert "shut down by one of its components: the probe has had enough" in node.log
            assert (tmp_path / "stopped").exists()


@pytest.mark.slow
class TestCheck:
    def run(self, tmp_path: Path, venue: Venue, raw: dict, **env: str) -> tuple[int, str]:
        with Node(tmp_path, venue, raw, "--check", **env) as node:
            code = node.end()
            assert KEY[2:] not in node.log
            assert not (tmp_path / "started").exists()
            return code, node.log

    def test_of_what_is_well_passes(self, tmp_path, venue):
        with RedisServer(tmp_path / "redis", password="hunter2") as redis:
            redis.client().xadd("nautilus:signals", {"a": 1})
            actor = {
                "model_path": str(tmp_path / "models"),
                "redis_enabled": True,
                "redis_required": True,
                "redis": {"port": redis.port, "password_env": "MY_PASSWORD"},
                "health": {"metrics_port": free_port()},
            }
            code, reported = self.run(
                tmp_path, venue, local(venue, trades=True, actor=actor), MY_PASSWORD="hunter2"
            )
        assert code == 0, reported
        assert "hunter2" not in reported
        lines = [line.split()[:2] for line in reported.splitlines() if line[:4] in (PASS, WARN, FAIL)]
        assert [WARN, "model"] in lines  # none is there yet
        for subject in ("config", "keys", "reconciliation", "instruments", "account", "positions", "orders"):
            assert [PASS, subject] in lines, reported
        for subject in ("clock", "redis", "ledger", "disk", "metrics"):
            assert [PASS, subject] in lines, reported
        assert not (tmp_path / "models").exists()

    def test_reports_all_that_is_wrong(self, tmp_path, venue):
        (tmp_path / "file").write_text("")
        taken = socket.create_server(("127.0.0.1", 0))
        with taken, RedisServer(tmp_path / "redis") as redis:
            redis.client().set("nautilus:signals", "no stream")
            actor = {
                "model_path": str(tmp_path / "models"),
                "ledger": {"path": str(tmp_path / "file" / "ledger.sqlite")},
                "redis_enabled": True,
                "redis": {"port": redis.port},
                "health": {"metrics_port": taken.getsockname()[1]},
            }
            raw = local(venue, trades=True, actor=actor)
            raw["actors"][0]["config"]["bar_types"][0] = "NOPE-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
            code, reported = self.run(tmp_path, venue, raw, HYPERLIQUID_TESTNET_PK="")
        assert code == 1
        for words in (
            "HYPERLIQUID_TESTNET_PK is not set",
            "NOPE-USD-PERP.HYPERLIQUID",
            "'nautilus:signals' holds a string",
            "cannot be written",
            "metrics cannot be served",
        ):
            [line] = [line for line in reported.splitlines() if words in line]
            assert line.startswith(FAIL)

    @pytest.mark.parametrize(("required", "level", "code"), [(True, FAIL, 1), (False, WARN, 0)])
    def test_redis_that_is_away_is_an_error_where_it_is_required(
        self, tmp_path, venue, required, level, code
    ):
        actor = {
            "model_path": str(tmp_path / "models"),
            "redis_enabled": True,
            "redis_required": required,
            "redis": {"port": free_port()},
        }
        got, reported = self.run(tmp_path, venue, local(venue, actor=actor))
        assert got == code, reported
        [line] = [line for line in reported.splitlines() if line.split()[1:2] == ["redis"]]
        assert line.startswith(level)

    def test_a_venue_that_does_not_answer_is_an_error(self, tmp_path, quiet):
        quiet.control("set", info_status=500)
        code, reported = self.run(tmp_path, quiet, local(quiet))
        assert code == 1
        assert f"{FAIL}  instruments" in reported
        assert BTC in reported

    def test_names_what_is_held_by_hand(self, tmp_path):
        with Venue() as market:
            market.control("trade", coin="BTC", side="buy", size="0.5")
            market.control("order", coin="ETH", side="sell", size="1", price="9000")
            raw = local(market, trades=True, actor={"model_path": str(tmp_path / "models")})
            raw["strategies"] = node_config("hyperliquid_testnet.json")["strategies"]
            raw["strategies"][0]["config"]["bar_types"] = raw["actors"][0]["config"]["bar_types"]
            raw["strategies"][0]["config"]["journal_path"] = str(tmp_path / "orders.sqlite")
            code, reported = self.run(tmp_path, market, raw)
        assert code == 0, reported
        for words in (f"{BTC}: 0.5 at", "0.5 of it is not the strategy's", f"{ETH}: order"):
            [line] = [line for line in reported.splitlines() if words in line]
            assert line.startswith(WARN)
        assert f"{PASS}  terms" in reported
        assert not (tmp_path / "orders.sqlite").exists()

    def test_of_the_sandbox_passes_without_a_key(self, tmp_path, venue):
        raw = local(venue, actor={"model_path": str(tmp_path / "models")})
        sandbox = node_config("hyperliquid_sandbox.json")
        raw |= {name: sandbox[name] for name in ("environment", "exec_clients", "exec_engine", "strategies")}
        raw["strategies"][0]["config"]["bar_types"] = raw["actors"][0]["config"]["bar_types"]
        code, reported = self.run(tmp_path, venue, raw, HYPERLIQUID_TESTNET_PK="")
        assert code == 0, reported
        assert f"{PASS}  sandbox" in reported
        assert "keys" not in reported
        raw["exec_clients"]["HYPERLIQUID"]["config"]["starting_balances"] = ["100000 USDC"]
        code, reported = self.run(tmp_path, venue, raw, HYPERLIQUID_TESTNET_PK="")
        assert code == 1
        assert "its losses would be dropped" in reported


class TestTable:
    def test_has_a_line_per_row_and_the_counts(self, capsys):
        print_table([Finding(PASS, "a", "fine"), Finding(FAIL, "longer", "broken", "mend it")])
        assert capsys.readouterr().out.splitlines() == [
            "PASS  a       fine",
            "FAIL  longer  broken",
            "              -> mend it",
            "1 PASS, 0 WARN, 1 FAIL",
        ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model of 1-minute bars and the default settings."""
    bars = synthetic_bars(3, 3_000, bar_minutes=1, price=100.0, volume=500.0)
    at = np.arange(200, 2_900, 5)
    side = np.where(np.arange(len(at)) % 2, 1, -1).astype(np.int8)
    training = TrainingSettings(validation=ValidationSettings(n_folds=2, bootstrap_samples=50))
    folder = tmp_path_factory.mktemp("models")
    TrainingLoop(training, store=ModelStore(folder)).train(
        bars, Signals(bars.ts_event[at], side, np.full(len(at), 0.5))
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "level", "reported"),
    [
        ({}, PASS, "fits"),
        ({"model_path": "no/such/folder"}, WARN, "no_model"),
        ({"labels": LabelSettings(horizon_bars=30)}, FAIL, "labels"),
        ({"bar_types": [f"{BTC}-5-MINUTE-LAST-EXTERNAL"]}, FAIL, "bars"),
        ({"custom_features": {"mine": "no.such:Feature"}}, FAIL, "no.such:Feature"),
    ],
)
def test_the_newest_model_must_fit(models, changes, level, reported):
    config = {"model_path": str(models), "bar_types": [f"{BTC}-1-MINUTE-LAST-EXTERNAL"]}
    finding = _check_model(ML4TActorConfig(**{**config, **changes}))
    assert (finding.level, finding.subject) == (level, "model")
    assert reported in finding.message
    assert bool(finding.remedy) is (level != PASS)


def test_of_models_that_an_older_one_serves_the_newer_is_named(models, tmp_path):
    folder = Path(shutil.copytree(models, tmp_path / "models"))
    [version] = ModelStore(folder).versions()
    newer = version.replace("v000001", "v000002")
    shutil.copytree(folder / version, folder / newer)
    (folder / newer / "serving.npz").write_bytes(b"damaged")
    config = {"model_path": str(folder), "bar_types": [f"{BTC}-1-MINUTE-LAST-EXTERNAL"]}
    finding = _check_model(ML4TActorConfig(**config))
    assert finding.level == WARN
    assert version in finding.message
    assert newer in finding.message
