"""The record of every signal, of what became of it, and of the models that scored it: one SQLite file."""

from ml4t_actor.ledger.reader import LedgerReader
from ml4t_actor.ledger.rows import TrainingRows, training_rows
from ml4t_actor.ledger.schema import LedgerError, OutcomeRow, SignalRow, StreamPosition
from ml4t_actor.ledger.writer import Ledger

__all__ = [
    "Ledger",
    "LedgerError",
    "LedgerReader",
    "OutcomeRow",
    "SignalRow",
    "StreamPosition",
    "TrainingRows",
    "training_rows",
]
