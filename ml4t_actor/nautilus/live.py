"""Live nodes: their configuration, clock, bus and end."""

from nautilus_trader.accounting.accounts.base import Account
from nautilus_trader.common import Environment
from nautilus_trader.common.component import LiveClock, MessageBus, sync_logger_to_disk
from nautilus_trader.common.config import ImportableConfig, msgspec_decoding_hook, resolve_path
from nautilus_trader.common.messages import ShutdownSystem
from nautilus_trader.config import LoggingConfig, TradingNodeConfig
from nautilus_trader.core.nautilus_pyo3 import logging_sync_to_disk
from nautilus_trader.live.execution_client import LiveExecutionClient
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
    "can_query_accounts",
    "logging_sync_to_disk",
    "msgspec_decoding_hook",
    "resolve_path",
    "sync_logger_to_disk",
]


def can_query_accounts(account: Account) -> bool:
    """Return whether a node survives that an account is queried.

    Nautilus ends the process where the account's client does not implement it, and does not say which client that is.
    A simulated venue's account, which Nautilus computes or whose id ends as the sandbox's does, is never queried.
    Others are if the client that is named after the account's issuer can answer; where none is, if all that are
    loaded can.
    """
    if account.calculate_account_state or account.id.get_id() == "001":
        return False
    issuer = account.id.get_issuer().lower()
    clients = _concrete(LiveExecutionClient)
    own = [client for client in clients if client.__name__.lower().startswith(issuer)]
    return all(hasattr(client, "_query_account") for client in own or clients)


def _concrete(client: type) -> list[type]:
    """Return the classes below one that have none below themselves."""
    below: list[type] = client.__subclasses__()
    return [each for sub in below for each in _concrete(sub)] if below else [client]
