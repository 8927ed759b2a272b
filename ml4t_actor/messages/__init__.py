"""The messages: signals come in, enriched signals, outcomes and news of models go out.

All are Nautilus custom data: they travel on the message bus, through its msgpack and JSON serializer (and so
through Redis), into a `ParquetDataCatalog` and back. All are immutable, compare by every field including the
timestamps, and check their values however they are built, so that nothing out of range can arrive from
outside the process.
"""

from ml4t_actor.messages.fields import TEXT_LENGTH_MAX
from ml4t_actor.messages.health import NEVER, ActorHealth, LinkState
from ml4t_actor.messages.lifecycle import REASON_LENGTH_MAX, Action, Barrier, ModelUpdate, SignalOutcome
from ml4t_actor.messages.signals import EnrichedSignal, EnrichedSignalFields, SignalData, Status
from ml4t_actor.messages.strategy_health import StrategyHealth

__all__ = [
    "NEVER",
    "REASON_LENGTH_MAX",
    "TEXT_LENGTH_MAX",
    "Action",
    "ActorHealth",
    "Barrier",
    "EnrichedSignal",
    "EnrichedSignalFields",
    "LinkState",
    "ModelUpdate",
    "SignalData",
    "SignalOutcome",
    "Status",
    "StrategyHealth",
]
