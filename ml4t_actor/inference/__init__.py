"""Inference: what a signal is worth, from what is known when it arrives."""

from ml4t_actor.inference.loop import InferenceLoop
from ml4t_actor.inference.markets import Served

__all__ = ["InferenceLoop", "Served"]
