"""Whether an order was ever sent, by the venue's own word: asked of the stub, and of a server that misbehaves."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import Request, urlopen

import pytest
from msgspec import MsgspecError

from examples.venue import Venue
from ml4t_actor.nautilus.hyperliquid import cloid_of
from ml4t_actor.node.hyperliquid_orders import HyperliquidOrders
from ml4t_actor.strategy.journal.order_status import OrderOutcome

ADDRESS = f"0x{'1' * 40}"


@contextmanager
def answering(status: int, body: bytes, requests: list[bytes] | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received = self.rfile.read(int(self.headers["Content-Length"]))
            if requests is not None:
                requests.append(received)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/info"
    finally:
        server.shutdown()
        thread.join(20.0)
        server.server_close()


def _order(status: str) -> bytes:
    return json.dumps({"status": "order", "order": {"order": {"oid": 1}, "status": status}}).encode()


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"status":"unknownOid"}', OrderOutcome.NEVER_SENT),
        (_order("open"), OrderOutcome.OPEN),
        (_order("triggered"), OrderOutcome.OPEN),
        *[(_order(s), OrderOutcome.ENDED) for s in ("filled", "canceled", "rejected", "iocCancelRejected")],
    ],
)
def test_the_venue_is_asked_by_the_id_that_the_adapter_sends(body, outcome):
    requests: list[bytes] = []
    with answering(200, body, requests) as url:
        assert HyperliquidOrders(url, ADDRESS).outcome("abc") == outcome
    query = {"type": "orderStatus", "user": ADDRESS, "oid": cloid_of("abc")}
    assert [json.loads(request) for request in requests] == [query]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"null"), (200, b""), (200, b"<html>"), (200, b'{"status":"order"}'), (200, b'{"status":"err"}'),
        (200, b"{}"), (500, b'{"status":"unknownOid"}'), (429, b"null"), (422, b'"Failed to deserialize"'),
    ],
)  # fmt: skip
def test_whatever_else_is_answered_is_no_answer(status, body):
    with answering(status, body) as url, pytest.raises((OSError, ValueError, MsgspecError)):
        HyperliquidOrders(url, ADDRESS).outcome("abc")


def test_a_venue_that_cannot_be_reached_gives_no_answer():
    with answering(200, b"") as url:
        pass
    with pytest.raises(OSError):
        HyperliquidOrders(url, ADDRESS).outcome("abc")


def test_the_stub_knows_an_order_by_that_id(monkeypatch):
    limit = {"limit": {"tif": "Gtc"}}
    order = {"a": 0, "b": True, "p": "1000", "s": "0.1", "r": False, "t": limit, "c": cloid_of("known")}
    action = {"type": "order", "grouping": "na", "orders": [order]}
    with Venue() as venue:
        for name, value in venue.env.items():
            monkeypatch.setenv(name, value)
        base = "https://api.hyperliquid-testnet.xyz"
        body = json.dumps({"action": action, "nonce": 1, "signature": {}}).encode()
        urlopen(Request(f"{base}/exchange", body, {"Content-Type": "application/json"}), timeout=20).read()
        orders = HyperliquidOrders(f"{base}/info", ADDRESS)
        assert orders.outcome("known") == OrderOutcome.OPEN
        assert orders.outcome("unknown") == OrderOutcome.NEVER_SENT
        venue.control("set", info_fail=["orderStatus"])
        with pytest.raises(OSError):
            orders.outcome("unknown")
