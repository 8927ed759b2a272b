"""The actor: a thin shell that puts Nautilus's event thread, bus and clock around the orchestrator."""

from ml4t_actor.actor.actor import ML4TActor

__all__ = ["ML4TActor"]
