"""A first reading of a recording: what is needed to run it, and how far it goes."""

from collections import Counter, deque
from pathlib import Path

from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    EndFrame,
    Frame,
    IncompleteFrame,
    ModelFrame,
    SignalFrame,
    StateFrame,
    TradeFrame,
    read_recording,
)

_KINDS: dict[type, str] = {
    StateFrame: "states",
    ModelFrame: "models",
    BarFrame: "bars",
    TradeFrame: "trades",
    SignalFrame: "signals",
    AnswerFrame: "answers",
    IncompleteFrame: "marks",
}


class Survey:
    """What a first reading of a recording finds.

    Parameters
    ----------
    recording : str or Path
        The file.

    Attributes
    ----------
    counts : Counter
        Frames by kind.
    versions : list of str
        The models that served.
    first_ns, last_ns : int
        When the first and the last frame was handled, UNIX nanoseconds.
    published : bytearray
        Of each signal, whether its answer was published.
    precisions : dict of str to (int, int)
        Of the prices and sizes of the trades of each instrument.
    clock_set_back : int
        How often a time is before the one that precedes it.
    missing_frames : int
        How many frames the recording should have beside those it has; below 0 if it has too many.
    notes : list of str
        What a reader should know of how the recording ends.

    Raises
    ------
    RecordingError
        If the recording cannot be read, or is damaged.
    """

    def __init__(self, recording: str | Path) -> None:
        self.counts: Counter[str] = Counter()
        self.versions: list[str] = []
        self.first_ns = self.last_ns = 0
        self.published = bytearray()  # of each signal, whether its answer was
        self.precisions: dict[str, tuple[int, int]] = {}
        self.clock_set_back = 0
        self.missing_frames = 0
        self.notes: list[str] = []
        self._frames = 0
        self._unpublished: dict[tuple[str, str], deque[int]] = {}
        last: Frame | None = None
        for last in read_recording(recording)[1]:
            self._add(last)
        self._describe_end(last)

    def _add(self, frame: Frame) -> None:
        if isinstance(frame, EndFrame):
            self.missing_frames = frame.frames - self._frames
            return
        self._frames += 1
        self.counts[_KINDS[type(frame)]] += 1
        if isinstance(frame, ModelFrame):
            if frame.version and frame.version not in self.versions:
                self.versions.append(frame.version)
        elif isinstance(frame, AnswerFrame):
            unpublished = self._unpublished.get((frame.source, frame.signal_id))
            if unpublished:
                self.published[unpublished.popleft()] = True
                if not unpublished:
                    del self._unpublished[frame.source, frame.signal_id]
        elif isinstance(frame, BarFrame | TradeFrame | SignalFrame):
            self._add_time(frame.ts_handled)
            if isinstance(frame, SignalFrame):
                key = frame.source, frame.signal_id
                self._unpublished.setdefault(key, deque()).append(len(self.published))
                self.published.append(False)
            elif isinstance(frame, TradeFrame):
                precisions = frame.price_precision, frame.size_precision
                self.precisions.setdefault(str(frame.instrument_id), precisions)

    def _add_time(self, ts: int) -> None:
        self.first_ns = self.first_ns or ts
        self.clock_set_back += ts < self.last_ns
        self.last_ns = max(self.last_ns, ts)

    def _describe_end(self, last: Frame | None) -> None:
        if isinstance(last, IncompleteFrame):
            self.notes.append(f"the recording ended before the session: {last.reason}")
        elif not isinstance(last, EndFrame):
            self.notes.append("the recording has no end: the process was killed, or is still running")
        if self.missing_frames:
            self.notes.append(f"the recording has {-self.missing_frames:+,} frames against what was written")
        if silent := sum(map(len, self._unpublished.values())):
            self.notes.append(f"answered without publishing, and so not compared: {silent:,}")
