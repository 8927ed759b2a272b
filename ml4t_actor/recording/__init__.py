"""Recordings: everything that a live session's answers depend on, in the order in which the actor handled it.

Its files end in ``.tape``, begin with ``ml4ttape`` and go into `tape_path`: a recording was called a tape at first, and
the files and configurations of that time stay valid.
"""

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
