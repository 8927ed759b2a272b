"""`EnrichedSignalProducer`: messages to a Redis stream, each once and in order, whenever Redis is there."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.codec import Encoding, Scalar, encode, identity, topic_of
from ml4t_actor.streams.connection import RedisRefusedError
from ml4t_actor.streams.reader import id_before, id_of_time
from ml4t_actor.streams.worker import StreamWorker, logger
from ml4t_actor.streams.writer import BATCH_ENTRIES, Outgoing, StreamWriter

_KINDS = ("written", "found", "dropped", "refused", "connection_errors")
_IDLE_SECONDS = 1.0  # after which the connection is checked


class _Item[M](NamedTuple):
    message: M
    outgoing: Outgoing


def _topic(values: Mapping[str, Scalar]) -> str:
    return topic_of(str(values["type"]), str(values.get("instrument_id", "")))


class EnrichedSignalProducer[M](StreamWorker):
    """Writes messages to a stream in a thread of its own.

    `put` is for an event thread. While Redis is away, full, or refuses, messages wait, at most `settings.outbox` of
    them beside a batch on its way; the oldest beyond that are dropped.

    What was on its way over a broken connection is looked for in the stream on the next one, and written if it is not
    there, so that each message is in the stream once and in order. What Redis itself loses after it has confirmed it,
    in a crash without ``appendfsync always``, is not written again.

    Parameters
    ----------
    settings : RedisSettings
        Where, and how much.
    stream : str
        Its key.
    encode : callable
        Gives a message's fields as plain values, with its class name under ``type``.
    node : str
        Who writes: marks its entries apart from those of other nodes. No two may write under one name at a time.
    topic : callable, optional
        Gives the topic of the message bus, of a message; by default that of NautilusTrader's custom data.
    pending : sequence
        Messages that a process before may or may not have written, in order.
    after : str, optional
        Id of the last entry that is known to be recorded: `pending` are looked for after it.
    begin_ns : int, default 0
        Without `after`: the time from which they are looked for, UNIX nanoseconds.
    acknowledged : callable, optional
        Called, in the producer's thread and once per batch, with the id of its last entry and the message: it and all
        before it are in the stream.
    encoding : {'msgpack', 'json'}, default 'msgpack'
        Of the payload.
    later : callable, optional
        Calls a function when the event thread has done what it does now, as an event loop's `call_soon`: the producer
        is woken then, so that it writes together what was put together and does not contend for the GIL meanwhile. By
        default it is woken by each `put`.
    warn : callable, optional
        Given what an operator should know; by default it is logged.

    Attributes
    ----------
    connected, last_error
        See `StreamWorker`.
    counts : Counter
        Messages ``written``, ``found`` written before, ``dropped`` and ``refused`` (of no use to `encode`); and
        ``connection_errors``.
    """

    def __init__(
        self,
        settings: RedisSettings,
        stream: str,
        *,
        encode: Callable[[M], Mapping[str, Scalar]],
        node: str = "",
        topic: Callable[[M], str] | None = None,
        pending: Sequence[M] = (),
        after: str | None = None,
        begin_ns: int = 0,
        acknowledged: Callable[[str, M], None] | None = None,
        encoding: Encoding = "msgpack",
        later: Callable[[Callable[[], None]], object] = lambda function: function(),
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        super().__init__(
            settings, stream, role="producer", task=f"writing {stream!r} to Redis", kinds=_KINDS, warn=warn
        )
        self._encode = encode
        self._node = node
        self._topic = topic
        self._acknowledged = acknowledged
        self._encoding: Encoding = encoding
        self._later = later
        self._wakes_later = False
        self._limit = settings.outbox
        self._waiting: deque[M] = deque()
        kept = list(pending)[-self._limit :]
        self.counts["dropped"] = len(pending) - len(kept)
        self._unconfirmed = self._items(kept)
        self._unverified = bool(self._unconfirmed)  # whether some of them may be in the stream
        if after is None and self._unverified:
            after = id_before(id_of_time(begin_ns))
        self._writer = StreamWriter(
            self._link,
            stream,
            length=settings.stream_length,
            node=node,
            writer=node or "outlet",  # names a key in Redis
            after=after,
        )
        # Free where there may be something to write; an Event takes twice as long to set.
        self._wake = threading.Lock()
        self._wake.acquire()

    @property
    def depth(self) -> int:
        """Messages that are not known to be written."""
        return len(self._waiting) + len(self._unconfirmed)

    def put(self, message: M) -> None:
        """Have a message written; never waits."""
        waiting = self._waiting
        if len(waiting) >= self._limit:
            try:
                waiting.popleft()
                self.counts["dropped"] += 1
            except IndexError:
                pass  # the thread has just removed them all
        waiting.append(message)
        if not self._wakes_later:
            self._wakes_later = True
            self._later(self._wake_up)

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Write what waits, if Redis accepts it within `timeout_s`, and end; return whether nothing is left."""
        self._end(timeout_s, grace_s=timeout_s)
        return self.depth == 0

    def _wake_up(self) -> None:
        self._wakes_later = False
        if self._wake.locked():
            with suppress(RuntimeError):  # another thread has just done so
                self._wake.release()

    def _is_over(self) -> bool:
        return self._stopping.is_set() and (not self.depth or monotonic() >= self._deadline_s)

    def _open(self) -> None:
        """Connect, and remove what got into the stream over the connection before."""
        sent = self._unconfirmed if self._unverified else []
        written = self._writer.open([item.outgoing for item in sent])
        self._unverified = False
        self._on_success()
        if written:
            self.counts["found"] += len(written)
            n = next((i for i in range(len(sent)) if i not in written), len(sent))
            self._unconfirmed = [item for i, item in enumerate(sent) if i not in written]
            if n:
                self._acknowledge(written[n - 1], sent[n - 1].message)

    def _step(self) -> None:
        if not self._unconfirmed and not self._next_batch():
            if not self._wake.acquire(timeout=_IDLE_SECONDS):
                self._link.ping()
                self._on_success()
            return
        batch = self._unconfirmed[:BATCH_ENTRIES]
        self._unverified = True
        try:
            ids = self._writer.append([item.outgoing for item in batch])
        except RedisRefusedError:
            self._unverified = False
            raise
        self._unverified = False
        self._unconfirmed = self._unconfirmed[len(batch) :]
        self.counts["written"] += len(batch)
        self._on_success()
        self._acknowledge(ids[-1], batch[-1].message)

    def _next_batch(self) -> bool:
        """Move the next messages from those that wait to those that are to be written; return whether there are any."""
        self._wake.acquire(blocking=False)  # first: what is put from now on frees it again
        messages: list[M] = []
        try:
            while len(messages) < BATCH_ENTRIES:
                messages.append(self._waiting.popleft())
        except IndexError:
            pass
        self._unconfirmed = self._items(messages)
        return bool(messages)

    def _items(self, messages: Sequence[M]) -> list[_Item[M]]:
        items = []
        for message in messages:
            try:
                values = self._encode(message)
                topic = _topic(values) if self._topic is None else self._topic(message)
                fields = encode(values, topic, encoding=self._encoding, node=self._node)
            except Exception as e:
                self.counts["refused"] += 1
                self._report(f"a message cannot be written to {self._stream!r}: {type(e).__name__}: {e}")
                continue
            items.append(_Item(message, Outgoing(identity(values), fields)))
        return items

    def _acknowledge(self, entry_id: str, message: M) -> None:
        if self._acknowledged is not None:
            try:
                self._acknowledged(entry_id, message)
            except Exception as e:
                self._report(f"entry {entry_id} of {self._stream!r} could not be recorded: {e!r}")
