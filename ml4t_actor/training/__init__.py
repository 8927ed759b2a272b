"""Training: from labelled rows to a validated bundle, and a retraining that is compared with the model in use."""

from typing import TYPE_CHECKING

from ml4t_actor.imports import lazy_names

if TYPE_CHECKING:
    from ml4t_actor.training.gate import GateDecision
    from ml4t_actor.training.loop import TrainingLoop
    from ml4t_actor.training.result import FoldResult, TrainingResult
    from ml4t_actor.training.worker import InlineTrainer, RetrainWorker

__all__ = [
    "FoldResult",
    "GateDecision",
    "InlineTrainer",
    "RetrainWorker",
    "TrainingLoop",
    "TrainingResult",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FoldResult": "result",
        "GateDecision": "gate",
        "InlineTrainer": "worker",
        "RetrainWorker": "worker",
        "TrainingLoop": "loop",
        "TrainingResult": "result",
    },
)
