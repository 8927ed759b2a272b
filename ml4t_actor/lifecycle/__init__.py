"""Learning: what became of each signal, when to retrain, and which model serves."""

from ml4t_actor.lifecycle.champion import ChampionLifecycle
from ml4t_actor.lifecycle.loop import LifecycleLoop

__all__ = ["ChampionLifecycle", "LifecycleLoop"]
