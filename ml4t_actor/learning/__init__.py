"""Learning: what became of each signal, when to retrain, and which model serves."""

from ml4t_actor.learning.loop import LearningLoop
from ml4t_actor.learning.succession import Succession

__all__ = ["LearningLoop", "Succession"]
