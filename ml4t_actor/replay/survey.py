"""A first reading of a tape: what is needed to run it, and how far it goes."""

from collections import Counter, deque
from pathlib import Path
from typing import Any

from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    EndFrame,
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
    """What a first reading of a tape tells.

    Parameters
    ----------
    tape : str or Path
        The file.

    Attributes
    ----------
    taken : Counter
        Frames by kind.
    versions : list of str
        The models that served.
    first_ns, last_ns : int
        When the first and the last thing was taken, UNIX nanoseconds.
    published : bytearray
        Of each signal, whether its answer was published.
    precisions : dict of str to (int, int)
        Of the prices and sizes of the trades of each instrument.
    clock_set_back : int
        How often a time is before the one that precedes it.
    missing_frames : int
        How many frames the tape should have beside those it has; below 0 if it has too many.
    notes : list of str
        What a reader should know of how the tape ends.

    Raises
    ------
    RecordingError
        If the tape cannot be read, or is damaged.
    """

    def __init__(self, tape: str | Path) -> None:
        self.taken: Counter[str] = Counter()
        self.versions: list[str] = []
        self.first_ns = self.last_ns = 0
        self.published = bytearray()  # of each signal, whether its answer was
        self.precisions: dict[str, tuple[int, int]] = {}
        self.clock_set_back = 0
        self.missing_frames = 0
        self.notes: list[str] = []
        self._frames = 0
        self._unpublished: dict[tuple[str, str], deque[int]] = {}
        end = None
        for end in read_recording(tape)[1]:
            self._take(end)
        self._note_end(end)

    def _take(self, frame: Any) -> None:
        kind = type(frame)
        if kind is EndFrame:
            self.missing_frames = frame.frames - self._frames
            return
        self._frames += 1
        self.taken[_KINDS[kind]] += 1
        if kind is ModelFrame:
            if frame.version and frame.version not in self.versions:
                self.versions.append(frame.version)
        elif kind is AnswerFrame:
            waiting = self._unpublished.get((frame.source, frame.signal_id))
            if waiting:
                self.published[waiting.popleft()] = True
                if not waiting:
                    del self._unpublished[frame.source, frame.signal_id]
        elif kind in (BarFrame, TradeFrame, SignalFrame):
            now = frame.ts_taken
            self.first_ns = self.first_ns or now
            self.clock_set_back += now < self.last_ns
            self.last_ns = max(self.last_ns, now)
            if kind is SignalFrame:
                key = frame.source, frame.signal_id
                self._unpublished.setdefault(key, deque()).append(len(self.published))
                self.published.append(False)
            elif kind is TradeFrame:
                self.precisions.setdefault(frame.instrument_id, (frame.price_precision, frame.size_precision))

    def _note_end(self, last: Any) -> None:
        if isinstance(last, IncompleteFrame):
            self.notes.append(f"the recording ended before the session: {last.reason}")
        elif not isinstance(last, EndFrame):
            self.notes.append("the tape has no end: the process was killed, or is still running")
        if self.missing_frames:
            self.notes.append(f"the tape has {-self.missing_frames:+,} frames against what was written")
        if silent := sum(map(len, self._unpublished.values())):
            self.notes.append(f"answered without publishing, and so not compared: {silent:,}")
