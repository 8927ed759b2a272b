"""What learning costs the event thread: per signal and bar, and while a model is retrained.

Another process writes a signal to a socket each 2 ms, as a feed would, with the time at which it does. An asyncio loop
reads it, enriches it and records it in a ledger. Phases alternate: nothing else happens; a child process retrains
(`RetrainWorker`); and, as baseline, a thread of the same process does the very same job.

    python -m benchmarks.retraining
"""

import asyncio
import logging
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backtests.market import Market, load_markets
from benchmarks.enrichment import report
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger, training_rows
from ml4t_actor.lifecycle import ChampionLifecycle, LifecycleLoop
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.orchestrator import DirectHost
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import LedgerSettings, RetrainSettings
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.training.retraining import RetrainResult, RetrainSpec, fresh_since_ns, retrain
from ml4t_actor.training.worker import RetrainWorker

N_TRAIN, N_ROWS, N_ROWS_QUICK = 20_000, 40_000, 8_000
PACE_S = 0.002
SIGNALS_PER_BAR = 10
ROUNDS = 4
IDLE_S = 5.0
PHASES = ("idle", "child process at nice 19", "thread of the same process")
_FEED = """
import socket, struct, sys, time
out = socket.socket(fileno=int(sys.argv[1]))
due = time.monotonic()
while True:
    due += float(sys.argv[2])
    time.sleep(max(0.0, due - time.monotonic()))
    out.sendall(struct.pack("q", time.monotonic_ns()))
"""


class Live:
    """Both loops on one market, as the actor has them, on a ledger in a file."""

    def __init__(self, market: Market, store: ModelStore, bundle: ModelBundle, path: Path) -> None:
        self.market, self.store, self.bundle, self.path = market, store, bundle, path
        self.instrument_id = market.instrument.id
        self.inference = InferenceLoop(bundle, feature_names=META_FEATURE_NAMES)
        self.inference.add_instrument(self.instrument_id, bundle.bar_interval_ns)
        self.inference.compile()
        self.ledger = Ledger(path, "benchmark", LedgerSettings())
        self.now_ns = int(market.bars.ts_event[0])
        self.n = 0
        host = DirectHost(live=True, clock=lambda: self.now_ns, log=logging.getLogger(__name__))
        champion = ChampionLifecycle(
            self.inference,
            self.ledger,
            store,
            None,
            settings=RetrainSettings(),
            training=bundle.settings,
            feature_names=META_FEATURE_NAMES,
            accuracy_drop_threshold=0.1,
            interval_bars=None,
            min_samples=1_000,
            retrain_delay_s=0.0,
            host=host,
        )
        self.lifecycle = LifecycleLoop(
            self.inference,
            self.ledger,
            champion,
            labels=bundle.settings.labels,
            host=host,
        )
        self.lifecycle.start()
        self._rng = np.random.default_rng(0)

    def bar(self, row: tuple[int, float, float, float, float, float, *tuple[float, ...]]) -> None:
        self.now_ns = int(row[0])
        self.inference.update_bar(self.instrument_id, *row)
        self.lifecycle.on_bar(self.instrument_id, self.now_ns, row[2], row[3], row[4])

    def signal(self, side: int = 0) -> SignalData:
        """Return a signal of this side, by default of any."""
        self.n += 1
        return SignalData(
            instrument_id=self.instrument_id,
            signal=side or (1 if self._rng.random() < 0.5 else -1),
            strength=1.0,
            source="benchmark",
            signal_id=f"{self.n}",
            ts_event=self.now_ns,
            ts_init=self.now_ns,
        )

    def answer(self, side: int = 0) -> EnrichedSignal:
        answer = self.inference.answer(self.signal(side), now_ns=self.now_ns)
        self.lifecycle.record(answer)
        return answer.enriched

    def spec(self) -> RetrainSpec:
        return RetrainSpec(
            actor=self.ledger.actor,
            training=self.bundle.settings,
            retrain=RetrainSettings(),
            feature_names=self.bundle.feature_names,
            interval_ns=self.bundle.bar_interval_ns,
            min_samples=1_000,
            now_ns=self.now_ns,
            trigger="manual",
        )


def cost_per_event(live: Live, n_rows: int) -> None:
    """Fill the ledger, a signal on each bar, and print what each step takes."""
    bars, enriching, recording = [], [], []
    for row in live.market.bars[: N_TRAIN + n_rows].tuples():
        started = time.perf_counter_ns()
        live.inference.update_bar(live.instrument_id, *row)
        bars.append(time.perf_counter_ns() - started)
        live.now_ns = int(row[0])
        live.lifecycle.on_bar(live.instrument_id, live.now_ns, row[2], row[3], row[4])
        if len(bars) <= N_TRAIN:  # what the model was trained on
            continue
        answer = live.inference.answer(live.signal(), now_ns=live.now_ns)
        started = time.perf_counter_ns()
        live.lifecycle.record(answer)
        recording.append(time.perf_counter_ns() - started)
        if answer.enriched.is_ok:
            enriching.append(answer.enriched.latency_ns)
    report("enrich one signal", enriching)
    report("record it and a snapshot, open its barrier", recording)
    report("step all features by one bar", bars)
    live.ledger.flush()
    with tempfile.TemporaryDirectory() as name:
        for n_open in (0, 100):
            path = Path(name) / f"{n_open}.sqlite"
            flat = Live(live.market, live.store, live.bundle, path)
            report(f"look for outcomes at a bar, {n_open} barriers", _flat_bars(flat, n_open))
            flat.lifecycle.stop()


def _flat_bars(live: Live, n_open: int) -> list[int]:
    """Return what each bar took of those that resolve nothing."""
    for row in live.market.bars[:1_000].tuples():
        live.bar(row)
    close = float(live.market.bars.close[999])
    step_ns, horizon = live.bundle.bar_interval_ns, live.bundle.settings.labels.horizon_bars
    taken: list[int] = []
    for _ in range(10):
        for _ in range(n_open):
            live.answer(side=1)  # one of the other side would end those before it
        for _ in range(horizon - 1):
            live.now_ns += step_ns
            live.inference.update_bar(live.instrument_id, live.now_ns, close, close, close, close, 1.0)
            started = time.perf_counter_ns()
            live.lifecycle.on_bar(live.instrument_id, live.now_ns, close, close, close)
            taken.append(time.perf_counter_ns() - started)
        if live.lifecycle.open_signals != n_open:
            raise RuntimeError(f"{live.lifecycle.open_signals} barriers are open, not {n_open}")
        live.bar((live.now_ns + step_ns, close, close, close, close, 1.0))
    return taken


class Phase:
    """Figures of one kind of phase: nanoseconds from sent to read, of the enrichment, and from sent to answered."""

    def __init__(self) -> None:
        self.wake_ns: list[int] = []
        self.latency_ns: list[int] = []
        self.answered_ns: list[int] = []


async def alternate(
    live: Live, n_rows: int, rounds: int
) -> tuple[dict[str, list[Phase]], dict[str, list[float]]]:
    loop = asyncio.get_running_loop()
    phases: dict[str, list[Phase]] = {name: [] for name in PHASES}
    seconds: dict[str, list[float]] = {name: [] for name in PHASES}
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    rows = iter(live.market.bars[N_TRAIN + n_rows :].tuples())
    current: list[Phase] = []

    def read() -> None:
        raw = mine.recv(8 * 1_024)
        read_ns = time.monotonic_ns()
        for (sent_ns,) in struct.iter_unpack("q", raw):
            if live.n % SIGNALS_PER_BAR == 0:
                live.bar(next(rows))
            enriched = live.answer()
            if current:
                phase = current[0]
                phase.wake_ns.append(read_ns - sent_ns)
                phase.latency_ns.append(enriched.latency_ns)
                phase.answered_ns.append(time.monotonic_ns() - sent_ns)

    loop.add_reader(mine, read)
    feed = subprocess.Popen(
        [sys.executable, "-c", _FEED, str(theirs.fileno()), str(PACE_S)], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    try:
        await asyncio.sleep(1.0)
        for _ in range(rounds):
            for name, background in zip(PHASES, (_nothing, _in_child, _in_thread), strict=True):
                current[:] = [Phase()]
                phases[name] += current
                started = time.monotonic()
                await background(live)
                seconds[name].append(time.monotonic() - started)
                current.clear()
                await asyncio.sleep(0.3)
    finally:
        loop.remove_reader(mine)
        feed.kill()
        feed.wait()
        mine.close()
    return phases, seconds


async def _nothing(_live: Live) -> None:
    await asyncio.sleep(IDLE_S)


async def _in_child(live: Live) -> None:
    worker = RetrainWorker(live.ledger, live.path, live.store)
    await _until_done(lambda done: worker.start(live.spec(), live.bundle, done))
    await asyncio.to_thread(worker.cancel)


async def _in_thread(live: Live) -> None:
    def train(done: Callable[[RetrainResult], None]) -> None:
        history = live.store.load_history(live.bundle.version)
        rows = training_rows(
            live.path,
            live.ledger.actor,
            live.bundle.feature_names,
            since_ns=fresh_since_ns(live.bundle),
            until_ns=live.now_ns,
            max_rows=RetrainSettings().max_rows,
        )
        done(retrain(live.spec(), live.bundle, history, rows))

    await _until_done(lambda done: threading.Thread(target=train, args=(done,), daemon=True).start())


async def _until_done(start: Callable[[Callable[[RetrainResult], None]], None]) -> None:
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[RetrainResult] = loop.create_future()

    def done(result: RetrainResult) -> None:
        loop.call_soon_threadsafe(finished.set_result, result)

    start(done)
    result = await asyncio.wait_for(finished, timeout=60.0)
    if result.decision is None:
        raise RuntimeError(f"there was nothing to measure: {result.error}")


def compare(phases: dict[str, list[Phase]], seconds: dict[str, list[float]]) -> None:
    """Print medians over the rounds of each round's p50 and p99, since others may use the machine; and the worst."""
    for what, key in (
        ("event loop: from sent by the feed to read", "wake_ns"),
        ("enrichment alone", "latency_ns"),
        ("from sent by the feed to answered and recorded", "answered_ns"),
    ):
        print(what)
        idle = np.ones(3)
        for name, rounds in phases.items():
            each = np.array([np.percentile(getattr(phase, key), [50, 99, 100]) for phase in rounds])
            values = np.append(np.median(each[:, :2], axis=0), each[:, 2].max())
            if name == "idle":
                idle = values
            ratios = "" if name == "idle" else "   x " + " ".join(f"{r:6.2f}" for r in values / idle)
            p50, p99, worst = values / 1e3
            print(f"  {name:28} p50 {p50:8.0f}   p99 {p99:8.0f}   max {worst:8.0f} us{ratios}")
    taken = ", ".join(f"{name} {np.mean(seconds[name]):.1f} s" for name in PHASES[1:])
    print(
        f"a retraining took: {taken}; medians of {len(seconds[PHASES[0]])} rounds, a signal each {PACE_S * 1e3:g} ms"
    )


def main(*, quick: bool = False) -> None:
    n_rows, rounds = (N_ROWS_QUICK, 1) if quick else (N_ROWS, ROUNDS)
    market = load_markets("binance_1m")[0]
    print(market.label)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{os.cpu_count()} processors, load {load:.2f} before the start")
    with tempfile.TemporaryDirectory() as name:
        store = ModelStore(Path(name) / "models")
        bundle = (
            TrainingLoop(feature_names=META_FEATURE_NAMES, store=store).train(market.bars[:N_TRAIN]).bundle
        )
        live = Live(market, store, bundle, Path(name) / "ledger.sqlite")
        cost_per_event(live, n_rows)
        compare(*asyncio.run(alternate(live, n_rows, rounds)))
        live.lifecycle.stop()


if __name__ == "__main__":
    main()
