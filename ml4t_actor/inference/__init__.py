"""Inference: what a signal is worth, from what is known when it arrives."""

from ml4t_actor.inference.instrument_state import Answer, ModelInputs
from ml4t_actor.inference.loop import InferenceLoop

__all__ = ["Answer", "InferenceLoop", "ModelInputs"]
