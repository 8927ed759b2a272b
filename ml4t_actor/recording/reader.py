"""Reading: a recording's header and frames, as far as they are whole."""

from binascii import crc32, crc_hqx
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from ml4t_actor.recording.frames import (
    CHECK,
    LENGTHS,
    MAGIC,
    PRELUDE,
    SCHEMA,
    BarFrame,
    Frame,
    RecordingError,
    RecordingHeader,
    TradeFrame,
)

_HEAD_BYTES = LENGTHS.size + CHECK.size
_HEADER_DECODER = msgspec.msgpack.Decoder(RecordingHeader)
_FRAME_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def read_recording(path: str | Path) -> tuple[RecordingHeader, Iterator[Frame]]:
    """Return a recording's header, and its frames as far as it goes, in order.

    A frame that was cut off by the end of the file is left out: so ends the recording of a process that was killed, or
    is still running. Only an `EndFrame` says that nothing is missing.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    RecordingError
        If the file cannot be read, is no recording, or of another schema; from the iterator too, at the first damage,
        with its place in the file.
    """
    payloads = _payloads(Path(path))
    try:
        raw, offset = next(payloads)
    except StopIteration:
        raise RecordingError(f"{str(path)!r} ends within its header; nothing of it can be replayed") from None
    header = _decoded(_HEADER_DECODER, raw, path, offset)
    return header, _frames(header, payloads, path)


def _payloads(path: Path) -> Iterator[tuple[bytes, int]]:
    """Iterate over what is in whole frames, each with its place in the file."""
    try:
        with open(path, "rb") as file:
            yield from _payloads_of(file, path)
    except OSError as e:
        raise RecordingError(f"the recording {str(path)!r} cannot be read: {e.strerror or e}") from None


def _payloads_of(file: BinaryIO, path: Path) -> Iterator[tuple[bytes, int]]:
    prelude = file.read(PRELUDE.size)
    if len(prelude) < PRELUDE.size or not prelude.startswith(MAGIC):
        raise RecordingError(
            f"{str(path)!r} is no recording; name a file that the actor wrote into `tape_path`"
        )
    if (schema := PRELUDE.unpack(prelude)[1]) != SCHEMA:
        raise RecordingError(
            f"the recording {str(path)!r} is of schema {schema}, and this version of ml4t_actor reads schema {SCHEMA}; "
            "install the version that wrote it"
        )
    offset = len(prelude)
    while len(head := file.read(_HEAD_BYTES)) == _HEAD_BYTES:
        lengths, check = head[: LENGTHS.size], head[LENGTHS.size :]
        if crc_hqx(lengths, 0xFFFF) != CHECK.unpack(check)[0]:
            raise _damage(path, offset, "the head of a frame has changed")
        length, checksum = LENGTHS.unpack(lengths)
        raw = file.read(length)
        if len(raw) < length:
            return
        if crc32(raw) != checksum:
            raise _damage(path, offset, "the content of a frame has changed")
        yield raw, offset
        offset += _HEAD_BYTES + length


def _frames(
    header: RecordingHeader, payloads: Iterator[tuple[bytes, int]], path: str | Path
) -> Iterator[Frame]:
    bar_types, instruments = list(header.stamped_at), header.instrument_names
    for raw, offset in payloads:
        frame = _decoded(_FRAME_DECODER, raw, path, offset)
        try:
            if isinstance(frame, BarFrame) and isinstance(frame.bar_type, int):
                frame.bar_type = bar_types[frame.bar_type]
            elif isinstance(frame, TradeFrame) and isinstance(frame.instrument_id, int):
                frame.instrument_id = instruments[frame.instrument_id]
        except IndexError:
            raise _damage(path, offset, "a frame is of an instrument that the header does not name") from None
        yield frame


def _decoded[T](decoder: "msgspec.msgpack.Decoder[T]", raw: bytes, path: str | Path, offset: int) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise _damage(path, offset, f"a frame does not decode: {e}") from None


def _damage(path: str | Path, offset: int, what: str) -> RecordingError:
    return RecordingError(
        f"the recording {str(path)!r} is damaged at byte {offset:,}: {what}; restore it from a copy"
    )
