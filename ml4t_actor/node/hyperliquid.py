"""What running and checking a node needs to know of Hyperliquid."""

import os
from collections.abc import Iterable

from ml4t_actor.nautilus.components import NautilusConfig
from ml4t_actor.nautilus.hyperliquid import (
    HyperliquidDataClientConfig,
    HyperliquidEnvironment,
    HyperliquidExecClientConfig,
    cloid_of,
    get_hyperliquid_http_base_url,
    hyperliquid_resolve_execution_account_address,
)
from ml4t_actor.nautilus.model import BarType, bar_aggregation_to_str
from ml4t_actor.node.account import AccountState
from ml4t_actor.node.hyperliquid_account import InfoClient, read_account
from ml4t_actor.node.hyperliquid_orders import HyperliquidOrders
from ml4t_actor.node.hyperliquid_statements import HyperliquidStatements

_BAR_STEPS = {
    "MINUTE": (1, 3, 5, 15, 30),
    "HOUR": (1, 2, 4, 8, 12),
    "DAY": (1, 3),
    "WEEK": (1,),
    "MONTH": (1,),
}


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


def bar_fault(bar_type: BarType) -> str | None:
    """Return why the adapter refuses a subscription to bars, which then never come; None if it does not.

    Nautilus may aggregate any bars itself, of the trades.
    """
    spec = bar_type.composite().spec if bar_type.is_composite() else bar_type.spec
    external = bar_type.is_externally_aggregated() or (
        bar_type.is_composite() and bar_type.composite().is_externally_aggregated()
    )
    unit = bar_aggregation_to_str(spec.aggregation)
    steps = _BAR_STEPS.get(unit)
    if not external or (steps is not None and spec.step in steps):
        return None
    offered = ", ".join(f"{step}-{name}" for name, each in _BAR_STEPS.items() for step in each)
    return f"Hyperliquid has no bars of {spec.step}-{unit}, only of {offered}"


def order_statuses(config: NautilusConfig) -> HyperliquidOrders | None:
    """Return what asks about the orders of an execution client; None for another client, or without a key."""
    if not isinstance(config, HyperliquidExecClientConfig) or (address := _address(config)) is None:
        return None
    return HyperliquidOrders(date_url(config), address, config.proxy_url)


def statements(config: NautilusConfig) -> HyperliquidStatements | None:
    """Return what asks about the account of an execution client; None for another client, or without a key."""
    if not isinstance(config, HyperliquidExecClientConfig) or (address := _address(config)) is None:
        return None
    return HyperliquidStatements(InfoClient(date_url(config), config.proxy_url), address)


def account_state(config: NautilusConfig, symbols: Iterable[str]) -> AccountState | None:
    """Return the account of an execution client, with its terms for some coins; None for another client."""
    if not isinstance(config, HyperliquidExecClientConfig) or (address := _address(config)) is None:
        return None
    return read_account(InfoClient(date_url(config), config.proxy_url), address, symbols)


def venue_client_id(order_id: str) -> str:
    """Return under which id the venue has an order with this client order id."""
    return cloid_of(order_id)


def _address(config: HyperliquidExecClientConfig) -> str | None:
    address: str | None = hyperliquid_resolve_execution_account_address(
        private_key=config.private_key,
        vault_address=config.vault_address,
        account_address=config.account_address,
        environment=environment_of(config),
    )
    return address
