"""Inference, learning and the lifecycle of models under one roof, without an engine."""

from ml4t_actor.orchestrator.direct_host import DirectHost
from ml4t_actor.orchestrator.orchestrator import ML4TOrchestrator

__all__ = ["DirectHost", "ML4TOrchestrator"]
