"""ml4t_actor: a NautilusTrader actor that says how far to trust each trading signal."""

from typing import TYPE_CHECKING

from ml4t_actor.imports import find_moved_modules, lazy_names

if TYPE_CHECKING:
    from ml4t_actor.actor import ML4TActor
    from ml4t_actor.config import ML4TActorConfig
    from ml4t_actor.feed.vpin_indicator import VPINIndicator
    from ml4t_actor.indicators import FeatureEngine, RegimeModel
    from ml4t_actor.inference import InferenceLoop
    from ml4t_actor.labeling import OutcomeTracker, triple_barrier_labels
    from ml4t_actor.ledger import LedgerReader
    from ml4t_actor.messages import (
        ActorHealth,
        EnrichedSignal,
        ModelUpdate,
        SignalData,
        SignalOutcome,
        Status,
        StrategyHealth,
    )
    from ml4t_actor.meta_model import MetaModel
    from ml4t_actor.monitoring import RetrainMonitor
    from ml4t_actor.orchestrator import ML4TOrchestrator
    from ml4t_actor.publisher import SignalPublisher
    from ml4t_actor.registry import ModelBundle, ModelStore
    from ml4t_actor.settings import (
        FeedSettings,
        HealthSettings,
        LedgerSettings,
        RedisSettings,
        RetrainSettings,
        TrainingSettings,
    )
    from ml4t_actor.strategy import (
        EnrichedSignalStrategy,
        EnrichedSignalStrategyConfig,
        IntegratedSizer,
        RiskLimits,
        RiskStage,
    )
    from ml4t_actor.training import TrainingLoop, TrainingResult

# Imported on first use: serving must not load scikit-learn, nor training NautilusTrader.
_MODULE_OF = {
    "ActorHealth": "messages",
    "EnrichedSignal": "messages",
    "EnrichedSignalStrategy": "strategy",
    "EnrichedSignalStrategyConfig": "strategy",
    "FeatureEngine": "indicators",
    "FeedSettings": "settings",
    "HealthSettings": "settings",
    "InferenceLoop": "inference",
    "IntegratedSizer": "strategy",
    "LedgerReader": "ledger",
    "LedgerSettings": "settings",
    "ML4TActor": "actor",
    "ML4TActorConfig": "config",
    "ML4TOrchestrator": "orchestrator",
    "MetaModel": "meta_model",
    "ModelBundle": "registry",
    "ModelStore": "registry",
    "ModelUpdate": "messages",
    "OutcomeTracker": "labeling",
    "RedisSettings": "settings",
    "RegimeModel": "indicators",
    "RetrainMonitor": "monitoring",
    "RetrainSettings": "settings",
    "RiskLimits": "strategy",
    "RiskStage": "strategy",
    "SignalData": "messages",
    "SignalOutcome": "messages",
    "SignalPublisher": "publisher",
    "Status": "messages",
    "StrategyHealth": "messages",
    "TrainingLoop": "training",
    "TrainingResult": "training",
    "TrainingSettings": "settings",
    "VPINIndicator": "feed.vpin_indicator",
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
    "ML4TOrchestrator",
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
    "StrategyHealth",
    "TrainingLoop",
    "TrainingResult",
    "TrainingSettings",
    "VPINIndicator",
    "triple_barrier_labels",
]


find_moved_modules()
__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
