"""The process that is killed: a real live node around the actor, fed one fixed sequence of bars and signals.

``python -m tests.support.survival MODELS`` imports and compiles everything once, and then forks a process for each
life that it is asked for on standard input, so that a restart takes a tenth of a second.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from nautilus_trader.model.data import Bar, BarType, CustomData, DataType

from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import SignalData
from tests.support.paths import ROOT

# Phases of a life, in the order in which it goes through them.
STARTING, RUNNING, IDLE, STOPPING, STOPPED = range(5)
RESENT_EVENTS = 30
BATCH_EVENTS = 8


class Stream(msgspec.Struct, frozen=True):
    """Bars of one instrument, as columns that need no data folder to make bars of."""

    bar_type: str
    price_precision: int
    size_precision: int
    ts: list[int]
    columns: list[list[float]]  # open, high, low, close, volume


class Feed(msgspec.Struct, frozen=True):
    """What happens: bars, and for each its signals as (signal, strength, source)."""

    streams: list[Stream]
    signals: list[list[list[tuple[int, float, str]]]]  # by stream, by bar
    prefix: str = ""  # of the signals' ids


class Event(NamedTuple):
    """One thing that the source sends."""

    stream: int
    ts: int
    data: Bar | CustomData


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to do.

    Attributes
    ----------
    config : str
        The actor's configuration, as JSON.
    feed : str
        File of the `Feed`.
    progress : str
        File of int64: the phase, and when each event was handled (monotonic clock).
    log : str
        File that the node's log is added to.
    until : int, optional
        Stop the node after so many events of the sequence; by default after the last.
    stay : bool
        When all is sent, wait to be killed.
    retrain : bool
        When all is sent, ask for a retraining.
    scratch : str
        Folder of temporary files.
    """

    config: str
    feed: str
    progress: str
    log: str
    until: int | None = None
    stay: bool = False
    retrain: bool = False
    scratch: str = ""


def events_of(sequence: Feed) -> list[Event]:
    """Return the sequence in order of time: each bar, then the signals that come out of it."""
    bars = []
    for stream in sequence.streams:
        bar_type = BarType.from_str(stream.bar_type)
        columns = [np.array(column) for column in stream.columns]
        ts = np.array(stream.ts, dtype=np.uint64)
        precision = stream.price_precision, stream.size_precision
        bars.append(Bar.from_raw_arrays_to_list(bar_type, *precision, *columns, ts, ts))
    events = []
    order = sorted((bar.ts_event, i, n) for i, made in enumerate(bars) for n, bar in enumerate(made))
    for ts, i, n in order:
        bar = bars[i][n]
        events.append(Event(i, ts, bar))
        for k, (side, strength, source) in enumerate(sequence.signals[i][n]):
            data = SignalData(
                instrument_id=bar.bar_type.instrument_id,
                signal=side,
                strength=strength,
                source=source,
                signal_id=f"{sequence.prefix}{i}-{n}-{k}",
                ts_event=ts,
                ts_init=ts,
            )
            events.append(Event(i, ts, CustomData(DataType(SignalData), data)))
    return events


def unknown_to(actor: ML4TActor, events: Sequence[Event]) -> Iterator[tuple[int, Event]]:
    """Yield what a source sends after a restart: the bars that the actor lacks, and signals from a little before."""
    last_ts = [actor.inference.features(bar_type.instrument_id).last_ts for bar_type in actor._bar_types]
    new = (i for i, e in enumerate(events) if isinstance(e.data, Bar) and e.ts > last_ts[e.stream])
    first = next(new, len(events))
    for i in range(max(0, first - RESENT_EVENTS), len(events)):
        event = events[i]
        if not isinstance(event.data, Bar) or event.ts > last_ts[event.stream]:
            yield i, event


def live(life: Life, events: Sequence[Event]) -> None:
    """Run a node until its end, or until somebody kills it."""
    from nautilus_trader.live.node import TradingNode

    from tests.support.nodes import list_instruments, node_config

    progress = np.memmap(life.progress, dtype=np.int64, mode="r+")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    node = TradingNode(node_config("SURVIVAL-001", "WARNING"), loop=loop)
    config = ML4TActorConfig.parse(life.config)
    list_instruments(node, config)
    actor = ML4TActor(config)
    node.trader.add_actor(actor)
    node.build()

    async def handled() -> None:
        await asyncio.sleep(0)  # in which the loop takes what was sent into the queue
        while node.kernel.data_engine.data_qsize():
            await asyncio.sleep(0)

    async def run() -> None:
        running = asyncio.create_task(node.run_async())
        while not actor.is_running:
            await asyncio.sleep(0)
        progress[0] = RUNNING
        waiting: list[int] = []
        for i, event in unknown_to(actor, events):
            if life.until is not None and i >= life.until:
                break
            node.kernel.data_engine.process(event.data)
            waiting.append(i)
            if len(waiting) == BATCH_EVENTS:
                await handled()
                progress[1 + np.array(waiting)] = time.monotonic_ns()
                waiting.clear()
        await handled()
        progress[0] = IDLE
        if life.retrain:
            actor.request_retrain("to be killed in it")
        if life.stay:
            await asyncio.sleep(600.0)
        progress[0] = STOPPING
        await node.stop_async()
        progress[0] = STOPPED
        running.cancel()

    loop.run_until_complete(run())


def serve(models: Path) -> None:
    """Fork a life for each line of standard input, and answer with its process id, or how it ended."""
    from nautilus_trader.live.node import TradingNode  # noqa: F401  the dearest import of them all

    from ml4t_actor.labeling.outcome_tracker import OutcomeTracker
    from ml4t_actor.registry import ModelStore
    from ml4t_actor.settings import LabelSettings

    # Nautilus's allocator has a thread of its own, which it stops and restarts around a fork.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*use of fork")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    feeds: dict[str, list[Event]] = {}
    _compile(ModelStore(models).load_latest())
    OutcomeTracker(LabelSettings(), 1)
    answers.write('"ready"\n')
    for line in sys.stdin:
        request = json.loads(line)
        if "life" in request:
            life = msgspec.convert(request["life"], Life)
            if life.feed not in feeds:
                feeds[life.feed] = events_of(msgspec.msgpack.decode(Path(life.feed).read_bytes(), type=Feed))
                gc.freeze()
            pid = os.fork()
            if pid == 0:
                _become(life, feeds[life.feed])
            answers.write(f"{pid}\n")
        else:
            if request["kill"]:
                os.kill(request["pid"], signal.SIGKILL)
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(request['pid'], 0)[1])}\n")


def _compile(bundle: Any) -> None:
    from ml4t_actor.inference import InferenceLoop

    settings = bundle.settings
    loop = InferenceLoop(
        bundle,
        labels=settings.labels,
        vpin=settings.vpin,
        volatility_halflife_bars=settings.volatility_halflife_bars,
    )
    loop.compile()


def _become(life: Life, events: Sequence[Event]) -> None:
    """Live in a freshly forked process, which ends here whatever happens."""
    code = 1
    try:
        log = os.open(life.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for handle in (1, 2):
            os.dup2(log, handle)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if life.scratch:
            os.environ["TMPDIR"] = life.scratch
        live(life, events)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class Lives:
    """Starts processes and ends them, from within a test."""

    def __init__(self, models: Path) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.survival", str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            # Threads do not survive a fork.
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._pid = 0
        self._progress = np.zeros(1, dtype=np.int64)
        if self._answer() != "ready":
            raise RuntimeError("the server of lives did not start; its standard error says why")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            with contextlib.suppress(RuntimeError):
                self.kill()
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def begin(self, life: Life, n_events: int) -> int:
        """Start a life and return its process id."""
        np.zeros(1 + n_events, dtype=np.int64).tofile(life.progress)
        self._progress = np.memmap(life.progress, dtype=np.int64, mode="r")
        self._pid = self._ask({"life": msgspec.to_builtins(life)})
        return self._pid

    @property
    def phase(self) -> int:
        """The phase that the life has come to."""
        return int(self._progress[0])

    @property
    def handled_ns(self) -> np.ndarray:
        """When each event was handled by this life, on the monotonic clock; 0 if it was not."""
        return np.array(self._progress[1:])

    def wait_for(self, what: Callable[[], bool], timeout_s: float = 60.0) -> bool:
        """Wait until something is so; return False if the life ended before."""
        deadline = time.monotonic() + timeout_s
        while not what():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened within {timeout_s:g} s, in phase {self.phase}")
            if _state_of(self._pid) in (None, "Z"):
                return what()
            time.sleep(0.0005)
        return True

    def kill(self) -> int:
        """Send SIGKILL and return the exit code, which is that of the process if it had ended already."""
        pid, self._pid = self._pid, 0
        return int(self._ask({"pid": pid, "kill": True}))

    def end(self) -> int:
        """Wait for the life to end by itself and return its exit code."""
        pid, self._pid = self._pid, 0
        return int(self._ask({"pid": pid, "kill": False}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        return self._answer()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the server of lives has died; its standard error says why")
        return json.loads(line)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, by any of its threads (Linux)."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    """Return whether a process runs: one that has ended and waits to be collected does not (Linux)."""
    return _state_of(pid) not in (None, "Z", "X")


def _state_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
