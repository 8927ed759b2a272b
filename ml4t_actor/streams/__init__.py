"""Between Redis and the actor: the wire format, connections, and the threads that read and write streams.

Nothing here imports NautilusTrader.
"""

from ml4t_actor.streams.connection import (
    AnswerTooLargeError,
    RedisAwayError,
    RedisDeniedError,
    RedisLink,
    RedisRefusedError,
    connect,
)
from ml4t_actor.streams.inlet import Arrival, Batch, SignalInlet
from ml4t_actor.streams.outlet import EnrichedOutlet
from ml4t_actor.streams.wire import WireError

__all__ = [
    "AnswerTooLargeError",
    "Arrival",
    "Batch",
    "EnrichedOutlet",
    "RedisAwayError",
    "RedisDeniedError",
    "RedisLink",
    "RedisRefusedError",
    "SignalInlet",
    "WireError",
    "connect",
]
