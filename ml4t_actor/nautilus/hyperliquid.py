"""The Hyperliquid adapter's configuration and addresses."""

from nautilus_trader.adapters.hyperliquid.config import (
    HyperliquidDataClientConfig,
    HyperliquidExecClientConfig,
)
from nautilus_trader.core.nautilus_pyo3 import (
    HyperliquidEnvironment,
    get_hyperliquid_http_base_url,
    hyperliquid_resolve_execution_account_address,
)

__all__ = [
    "HyperliquidDataClientConfig",
    "HyperliquidEnvironment",
    "HyperliquidExecClientConfig",
    "get_hyperliquid_http_base_url",
    "hyperliquid_resolve_execution_account_address",
]
