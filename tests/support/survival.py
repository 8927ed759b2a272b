"""The process that is killed: a real live node around the actor, fed one fixed sequence of bars and signals.

``python -m tests.support.survival MODELS`` imports and compiles everything once, and then forks a process for each
life that it is asked for on standard input, so that a restart takes a tenth of a second.
"""

import asyncio
import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import Bar, BarType, CustomData, DataType

from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import SignalData
from tests.support.fork_server import ForkServer, Life, serve
from tests.support.nodes import list_instruments, node_config
from tests.support.processes import is_alive
from tests.support.waiting import until

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


class Survivor(Life, frozen=True, kw_only=True):
    """What one process is to do, beside what each of them does.

    Attributes
    ----------
    feed : str
        File of the `Feed`.
    progress : str
        File of int64: the phase, and when each event was handled (monotonic clock).
    until : int, optional
        Stop the node after so many events of the sequence; by default after the last.
    stay : bool
        When all is sent, wait to be killed.
    retrain : bool
        When all is sent, ask for a retraining.
    """

    feed: str
    progress: str
    until: int | None = None
    stay: bool = False
    retrain: bool = False


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


def live(life: Survivor, events: Sequence[Event]) -> None:
    """Run a node until its end, or until somebody kills it."""
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
            await asyncio.Event().wait()
        progress[0] = STOPPING
        await node.stop_async()
        progress[0] = STOPPED
        running.cancel()

    loop.run_until_complete(run())


@functools.cache
def _events_in(feed: str) -> list[Event]:
    events = events_of(msgspec.msgpack.decode(Path(feed).read_bytes(), type=Feed))
    gc.freeze()
    return events


def _prepared(life: Survivor) -> Callable[[], None]:
    return functools.partial(live, life, _events_in(life.feed))


class Lives(ForkServer):
    """Starts processes and ends them, from within a test."""

    def __init__(self, models: Path) -> None:
        super().__init__("tests.support.survival", models)
        self._progress = np.zeros(1, dtype=np.int64)

    def begin_with(self, life: Survivor, n_events: int) -> int:
        """Start a life and return its process id."""
        np.zeros(1 + n_events, dtype=np.int64).tofile(life.progress)
        self._progress = np.memmap(life.progress, dtype=np.int64, mode="r")
        return self.begin(life)

    @property
    def phase(self) -> int:
        """The phase that the life has come to."""
        return int(self._progress[0])

    @property
    def handled_ns(self) -> np.ndarray:
        """When each event was handled by this life, on the monotonic clock; 0 if it was not."""
        return np.array(self._progress[1:])

    def until(self, what: Callable[[], bool]) -> bool:
        """Wait until something is so, as long as events are handled; return False if the life ended before."""

        def holds() -> bool:
            return what() or not is_alive(self.pid)

        until(holds, "the life's next phase", lambda: np.count_nonzero(self._progress), pause_s=0.0005)
        return what()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Survivor, _prepared)
