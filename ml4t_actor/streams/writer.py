"""Appending to a stream exactly once, across connections that break."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from ml4t_actor.streams.codec import CodecError, decode, identity, node_of
from ml4t_actor.streams.connection import RedisLink
from ml4t_actor.streams.reader import (
    BEGINNING,
    OWN_ENTRY_BYTES,
    PAGE_ENTRIES,
    StreamReader,
    order,
    stream_state,
)

BATCH_ENTRIES = 256

_FENCE_SECONDS = 3_600


class Outgoing(NamedTuple):
    """A message ready to be written, and what it is recognised by, see `codec.identity`."""

    key: tuple[str, ...]
    fields: Mapping[bytes, bytes]


class StreamWriter:
    """Appends batches of messages to a stream; the next connection finds out which of a lost batch got in.

    What was sent over a connection that broke may still be on its way when the next one reads. So each batch is a
    transaction that watches a key of its writer, the fence, and the next connection first changes that key: what has
    not got in by then never will.

    Parameters
    ----------
    link : RedisLink
        The connection.
    stream : str
        Its key.
    length : int
        About how many entries the stream is to hold.
    node : str
        Whose entries, by their field ``node``, are the writer's own.
    writer : str
        Names the fence; no two that write at the same time may share it.
    after : str, optional
        Id of an entry after which all that may be unconfirmed is. By default the end of the stream at the first
        `open`, or its beginning if that is already given unconfirmed messages.

    Attributes
    ----------
    after : str, optional
        The same, now: the last entry that is known to be written.
    """

    def __init__(
        self, link: RedisLink, stream: str, *, length: int, node: str, writer: str, after: str | None
    ) -> None:
        self._link = link
        self._stream = stream
        self._node = node
        self._fence = f"{stream}:fence:{writer}"
        self._append: tuple[str | int, ...] = ("XADD", stream, "MAXLEN", "~", length, "*")
        self.after = after

    def open(self, unconfirmed: Sequence[Outgoing] = ()) -> dict[int, str]:
        """Connect, and return the ids of those of `unconfirmed` that are in the stream, by their index.

        Raises
        ------
        RedisAwayError, RedisRefusedError
            If that fails.
        """
        self._link.open()
        if unconfirmed:
            self._link.execute("SET", self._fence, "moved", "EX", _FENCE_SECONDS)
        state = stream_state(self._link, self._stream)
        written: dict[int, str] = {}
        if unconfirmed and state is not None:
            written = self._written(unconfirmed, state.last)
        elif self.after is None:
            self.after = BEGINNING if state is None else state.last
        # Last, since another connection may have had to be opened on the way, and this belongs to a connection.
        self._link.execute("WATCH", self._fence)
        return written

    def append(self, batch: Sequence[Outgoing]) -> list[str]:
        """Write up to `BATCH_ENTRIES` messages, all or none, and return their ids.

        Raises
        ------
        RedisAwayError
            If it is not known whether they were written: `open` finds out.
        RedisRefusedError
            If none was written.
        """
        commands = [(*self._append, *(part for pair in out.fields.items() for part in pair)) for out in batch]
        replies = self._link.execute_transaction(*commands, then=("WATCH", self._fence))
        ids = [entry_id.decode() for entry_id in cast(list[bytes], replies)]
        self.after = ids[-1]
        return ids

    def _written(self, unconfirmed: Sequence[Outgoing], last: str) -> dict[int, str]:
        after = self.after or BEGINNING
        if order(last) < order(after):
            after = BEGINNING  # another stream under the same key
        reader = StreamReader(self._link, self._stream, OWN_ENTRY_BYTES)
        wanted: dict[tuple[str, ...], list[int]] = {}
        for index, out in enumerate(unconfirmed):
            wanted.setdefault(out.key, []).append(index)
        written: dict[int, str] = {}
        for entry_id, fields in reader.pages(after, last, PAGE_ENTRIES):
            if fields is None or node_of(fields) != self._node:
                continue
            try:
                indices = wanted.get(identity(decode(fields)))
            except CodecError:
                continue
            if indices:
                written[indices.pop(0)] = entry_id
        return written
