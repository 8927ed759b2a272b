"""What a venue says of an account and of what it may trade, as a check needs it."""

from dataclasses import dataclass
from decimal import Decimal

from ml4t_actor.strategy.account.statements import AssetTerms

__all__ = ["AccountState", "AssetTerms", "HeldPosition", "RestingOrder"]


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """A position at the venue.

    Attributes
    ----------
    symbol : str
        The venue's name of the instrument.
    quantity : Decimal
        Signed.
    entry_price : Decimal
        Mean price.
    liquidation_price : Decimal or None
        Where it is liquidated, as things are.
    funding : Decimal
        What was paid for it since it was opened; negative where it was received.
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    liquidation_price: Decimal | None
    funding: Decimal


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """An open order at the venue.

    Attributes
    ----------
    symbol : str
        The venue's name of the instrument.
    venue_id : str
        The venue's id.
    client_id : str or None
        The id that its sender gave; None for one that was sent by hand.
    quantity : Decimal
        Signed: above 0 it buys.
    price : Decimal
        Its limit, or its trigger.
    reduces : bool
        Whether it can only reduce a position.
    """

    symbol: str
    venue_id: str
    client_id: str | None
    quantity: Decimal
    price: Decimal
    reduces: bool


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account.

    Attributes
    ----------
    currency : str
        Of the amounts.
    equity, withdrawable : Decimal
        With all open profits, and what of it is free.
    positions : tuple of HeldPosition
        All of them, whoever opened them.
    orders : tuple of RestingOrder
        All that are open, whoever sent them.
    terms : dict[str, AssetTerms]
        By symbol.
    funding : Decimal
        What was received in the last `funding_days` days; negative where it was paid.
    funding_days : int
        How far back.
    """

    currency: str
    equity: Decimal
    withdrawable: Decimal
    positions: tuple[HeldPosition, ...]
    orders: tuple[RestingOrder, ...]
    terms: dict[str, AssetTerms]
    funding: Decimal
    funding_days: int
