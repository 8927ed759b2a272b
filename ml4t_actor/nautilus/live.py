"""Live nodes: their configuration, clock, bus and end."""

from nautilus_trader.accounting.accounts.base import Account
from nautilus_trader.common import Environment
from nautilus_trader.common.component import LiveClock, MessageBus, sync_logger_to_disk
from nautilus_trader.common.config import ImportableConfig, msgspec_decoding_hook, resolve_path
from nautilus_trader.common.messages import ShutdownSystem
from nautilus_trader.config import LiveExecEngineConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.core.nautilus_pyo3 import logging_sync_to_disk
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.live.factories import LiveDataClientFactory, LiveExecClientFactory
from nautilus_trader.live.node import TradingNode
from nautilus_trader.system.kernel import NautilusKernel

__all__ = [
    "Environment",
    "ImportableConfig",
    "LiveClock",
    "LiveDataClientFactory",
    "LiveExecClientFactory",
    "LiveExecEngineConfig",
    "LoggingConfig",
    "MessageBus",
    "ShutdownSystem",
    "TradingNode",
    "TradingNodeConfig",
    "can_query_accounts",
    "is_simulated_account",
    "logging_sync_to_disk",
    "msgspec_decoding_hook",
    "node_of",
    "resolve_path",
    "sync_logger_to_disk",
]


def node_of(bus: MessageBus) -> TradingNodeConfig | None:
    """Return the configuration of the live node whose message bus this is; None where there is no node.

    Nautilus tells a component nothing of its node. The kernel, which has it, listens for a shutdown on the bus.
    """
    for subscription in bus.subscriptions("commands.system.shutdown"):
        kernel = getattr(subscription.handler, "__self__", None)
        if isinstance(kernel, NautilusKernel) and isinstance(kernel._config, TradingNodeConfig):
            return kernel._config
    return None


def is_simulated_account(account: Account) -> bool:
    """Return whether a venue is simulated: Nautilus computes its account, or the id ends as the sandbox's does."""
    return bool(account.calculate_account_state or account.id.get_id() == "001")


def can_query_accounts(account: Account) -> bool:
    """Return whether a node survives that an account is queried.

    Nautilus ends the process where the account's client does not implement it, and does not say which client that is.
    A simulated venue's account is never queried.
    Others are if the client that is named after the account's issuer can answer; where none is, if all that are
    loaded can.
    """
    if is_simulated_account(account):
        return False
    issuer = account.id.get_issuer().lower()
    clients = _concrete(LiveExecutionClient)
    own = [client for client in clients if client.__name__.lower().startswith(issuer)]
    return all(hasattr(client, "_query_account") for client in own or clients)


def _concrete(client: type) -> list[type]:
    """Return the classes below one that have none below themselves."""
    below: list[type] = client.__subclasses__()
    return [each for sub in below for each in _concrete(sub)] if below else [client]
