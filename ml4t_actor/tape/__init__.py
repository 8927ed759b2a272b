"""The tape: everything that a live session's answers depend on, in the order in which the actor took it."""

from ml4t_actor.tape.frames import (
    AnswerFrame,
    BarFrame,
    EndFrame,
    Frame,
    IncompleteFrame,
    ModelFrame,
    SignalFrame,
    StateFrame,
    TapeError,
    TapeHeader,
    TradeFrame,
    write_tape,
)
from ml4t_actor.tape.reading import read_tape
from ml4t_actor.tape.recording import Tape

__all__ = [
    "AnswerFrame",
    "BarFrame",
    "EndFrame",
    "Frame",
    "IncompleteFrame",
    "ModelFrame",
    "SignalFrame",
    "StateFrame",
    "Tape",
    "TapeError",
    "TapeHeader",
    "TradeFrame",
    "read_tape",
    "write_tape",
]
