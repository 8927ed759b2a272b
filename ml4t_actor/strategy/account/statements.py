"""What a venue says of an account, with its records of transfers and funding, asked for off the event thread."""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from time import time_ns
from typing import NamedTuple, Protocol

from ml4t_actor.strategy.views import InstrumentView

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class Transfer(NamedTuple):
    """A deposit, a withdrawal, or whatever else a venue records beside trades and funding.

    Attributes
    ----------
    ts_ms : int
        When, by the venue's clock, UNIX milliseconds.
    kind : str
        The venue's word.
    amount : Decimal or None
        What the account was credited with, negative where it was debited; None where the record does not say.
    record : str
        The venue's id of it.
    """

    ts_ms: int
    kind: str
    amount: Decimal | None
    record: str = ""


class Funding(NamedTuple):
    """A payment of funding.

    Attributes
    ----------
    ts_ms : int
        When, by the venue's clock, UNIX milliseconds.
    symbol : str
        The venue's name of the instrument.
    amount : Decimal
        What was received; negative where it was paid.
    """

    ts_ms: int
    symbol: str
    amount: Decimal


class Fill(NamedTuple):
    """What was bought or sold in one piece.

    Attributes
    ----------
    ts_ms : int
        When, by the venue's clock, UNIX milliseconds.
    symbol : str
        The venue's name of the instrument.
    quantity : Decimal
        Signed: negative where it was sold.
    price : Decimal
        At which.
    fee : Decimal
        What was charged for it; negative where it was credited.
    record : str
        The venue's id of it.
    """

    ts_ms: int
    symbol: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    record: str = ""


class Holding(NamedTuple):
    """A position, as a venue has it.

    Attributes
    ----------
    quantity : Decimal
        Signed.
    value : Decimal
        Signed, at the venue's price.
    """

    quantity: Decimal
    value: Decimal


@dataclass(frozen=True, slots=True)
class AssetTerms:
    """On which terms the account trades an asset.

    Attributes
    ----------
    price : Decimal
        Now; 0 where it is not known.
    leverage : int
        As it is set for the account: the venue refuses orders beyond.
    max_leverage : int
        The most that can be set.
    isolated : bool
        Whether a position has a margin of its own; otherwise the whole account is its margin.
    """

    price: Decimal
    leverage: int
    max_leverage: int
    isolated: bool

    @property
    def maintenance_margin(self) -> Decimal:
        """Fraction of the notional below which a position is liquidated."""
        return 1 / (2 * Decimal(self.max_leverage))

    def liquidation_distance(self, side: int) -> Decimal | None:
        """Return how far the price may move against a new position, as a fraction of its entry, until it is liquidated.

        None for cross margin. Hyperliquid's formula: `price - side * margin_available / size / (1 - l * side)`, where
        `l` is the maintenance margin (https://hyperliquid.gitbook.io/hyperliquid-docs/trading/liquidations).
        """
        if not self.isolated:
            return None
        margin = self.maintenance_margin
        return max((1 / Decimal(self.leverage) - margin) / (1 - margin * side), Decimal(0))

    def apply_to(self, view: InstrumentView, side: int, maintenance_margin: float) -> InstrumentView:
        """Return an instrument on these terms, for a position on a side.

        What the account has to have, for all its positions, is no lower than `maintenance_margin` where the instrument
        does not say itself.
        """
        known = view.maintenance_margin or maintenance_margin
        return replace(
            view,
            maintenance_margin=max(Decimal(str(known)), self.maintenance_margin),
            liquidation_distance=self.liquidation_distance(side),
        )


@dataclass(frozen=True, slots=True)
class AccountStatement:
    """An account at one moment, and what was recorded of it between an earlier one and this.

    Attributes
    ----------
    currency : str
        Of the amounts.
    ts_ms : int
        The moment, by the venue's clock, UNIX milliseconds.
    cash : Decimal
        Equity without the value of the positions.
    held : Mapping[str, Holding]
        The positions, by the venue's name of the instrument.
    transfers : tuple of Transfer
        In the order of their times.
    funding : tuple of Funding
        In the order of their times.
    terms : Mapping[str, AssetTerms]
        By the venue's name of the instrument, as far as they were asked for.
    fills : tuple of Fill
        As far back as they were asked for, and none later than `ts_ms`.
    """

    currency: str
    ts_ms: int
    cash: Decimal
    held: Mapping[str, Holding]
    transfers: tuple[Transfer, ...] = ()
    funding: tuple[Funding, ...] = ()
    terms: Mapping[str, AssetTerms] = field(default_factory=dict)
    fills: tuple[Fill, ...] = ()


class StatementSource(Protocol):
    """Asks a venue; called on a thread of its own, where it may wait, but not without end."""

    def statement(
        self, since_ms: int, symbols: Collection[str], fills_since_ms: int | None
    ) -> AccountStatement:
        """Return the account now, with what was recorded after a time, and the terms of some instruments.

        With the fills after another time, where one is given.

        Raises whatever error keeps it from being known.
        """


class StatementRequest(NamedTuple):
    """A question, and when it was put.

    Attributes
    ----------
    venue : str
        Which venue.
    since_ms : int
        After which time records count, by the venue's clock.
    symbols : tuple of str
        Of which instruments the terms are wanted.
    fills_since_ms : int, optional
        After which time fills are wanted, by the venue's clock; None where they are not.
    asked_ns : int
        When it was put, UNIX nanoseconds: what came to be known here since then may not be in the answer.
    """

    venue: str
    since_ms: int
    symbols: tuple[str, ...] = ()
    fills_since_ms: int | None = None
    asked_ns: int = 0


class Statements:
    """Asks venues for statements, one at a time each, until there is an answer.

    Parameters
    ----------
    sources : Mapping[str, StatementSource]
        By venue.
    call_soon : callable
        Calls a function on the event thread, from any.
    on_statement : callable
        Called on the event thread with the answer.
    on_problem : callable
        Called on the event thread after each attempt without an answer, with the venue and why.
    """

    def __init__(
        self,
        sources: Mapping[str, StatementSource],
        call_soon: Callable[[Callable[[], None]], None],
        on_statement: Callable[[StatementRequest, AccountStatement], None],
        on_problem: Callable[[str, str], None],
    ) -> None:
        self._sources, self._call_soon = sources, call_soon
        self._on_statement, self._on_problem = on_statement, on_problem
        self._waiting: set[str] = set()
        self._stop = threading.Event()

    def can_ask(self, venue: str) -> bool:
        """Return whether anything here can ask this venue."""
        return venue in self._sources

    def request(self, request: StatementRequest, delay_s: float = 0.0) -> None:
        """Ask, after a delay, unless that is being done."""
        if request.venue not in self._waiting and not self._stop.is_set():
            self._waiting.add(request.venue)
            self._start(request, delay_s)

    def stop(self) -> None:
        """Ask no more; an answer on its way is not passed on."""
        self._stop.set()

    def _start(self, request: StatementRequest, delay_s: float) -> None:
        threading.Thread(
            target=self._run, args=(request, delay_s), name="account statement", daemon=True
        ).start()

    def _run(self, request: StatementRequest, delay_s: float) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stop.wait(delay_s):
            if self._ask(request):
                return
            delay_s, pause_s = pause_s, min(2.0 * pause_s, _LONGEST_PAUSE_S)

    def _ask(self, request: StatementRequest) -> bool:
        """Ask once; return whether there was an answer."""
        request = request._replace(asked_ns=time_ns())
        try:
            source = self._sources[request.venue]
            statement = source.statement(request.since_ms, request.symbols, request.fills_since_ms)
        except Exception as e:  # of any adapter, and of the network
            self._call(self._on_problem, request.venue, repr(e))
            return False
        self._call(self._deliver, request, statement)
        return True

    def _deliver(self, request: StatementRequest, statement: AccountStatement) -> None:
        self._waiting.discard(
            request.venue
        )  # before the answer is looked at, which may lead to another request
        self._on_statement(request, statement)

    def _call[*Arguments](self, function: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        if not self._stop.is_set():
            self._call_soon(partial(function, *arguments))
