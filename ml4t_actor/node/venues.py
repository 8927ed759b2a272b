"""What running and checking a node needs to know of a venue, beside what all adapters have in common."""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, cast

from ml4t_actor.nautilus.components import NautilusConfig
from ml4t_actor.nautilus.model import BarType
from ml4t_actor.node.account import AccountState
from ml4t_actor.strategy.account.statements import StatementSource
from ml4t_actor.strategy.journal.order_status import EndedWithProcess, OrderStatusSource

# By the package of the adapter; a module here has the functions of `Venue`.
_MODULES = {"nautilus_trader.adapters.hyperliquid": "ml4t_actor.node.hyperliquid"}

_SANDBOX = "nautilus_trader.adapters.sandbox"


class Venue(Protocol):
    """A module about one venue."""

    def name_of(self, config: NautilusConfig) -> str:
        """Return the name of the venue, for people."""

    def key_names(self, config: NautilusConfig) -> tuple[str, ...]:
        """Return the environment variables that a client cannot do without."""

    def key_fault(self, config: NautilusConfig) -> str | None:
        """Return what is wrong with the keys that are set, without them; None if nothing is."""

    def date_url(self, config: NautilusConfig) -> str:
        """Return an address of the venue whose answer has a Date header."""

    def bar_fault(self, bar_type: BarType) -> str | None:
        """Return why the adapter refuses a subscription to bars; None if it does not."""

    def order_statuses(self, config: NautilusConfig) -> OrderStatusSource | None:
        """Return what asks about the orders of an execution client; None where there is nothing."""

    def statements(self, config: NautilusConfig) -> StatementSource | None:
        """Return what asks about the account of an execution client; None where there is nothing."""

    def account_state(self, config: NautilusConfig, symbols: Iterable[str]) -> AccountState | None:
        """Return the account of an execution client; None for another client, or without a key."""

    def venue_client_id(self, order_id: str) -> str:
        """Return under which id the venue has an order with this client order id."""


def venue_of(config: NautilusConfig) -> Venue | None:
    """Return the module about the venue of a client's config; None if there is none."""
    for package, module in _MODULES.items():
        if type(config).__module__.startswith(f"{package}."):
            return cast(Venue, import_module(module))
    return None


def order_statuses(config: NautilusConfig) -> OrderStatusSource | None:
    """Return what asks about the orders of an execution client; None where nothing here can."""
    if type(config).__module__.startswith(f"{_SANDBOX}."):
        return EndedWithProcess()
    venue = venue_of(config)
    return None if venue is None else venue.order_statuses(config)


def statements(config: NautilusConfig) -> StatementSource | None:
    """Return what asks about the account of an execution client; None where nothing here can."""
    venue = venue_of(config)
    return None if venue is None else venue.statements(config)
