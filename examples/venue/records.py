"""What the stub's account was paid and charged beside its trades: funding and transfers, as `/info` has them."""

import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

from examples.venue.payloads import Message, Query

TransferKind = Literal["deposit", "withdraw", "accountClassTransfer"]
_MOST = 500  # elements of an answer


class Records:
    """Keeps the account's records.

    Parameters
    ----------
    clock_ms : callable
        The venue's clock.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._now_ms = clock_ms
        self._numbers = itertools.count(1)
        self._funding: list[Message] = []
        self._transfers: list[Message] = []

    def fund(self, coin: str, usdc: Decimal, size: Decimal, rate: Decimal) -> None:
        """Put down a payment of funding, negative where the account pays."""
        delta = {
            "type": "funding",
            "coin": coin,
            "usdc": str(usdc),
            "szi": str(size),
            "fundingRate": str(rate),
            "nSamples": None,
        }
        self._funding.append({"time": self._now_ms(), "hash": f"0x{0:064x}", "delta": delta})

    def transfer(self, amount: Decimal, kind: TransferKind) -> None:
        """Put down a transfer, negative where out of the account."""
        delta: Message = {"type": kind, "usdc": str(abs(amount))}
        if kind == "accountClassTransfer":
            delta = {**delta, "toPerp": amount > 0}
        elif kind == "withdraw":
            delta = {**delta, "nonce": self._now_ms(), "fee": "1.0"}
        digest = f"0x{next(self._numbers):064x}"
        self._transfers.append({"time": self._now_ms(), "hash": digest, "delta": delta})

    def funding(self, query: Query) -> list[Message]:
        """Return the answer to `userFunding`."""
        return self._answer(self._funding, query)

    def transfers(self, query: Query) -> list[Message]:
        """Return the answer to `userNonFundingLedgerUpdates`."""
        return self._answer(self._transfers, query)

    def _answer(self, records: list[Message], query: Query) -> list[Message]:
        start, end = query["startTime"], query.get("endTime") or self._now_ms()
        return [record for record in records if start <= int(str(record["time"])) <= end][:_MOST]
