"""The strategy: turns enriched signals into orders, inside limits that no signal can widen."""

from typing import TYPE_CHECKING

from ml4t_actor.imports import lazy_names

if TYPE_CHECKING:
    from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
    from ml4t_actor.strategy.risk import RiskLimits, RiskStage
    from ml4t_actor.strategy.sizing import IntegratedSizer
    from ml4t_actor.strategy.strategy import EnrichedSignalStrategy

__all__ = [
    "EnrichedSignalStrategy",
    "EnrichedSignalStrategyConfig",
    "IntegratedSizer",
    "RiskLimits",
    "RiskStage",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EnrichedSignalStrategy": "strategy",
        "EnrichedSignalStrategyConfig": "config",
        "IntegratedSizer": "sizing",
        "RiskLimits": "risk",
        "RiskStage": "risk",
    },
)
