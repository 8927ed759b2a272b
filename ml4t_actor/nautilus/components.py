"""The parts of an engine that an actor or an indicator is made from or talks to."""

from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.component import Clock, TestClock
from nautilus_trader.common.config import ActorConfig, NautilusConfig
from nautilus_trader.core.datetime import unix_nanos_to_dt, unix_nanos_to_iso8601
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.indicators.base import Indicator

__all__ = [
    "UUID4",
    "Actor",
    "ActorConfig",
    "Cache",
    "Clock",
    "Indicator",
    "NautilusConfig",
    "TestClock",
    "is_live",
    "unix_nanos_to_dt",
    "unix_nanos_to_iso8601",
]


def is_live(clock: Clock) -> bool:
    """Return whether the engine of a clock is live; in a backtest time is simulated."""
    return not isinstance(clock, TestClock)
