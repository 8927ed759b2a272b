"""The meta-model: fitted and calibrated with scikit-learn, and exported to flat arrays that serve without it."""

from typing import TYPE_CHECKING

from ml4t_actor.imports import lazy_names

if TYPE_CHECKING:
    from ml4t_actor.meta_model.calibration import Calibration
    from ml4t_actor.meta_model.compiled import CompiledModel
    from ml4t_actor.meta_model.estimator import MetaModel
    from ml4t_actor.meta_model.evidence import EvidenceLogisticRegression
    from ml4t_actor.meta_model.evidence_ridge import EvidenceRidge

__all__ = [
    "Calibration",
    "CompiledModel",
    "EvidenceLogisticRegression",
    "EvidenceRidge",
    "MetaModel",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Calibration": "calibration",
        "MetaModel": "estimator",
        "CompiledModel": "compiled",
        "EvidenceLogisticRegression": "evidence",
        "EvidenceRidge": "evidence_ridge",
    },
)
