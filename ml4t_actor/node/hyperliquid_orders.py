"""What became of an order, by Hyperliquid's own word."""

from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from ml4t_actor.nautilus.hyperliquid import cloid_of
from ml4t_actor.strategy.journal.order_status import OrderOutcome

TIMEOUT_S = 10.0
_OPEN = frozenset({"open", "triggered", "waitingForFill", "waitingForTrigger"})


class _Status(msgspec.Struct):
    status: str


class _Answer(msgspec.Struct):
    status: str
    order: _Status | None = None


class HyperliquidOrders:
    """Asks the venue's `/info` for the `orderStatus` of a client order id.

    The adapter's own report is None where the venue does not know the order, and where it gave no answer: only
    `unknownOid` says that it was never sent.

    Parameters
    ----------
    url : str
        Of `/info`.
    address : str
        The account's.
    proxy : str, optional
        As in the adapter's config; otherwise the environment's.
    timeout_s : float, default 10.0
        For an answer.
    """

    def __init__(
        self, url: str, address: str, proxy: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._url, self._address, self._timeout_s = url, address, timeout_s
        self._opener = build_opener(*([ProxyHandler({"http": proxy, "https": proxy})] if proxy else []))

    def outcome(self, order_id: str) -> OrderOutcome:
        """Return what became of the order; raise if the venue does not say."""
        query = {"type": "orderStatus", "user": self._address, "oid": cloid_of(order_id)}
        request = Request(self._url, msgspec.json.encode(query), {"Content-Type": "application/json"})
        with self._opener.open(request, timeout=self._timeout_s) as response:
            body = response.read()
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.status == "unknownOid":
            return OrderOutcome.NEVER_SENT
        if answer.status != "order" or answer.order is None:
            raise ValueError(f"the status was {answer.status!r}, which says nothing of the order")
        return OrderOutcome.OPEN if answer.order.status in _OPEN else OrderOutcome.ENDED
