"""The lifecycle of models: what became of each signal, when to retrain, and which model serves."""

from ml4t_actor.lifecycle.champion import ChampionLifecycle
from ml4t_actor.lifecycle.host import Host, Log
from ml4t_actor.lifecycle.loop import LifecycleLoop

__all__ = ["ChampionLifecycle", "Host", "LifecycleLoop", "Log"]
