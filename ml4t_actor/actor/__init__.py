"""The actor: a thin shell between Nautilus's engine and the two loops, inference and learning."""

from ml4t_actor.actor.actor import ML4TActor

__all__ = ["ML4TActor"]
