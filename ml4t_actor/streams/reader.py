"""Reading a stream in pages, whatever others have put into it."""

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from ml4t_actor.streams.connection import RedisLink, RedisRefusedError, ReplyTooLargeError

BEGINNING = "0-0"
OWN_ENTRY_BYTES = 65_536  # where enriched signals are read back, which are larger than signals
PAGE_ENTRIES = 256

_ENTRY_OVERHEAD_BYTES = 1_024  # of the protocol around an entry of a few fields
_SEQUENCE_MAX = 2**64 - 1
_LAST_ID = re.compile(rb"last-generated-id\r\n\$\d+\r\n(\d+-\d+)\r\n")
_FIRST_ID = re.compile(rb"first-entry\r\n\*2\r\n\$\d+\r\n(\d+-\d+)\r\n")

type _Entries = list[
    tuple[bytes, list[tuple[bytes, list[bytes] | None]]]
]  # by stream: ids, and fields in turn


class Entry(NamedTuple):
    """An entry: its id, and names and values of its fields in turn, None if they are too large to be read."""

    entry_id: str
    fields: list[bytes] | None


class StreamState(NamedTuple):
    """Ids of the first entry that a stream still has, None if it has none, and of the last that it ever had."""

    first: str | None
    last: str


def order(entry_id: str) -> tuple[int, int]:
    """Return what ids are to be compared by.

    Examples
    --------
    >>> order("9-1") < order("10-0")
    True
    """
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def id_before(entry_id: str) -> str:
    """Return the id just before another.

    Examples
    --------
    >>> id_before("5-0")
    '4-18446744073709551615'
    """
    milliseconds, sequence = order(entry_id)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_SEQUENCE_MAX}" if milliseconds else BEGINNING


def id_of_time(time_ns: int) -> str:
    """Return the first id that an entry can have that is written at a time, UNIX nanoseconds, by the server's clock."""
    return f"{max(0, time_ns) // 1_000_000}-0"


def stream_state(link: RedisLink, stream: str) -> StreamState | None:
    """Return where a stream begins and ends, None if it does not exist."""
    try:
        reply = cast(list[bytes], link.execute("XINFO", "STREAM", stream))
    except RedisRefusedError as e:
        if "no such key" in str(e):
            return None
        raise
    except ReplyTooLargeError as e:  # it holds the first and the last entry
        link.open()
        first, last = _FIRST_ID.search(e.head), _LAST_ID.search(e.head)
        if last is None:
            raise
        return StreamState(first and first[1].decode(), last[1].decode())
    values = dict(zip(reply[::2], reply[1::2], strict=True))
    first_entry = cast(list[bytes] | None, values[b"first-entry"])
    first_id = None if first_entry is None else first_entry[0].decode()
    return StreamState(first_id, values[b"last-generated-id"].decode())


class StreamReader:
    """Reads the entries of a stream in order, in bounded memory.

    A reply that exceeds what its entries may take ends the connection. The entries are then read one at a time, and
    one that alone is too large is stepped over: its id comes first in the reply.

    Parameters
    ----------
    link : RedisLink
        The connection, which is opened anew where a reply was too large.
    stream : str
        Its key.
    max_message_bytes : int
        Larger entries may come without their fields.
    """

    def __init__(self, link: RedisLink, stream: str, max_message_bytes: int) -> None:
        self._link = link
        self._stream = stream
        self._entry_bytes = max_message_bytes + _ENTRY_OVERHEAD_BYTES + len(stream.encode())
        name = re.escape(stream.encode())
        self._only_id = re.compile(
            rb"\*1\r\n\*2\r\n\$\d+\r\n" + name + rb"\r\n\*1\r\n\*2\r\n\$\d+\r\n(\d+-\d+)\r\n"
        )
        self._page_limit = 2**31

    def read(self, after: str, count: int, block_ms: int | None = None) -> list[Entry]:
        """Return up to `count` entries after an id; none if none comes within `block_ms`."""
        waiting: tuple[str | int, ...] = () if block_ms is None else ("BLOCK", block_ms)
        while True:
            n = min(count, self._page_limit)
            command = ("XREAD", "COUNT", n, *waiting, "STREAMS", self._stream, after)
            try:
                reply = self._link.execute(*command, limit=n * self._entry_bytes)
            except ReplyTooLargeError as e:
                self._link.open()
                self._page_limit = 1
                if n > 1:
                    continue
                if (only := self._only_id.match(e.head)) is None:
                    raise
                return [Entry(only[1].decode(), None)]
            self._page_limit = min(2 * n, 2**31)
            if not reply:
                return []
            [(_, entries)] = cast(_Entries, reply)
            return [Entry(entry_id.decode(), fields or []) for entry_id, fields in entries]

    def pages(self, after: str, last: str, count: int) -> Iterator[Entry]:
        """Yield the entries after one id up to another."""
        end = order(last)
        while order(after) < end:
            page = self.read(after, count)
            if not page:
                return
            for entry in page:
                if order(entry.entry_id) > end:
                    return
                yield entry
            after = page[-1].entry_id
