"""What a test may do to the stub, as the commands of `/_venue/control`; see `examples.venue`."""

from decimal import Decimal
from typing import TYPE_CHECKING, Literal, override

import msgspec
from msgspec import UNSET, UnsetType

from examples.venue.orders import COINS
from examples.venue.payloads import OrderRequest
from examples.venue.records import TransferKind

if TYPE_CHECKING:
    from examples.venue.server import Server

_MALFORMED: dict[str, str | bytes] = {
    "truncated": '{"channel":"trades","data":[{"coin":"BTC","side":"B","px":"1097',
    "not_json": "<html>502 Bad Gateway</html>",
    "binary": b"\x00\xff\xfe",
    "wrong_types": '{"channel":"trades","data":{"coin":1}}',
    "nan": '{"channel":"bbo","data":{"coin":"BTC","time":1,"bbo":[{"px":"NaN","sz":"1","n":1},null]}}',
    "unknown_channel": '{"channel":"weather","data":{"sun":true}}',
    "unknown_coin": '{"channel":"trades","data":[{"coin":"NOPE","side":"B","px":"1","sz":"1","time":1,'
    '"hash":"0x0","tid":1,"users":["0x0","0x0"]}]}',
    "empty": "",
}


class Command(msgspec.Struct, tag_field="do", forbid_unknown_fields=True):
    """A command; `do` in its JSON says which."""

    async def apply(self, server: "Server") -> None:
        """Carry it out."""
        raise NotImplementedError

    def _copy_given(self, target: object) -> None:
        """Set the attributes of `target` that the command names."""
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not UNSET:
                setattr(target, name, value)


class Drop(Command, tag="drop"):
    """End every WebSocket connection."""

    mode: Literal["close", "abort"]

    @override
    async def apply(self, server: "Server") -> None:
        server.drop_connections(abort=self.mode == "abort")


class Malformed(Command, tag="malformed"):
    """Send a broken frame to everybody."""

    how: str

    @override
    async def apply(self, server: "Server") -> None:
        await server.broadcast(_MALFORMED[self.how])


class Send(Command, tag="send"):
    """Send a text to everybody."""

    text: str

    @override
    async def apply(self, server: "Server") -> None:
        await server.broadcast(self.text)


class SetOptions(Command, tag="set"):
    """Change the server's `Options`."""

    accept: bool | UnsetType = UNSET
    frozen: bool | UnsetType = UNSET
    replay: bool | UnsetType = UNSET
    info_status: int | UnsetType = UNSET
    info_fail: list[str] | UnsetType = UNSET
    info_delay_ms: float | UnsetType = UNSET
    post_delay_ms: float | UnsetType = UNSET
    missing: list[str] | UnsetType = UNSET

    @override
    async def apply(self, server: "Server") -> None:
        self._copy_given(server.options)


class SetOrders(Command, tag="orders"):
    """Change what becomes of orders; see `Exchange`."""

    mode: Literal["filled", "resting", "rejected", "silent", "mute"] | UnsetType = UNSET
    reject: dict[str, str] | UnsetType = UNSET
    lose: list[str] | UnsetType = UNSET
    fill_fraction: float | UnsetType = UNSET
    auto_cancel: bool | UnsetType = UNSET

    @override
    async def apply(self, server: "Server") -> None:
        self._copy_given(server.exchange)


class SetFeed(Command, tag="feed"):
    """Change what is streamed; see `Market`."""

    paused: bool | UnsetType = UNSET
    without: set[str] | UnsetType = UNSET
    duplicates: int | UnsetType = UNSET

    @override
    async def apply(self, server: "Server") -> None:
        self._copy_given(server.market)


class SkipCandles(Command, tag="skip_candles"):
    """Leave a coin's next candles out of the stream, not out of the history."""

    coin: str
    count: int

    @override
    async def apply(self, server: "Server") -> None:
        server.market.skip[self.coin] = self.count + 1  # the one in the making is cut off, too


class Move(Command, tag="move"):
    """Multiply a coin's prices."""

    coin: str
    factor: float

    @override
    async def apply(self, server: "Server") -> None:
        await server.market.move(self.coin, self.factor)


class TradeElsewhere(Command, tag="trade"):
    """Trade for the user, as if from elsewhere."""

    coin: str
    side: Literal["buy", "sell"]
    size: str

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.trade(self.coin, self.side == "buy", self.size)


class OrderElsewhere(Command, tag="order"):
    """Place a limit order for the user, as if from elsewhere."""

    coin: str
    side: Literal["buy", "sell"]
    size: str
    price: str
    cloid: str | None = None

    @override
    async def apply(self, server: "Server") -> None:
        request: OrderRequest = {
            "a": COINS.index(self.coin),
            "b": self.side == "buy",
            "p": self.price,
            "s": self.size,
            "r": False,
            "t": {"limit": {"tif": "Gtc"}},
            "c": self.cloid,
        }
        server.exchange.execute({"type": "order", "orders": [request], "grouping": "na"})


class Fund(Command, tag="fund"):
    """Pay funding for a coin's position; the user is charged where `usdc` is negative."""

    coin: str
    usdc: str

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.fund(self.coin, Decimal(self.usdc))


class FundAll(Command, tag="fund_all"):
    """Pay an hour's funding for all positions, as at each full hour."""

    rate: str

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.fund_all(Decimal(self.rate))


class SetLeverage(Command, tag="leverage"):
    """Set a coin's leverage and margin mode."""

    coin: str
    mode: Literal["cross", "isolated"]
    value: int

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.terms.leverage[self.coin] = (self.mode, self.value)


class Transfer(Command, tag="transfer"):
    """Pay into the account, or out of it where the amount is negative."""

    amount: float
    kind: TransferKind | UnsetType = UNSET

    @override
    async def apply(self, server: "Server") -> None:
        kind = ("deposit" if self.amount > 0 else "withdraw") if self.kind is UNSET else self.kind
        server.exchange.transfer(Decimal(str(self.amount)), kind)


class ChangeCash(Command, tag="cash"):
    """Add to the cash, or take from it, without a record: as a loss that nothing explains."""

    amount: float

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.cash += Decimal(str(self.amount))


class CancelElsewhere(Command, tag="cancel"):
    """Cancel an order, as if from elsewhere."""

    oid: int

    @override
    async def apply(self, server: "Server") -> None:
        server.exchange.execute({"type": "cancel", "cancels": [{"o": self.oid}]})


type AnyCommand = (
    Drop
    | Malformed
    | Send
    | SetOptions
    | SetOrders
    | SetFeed
    | SkipCandles
    | Move
    | TradeElsewhere
    | OrderElsewhere
    | Fund
    | FundAll
    | SetLeverage
    | Transfer
    | ChangeCash
    | CancelElsewhere
)


def read_command(order: object) -> Command:
    """Return the command that JSON describes.

    Raises
    ------
    msgspec.ValidationError
        If it describes none; the message names the field.
    """
    command: Command = msgspec.convert(order, AnyCommand)
    return command
