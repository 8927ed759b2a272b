"""`EnrichedSignalProducer`: messages to a Redis stream, each once and in order, whenever Redis is there."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.codec import Encoding, encode, identity, topic_of
from ml4t_actor.streams.connection import Backoff, RedisLink, RedisRefusedError
from ml4t_actor.streams.reader import id_before, id_of_time
from ml4t_actor.streams.writer import BATCH_ENTRIES, Outgoing, StreamWriter

_COUNTS = ("written", "found", "dropped", "refused", "connection_errors")  # all, so that readers can iterate
_IDLE_SECONDS = 1.0  # after which Redis is asked for a sign of life

_log = logging.getLogger(__name__)


class _Item(NamedTuple):
    message: Any
    outgoing: Outgoing


def _topic(values: dict[str, Any]) -> str:
    return topic_of(str(values["type"]), str(values.get("instrument_id", "")))


class EnrichedSignalProducer:
    """Writes messages to a stream in a thread of its own.

    `put` is for an event thread. While Redis is away, full, or refuses, messages wait, at most `settings.outbox` of
    them beside a batch on its way; the oldest beyond that are dropped.

    What a broken connection has taken along is looked for in the stream on the next one, and written if it is not
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
        Told, in the outlet's thread and once per batch, the id of its last entry and the message: it and all before
        it are in the stream.
    encoding : {'msgpack', 'json'}, default 'msgpack'
        Of the payload.
    later : callable, optional
        Calls a function when the event thread has done what it does now, as an event loop's `call_soon`: the outlet is
        woken then, so that it takes what was put together and does not contend for the GIL meanwhile. By default it is
        woken by each `put`.
    warn : callable, optional
        Told what an operator should know; by default it is logged.

    Attributes
    ----------
    connected : bool
        Whether the last attempt to write, or to ask for a sign of life, succeeded.
    last_error : str
        Why it did not, "" if it did.
    counts : Counter
        Messages ``written``, ``found`` written before, ``dropped`` and ``refused`` (of no use to `encode`); and
        ``connection_errors``.
    """

    def __init__(
        self,
        settings: RedisSettings,
        stream: str,
        *,
        encode: Callable[[Any], dict[str, Any]],
        node: str = "",
        topic: Callable[[Any], str] | None = None,
        pending: Sequence[Any] = (),
        after: str | None = None,
        begin_ns: int = 0,
        acknowledged: Callable[[str, Any], None] | None = None,
        encoding: Encoding = "msgpack",
        later: Callable[[Callable[[], None]], object] = lambda function: function(),
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self.connected = False
        self.last_error = ""
        self.counts = Counter(dict.fromkeys(_COUNTS, 0))
        self._stream = stream
        self._encode = encode
        self._node = node
        self._topic = topic
        self._acknowledged = acknowledged
        self._encoding: Encoding = encoding
        self._later = later
        self._wakes_later = False
        self._warn = warn
        self._limit = settings.outbox
        self._waiting: deque[Any] = deque()
        kept = list(pending)[-self._limit :]
        self.counts["dropped"] = len(pending) - len(kept)
        self._sent = self._items(kept)
        self._in_doubt = bool(self._sent)
        if after is None and self._in_doubt:
            after = id_before(id_of_time(begin_ns))
        self._link = RedisLink(settings)
        self._writer = StreamWriter(
            self._link, stream, length=settings.stream_length, node=node, writer=node or "outlet", after=after
        )
        self._backoff = Backoff(settings.retry_max_seconds)
        self._wake = (
            threading.Lock()
        )  # free where there may be something to take; an Event takes twice as long to set
        self._wake.acquire()
        self._stopping = threading.Event()
        self._stop_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"outlet {stream}", daemon=True)

    @property
    def depth(self) -> int:
        """Messages that are not known to be written."""
        return len(self._waiting) + len(self._sent)

    def put(self, message: Any) -> None:
        """Have a message written; never waits."""
        waiting = self._waiting
        if len(waiting) >= self._limit:
            try:
                waiting.popleft()
                self.counts["dropped"] += 1
            except IndexError:
                pass  # the thread has just taken them all
        waiting.append(message)
        if not self._wakes_later:
            self._wakes_later = True
            self._later(self._wake_up)

    def start(self) -> None:
        """Begin to write, as soon as Redis is there."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Write what waits, if Redis takes it within `timeout_s`, and end; return whether nothing is left."""
        self._stop_at_s = monotonic() + timeout_s
        self._stopping.set()
        self._wake_up()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._link.interrupt()
        self.connected = False
        return self.depth == 0

    def _wake_up(self) -> None:
        self._wakes_later = False
        if self._wake.locked():
            with suppress(RuntimeError):  # another thread has just done so
                self._wake.release()

    def _run(self) -> None:
        while not self._is_over():
            is_last = self._stopping.is_set()
            try:
                self._settle()
                while not self._is_over():
                    self._step()
            except Exception as e:
                self._failed(e)
                if is_last:
                    break
        self._link.close()

    def _is_over(self) -> bool:
        return self._stopping.is_set() and (not self.depth or monotonic() >= self._stop_at_s)

    def _settle(self) -> None:
        """Connect, and forget what got into the stream over the connection before."""
        unsure = self._sent if self._in_doubt else []
        found = self._writer.open([item.outgoing for item in unsure])
        self._in_doubt = False
        self._succeeded()
        if found:
            self.counts["found"] += len(found)
            n = next((i for i in range(len(unsure)) if i not in found), len(unsure))
            self._sent = [item for i, item in enumerate(unsure) if i not in found]
            if n:
                self._acknowledge(found[n - 1], unsure[n - 1].message)

    def _step(self) -> None:
        if not self._sent and not self._take():
            if not self._wake.acquire(timeout=_IDLE_SECONDS):
                self._link.ping()
                self._succeeded()
            return
        batch = self._sent[:BATCH_ENTRIES]
        self._in_doubt = True
        try:
            ids = self._writer.append([item.outgoing for item in batch])
        except RedisRefusedError:
            self._in_doubt = False
            raise
        self._in_doubt = False
        self._sent = self._sent[len(batch) :]
        self.counts["written"] += len(batch)
        self._succeeded()
        self._acknowledge(ids[-1], batch[-1].message)

    def _take(self) -> bool:
        """Take the next messages from those that wait."""
        self._wake.acquire(blocking=False)  # first: what is put from now on frees it again
        messages: list[Any] = []
        try:
            while len(messages) < BATCH_ENTRIES:
                messages.append(self._waiting.popleft())
        except IndexError:
            pass
        self._sent = self._items(messages)
        return bool(messages)

    def _items(self, messages: Sequence[Any]) -> list[_Item]:
        items = []
        for message in messages:
            try:
                values = self._encode(message)
                topic = _topic(values) if self._topic is None else self._topic(message)
                fields = encode(values, topic, encoding=self._encoding, node=self._node)
            except Exception as e:
                self.counts["refused"] += 1
                self._tell(f"a message cannot be written to {self._stream!r}: {type(e).__name__}: {e}")
                continue
            items.append(_Item(message, Outgoing(identity(values), fields)))
        return items

    def _acknowledge(self, entry_id: str, message: Any) -> None:
        if self._acknowledged is not None:
            try:
                self._acknowledged(entry_id, message)
            except Exception as e:
                self._tell(f"entry {entry_id} of {self._stream!r} could not be recorded: {e!r}")

    def _succeeded(self) -> None:
        self.connected, self.last_error = True, ""
        self._backoff.reset()

    def _failed(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text != self.last_error:
            self._tell(f"writing {self._stream!r} to Redis: {text}; trying again")
        self.connected, self.last_error = False, text
        self.counts["connection_errors"] += 1
        self._stopping.wait(self._backoff.pause_s())

    def _tell(self, message: str) -> None:
        try:
            self._warn(message)
        except Exception:
            _log.exception("a warning could not be told: %s", message)
