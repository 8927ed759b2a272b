"""ml4t_actor: a NautilusTrader actor that says how far to trust each trading signal."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml4t_actor.actor import ML4TActor
    from ml4t_actor.config import ML4TActorConfig
    from ml4t_actor.data import ActorHealth, EnrichedSignal, ModelUpdate, SignalData, SignalOutcome, Status
    from ml4t_actor.features import FeatureEngine
    from ml4t_actor.inference import InferenceLoop
    from ml4t_actor.labeling import triple_barrier_labels
    from ml4t_actor.ledger import LedgerReader
    from ml4t_actor.meta_model import MetaModel
    from ml4t_actor.outcomes import OutcomeTracker
    from ml4t_actor.persistence import ModelBundle, ModelStore
    from ml4t_actor.publisher import SignalPublisher
    from ml4t_actor.regime import RegimeModel
    from ml4t_actor.retrain.monitor import RetrainMonitor
    from ml4t_actor.risk import RiskLimits, RiskStage
    from ml4t_actor.settings import (
        FeedSettings,
        HealthSettings,
        LedgerSettings,
        RedisSettings,
        RetrainSettings,
        TrainingSettings,
    )
    from ml4t_actor.sizing import IntegratedSizer
    from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
    from ml4t_actor.training import TrainingLoop, TrainingResult
    from ml4t_actor.vpin import VPINIndicator

# Imported on first use: serving must not load scikit-learn, nor training NautilusTrader.
_MODULE_OF = {
    "ActorHealth": "data",
    "EnrichedSignal": "data",
    "EnrichedSignalStrategy": "strategy",
    "EnrichedSignalStrategyConfig": "strategy",
    "FeatureEngine": "features",
    "FeedSettings": "settings",
    "HealthSettings": "settings",
    "InferenceLoop": "inference",
    "IntegratedSizer": "sizing",
    "LedgerReader": "ledger",
    "LedgerSettings": "settings",
    "ML4TActor": "actor",
    "ML4TActorConfig": "config",
    "MetaModel": "meta_model",
    "ModelBundle": "persistence",
    "ModelStore": "persistence",
    "ModelUpdate": "data",
    "OutcomeTracker": "outcomes",
    "RedisSettings": "settings",
    "RegimeModel": "regime",
    "RetrainMonitor": "retrain.monitor",
    "RetrainSettings": "settings",
    "RiskLimits": "risk",
    "RiskStage": "risk",
    "SignalData": "data",
    "SignalOutcome": "data",
    "SignalPublisher": "publisher",
    "Status": "data",
    "TrainingLoop": "training",
    "TrainingResult": "training",
    "TrainingSettings": "settings",
    "VPINIndicator": "vpin",
    "triple_barrier_labels": "labeling",
}

__all__ = [
    "ActorHealth",
    "EnrichedSignal",
    "EnrichedSignalStrategy",
    "EnrichedSignalStrategyConfig",
    "FeatureEngine",
    "FeedSettings",
    "HealthSettings",
    "InferenceLoop",
    "IntegratedSizer",
    "LedgerReader",
    "LedgerSettings",
    "ML4TActor",
    "ML4TActorConfig",
    "MetaModel",
    "ModelBundle",
    "ModelStore",
    "ModelUpdate",
    "OutcomeTracker",
    "RedisSettings",
    "RegimeModel",
    "RetrainMonitor",
    "RetrainSettings",
    "RiskLimits",
    "RiskStage",
    "SignalData",
    "SignalOutcome",
    "SignalPublisher",
    "Status",
    "TrainingLoop",
    "TrainingResult",
    "TrainingSettings",
    "VPINIndicator",
    "triple_barrier_labels",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'ml4t_actor' has no attribute {name!r}")
    value = getattr(import_module(f"ml4t_actor.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
