"""Between Redis and the actor: the codec, connections, and the threads that read and write streams.

Nothing here imports NautilusTrader.
"""

from ml4t_actor.streams.codec import CodecError
from ml4t_actor.streams.connection import (
    RedisAwayError,
    RedisDeniedError,
    RedisLink,
    RedisRefusedError,
    ReplyTooLargeError,
    connect,
)
from ml4t_actor.streams.consumer import Arrival, Batch, SignalConsumer
from ml4t_actor.streams.producer import EnrichedSignalProducer

__all__ = [
    "Arrival",
    "Batch",
    "CodecError",
    "EnrichedSignalProducer",
    "RedisAwayError",
    "RedisDeniedError",
    "RedisLink",
    "RedisRefusedError",
    "ReplyTooLargeError",
    "SignalConsumer",
    "connect",
]
