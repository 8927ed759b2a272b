"""An account with its transfers and funding, by Hyperliquid's own records."""

import itertools
from collections.abc import Collection, Iterable
from decimal import Decimal

import msgspec

from ml4t_actor.node.hyperliquid_account import InfoClient, read_terms
from ml4t_actor.strategy.account.statements import AccountStatement, Fill, Funding, Holding, Transfer

_ZERO = Decimal(0)
# An answer to a time range has at most 500 elements, by the venue's documentation.
_PAGE = 500
_MAX_PAGES = 20
# Nothing of them is in the margin account: https://github.com/nktkas/hyperliquid lists the kinds and their fields.
_ELSEWHERE = frozenset({"spotTransfer", "spotGenesis", "cStakingTransfer"})


class _Answer(msgspec.Struct, rename="camel", frozen=True):
    """Fields of an answer; what else is in it is passed over."""


class _Summary(_Answer, frozen=True):
    account_value: Decimal


class _Position(_Answer, frozen=True):
    coin: str
    szi: Decimal
    position_value: Decimal


class _AssetPosition(_Answer, frozen=True):
    position: _Position


class _Clearinghouse(_Answer, frozen=True):
    margin_summary: _Summary
    asset_positions: list[_AssetPosition]
    time: int


class _Delta(_Answer, frozen=True):
    """Fields of all kinds of records."""

    type: str
    usdc: Decimal | None = None
    to_perp: bool | None = None
    user: str | None = None
    destination: str | None = None
    source_dex: str | None = None
    destination_dex: str | None = None
    token: str | None = None
    amount: Decimal | None = None
    net_withdrawn_usd: Decimal | None = None


class _Record(_Answer, frozen=True):
    time: int
    hash: str
    delta: _Delta


class _FundingDelta(_Answer, frozen=True):
    coin: str
    usdc: Decimal


class _FundingRecord(_Answer, frozen=True):
    time: int
    hash: str
    delta: _FundingDelta


class _FillRecord(_Answer, frozen=True):
    time: int
    tid: int
    coin: str
    side: str
    px: Decimal
    sz: Decimal
    fee: Decimal

    def as_fill(self) -> Fill:
        quantity = self.sz if self.side == "B" else -self.sz
        return Fill(self.time, self.coin, quantity, self.px, self.fee, str(self.tid))


class HyperliquidStatements:
    """Asks the venue's `/info` for `clearinghouseState`, `userFunding` and `userNonFundingLedgerUpdates`.

    And for `userFillsByTime`, where fills are wanted: those of the margin account.

    Records that are later than the state are left out: they are of the next statement.

    Parameters
    ----------
    client : InfoClient
        Asks.
    address : str
        The account's.
    """

    def __init__(self, client: InfoClient, address: str) -> None:
        self._client, self._address = client, address

    def statement(
        self, since_ms: int, symbols: Collection[str], fills_since_ms: int | None = None
    ) -> AccountStatement:
        """Return the account now, with what was recorded after a time, and what was filled after another.

        Raises
        ------
        OSError, msgspec.MsgspecError, ValueError
            If the venue does not answer, or answers otherwise than is known.
        """
        terms = read_terms(self._client, self._address, symbols) if symbols else {}
        state = self._client.query(_Clearinghouse, type="clearinghouseState", user=self._address)
        held = {p.coin: _holding(p) for p in (entry.position for entry in state.asset_positions)}
        value = sum((holding.value for holding in held.values()), _ZERO)
        payments = self._records(_FundingRecord, "userFunding", since_ms, state.time)
        records = self._records(_Record, "userNonFundingLedgerUpdates", since_ms, state.time)
        fills: list[_FillRecord] = []
        if fills_since_ms is not None:
            fills = self._records(_FillRecord, "userFillsByTime", fills_since_ms, state.time)
        effects = ((record, effect_of(record.delta, self._address)) for record in records)
        return AccountStatement(
            "USDC",
            state.time,
            state.margin_summary.account_value - value,
            held,
            tuple(Transfer(r.time, r.delta.type, amount, r.hash) for r, amount in effects if amount != 0),
            tuple(Funding(each.time, each.delta.coin, each.delta.usdc) for each in payments),
            terms,
            tuple(each.as_fill() for each in fills if not _is_elsewhere(each.coin)),
        )

    def _records[R: (_Record, _FundingRecord, _FillRecord)](
        self, kind: type[R], name: str, since_ms: int, until_ms: int
    ) -> list[R]:
        """Return all records after a time and up to another, each once, in the order of their times."""
        found: dict[R, None] = {}
        start_ms = since_ms + 1  # both ends are inclusive
        for _ in range(_MAX_PAGES):
            page: list[R] = self._client.query(
                list[kind],  # type: ignore[valid-type]
                type=name,
                user=self._address,
                startTime=start_ms,
                endTime=until_ms,
            )
            known = len(found)
            found.update(dict.fromkeys(page))
            if len(page) < _PAGE:
                return sorted(_within(found, since_ms, until_ms), key=lambda record: record.time)
            if len(found) == known:
                break
            start_ms = max(record.time for record in page)  # what else there is of that time is to come
        raise ValueError(
            f"{name} has more records since {since_ms} than can be asked for: {len(found)} were found"
        )


def effect_of(delta: _Delta, address: str) -> Decimal | None:
    """Return what a record has moved into the margin account, negative where out of it; None if that is not known.

    A fee is not in it, and so a cost of trading where the venue charges it on top.
    """
    match delta.type:
        case "deposit":
            return delta.usdc
        case "withdraw" | "vaultDeposit" | "vaultCreate":
            return None if delta.usdc is None else -delta.usdc
        case "vaultWithdraw":
            return delta.net_withdrawn_usd
        case "accountClassTransfer":
            if delta.usdc is None or delta.to_perp is None:
                return None
            return delta.usdc if delta.to_perp else -delta.usdc
        case "internalTransfer" | "subAccountTransfer":
            return _between(delta.usdc, _is(delta.user, address), _is(delta.destination, address))
        case "send":
            # The empty name is that of the venue's own margin accounts, in USDC; each other one has its own.
            if delta.token != "USDC":
                return _ZERO
            sent = _is(delta.user, address) and delta.source_dex == ""
            received = _is(delta.destination, address) and delta.destination_dex == ""
            if delta.source_dex is None or delta.destination_dex is None:
                return None
            return _between(delta.amount, sent, received, moved_elsewhere=True)
        case kind:
            return _ZERO if kind in _ELSEWHERE else None


def _between(
    amount: Decimal | None, sent: bool, received: bool, *, moved_elsewhere: bool = False
) -> Decimal | None:
    if amount is None or not (sent or received or moved_elsewhere):
        return None
    return amount * (received - sent)


def _is_elsewhere(coin: str) -> bool:
    """Return whether a fill is of a spot pair (`@107`, `PURR/USDC`) or of another dex (`xyz:GOLD`)."""
    return coin.startswith("@") or "/" in coin or ":" in coin


def _is(address: str | None, own: str) -> bool:
    return address is not None and address.lower() == own.lower()


def _holding(position: _Position) -> Holding:
    value = abs(position.position_value)
    return Holding(position.szi, value if position.szi > 0 else -value)


def _within[R: (_Record, _FundingRecord, _FillRecord)](
    records: Iterable[R], since_ms: int, until_ms: int
) -> Iterable[R]:
    return itertools.filterfalse(lambda record: not since_ms < record.time <= until_ms, records)
