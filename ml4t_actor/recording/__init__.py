"""The tape: everything that a live session's answers depend on, in the order in which the actor took it."""

from ml4t_actor.recording.frames import (
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
    write_recording,
)
from ml4t_actor.recording.reader import read_recording
from ml4t_actor.recording.writer import RecordingWriter

__all__ = [
    "AnswerFrame",
    "BarFrame",
    "EndFrame",
    "Frame",
    "IncompleteFrame",
    "ModelFrame",
    "RecordingError",
    "RecordingHeader",
    "RecordingWriter",
    "SignalFrame",
    "StateFrame",
    "TradeFrame",
    "read_recording",
    "write_recording",
]
