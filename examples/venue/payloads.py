"""The venue's JSON, as far as the stub reads it; what it only sends is a `Message`, built where it is sent."""

from collections.abc import Mapping
from typing import Literal, NotRequired, Required, TypedDict

type Message = Mapping[str, object]


class Addresses(TypedDict):
    """Where the stub listens, what a node needs in its environment to reach it, and what it plays."""

    base_url_ws: str
    control: str
    env: dict[str, str]
    data: str


class Level(TypedDict):
    """One price of a book: `n` orders of `sz` in all at `px`."""

    px: str
    sz: str
    n: int


class Book(TypedDict):
    """The data of the channel `l2Book`: bids and asks, each from the best on."""

    coin: str
    time: int
    levels: list[list[Level]]


class Trade(TypedDict):
    """One of the channel `trades`."""

    coin: str
    side: str
    px: str
    sz: str
    time: int
    hash: str
    tid: int
    users: list[str]


class Bbo(TypedDict):
    """The data of the channel `bbo`: best bid and best ask."""

    coin: str
    time: int
    bbo: list[Level]


class Candle(TypedDict):
    """The data of the channel `candle`, and one of a `candleSnapshot`."""

    t: int
    T: int
    s: str
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741  # the venue's name
    v: str
    n: int


class Fill(TypedDict):
    """One of the user's fills."""

    coin: str
    px: str
    sz: str
    side: str
    time: int
    startPosition: str
    dir: str
    closedPnl: str
    hash: str
    oid: int
    crossed: bool
    fee: str
    tid: int
    cloid: str | None
    feeToken: str
    twapId: None


class Subscription(TypedDict, total=False):
    """What a WebSocket subscribes to."""

    type: Required[str]
    coin: str
    interval: str
    user: str


class Limit(TypedDict):
    """A limit order's time in force."""

    tif: str


class Trigger(TypedDict):
    """A stop's or a target's trigger."""

    triggerPx: str
    isMarket: bool
    tpsl: str


class OrderType(TypedDict, total=False):
    """Either of the two."""

    limit: Limit
    trigger: Trigger


class OrderRequest(TypedDict):
    """An order to place: the coin's number, whether to buy, price, size, reduce-only, type and client's id."""

    a: int
    b: bool
    p: str
    s: str
    r: bool
    t: OrderType
    c: NotRequired[str | None]


class CancelRequest(TypedDict, total=False):
    """An order to cancel, by the venue's or the client's id."""

    o: int
    cloid: str


class ModifyRequest(TypedDict):
    """An order to replace."""

    oid: int | str
    order: OrderRequest


class Action(TypedDict, total=False):
    """What `/exchange` is to do."""

    type: Required[str]
    orders: list[OrderRequest]
    grouping: str
    cancels: list[CancelRequest]
    modifies: list[ModifyRequest]
    oid: int | str  # of `modify`, which is a ModifyRequest itself
    order: OrderRequest
    asset: int  # of `updateLeverage`
    isCross: bool
    leverage: int


class CandleRequest(TypedDict, total=False):
    """Which candles of a coin."""

    coin: Required[str]
    interval: Required[str]
    startTime: Required[int]
    endTime: int


class Query(TypedDict, total=False):
    """What `/info` is asked."""

    type: Required[str]
    coin: str
    req: CandleRequest
    oid: int | str
    startTime: int
    endTime: int | None


class InfoRequest(TypedDict):
    """A query by WebSocket."""

    type: Literal["info"]
    payload: Query


class SignedAction(TypedDict):
    """An action with its nonce; the stub does not look at the signature."""

    action: Action
    nonce: int


class ActionRequest(TypedDict):
    """An action by WebSocket."""

    type: Literal["action"]
    payload: SignedAction


class Post(TypedDict):
    """A WebSocket message of the method `post`."""

    id: int
    request: InfoRequest | ActionRequest
