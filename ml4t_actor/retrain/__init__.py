"""Learning from outcomes: when to retrain."""

from ml4t_actor.retrain.monitor import MonitorBaseline, RetrainMonitor, RetrainTrigger

__all__ = ["MonitorBaseline", "RetrainMonitor", "RetrainTrigger"]
