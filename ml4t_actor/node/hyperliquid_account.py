"""An account by Hyperliquid's own word, from the queries of its `/info`."""

import time
from collections.abc import Iterable
from decimal import Decimal
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from ml4t_actor.market_data import DAY_NS, MILLISECOND_NS
from ml4t_actor.node.account import AccountState, AssetTerms, HeldPosition, RestingOrder

TIMEOUT_S = 30.0
FUNDING_DAYS = 7


class _Answer(msgspec.Struct, rename="camel"):
    """Fields of an answer; what else is in it is passed over."""


class _Leverage(_Answer):
    type: str
    value: int


class _Funding(_Answer):
    since_open: Decimal


class _Position(_Answer):
    coin: str
    szi: Decimal
    entry_px: Decimal | None
    liquidation_px: Decimal | None
    cum_funding: _Funding


class _AssetPosition(_Answer):
    position: _Position


class _Summary(_Answer):
    account_value: Decimal


class _Clearinghouse(_Answer):
    margin_summary: _Summary
    withdrawable: Decimal
    asset_positions: list[_AssetPosition]


class _Order(_Answer):
    coin: str
    side: str
    sz: Decimal
    oid: int
    limit_px: Decimal
    trigger_px: Decimal | None = None
    is_trigger: bool = False
    reduce_only: bool = False
    cloid: str | None = None


class _Asset(_Answer):
    name: str
    max_leverage: int


class _Meta(_Answer):
    universe: list[_Asset]


class _ActiveAsset(_Answer):
    leverage: _Leverage


class _FundingDelta(_Answer):
    usdc: Decimal


class _FundingPayment(_Answer):
    delta: _FundingDelta


class InfoClient:
    """Asks the venue's `/info`; waits for the answers.

    Parameters
    ----------
    url : str
        Of `/info`.
    proxy : str, optional
        As in the adapter's config; otherwise the environment's.
    """

    def __init__(self, url: str, proxy: str | None = None) -> None:
        self._url = url
        self._opener = build_opener(*([ProxyHandler({"http": proxy, "https": proxy})] if proxy else []))

    def query[T](self, kind: type[T], **query: object) -> T:
        """Return the answer to a query; raise where there is none of that kind."""
        headers = {"Content-Type": "application/json"}
        request = Request(self._url, msgspec.json.encode(query), headers)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return msgspec.json.decode(response.read(), type=kind)


def read_account(client: InfoClient, address: str, symbols: Iterable[str]) -> AccountState:
    """Return the account of an address, with its terms for some coins.

    Raises
    ------
    OSError, msgspec.MsgspecError
        If the venue does not answer, or answers otherwise than is known.
    """
    state = client.query(_Clearinghouse, type="clearinghouseState", user=address)
    orders = client.query(list[_Order], type="frontendOpenOrders", user=address)
    since_ms = (time.time_ns() - FUNDING_DAYS * DAY_NS) // MILLISECOND_NS
    payments = client.query(list[_FundingPayment], type="userFunding", user=address, startTime=since_ms)
    return AccountState(
        "USDC",
        state.margin_summary.account_value,
        state.withdrawable,
        tuple(_held(entry.position) for entry in state.asset_positions),
        tuple(_resting(order) for order in orders),
        read_terms(client, address, symbols),
        sum((payment.delta.usdc for payment in payments), Decimal(0)),
        FUNDING_DAYS,
    )


def read_terms(client: InfoClient, address: str, symbols: Iterable[str]) -> dict[str, AssetTerms]:
    """Return on which terms the account of an address trades some coins, those that the venue lists."""
    prices = client.query(dict[str, Decimal], type="allMids")
    listed = {asset.name: asset for asset in client.query(_Meta, type="meta").universe}
    terms = {}
    for symbol in symbols:
        if symbol in listed:
            leverage = client.query(_ActiveAsset, type="activeAssetData", user=address, coin=symbol).leverage
            terms[symbol] = AssetTerms(
                prices.get(symbol, Decimal(0)),
                leverage.value,
                listed[symbol].max_leverage,
                leverage.type == "isolated",
            )
    return terms


def _held(position: _Position) -> HeldPosition:
    return HeldPosition(
        position.coin,
        position.szi,
        position.entry_px or Decimal(0),
        position.liquidation_px,
        position.cum_funding.since_open,
    )


def _resting(order: _Order) -> RestingOrder:
    price = order.trigger_px if order.is_trigger and order.trigger_px else order.limit_px
    quantity = order.sz if order.side == "B" else -order.sz
    return RestingOrder(order.coin, str(order.oid), order.cloid, quantity, price, order.reduce_only)
