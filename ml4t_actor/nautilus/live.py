"""Live nodes: their configuration, clock, bus and end."""

from nautilus_trader.common import Environment
from nautilus_trader.common.component import LiveClock, MessageBus, sync_logger_to_disk
from nautilus_trader.common.config import ImportableConfig, msgspec_decoding_hook, resolve_path
from nautilus_trader.common.messages import ShutdownSystem
from nautilus_trader.config import LoggingConfig, TradingNodeConfig
from nautilus_trader.core.nautilus_pyo3 import logging_sync_to_disk
from nautilus_trader.live.factories import LiveDataClientFactory, LiveExecClientFactory
from nautilus_trader.live.node import TradingNode

__all__ = [
    "Environment",
    "ImportableConfig",
    "LiveClock",
    "LiveDataClientFactory",
    "LiveExecClientFactory",
    "LoggingConfig",
    "MessageBus",
    "ShutdownSystem",
    "TradingNode",
    "TradingNodeConfig",
    "logging_sync_to_disk",
    "msgspec_decoding_hook",
    "resolve_path",
    "sync_logger_to_disk",
]
