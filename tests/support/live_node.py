"""The node's own command between a real Redis and the stub of Hyperliquid, as a rig for tests.

The node is `python -m ml4t_actor.node` on a file of `configs/`, changed in nothing but addresses, folders, times, the
instruments, and an actor that writes down what becomes of orders. `Rig` starts, kills, stops and restarts it, and reads
what it leaves: the stream of enriched signals, the ledger, tapes, metrics and logs.
"""

import base64
import contextlib
import dataclasses
import functools
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from examples.venue import Venue
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.publisher import SignalPublisher
from ml4t_actor.recording import BarFrame, TradeFrame, read_recording
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import LabelSettings, ModelSettings, TrainingSettings, ValidationSettings
from ml4t_actor.streams.codec import decode
from ml4t_actor.training.loop import TrainingLoop
from tests.support.paths import ROOT
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import FAR_S, end_of, until

COINS = ("BTC", "ETH", "SOL")
MINUTE_NS = 60_000_000_000
SIGNALS, ENRICHED = "nautilus:signals", "nautilus:enriched_signals"
HORIZON_BARS = 30
CONFIDENCE = 0.85  # about what the model answers
FOREVER = 1e6  # bars

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def instrument(coin: str) -> str:
    return f"{coin}-USD-PERP.HYPERLIQUID"


def bar_type(coin: str) -> str:
    return f"{instrument(coin)}-1-MINUTE-LAST-EXTERNAL"


def labels(horizon_bars: int = HORIZON_BARS) -> dict[str, Any]:
    return {"horizon_bars": horizon_bars, "profit_barrier": 1.0, "stop_barrier": 1.0, "cost": 0.0}


@functools.cache
def models(horizon_bars: int = HORIZON_BARS) -> Path:
    """Return a folder with a model, trained on the stub's past."""
    folder = Path(_kept_folder().name) / f"models-{horizon_bars}"
    ModelStore(folder).save(trained(horizon_bars))
    return folder


@functools.cache
def trained(horizon_bars: int = HORIZON_BARS, confidence: float = CONFIDENCE) -> ModelBundle:
    """Return a model that trusts every signal about equally, since its labels are drawn.

    What is tried here is the path of a signal, and each is to be traded.
    """
    past = _past()
    rng = np.random.default_rng(4)
    signals, drawn = {}, {}
    for name, bars in past.items():
        at = np.arange(600, len(bars) - horizon_bars - 1, 3)
        side = rng.choice([-1, 1], len(at))
        signals[name] = Signals(bars.ts_event[at], side, rng.uniform(0.0, 1.0, len(at)))
        drawn[name] = (rng.random(len(at)) < confidence).astype(float)
    settings = TrainingSettings(
        labels=LabelSettings(**labels(horizon_bars)),
        model=ModelSettings(calibration="none"),
        validation=ValidationSettings(n_folds=2, embargo_bars=horizon_bars, bootstrap_samples=20),
    )
    bundle = TrainingLoop(settings).train(past, signals, drawn).bundle
    # Prices that are moved at will are like nothing in the past, and are to be traded all the same.
    wide = np.full(len(bundle.feature_names), 1e9)
    return dataclasses.replace(bundle, feature_low=-wide, feature_high=wide)


@functools.cache
def _kept_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory()  # goes with the process


@functools.cache
def _past() -> dict[str, Bars]:
    with Venue("--candle-ms", "60000") as venue:
        return {instrument(coin): _bars(candles(venue, coin)[:-1]) for coin in COINS}


def candles(venue: Venue, coin: str) -> list[dict[str, Any]]:
    """Return the stub's candles, as its history tells them."""
    query = {"coin": coin, "interval": "1m", "startTime": 0, "endTime": time.time_ns() // 1_000_000}
    found: list[dict[str, Any]] = venue.info(type="candleSnapshot", req=query)
    return found


def _bars(told: list[dict[str, Any]]) -> Bars:
    columns = (np.array([float(candle[name]) for candle in told]) for name in "ohlcv")
    closes = np.array([candle["t"] + 60_000 for candle in told]) * 1_000_000
    return Bars(closes, *columns, np.full(len(told), np.nan))


class Rig:
    """A Redis, a venue and a node; ends all it began.

    Parameters
    ----------
    folder : Path
        For all that is written.
    venue : Venue
        Running.
    coins : tuple of str
        Of the instruments.
    horizon_bars : int
        Of the labels.
    actor, strategy, node : dict
        Changes of the configuration of each.
    config : str
        Which of `configs/` it is.

    Attributes
    ----------
    process : subprocess.Popen
        Of the present node.
    secrets : list of str
        What must not be found in anything that it writes.
    """

    def __init__(
        self,
        folder: Path,
        venue: Venue,
        *,
        coins: tuple[str, ...] = COINS,
        horizon_bars: int = HORIZON_BARS,
        actor: dict[str, Any] | None = None,
        strategy: dict[str, Any] | None = None,
        node: dict[str, Any] | None = None,
        config: str = "hyperliquid_testnet.json",
    ) -> None:
        self.folder, self.venue, self.coins = folder, venue, coins
        self.horizon_bars = horizon_bars
        self.key = secrets.token_hex(32)
        self.password = secrets.token_hex(16)
        self.redis = RedisServer(folder / "redis", password=self.password)
        self.models = folder / "models"
        self.ledger = self.models / "ledger.sqlite"
        self.tapes_folder = folder / "tapes"
        self.metrics_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.lives = 0
        self.sent: list[str] = []
        self._cut: set[float] = set()
        self._changes = actor or {}, strategy or {}, node or {}
        self._config = config

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        copy_models(models(self.horizon_bars), self.models)
        self.redis.start()
        self.publisher = SignalPublisher(port=self.redis.port, password=self.password)
        self.write_config()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.lives:
            print(f"---- the node's last words\n{self.output()[-20_000:]}")
        self.kill()
        self.publisher.close()
        self.redis.kill()

    def write_config(self) -> None:
        actor, strategy, node = self._changes
        raw: dict[str, Any] = json.loads((ROOT / "configs" / self._config).read_text())
        ids = [instrument(coin) for coin in self.coins]
        raw["logging"]["log_directory"] = str(self.folder / "logs")
        raw |= {"timeout_connection": 20.0, "timeout_post_stop": 0.3, "timeout_shutdown": 1.0}
        at_venue = ["data_clients"]
        if raw.get("environment") != "sandbox":
            at_venue.append("exec_clients")
            raw["exec_engine"] |= {"reconciliation_instrument_ids": ids, "open_check_interval_secs": 2.0}
        for group in at_venue:
            raw[group]["HYPERLIQUID"]["config"] |= {
                "base_url_ws": self.venue.base_url_ws,
                "instrument_provider": {"load_ids": ids},
                "http_timeout_secs": 3,
            }
        types = [bar_type(coin) for coin in self.coins]
        raw["actors"][0]["config"] |= {
            "model_path": str(self.models),
            "tape_path": str(self.tapes_folder),
            "bar_types": types,
            "labels": labels(self.horizon_bars),
            "max_bar_age_bars": FOREVER,  # candles of the stub are faster than time, and begin in the past
            "feed": {"late_bars": FOREVER, "timeout_seconds": 2.0, "warmup_bars": 5_000},
            "inference_timeout_ms": 60_000,  # a busy machine makes no signal late
            "redis": {
                "port": self.redis.port,
                "timeout_seconds": 2.0,
                "retry_max_seconds": 0.5,
            },
            "ledger": {"flush_ms": 50},
            "retraining": {"check_seconds": 3_600.0},  # lest signals of the past be given up
            "health": {"publish_seconds": 0.2, "metrics_port": self.metrics_port},
            **actor,
        }
        raw["strategies"][0]["config"] |= {
            "bar_types": types,
            "labels": labels(self.horizon_bars),
            "journal_path": str(self.models / "orders.sqlite"),
            "cooldown_bars": 0,  # a bar is a minute by the clock
            **strategy,
        }
        raw["actors"].append(
            {
                "actor_path": "tests.support.order_events:OrderEvents",
                "config_path": "tests.support.order_events:OrderEventsConfig",
                "config": {"path": str(self.folder / "order_events")},
            }
        )
        raw |= node
        (self.folder / "node.json").write_text(json.dumps(raw, indent=1))

    # The process

    def start(self, *, prefix: tuple[str, ...] = ()) -> Self:
        """Start the node; what it says goes to a file of its own for each life."""
        self.lives += 1
        with (self.folder / f"output-{self.lives}").open("wb") as out:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "ml4t_actor.node", str(self.folder / "node.json")],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return self

    def check(self) -> str:
        """Return what `--check` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "ml4t_actor.node", str(self.folder / "node.json"), "--check"],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FAR_S,
            check=False,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        keys = {"HYPERLIQUID_TESTNET_PK": self.key, "ML4T_REDIS_PASSWORD": self.password}
        return os.environ | self.venue.env | keys

    def started(self) -> Self:
        """Start the node, and wait until it can enrich."""
        self.start()
        self.until(self.is_ready, "the node to be ready")
        return self

    def is_ready(self) -> bool:
        # The age is there when every instrument has a bar.
        told = self.metrics()
        return told.get("ml4t_healthy") == 1.0 and "ml4t_last_bar_age_seconds" in told

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End the node as `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            end_of(self.process)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ask the node to stop, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(by)
        return end_of(self.process)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition, as long as the node lives and writes anything."""

        def holds() -> Any:
            found = condition()
            assert found or self.is_alive, f"the node ended while waiting for {what}"
            return found

        return until(holds, what, self._bytes_written, pause_s=0.03)

    def _bytes_written(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / f"output-{self.lives}", *self.tapes()))

    # What it says

    def output(self) -> str:
        return (self.folder / f"output-{self.lives}").read_text(errors="replace")

    def errors(self) -> list[str]:
        """Return the kinds of failures in the actor that were counted."""
        return [name for name, n in self.metrics().items() if 'kind="error' in name and n]

    def metrics(self) -> dict[str, float]:
        """Return what the metrics endpoint tells, by name and labels."""
        try:
            with _open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as response:
                lines = response.read().decode().splitlines()
        except OSError:
            return {}
        rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def count(self, group: str, kind: str) -> float:
        """Return how often something happened, as the metrics tell."""
        return sum(
            value
            for name, value in self.metrics().items()
            if f'"{kind}"' in name and (not group or group in name)
        )

    def order_events(self, kind: str = "") -> list[dict[str, Any]]:
        """Return what became of orders in all lives, in order: events of a kind such as 'OrderFilled', or all."""
        path = self.folder / "order_events"
        events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [event for event in events if kind in ("", event["type"])]

    # Signals

    def send(
        self, coin: str, side: int, name: str | None = None, *, strength: float = 1.0, source: str = "outside"
    ) -> str:
        """Publish a signal and return its id."""
        name = name or f"s{len(self.sent)}"
        self.publisher.publish(instrument(coin), side, strength, source, name)
        self.sent.append(name)
        return name

    def answers(self) -> list[EnrichedSignal]:
        """Return what is in the stream of enriched signals."""
        with self.redis.client() as client:
            entries: Any = client.xrange(ENRICHED)
        return [EnrichedSignal.from_dict(decode(fields)) for _, fields in entries]

    def answer(self, name: str) -> EnrichedSignal:
        """Wait for the answer to a signal."""
        found: EnrichedSignal = self.until(
            lambda: next((a for a in self.answers() if a.signal_id == name), None),
            f"an answer to {name}",
        )
        return found

    def ask(self, coin: str, side: int, **kwargs: Any) -> EnrichedSignal:
        """Publish a signal and return its answer."""
        return self.answer(self.send(coin, side, **kwargs))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the ledger's rows of signals by id."""
        if not self.ledger.exists():
            return {}
        with contextlib.closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["signal_id"]: dict(row) for row in connection.execute("SELECT * FROM signals")}

    def tapes(self) -> list[Path]:
        return sorted(self.tapes_folder.glob("*.tape"), key=lambda path: path.stat().st_mtime_ns)

    def bars(self) -> dict[str, list[tuple[float, ...]]]:
        """Return the bars on all tapes: close time in ms, open, high, low, close and volume, by coin."""
        found: dict[str, list[tuple[float, ...]]] = {coin: [] for coin in self.coins}
        for tape in self.tapes():
            for frame in read_recording(tape)[1]:
                if isinstance(frame, BarFrame):
                    found[str(frame.bar_type).partition("-")[0]].append(_bar(frame))
        return found

    def trade_ids(self) -> Counter[tuple[str, str]]:
        """Return how often each trade of an instrument is on the tapes."""
        return Counter(
            (str(frame.instrument_id), frame.trade_id)
            for tape in self.tapes()
            for frame in read_recording(tape)[1]
            if isinstance(frame, TradeFrame)
        )

    # The venue

    def position(self, coin: str) -> float:
        return float(self.venue.state()["positions"].get(coin, 0.0))

    def orders(self, coin: str) -> list[dict[str, Any]]:
        return [order for order in self.venue.state()["orders"] if order["coin"] == coin]

    def fills(self, coin: str) -> list[dict[str, Any]]:
        return [fill for fill in self.venue.state()["fills"] if fill["coin"] == coin]

    def entries(self, coin: str) -> list[dict[str, Any]]:
        """Return the orders that were sent to open a position."""
        number = COINS.index(coin)
        return [
            order
            for post in self.venue.log("post")
            if post["action"]["type"] == "order"
            for order in post["action"]["orders"]
            if order["a"] == number and not order["r"]
        ]

    def exits(self, coin: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Return stop and target that rest at the venue for all of the position."""
        state = self.venue.state()
        held = float(state["positions"].get(coin, 0.0))
        orders = [
            order
            for order in state["orders"]
            if order["coin"] == coin
            and order["reduceOnly"]
            and float(order["sz"]) == abs(held)
            and (order["side"] == "A") == (held > 0)
        ]
        stop = next((o for o in orders if o["isTrigger"]), None)
        return stop, next((o for o in orders if not o["isTrigger"]), None)

    def is_protected(self, coin: str) -> bool:
        return None not in self.exits(coin)

    def is_flat(self, coin: str) -> bool:
        """Whether there is neither a position nor an order."""
        return self.position(coin) == 0.0 and not self.orders(coin)

    def open(self, coin: str, side: int, **kwargs: Any) -> EnrichedSignal:
        """Publish a signal; return its answer when the position is there, with stop and target.

        One that is refused since only the venue knows yet what the account is left with is followed by another.
        """
        answer = self.ask(coin, side, **kwargs)
        assert answer.status == "ok"

        def is_open() -> bool:
            nonlocal answer
            if self.position(coin) * side > 0 and self.is_protected(coin):
                return True
            refused = (
                f"{answer.signal_id} of {answer.source} for {answer.instrument_id}: refuse, unknown_equity"
            )
            if refused in self.output():
                answer = self.ask(coin, side, **kwargs)
            return False

        self.until(is_open, f"a position in {coin}")
        return answer

    def cut(self, what: str, **arguments: Any) -> None:
        """Do something to the venue by which candles in the making are cut off for the node.

        After an outage the adapter tells as closed what it knew of a candle before. By its age that is found out, on
        the clock's own minutes; candles that are faster than time have none.
        """
        # Not from the history, whose answers may be made to take longer than many candles.
        before = self.venue.state()["candles"]
        self.venue.control(what, **arguments)
        after = self.venue.state()["candles"]
        for coin in self.coins:
            self._cut |= {t + 60_000.0 for t in range(before[coin], after[coin] + 1, 60_000)}

    def reach(self, coin: str, barrier: str) -> None:
        """Move the price to the stop or the target, and a little beyond."""
        stop, target = self.exits(coin)
        assert stop is not None
        assert target is not None
        price = float(stop["triggerPx"] if barrier == "stop" else target["limitPx"])
        last = self.venue.state()["prices"][coin][2]
        beyond = 1.0003 if price > last else 0.9997
        self.venue.control("move", coin=coin, factor=beyond * price / last)

    # What must hold whatever has happened

    def check_answers(self) -> None:
        """Assert that each signal is answered once, in the stream as in the ledger, with the same values."""
        self.until(
            lambda: (
                {*self.sent} <= {a.signal_id for a in self.answers()} and {*self.sent} <= self.rows().keys()
            ),
            "all answers",
        )
        answers, rows = self.answers(), self.rows()
        assert Counter(a.signal_id for a in answers) == Counter(self.sent)
        assert rows.keys() == {*self.sent}
        for answer in answers:
            row = rows[answer.signal_id]
            assert answer.meta_confidence == row["confidence"]
            assert (answer.status, answer.ts_init, answer.signal) == (
                row["status"],
                row["ts_init"],
                row["side"],
            )
            assert (answer.toxicity, answer.volatility) == (row["toxicity"], row["volatility"])

    def check_bars(self) -> None:
        """Assert that each bar was taken once, in order, as the venue has it, and none left out.

        What `cut` has cut off may be as it was then.
        """
        for coin, bars in self.bars().items():
            told = told_bars(self.venue, coin)
            closes = [bar[0] for bar in bars]
            assert len(closes) > 0
            assert closes == [closes[0] + 60_000.0 * i for i in range(len(closes))]
            wrong = [
                (bar, told.get(bar[0]))
                for bar in bars
                if told.get(bar[0]) != bar and not (bar[0] in told and bar[0] in self._cut)
            ]
            assert not wrong, f"{coin}: {wrong}"

    def check_trades(self) -> None:
        """Assert that no trade was taken twice."""
        assert [name for name, n in self.trade_ids().items() if n > 1] == []

    def leaks(self) -> list[str]:
        """Return the files that hold a part of a secret, in any of the usual ways to write it."""
        needles = {part for secret in (self.key, self.password) for part in _written(secret)}
        found = []
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                lowered = content.lower()
                if any(part in content or part in lowered for part in needles):
                    found.append(str(path.relative_to(self.folder)))
        return found


def _written(secret: str) -> Iterator[bytes]:
    """Iterate over the parts of a secret of hexadecimal digits: 12 digits, 8 bytes, and base64 of some."""
    raw = bytes.fromhex(secret)
    for i in range(len(secret) - 11):
        yield secret[i : i + 12].encode()
    for i in range(len(raw) - 7):
        yield raw[i : i + 8]
    for text in (raw, secret.encode()):
        for start in range(3):
            encoded = base64.b64encode(text[start:])
            for i in range(0, len(encoded) - 15, 4):
                yield encoded[i : i + 16]


def _bar(frame: BarFrame) -> tuple[float, ...]:
    price, size = 10.0**frame.price_precision, 10.0**frame.size_precision
    values = [frame.open, frame.high, frame.low, frame.close]
    assert not isinstance(frame.volume, bytes)
    return (
        frame.ts_close / 1e6,
        *(round(v / price, frame.price_precision) for v in values),  # type: ignore[operator]
        round(frame.volume / size, frame.size_precision),
    )


def told_bars(venue: Venue, coin: str) -> dict[float, tuple[float, ...]]:
    """Return the venue's closed candles by their close in ms, as `Rig.bars` has them."""
    now_ms = time.time_ns() // 1_000_000
    return {
        candle["t"] + 60_000.0: (candle["t"] + 60_000.0, *(float(candle[name]) for name in "ohlcv"))
        for candle in candles(venue, coin)
        if candle["T"] < now_ms
    }


def copy_models(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


@contextlib.contextmanager
def rig(folder: Path, *venue: str, **kwargs: Any) -> Iterator[Rig]:
    """Run a venue with these arguments, a Redis, and a rig between them."""
    with Venue(*venue) as market, Rig(folder, market, **kwargs) as made:
        yield made
