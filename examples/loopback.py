"""A node to try, on this machine alone: ``python -m examples.loopback start`` and ``stop``.

`start` begins a Redis, a stand-in for Hyperliquid (`examples.venue`) and a node of `configs/redis_node.json` between
them, with a model that is trained on the stand-in's own past, and returns when the node can enrich. All listen on
127.0.0.1 only, log into `out/loopback`, and go on until `stop`.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.venue.payloads import Addresses
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.indicators.features import DEFAULT_FEATURE_NAMES
from ml4t_actor.market_data import Bars
from ml4t_actor.node import read_plan
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import TrainingSettings, ValidationSettings
from ml4t_actor.training.loop import TrainingLoop

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "out" / "loopback"
PROCESSES = FOLDER / "processes.json"
REDIS_PORT, METRICS_PORT = 6390, 6391
COINS = ("BTC", "ETH")
READY_TIMEOUT_S = 120.0

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def start() -> None:
    """Begin all three; where one fails, end what was begun."""
    if PROCESSES.exists():
        raise SystemExit("it runs already, or was not stopped: python -m examples.loopback stop")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        _start_process("redis", [_program("redis-server"), *_redis_options()])
        _start_process(
            "venue", [sys.executable, "-m", "examples.venue", "--ports-file", str(FOLDER / "venue.json")]
        )
        _wait_until(lambda: (FOLDER / "venue.json").exists(), "venue")
        venue: Addresses = json.loads((FOLDER / "venue.json").read_text())
        path = FOLDER / "node.json"
        path.write_text(_node_json(venue))
        print("training a model on the stand-in's past ...", flush=True)
        _train(venue["control"].removesuffix("/_venue"), read_plan(path).actors[0])
        print("starting the node ...", flush=True)
        _start_process("node", [sys.executable, "-m", "ml4t_actor.node", str(path)], venue["env"])
        _wait_until(_can_enrich, "node")
    except BaseException:
        stop()
        raise
    print(
        f"Redis listens on port {REDIS_PORT}, metrics are on http://127.0.0.1:{METRICS_PORT}/metrics, logs in "
        f"{FOLDER.relative_to(ROOT)}; end all with: python -m examples.loopback stop"
    )


def stop() -> None:
    """End the node, and then what it was connected to."""
    running = json.loads(PROCESSES.read_text()) if PROCESSES.exists() else {}
    for name in ("node", "venue", "redis"):
        if name in running:
            _stop_process(running[name])
    PROCESSES.unlink(missing_ok=True)


def _start_process(name: str, command: list[str], env: dict[str, str] | None = None) -> None:
    with (FOLDER / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = json.loads(PROCESSES.read_text()) if PROCESSES.exists() else {}
    PROCESSES.write_text(json.dumps({**running, name: process.pid}))


def _stop_process(pid: int) -> None:
    for sig, wait_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, sig)
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and _is_running(pid):
                time.sleep(0.05)
        except ProcessLookupError:
            return


def _is_running(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0]:  # where it is our own child
            return False
    except ChildProcessError:
        pass
    os.kill(pid, 0)
    status = Path(f"/proc/{pid}/stat")  # where an init process leaves zombies, they are no less dead
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def _wait_until(condition: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    pid = json.loads(PROCESSES.read_text())[name]
    while not condition():
        try:
            alive = _is_running(pid)
        except ProcessLookupError:
            alive = False
        if not alive or time.monotonic() > deadline:
            log = (FOLDER / f"{name}.log").read_text(errors="replace")
            raise SystemExit(f"the {name} {'did not get ready' if alive else 'has ended'}:\n{log[-3000:]}")
        time.sleep(0.1)


def _program(program: str) -> str:
    path = Path(sys.executable).with_name(program)
    return str(path) if path.exists() else program


def _redis_options() -> list[str]:
    return ["--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--dir", str(FOLDER), "--appendonly", "yes"]


def _node_json(venue: Addresses) -> str:
    """Return the config that is shipped, pointed at what runs here."""
    config = json.loads((ROOT / "configs" / "redis_node.json").read_text())
    config["logging"] = {"log_level": "INFO", "log_colors": False}
    ids = [f"{coin}-USD-PERP.HYPERLIQUID" for coin in COINS]
    data = config["data_clients"]["HYPERLIQUID"]["config"]
    data["base_url_ws"] = venue["base_url_ws"]
    data["instrument_provider"] = {"load_ids": ids}
    actor = config["actors"][0]["config"]
    actor["model_path"] = str(FOLDER / "models")
    actor["bar_types"] = [f"{name}-1-MINUTE-LAST-EXTERNAL" for name in ids]
    actor["redis"] = {"host": "127.0.0.1", "port": REDIS_PORT}
    actor["health"] = {"publish_seconds": 1.0, "metrics_port": METRICS_PORT}
    return json.dumps(config, indent=2)


def _train(url: str, actor: ML4TActorConfig) -> None:
    settings = TrainingSettings(
        labels=actor.labels,
        validation=ValidationSettings(
            n_folds=3, embargo_bars=actor.labels.horizon_bars, bootstrap_samples=100
        ),
    )
    loop = TrainingLoop(settings, feature_names=DEFAULT_FEATURE_NAMES, store=ModelStore(actor.model_path))
    loop.train({f"{coin}-USD-PERP.HYPERLIQUID": _past_bars(url, coin) for coin in COINS})


def _past_bars(url: str, coin: str) -> Bars:
    query = {"coin": coin, "interval": "1m", "startTime": 0, "endTime": time.time_ns() // 1_000_000}
    request = urllib.request.Request(
        f"{url}/info", json.dumps({"type": "candleSnapshot", "req": query}).encode()
    )
    with _open(request) as response:
        candles = json.load(response)
    names = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
    return Bars(
        ts_event=np.array([candle["t"] + 60_000 for candle in candles]) * 1_000_000,
        buy_volume=np.full(len(candles), np.nan),
        **{name: np.array([float(candle[key]) for candle in candles]) for key, name in names.items()},
    )


def _can_enrich() -> bool:
    try:
        with _open(f"http://127.0.0.1:{METRICS_PORT}/metrics") as response:
            return b"\nml4t_healthy 1" in response.read()
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.loopback", description=__doc__)
    parser.add_argument("do", choices=["start", "stop"])
    {"start": start, "stop": stop}[parser.parse_args().do]()
