"""Monitoring: whether the model that serves is still good, and when to retrain it."""

from ml4t_actor.monitoring.baseline import MonitorBaseline
from ml4t_actor.monitoring.monitor import RetrainMonitor, RetrainTrigger

__all__ = ["MonitorBaseline", "RetrainMonitor", "RetrainTrigger"]
