"""Replay: run a recorded live session again in a backtest, and compare every answer to the last bit."""

from ml4t_actor.replay.comparison import Difference
from ml4t_actor.replay.session import ReplayError, ReplayReport, replay

__all__ = ["Difference", "ReplayError", "ReplayReport", "replay"]
