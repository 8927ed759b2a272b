"""The strategy: turns enriched signals into orders, inside limits that no signal can widen."""

from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.strategy import EnrichedSignalStrategy

__all__ = ["EnrichedSignalStrategy", "EnrichedSignalStrategyConfig"]
