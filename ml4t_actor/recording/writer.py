"""Recording: the event thread queues what it handles, and another thread writes it."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import BinaryIO

from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.nautilus.model import Bar, InstrumentId, TradeTick
from ml4t_actor.recording.frames import (
    MAGIC,
    PRELUDE,
    SCHEMA,
    AnswerFrame,
    BarFrame,
    EndFrame,
    Frame,
    IncompleteFrame,
    ModelFrame,
    RecordingError,
    RecordingHeader,
    SignalFrame,
    StateFrame,
    TradeFrame,
    framed,
    packed,
    standard_name,
)

BUFFER_FRAMES = 100_000
FLUSH_S = 0.1
CLOSE_TIMEOUT_S = 5.0
BATCH_FRAMES = 16  # encoded at once: while the writer does, the event thread may have to wait for it

type _Item = tuple[Callable[..., Frame], tuple[object, ...]]  # what makes a frame, and of what


class RecordingWriter:
    """Record one life of an actor.

    The calls that record cost about half a microsecond, touch no file and never raise: a thread of its own writes. What
    it has written survives the process; a power failure may cost the last seconds. While the file cannot be written,
    frames wait. When too many wait, the recording ends there, with a mark that says so, rather than have a gap.

    Calls belong on one thread.

    Parameters
    ----------
    folder : str or Path
        Where the file is made, as ``<trader>.<actor>-<start, ns>.tape``.
    header : RecordingHeader
        What the session runs with.
    buffer_frames : int, default 100_000
        How many may wait.
    flush_s : float, default 0.1
        Seconds between two writes.

    Attributes
    ----------
    path : Path
        The file.
    counts : Counter
        ``frames`` and ``bytes`` written, ``missed`` frames of a recording that has ended, ``write_errors``.
    incomplete : str
        Why the recording has ended before the session, "" as long as it has not.
    last_error : str
        The last failure to write, "" if there was none.

    Raises
    ------
    RecordingError
        If the file cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        header: RecordingHeader,
        *,
        buffer_frames: int = BUFFER_FRAMES,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.path = Path(folder) / f"{header.trader_id}.{header.actor_id}-{header.started_ns}.tape"
        self.counts: Counter[str] = Counter()
        self.incomplete = ""
        self.last_error = ""
        self._bar_types = {name: i for i, name in enumerate(header.stamped_at)}
        self._instruments = {name: i for i, name in enumerate(header.instrument_names)}
        self._waiting: deque[_Item] = deque()
        self._buffer_frames = buffer_frames
        self._flush_s = flush_s
        self._unwritten = bytearray()
        self._n_unwritten = 0
        self._marked = False  # as ended, one way or the other
        self._closing = threading.Event()
        beginning = PRELUDE.pack(MAGIC, SCHEMA) + framed(header)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(self.path, "xb", buffering=0)  # noqa: SIM115  # the writer closes it
        except OSError as e:
            raise RecordingError(
                f"the recording {str(self.path)!r} cannot be made: {e}; correct `tape_path`"
            ) from None
        self._size = 0  # of whole frames
        self._write(beginning)
        self._thread = threading.Thread(target=self._run, name=f"recording of {header.actor_id}", daemon=True)
        self._thread.start()

    def bar(self, bar: Bar, ts_close: int, now: int, historical: bool = False) -> None:
        """Record a bar that was handled at `now` and closed at `ts_close`, UNIX nanoseconds.

        A `historical` one stood for the trades of its time.
        """
        self._put(self._bar, bar, ts_close, now, historical)

    def trade(self, tick: TradeTick, ts: int, now: int) -> None:
        """Record a trade that was handled at `now` as of `ts`, UNIX nanoseconds."""
        self._put(self._trade, tick, ts, now)

    def signal(self, signal: SignalData, now: int) -> None:
        """Record a signal that is answered at `now`, UNIX nanoseconds: the very time that the answer is given."""
        self._put(_signal, signal, now)

    def answer(self, enriched: EnrichedSignal) -> None:
        """Record an answer that is published."""
        self._put(_answer, enriched)

    def state(self, instrument_id: InstrumentId | str, raw: bytes) -> None:
        """Record a state that an instrument was restored from, after the model that served then."""
        self._put(_state, instrument_id, raw)

    def model(self, version: str, now: int) -> None:
        """Record that another model serves, "" for none, from the next signal on."""
        self._put(ModelFrame, version, now)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Write what waits and the mark of the end; return whether all of the session is in the recording."""
        self._closing.set()
        self._thread.join(timeout_s)
        return not (self._thread.is_alive() or self.incomplete or self._unwritten or self._waiting)

    def _put(self, make: Callable[..., Frame], *values: object) -> None:
        if self.incomplete or self._closing.is_set():
            self.counts["missed"] += 1
            return
        self._waiting.append((make, values))
        if len(self._waiting) > self._buffer_frames:
            self.incomplete = f"more than {self._buffer_frames:,} frames waited to be written" + (
                f" ({self.last_error})" if self.last_error else ""
            )

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._closing.wait(self._flush_s)
            while self._waiting and self._write(self._next_frames()):
                sleep(0)  # lets the event thread have its turn
            if self._write(b"") and not self._waiting and not self._marked and (self.incomplete or stopping):
                self._marked = True
                mark = (
                    IncompleteFrame(self.incomplete) if self.incomplete else EndFrame(self.counts["frames"])
                )
                self._write(framed(mark))
        self._file.close()

    def _next_frames(self) -> bytes:
        """Return the next frames as bytes."""
        if self._unwritten:
            return b""
        encoded = bytearray()
        n = 0
        try:
            while self._waiting and n < BATCH_FRAMES:
                make, values = self._waiting[0]
                encoded += framed(make(*values))
                self._waiting.popleft()
                n += 1
        except Exception as e:  # whatever it is, the session must go on
            self.incomplete = f"a frame could not be encoded: {e!r}"
            self.counts["missed"] += len(self._waiting)
            self._waiting.clear()
        self._n_unwritten = n
        return bytes(encoded)

    def _write(self, encoded: bytes) -> bool:
        """Write whole frames, those first that could not be written before; return whether the file has them."""
        self._unwritten += encoded
        try:
            written = 0
            while written < len(self._unwritten):
                written += self._file.write(self._unwritten[written:])
        except OSError as e:
            self.last_error = f"{type(e).__name__}: {e}"
            self.counts["write_errors"] += 1
            self._truncate()
            return False
        self._size += written
        self.counts["bytes"] = self._size
        self.counts["frames"] += self._n_unwritten
        self._unwritten.clear()
        self._n_unwritten = 0
        return True

    def _truncate(self) -> None:
        """Leave whole frames only, after which those that wait can follow."""
        try:
            os.ftruncate(self._file.fileno(), self._size)
            self._file.seek(self._size)
        except OSError as e:
            self.last_error = f"{type(e).__name__}: {e}"

    def _bar(self, bar: Bar, ts_close: int, now: int, historical: bool) -> BarFrame:
        name = standard_name(bar.bar_type)
        price_precision, size_precision = bar.close.precision, bar.volume.precision
        bought = getattr(bar, "taker_buy_base_volume", None)
        return BarFrame(
            self._bar_types.get(name, name),
            bar.ts_event,
            ts_close,
            now,
            packed(bar.open.raw, price_precision),
            packed(bar.high.raw, price_precision),
            packed(bar.low.raw, price_precision),
            packed(bar.close.raw, price_precision),
            packed(bar.volume.raw, size_precision),
            price_precision,
            size_precision,
            historical,
            None if bought is None else str(bought),
        )

    def _trade(self, tick: TradeTick, ts: int, now: int) -> TradeFrame:
        name = tick.instrument_id.value
        price, size = tick.price, tick.size
        return TradeFrame(
            self._instruments.get(name, name),
            tick.ts_event,
            ts,
            now,
            packed(price.raw, price.precision),
            packed(size.raw, size.precision),
            price.precision,
            size.precision,
            int(tick.aggressor_side),
            tick.trade_id.value,
        )


def _signal(signal: SignalData, now: int) -> SignalFrame:
    return SignalFrame(
        signal.instrument_id.value,
        signal.signal,
        signal.strength,
        signal.source,
        signal.signal_id,
        signal.ts_event,
        signal.ts_init,
        now,
    )


def _answer(enriched: EnrichedSignal) -> AnswerFrame:
    values = enriched.to_dict()
    del values["type"]
    return AnswerFrame(**values)


def _state(instrument_id: InstrumentId | str, raw: bytes) -> StateFrame:
    return StateFrame(str(instrument_id), raw)
