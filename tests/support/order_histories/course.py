"""What the invariants look at: a course of events, in memory or on the stand-in."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from examples.venue.orders import Order
from examples.venue.payloads import Action, Fill, Message
from tests.support.order_histories.plan import Plan


class Books(Protocol):
    """What the venue knows."""

    @property
    def orders(self) -> Mapping[int, Order]:
        """By the venue's id: at least the open ones."""

    @property
    def fills(self) -> Sequence[Fill]:
        """From the first one on."""


class Venue(Protocol):
    """The venue, and the way to it."""

    on_action: list[Callable[[Action, Message | None], None]]
    on_change: list[Callable[[], None]]
    is_cut: bool

    @property
    def books(self) -> Books:
        """Orders and fills."""

    @property
    def takes_orders(self) -> bool:
        """Whether it neither refuses nor loses nor delays orders, and answers."""

    def held(self, coin: str) -> Decimal:
        """Return the position."""

    def equity(self) -> float:
        """Return the account's value."""


class Prices(Protocol):
    """The coins' prices."""

    def last(self, coin: str) -> float:
        """Return the last one."""

    def extremes(self, coin: str, seconds: float) -> tuple[float, float]:
        """Return the lowest and the highest of the last seconds."""


class Node(Protocol):
    """One life of the node."""

    @property
    def started(self) -> bool:
        """Whether the strategy runs."""

    @property
    def n_errors(self) -> int:
        """How often a handler of the strategy raised."""

    def held(self, coin: str) -> Decimal:
        """Return what the cache holds."""

    def resting(self, coin: str) -> list[int]:
        """Return the venue's ids of the orders that may rest and that the cache has for open."""

    def day_result(self) -> float | None:
        """Return what the strategy takes the day's trading to have made, None where it has not looked yet."""


class Course(Protocol):
    """A history while it runs."""

    plan: Plan
    venue: Any  # a `Venue`, each kind of which has more
    market: Any  # `Prices`
    violations: list[str]

    def now_s(self) -> float:
        """Return the seconds since it began."""

    def now_ns(self) -> int:
        """Return the node's time."""

    def log(self, text: str) -> None:
        """Write a line of the history."""
