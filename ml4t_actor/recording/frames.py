"""What a recording holds, frame by frame, and how it is written.

A file begins with `MAGIC` and the number of its schema (uint32). Frames follow: length, CRC-32 of the payload and
CRC-16 (CCITT) of these two, little-endian, then the payload, which is msgpack. The first one is the `RecordingHeader`.
"""

import struct
from binascii import crc32, crc_hqx
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ml4t_actor import nautilus
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import EnrichedSignalFields
from ml4t_actor.nautilus.model import FIXED_PRECISION, BarType
from ml4t_actor.registry.manifest import library_versions

MAGIC = b"ml4ttape"
SCHEMA = 1
PRELUDE = struct.Struct("<8sI")
LENGTHS = struct.Struct("<II")
CHECK = struct.Struct("<H")

_INT64 = 2**63
_RAW_BYTES = 16
_SCALE: list[int] = [10 ** (FIXED_PRECISION - precision) for precision in range(FIXED_PRECISION + 1)]
_ENCODER = msgspec.msgpack.Encoder()

Raw = int | bytes
"""A price or quantity: how many steps of its precision, or, where that is no whole number, Nautilus's raw value."""


class RecordingError(Exception):
    """A recording that cannot be written or read."""


class RecordingHeader(msgspec.Struct, kw_only=True, frozen=True):
    """What a session ran with.

    Attributes
    ----------
    trader_id, actor_id : str
        Whose session it was.
    started_ns : int
        When it began, UNIX nanoseconds.
    config : str
        The actor's configuration as JSON, which holds no secrets.
    stamped_at : dict of str to {'open', 'close'}
        Which end of a bar its `ts_event` is, for each bar type.
    trades : bool
        Whether trades were used.
    instruments : list of dict
        Definitions, as Nautilus writes them.
    versions : dict of str to str
        Of the libraries, and the name of the processor: the last bit may depend on them.
    """

    trader_id: str
    actor_id: str
    started_ns: int
    config: str
    stamped_at: dict[str, Literal["open", "close"]]
    trades: bool
    instruments: list[dict[str, object]]
    versions: dict[str, str]

    @property
    def instrument_names(self) -> list[str]:
        """The instruments of the bar types, in their order."""
        return [BarType.from_str(name).instrument_id.value for name in self.stamped_at]

    @classmethod
    def of(
        cls,
        config: ML4TActorConfig,
        *,
        trader_id: object,
        actor_id: object,
        started_ns: int,
        stamped_at: Mapping[BarType | str, str] | None = None,
        instruments: Iterable[Any] = (),
    ) -> "RecordingHeader":
        """Return the header of a session that begins now.

        Parameters
        ----------
        config : ML4TActorConfig
            As resolved.
        trader_id, actor_id : object
            Identifiers, or their strings.
        started_ns : int
            UNIX nanoseconds.
        stamped_at : mapping of BarType or str to {'open', 'close'}, optional
            Which end of a bar `ts_event` is; 'close' for those that are not named.
        instruments : iterable of Instrument, optional
            Those that are followed, as far as they are known.
        """
        named = {standard_name(bar_type): stamp for bar_type, stamp in (stamped_at or {}).items()}
        return msgspec.convert(
            {
                "trader_id": str(trader_id),
                "actor_id": str(actor_id),
                "started_ns": started_ns,
                "config": config.json().decode(),
                "stamped_at": {
                    name: named.get(name, "close") for name in map(standard_name, config.bar_types)
                },
                "trades": config.trade_ticks,
                # What a venue adds in `info` is of any type, and nothing here depends on it.
                "instruments": [{**type(each).to_dict(each), "info": None} for each in instruments],
                "versions": versions(),
            },
            cls,
        )


class _Frame(msgspec.Struct, array_like=True):
    pass


class StateFrame(_Frame, tag=1):
    """The state that an instrument was restored from, as `InferenceLoop.restore` was given it."""

    instrument_id: str
    raw: bytes


class ModelFrame(_Frame, tag=2):
    """The model that serves from here on, "" for none, and since when."""

    version: str
    ts: int


class BarFrame(_Frame, tag=3):
    """A bar; `ts_close` is when it closed, `ts_handled` the clock's time, UNIX nanoseconds.

    A `historical` one stood for the trades of its time. `buy_volume` is the part in which the taker bought.
    """

    bar_type: int | str
    ts_event: int
    ts_close: int
    ts_handled: int
    open: Raw
    high: Raw
    low: Raw
    close: Raw
    volume: Raw
    price_precision: int
    size_precision: int
    historical: bool = False
    buy_volume: str | None = None


class TradeFrame(_Frame, tag=4):
    """A trade; `ts` is its time as it was used, `ts_handled` the clock's, UNIX nanoseconds."""

    instrument_id: int | str
    ts_event: int
    ts: int
    ts_handled: int
    price: Raw
    size: Raw
    price_precision: int
    size_precision: int
    side: int
    trade_id: str


class SignalFrame(_Frame, tag=5):
    """A signal, and the clock's time at which it was answered, UNIX nanoseconds."""

    instrument_id: str
    signal: int
    strength: float
    source: str
    signal_id: str
    ts_event: int
    ts_init: int
    ts_handled: int


class AnswerFrame(EnrichedSignalFields, tag=6):
    """An enriched signal as it was published."""


class EndFrame(_Frame, tag=7):
    """The session was stopped as it should be, after so many frames."""

    frames: int


class IncompleteFrame(_Frame, tag=8):
    """The recording ended before the session did."""

    reason: str


Frame = (
    StateFrame | ModelFrame | BarFrame | TradeFrame | SignalFrame | AnswerFrame | EndFrame | IncompleteFrame
)


def write_recording(path: str | Path, header: RecordingHeader, frames: Iterable[Frame]) -> None:
    """Write a whole recording, such as part of another one.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with open(path, "wb") as file:
        file.write(PRELUDE.pack(MAGIC, SCHEMA) + framed(header))
        for frame in frames:
            file.write(framed(frame))


def versions() -> dict[str, str]:
    """Return the versions of what may change the last bit of an answer, and the name of the processor."""
    from llvmlite.binding import get_host_cpu_name  # type: ignore[import-untyped]  # comes with numba

    found = library_versions()
    return {
        **{name: found[name] for name in ("ml4t_actor", "numba", "numpy", "python")},
        "nautilus_trader": nautilus.version(),
        "processor": get_host_cpu_name(),
    }


def packed(raw: int, precision: int) -> Raw:
    """Return Nautilus's raw value in steps of its precision, which is shorter; itself where that is not exact."""
    steps, rest = divmod(raw, _SCALE[precision])
    if rest or not -_INT64 <= steps < _INT64:
        return raw.to_bytes(_RAW_BYTES, "little", signed=True)
    return steps


def unpacked(value: Raw, precision: int) -> int:
    """Return the raw value that was `packed`."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "little", signed=True)
    return value * _SCALE[precision]


def framed(payload: RecordingHeader | Frame) -> bytes:
    """Return a frame as it is written."""
    raw = _ENCODER.encode(payload)
    head = LENGTHS.pack(len(raw), crc32(raw))
    return head + CHECK.pack(crc_hqx(head, 0xFFFF)) + raw


def standard_name(bar_type: BarType | str) -> str:
    """Return the name that bars bear: that of a composite type says also what they are made of."""
    return str((BarType.from_str(bar_type) if isinstance(bar_type, str) else bar_type).standard())
