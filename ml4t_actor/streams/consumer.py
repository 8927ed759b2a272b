"""`SignalConsumer`: signals from a Redis stream, each once and in order, from where the process before left off."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.codec import ENRICHED_TYPE, SIGNAL_TYPE, CodecError, Scalar, decode, node_of
from ml4t_actor.streams.reader import (
    BEGINNING,
    OWN_ENTRY_BYTES,
    PAGE_ENTRIES,
    Entry,
    StreamReader,
    StreamState,
    id_before,
    id_of_time,
    order,
    stream_state,
)
from ml4t_actor.streams.worker import StreamWorker, logger

_BLOCK_MS = 500
_STATE_SECONDS = 1.0
_KINDS = (
    *("received", "malformed", "oversized", "unknown_type", "error", "answered"),
    *("gap", "recreated", "connection_errors", "delivery_errors"),
)
_RECENT_ENTRIES = 4_096

type Values = dict[str, Scalar]
"""The fields of a message, as plain values."""


class Arrival[S](NamedTuple):
    """One entry of the stream.

    Attributes
    ----------
    entry_id : str
        Its id.
    signal : object, optional
        What `parse` made of it; None if there is a problem.
    problem : str
        "" or why there is no signal: "malformed", "oversized", "unknown_type", or "error" if `parse` itself failed.
    message : str
        The problem in words.
    answered : dict, optional
        The enriched signal that a process before has written in answer to it already.
    """

    entry_id: str
    signal: S | None
    problem: str
    message: str
    answered: Values | None


class Batch[S]:
    """Some arrivals in order; the next batch is not delivered before `done`.

    Attributes
    ----------
    arrivals : list of Arrival
        In the order of the stream; at least one.
    last_id : str
        The position after them. It may be below the one before: the stream may be another one.
    """

    def __init__(self, arrivals: list[Arrival[S]]) -> None:
        self.arrivals = arrivals
        self.last_id = arrivals[-1].entry_id
        self._done = threading.Event()

    @property
    def is_done(self) -> bool:
        """Whether the arrivals have been dealt with."""
        return self._done.is_set()

    def done(self) -> None:
        """Mark the arrivals, from any thread, as dealt with."""
        self._done.set()

    def wait(self) -> None:
        """Wait until the arrivals have been dealt with."""
        self._done.wait()


class SignalConsumer[S](StreamWorker):
    """Reads signals from a stream in a thread of its own and delivers them in batches, one at a time.

    Failures of Redis are tried again, see `StreamWorker`. What a message holds can only be refused.

    A stream whose ids end before the position is another one, or one that has lost its end. The first is read from
    its beginning; the second, known by an entry that was read before, from its end. A stream that begins after the
    position may have lost entries that were never read, which counts as a ``gap``.

    Parameters
    ----------
    settings : RedisSettings
        Where, and how much.
    stream : str
        Its key.
    parse : callable
        Makes a signal of a message's fields; ``ValueError`` if they are none.
    deliver : callable
        Called with a `Batch`, in the consumer's thread; one that raises is called again.
    position : str, optional
        Id of the last entry that has been dealt with.
    begin_ns : int
        Without a position: the time from which entries are read, UNIX nanoseconds.
    answered : (str, str or None), optional
        Where enriched signals are written, and the id of the last that is known to be recorded (None: from `begin_ns`).
        Those after it are read at the first connection, to be recognised as answered.
    recovered : callable, optional
        Called with them all, in order, in the consumer's thread and before any batch; perhaps none.
    node : str
        Whose enriched signals these are.
    batch_size : int, default 16
        Most arrivals of a batch.
    warn : callable, optional
        Given what an operator should know; by default it is logged.

    Attributes
    ----------
    connected, last_error
        See `StreamWorker`.
    counts : Counter
        ``received`` entries, each problem of theirs by its kind, ``answered`` ones, and ``gap``, ``recreated``,
        ``connection_errors``, ``delivery_errors``.
    """

    def __init__(
        self,
        settings: RedisSettings,
        stream: str,
        *,
        parse: Callable[[Values], S],
        deliver: Callable[[Batch[S]], None],
        position: str | None,
        begin_ns: int,
        answered: tuple[str, str | None] | None = None,
        recovered: Callable[[list[Values]], None] = lambda _answers: None,
        node: str = "",
        batch_size: int = 16,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__(
            settings,
            stream,
            role="consumer",
            task=f"reading {stream!r} from Redis",
            kinds=_KINDS,
            warn=warn,
        )
        self._settings = settings
        self._parse = parse
        self._deliver = deliver
        self._begin = id_before(id_of_time(begin_ns))
        self._cursor = position
        self._has_position = position is not None  # of the stream, rather than a time
        self._answered = answered
        self._recovered = recovered
        self._answers: dict[tuple[str, str], Values] = {}
        self._node = node
        self._batch_size = batch_size
        self._reader = StreamReader(self._link, stream, settings.max_message_bytes)
        self._block_ms = max(1, min(_BLOCK_MS, int(settings.timeout_seconds * 500)))
        self._recent: OrderedDict[str, int] = OrderedDict()  # hash of what was read, by id
        self._gap_after = ""
        self._compared_s = 0.0
        self._delivered: Batch[S] | None = None

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Deliver nothing more, and wait for the thread to end; return whether it has.

        It takes no longer than `timeout_s`, and milliseconds unless a connection is being made.
        """
        return self._end(timeout_s, grace_s=0.0)

    def _wake_up(self) -> None:
        if (batch := self._delivered) is not None:
            batch.done()

    def _open(self) -> None:
        self._link.open()
        self._read_answers()
        self._compare_position()

    def _step(self) -> None:
        if monotonic() - self._compared_s >= _STATE_SECONDS:
            self._compare_position()
        assert self._cursor is not None
        entries = self._reader.read(self._cursor, self._batch_size, self._block_ms)
        if self._stopping.is_set():
            return
        self._on_success()
        if not entries:
            return
        batch = Batch([self._arrival(entry) for entry in entries])
        self._cursor, self._has_position = batch.last_id, True
        self._deliver_next(batch)

    def _deliver_next(self, batch: Batch[S]) -> None:
        if self._delivered is not None:
            self._delivered.wait()
        self._delivered = batch
        while not self._stopping.is_set() and not batch.is_done:
            try:
                self._deliver(batch)
            except Exception as e:
                self._on_failure(e, "delivery_errors")
            else:
                self._backoff.reset()
                return

    def _arrival(self, entry: Entry) -> Arrival[S]:
        entry_id, fields = entry
        self.counts["received"] += 1
        signal, problem, message, answered = None, "", "", None
        limit = self._settings.max_message_bytes
        if fields is None:
            problem, message = "oversized", f"the entry is larger than {limit} bytes"
        else:
            self._recent[entry_id] = hash(tuple(fields))
            if len(self._recent) > _RECENT_ENTRIES:
                self._recent.popitem(last=False)
            try:
                values = decode(fields, wanted=SIGNAL_TYPE, max_bytes=limit)
                signal = self._parse(values)
            except CodecError as e:
                problem, message = e.kind, str(e)
            except ValueError as e:
                problem, message = "malformed", str(e)
            except Exception as e:
                problem, message = "error", f"{type(e).__name__}: {e}"
            else:
                answered = self._answers.pop((str(values.get("source")), str(values.get("signal_id"))), None)
        if problem:
            self.counts[problem] += 1
        if answered is not None:
            self.counts["answered"] += 1
        return Arrival(entry_id, signal, problem, message, answered)

    def _compare_position(self) -> None:
        """Compare the position with where the stream begins and ends."""
        self._compared_s = monotonic()
        state = stream_state(self._link, self._stream)
        if self._cursor is None:
            # By the server's clock, which may be behind ours: what is written from now on is wanted in any case.
            self._cursor = BEGINNING if state is None else min(self._begin, state.last, key=order)
        at = order(self._cursor)
        if at == order(BEGINNING):
            return
        if not self._has_position:
            if state is None:
                self._cursor = BEGINNING
            return
        if state is None or order(state.last) < at:
            self._on_recreated(state)
            return
        last = order(state.last)
        lost = last > at and (state.first is None or order(state.first) > at)
        if lost and self._gap_after != self._cursor:
            self._gap_after = self._cursor
            self.counts["gap"] += 1
            self._report(
                f"the stream {self._stream!r} has been cut beyond entry {self._cursor}, the last that was read: "
                f"signals may be lost; let it hold more entries"
            )

    def _on_recreated(self, state: StreamState | None) -> None:
        """Go on in a stream whose ids end before the position."""
        if state is not None and self._was_read(state.last):
            self._cursor = state.last
            how = "has lost its end; going on from what it has"
        else:
            self._cursor = BEGINNING
            how = "is another one than before; reading it from its beginning"
        self.counts["recreated"] += 1
        self._report(f"the stream {self._stream!r} {how}")

    def _was_read(self, entry_id: str) -> bool:
        """Return whether the entry under an id is one that this process has read."""
        known = self._recent.get(entry_id)
        if known is None:
            return False
        entries = self._reader.read(id_before(entry_id), 1)
        return bool(entries) and entries[0].fields is not None and hash(tuple(entries[0].fields)) == known

    def _read_answers(self) -> None:
        if self._answered is None:
            return
        stream, after = self._answered
        state = stream_state(self._link, stream)
        if state is not None:
            if after is None:
                after = self._begin
            if order(state.last) < order(after):
                after = BEGINNING
            reader = StreamReader(self._link, stream, OWN_ENTRY_BYTES)
            for entry in reader.pages(after, state.last, PAGE_ENTRIES):
                if self._stopping.is_set():
                    return
                self._collect_answer(entry)
        self._recovered(list(self._answers.values()))
        self._answered = None

    def _collect_answer(self, entry: Entry) -> None:
        if entry.fields is None or node_of(entry.fields) != self._node:
            return
        try:
            values = decode(entry.fields, wanted=ENRICHED_TYPE)
        except CodecError:
            return  # not ours to report
        key = str(values.get("source")), str(values.get("signal_id"))
        if len(self._answers) < self._settings.outbox:  # more cannot have been waiting
            self._answers[key] = values
