"""What running and checking a node needs to know of Hyperliquid."""

import os

from ml4t_actor.nautilus.components import NautilusConfig
from ml4t_actor.nautilus.hyperliquid import (
    HyperliquidDataClientConfig,
    HyperliquidEnvironment,
    HyperliquidExecClientConfig,
    get_hyperliquid_http_base_url,
    hyperliquid_resolve_execution_account_address,
)
from ml4t_actor.node.hyperliquid_orders import HyperliquidOrders


def environment_of(config: NautilusConfig) -> HyperliquidEnvironment:
    """Return whether a client is for the testnet or the mainnet, which is the default."""
    assert isinstance(config, HyperliquidDataClientConfig | HyperliquidExecClientConfig)
    return config.environment or HyperliquidEnvironment.MAINNET


def name_of(config: NautilusConfig) -> str:
    """Return the name of the venue, for people."""
    testnet = environment_of(config) == HyperliquidEnvironment.TESTNET
    return f"Hyperliquid {'testnet' if testnet else 'mainnet'}"


def key_names(config: NautilusConfig) -> tuple[str, ...]:
    """Return the environment variables that a client cannot do without."""
    if not isinstance(config, HyperliquidExecClientConfig):
        return ()
    testnet = environment_of(config) == HyperliquidEnvironment.TESTNET
    return ("HYPERLIQUID_TESTNET_PK" if testnet else "HYPERLIQUID_PK",)


def key_fault(config: NautilusConfig) -> str | None:
    """Return what is wrong with the keys that are set, without them; None if nothing is."""
    for name in key_names(config):
        try:
            hyperliquid_resolve_execution_account_address(
                private_key=os.environ[name],
                vault_address=None,
                account_address=None,
                environment=environment_of(config),
            )
        except ValueError:
            return f"{name} is no private key of 64 hexadecimal digits"
    return None


def date_url(config: NautilusConfig) -> str:
    """Return an address of the venue whose answer has a Date header."""
    return get_hyperliquid_http_base_url(environment_of(config))


def order_statuses(config: NautilusConfig) -> HyperliquidOrders | None:
    """Return what asks about the orders of an execution client; None for another client, or without a key."""
    if not isinstance(config, HyperliquidExecClientConfig):
        return None
    environment = environment_of(config)
    address = hyperliquid_resolve_execution_account_address(
        private_key=config.private_key,
        vault_address=config.vault_address,
        account_address=config.account_address,
        environment=environment,
    )
    if address is None:
        return None
    return HyperliquidOrders(get_hyperliquid_http_base_url(environment), address, config.proxy_url)
