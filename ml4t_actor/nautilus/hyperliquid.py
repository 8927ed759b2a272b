"""The Hyperliquid adapter's configuration and addresses."""

from nautilus_trader.adapters.hyperliquid.config import (
    HyperliquidDataClientConfig,
    HyperliquidExecClientConfig,
)
from nautilus_trader.core.nautilus_pyo3 import (
    ClientOrderId,
    HyperliquidEnvironment,
    get_hyperliquid_http_base_url,
    hyperliquid_cloid_from_client_order_id,
    hyperliquid_resolve_execution_account_address,
)

__all__ = [
    "HyperliquidDataClientConfig",
    "HyperliquidEnvironment",
    "HyperliquidExecClientConfig",
    "cloid_of",
    "get_hyperliquid_http_base_url",
    "hyperliquid_resolve_execution_account_address",
]


def cloid_of(client_order_id: str) -> str:
    """Return the id under which the adapter sends an order to the venue."""
    return str(hyperliquid_cloid_from_client_order_id(ClientOrderId(client_order_id)))
